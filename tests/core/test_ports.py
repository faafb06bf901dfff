"""No port takes commands: what each listens to is read, by GET, and nothing that is sent to it
changes anything. (The sidecar's port, 9709, is in tests/sidecar/test_agent.py; the gate speaks with
the same server.)"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import kopf
import prometheus_client
import pytest
from aiohttp import web
from bottleneck_operator.inject.pod import InjectSettings
from bottleneck_operator.inject.server import MAX_BODY, application

CHANGING = ("POST", "PUT", "PATCH", "DELETE")


async def asked(port: int, method: str, path: str, body: bytes = b"") -> tuple[int, str]:
    """Status and text of an answer, over a real socket."""
    url = f"http://127.0.0.1:{port}{path}"
    async with aiohttp.ClientSession() as session, session.request(method, url, data=body) as found:
        return found.status, await found.text()


def test_the_operators_metrics_are_only_read() -> None:
    registry = prometheus_client.CollectorRegistry()
    gauge = prometheus_client.Gauge("told", "A figure.", registry=registry)
    gauge.set(7)
    server, thread = prometheus_client.start_http_server(0, "127.0.0.1", registry)
    try:
        port = server.server_port
        before = asyncio.run(asked(port, "GET", "/metrics"))
        assert before[0] == 200
        assert "told 7.0" in before[1]
        for method in CHANGING:
            status, _ = asyncio.run(asked(port, method, "/metrics", b"told 9"))
            assert status == 405, method
        assert asyncio.run(asked(port, "GET", "/metrics")) == before
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_operators_health_is_only_read(unused_tcp_port: int) -> None:
    from kopf._core.engines.probing import health_reporter

    async def run() -> None:
        registry, ready = kopf.OperatorRegistry(), asyncio.Event()
        reporter = asyncio.create_task(
            health_reporter(
                f"http://127.0.0.1:{unused_tcp_port}/healthz",
                registry=registry,
                settings=kopf.OperatorSettings(),
                memo=kopf.Memo(),
                indices={},  # type: ignore[arg-type]
                ready_flag=ready,
            )
        )
        await asyncio.wait_for(ready.wait(), 20)
        try:
            assert (await asked(unused_tcp_port, "GET", "/healthz"))[0] == 200
            for method in CHANGING:
                assert (await asked(unused_tcp_port, method, "/healthz", b"{}"))[0] == 405
            assert (await asked(unused_tcp_port, "GET", "/anything"))[0] == 404
        finally:
            reporter.cancel()
            await asyncio.gather(reporter, return_exceptions=True)

    asyncio.run(run())


# -- the webhook -----------------------------------------------------------------------------------

NESTED = b'{"request":' + b"[" * 50_000 + b"]" * 50_000 + b"}"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/healthz", b"", 200),
        *((method, "/healthz", b"{}", 405) for method in CHANGING),
        *((method, "/mutate", b"", 405) for method in ("GET", "PUT", "PATCH", "DELETE")),
        ("POST", "/", b"{}", 404),
        ("POST", "/mutate", b"", 400),
        ("POST", "/mutate", b"{}", 400),
        ("POST", "/mutate", b"[1]", 400),
        ("POST", "/mutate", b'{"request":{"uid":7}}', 400),
        ("POST", "/mutate", b"\xff\xfe", 400),
        ("POST", "/mutate", NESTED, 400),
        ("POST", "/mutate", b" " * (MAX_BODY + 1), 413),
    ],
    ids=lambda value: str(value)[:20],
)
def test_the_webhook_takes_reviews_only(method: str, path: str, body: bytes, status: int) -> None:
    async def run() -> None:
        async with Webhook() as port:
            assert (await asked(port, method, path, body))[0] == status
            assert (await asked(port, "GET", "/healthz")) == (200, "ok\n")

    asyncio.run(run())


def test_what_the_webhook_answers_is_about_the_pod_that_was_asked_for() -> None:
    """It changes nothing itself: its answer is a patch, which the API server applies to the object
    that it is creating, or does not."""
    metadata = {"name": "p", "namespace": "other", "labels": {"bottleneck.dev/inject": "true"}}
    pod = {"metadata": metadata, "spec": {"containers": [{"name": "main", "image": "m"}]}}
    body = json.dumps({"request": {"uid": "u", "namespace": "ml", "object": pod}}).encode()

    async def run() -> Any:
        async with Webhook() as port:
            return await asked(port, "POST", "/mutate", body)

    status, text = asyncio.run(run())
    assert status == 200
    assert set(json.loads(text)["response"]) == {"uid", "allowed", "patchType", "patch"}


class Webhook:
    """The webhook's application on a port of the loopback address; TLS is in tests/inject."""

    async def __aenter__(self) -> int:
        self.runner = web.AppRunner(application(InjectSettings(image="agent")))
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        return int(self.runner.addresses[0][1])

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()
