"""The tasks that look for the policies, with a real Prometheus and a stand-in API server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from bottleneck_operator.api.policy import BottleneckPolicy
from bottleneck_operator.observe import prometheus_feeds
from bottleneck_operator.observe.observation import Observation, WorkloadType
from bottleneck_operator.observe.prometheus_feeds import Feeds
from bottleneck_operator.observe.prometheus_signals import NOT_YET

from . import texts
from .conftest import Server


class ApiServer:
    """Lists pods that have no sidecar; ``fail`` is raised instead."""

    def __init__(self, *names: str) -> None:
        self.names, self.asked = names, []
        self.fail: Exception | None = None

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        self.asked.append((path, query))
        if self.fail is not None:
            raise self.fail
        return {"items": [self._pod(name) for name in self.names]}

    def _pod(self, name: str) -> dict[str, Any]:
        return {
            "metadata": {"name": name, "namespace": "ml", "uid": name, "labels": {"app": "ranker"}},
            "status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z"},
        }


def policy(**prometheus: Any) -> BottleneckPolicy:
    return BottleneckPolicy.model_validate(
        {
            "metadata": {"name": "ranker", "namespace": "ml"},
            "spec": {
                "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "ranker"},
                "objectives": {"latency": {"target": "250ms"}},
                "telemetry": {"prometheus": prometheus} if prometheus else None,
            },
        }
    )


class Loop:
    """Takes turns as a policy's loop does."""

    def __init__(self, feeds: Feeds, key: str = "ml/ranker") -> None:
        self.feeds, self.key, self.woken, self.since = feeds, key, asyncio.Event(), 0.0

    def turn(self, of: BottleneckPolicy) -> Observation:
        empty = Observation(time.time(), WorkloadType.UNKNOWN, {})
        selector = {"matchLabels": {"app": "ranker"}}
        if of.spec.telemetry is not None and of.spec.telemetry.prometheus is not None:
            self.feeds.allowed = (of.spec.telemetry.prometheus.url,)  # on the loopback address
        return self.feeds.observe(self.key, of, selector, empty, 95, self.since, self.woken.set)

    async def after_a_look(self, of: BottleneckPolicy) -> Observation:
        self.woken.clear()
        self.turn(of)
        await asyncio.wait_for(self.woken.wait(), 30)
        return self.turn(of)

    async def until(self, of: BottleneckPolicy, signal: str, there: bool) -> Observation:
        async with asyncio.timeout(60):
            while True:
                seen = await self.after_a_look(of)
                if (seen.value(signal) is not None) == there:
                    return seen


@pytest_asyncio.fixture
async def api() -> ApiServer:
    return ApiServer("feed-0")


@pytest_asyncio.fixture
async def loop(api: ApiServer) -> AsyncIterator[Loop]:
    feeds = Feeds(api)  # type: ignore[arg-type]
    yield Loop(feeds)
    await feeds.close()


@pytest.mark.asyncio
async def test_pods_without_a_sidecar_are_observed(
    prometheus: Server, loop: Loop, api: ApiServer
) -> None:
    server = prometheus.scrape(texts.vllm, namespace="ml", pod="feed-0")
    wanted = policy(url=prometheus.url, interval="1s")
    assert loop.turn(wanted).signals == {}
    assert loop.feeds.problem("ml/ranker") == NOT_YET
    seen = await loop.until(wanted, "inference.latency", there=True)
    assert seen.type is WorkloadType.INFERENCE
    assert (seen.expected, seen.streaming) == (1, 1)
    assert seen.value("inference.latency") == pytest.approx(0.95, rel=0.02)
    assert seen.newest is not None
    assert seen.time - seen.newest < 5
    assert [replica.pod for replica in seen.replicas] == ["feed-0"]
    assert loop.feeds.problem("ml/ranker") == ""
    assert api.asked[0] == (
        "/api/v1/namespaces/ml/pods",
        {"labelSelector": "app=ranker", "resourceVersion": "0"},
    )

    # A change of an action: what was measured before it is gone at once.
    loop.since = time.time()
    assert loop.turn(wanted).value("inference.latency") is None
    loop.since = 0.0

    # An API server that is away: the last look ages, and is not read for ever.
    before = await loop.until(wanted, "inference.latency", there=True)
    api.fail = OSError("away")
    later = loop.turn(wanted)
    assert before.expected == later.expected == 1
    api.fail = None

    server.stop()
    seen = await loop.until(wanted, "inference.latency", there=False)
    assert (seen.expected, seen.streaming) == (1, 0)


@pytest.mark.asyncio
async def test_a_server_that_is_away_is_a_problem_and_no_figure(loop: Loop) -> None:
    wanted = policy(url="http://127.0.0.1:1", interval="1s")
    seen = await loop.after_a_look(wanted)
    assert seen.signals == {}
    assert (seen.expected, seen.streaming) == (1, 0)
    said = loop.feeds.problem("ml/ranker")
    assert said == "Prometheus at http://127.0.0.1:1 cannot be reached: Connection refused"


@pytest.mark.asyncio
async def test_changed_settings_begin_anew_and_none_ends_the_looking(loop: Loop) -> None:
    first = policy(url="http://127.0.0.1:1", interval="1s")
    await loop.after_a_look(first)
    changed = policy(url="http://127.0.0.1:2", interval="1s")
    loop.turn(changed)
    assert loop.feeds.problem("ml/ranker") == NOT_YET
    await loop.after_a_look(changed)
    assert "127.0.0.1:2" in (loop.feeds.problem("ml/ranker") or "")
    loop.turn(policy())
    assert loop.feeds.problem("ml/ranker") is None
    loop.turn(first)
    loop.feeds.unfollow("ml/ranker")
    assert loop.feeds.problem("ml/ranker") is None


@pytest.mark.asyncio
async def test_a_server_that_never_ends_holds_up_nobody_else(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A header that comes a byte at a time passes every timeout of HTTP libraries."""
    monkeypatch.setattr(prometheus_feeds, "LATE_SECONDS", 0.5)
    loop.feeds._places = asyncio.Semaphore(1)
    stop = asyncio.Event()

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        with contextlib.suppress(OSError):
            while not stop.is_set():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)
            writer.close()

    server = await asyncio.start_server(trickle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    endless = policy(url=f"http://127.0.0.1:{port}", interval="1s")
    try:
        await loop.after_a_look(endless)
        said = loop.feeds.problem("ml/ranker")
        assert (
            said == f"Prometheus at http://127.0.0.1:{port} does not come to an end; check the url"
        )
        other = Loop(loop.feeds, "ml/other")
        await other.after_a_look(policy(url="http://127.0.0.1:1", interval="1s"))
        assert "Connection refused" in (loop.feeds.problem("ml/other") or "")
    finally:
        stop.set()
        server.close()
