"""For each policy that names a Prometheus server a task that looks at it, interval by interval."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime

import aiohttp

from ..api import units
from ..api.policy import BottleneckPolicy
from ..api.telemetry import Prometheus
from ..kube import Kube, KubeError
from .observation import Observation
from .pods import Pod, pod_of
from .prometheus import Ask, Client
from .prometheus_merge import merge
from .prometheus_session import DEADLINE_SECONDS
from .prometheus_signals import NOT_YET, Sourced
from .selectors import Selector, to_string

log = logging.getLogger(__name__)

LOOKS = 8
"""Looks under way at once, over all policies."""

THREADS = 64
"""Most threads. A look that does not end (a name that is not resolved, a server that sends a header
a byte at a time) keeps its thread, one for each policy, and its place among the looks is free."""

LATE_SECONDS = 2 * DEADLINE_SECONDS
"""When a look is given up."""

EXPECT_SECONDS = 90.0
"""How long a pod may run without figures: found by the server, and scraped twice at least."""

LONGEST_PAUSE = 60.0
"""Longest pause between two looks at a server that does not answer."""


@dataclass(slots=True)
class _Feed:
    settings: Prometheus
    namespace: str
    selector: Selector
    percentile: int
    since: float
    wake: Callable[[], None]
    task: asyncio.Task[None] | None = None
    result: Sourced | None = None
    failures: int = 0
    under_way: asyncio.Future[Sourced] | None = None


@dataclass(slots=True)
class Feeds:
    """What Prometheus servers say of the policies' workloads; the newest look of each is kept."""

    kube: Kube
    allowed: Sequence[str] = ()
    """Servers that the operator's own settings name; none: any service of the cluster."""
    _feeds: dict[str, _Feed] = field(default_factory=dict)
    _threads: ThreadPoolExecutor | None = None
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LOOKS))

    def observe(
        self,
        key: str,
        policy: BottleneckPolicy,
        selector: Selector,
        observation: Observation,
        percentile: int,
        since: float,
        wake: Callable[[], None],
    ) -> Observation:
        """The observation with what Prometheus said last of the pods that ``selector`` matches;
        unchanged for a policy without Prometheus. The first call for a policy begins the looking,
        changed settings begin it anew. ``since`` is when the last change took effect, seconds since
        the Unix epoch; ``wake`` is called after each look."""
        settings = policy.spec.telemetry.prometheus if policy.spec.telemetry else None
        feed = self._feeds.get(key)
        if settings is None:
            self.unfollow(key)
            return observation
        if feed is None or feed.settings != settings:
            self.unfollow(key)
            namespace = policy.metadata.namespace
            feed = _Feed(settings, namespace, selector, percentile, since, wake)
            feed.task = asyncio.create_task(self._run(feed), name=f"prometheus {key}")
            self._feeds[key] = feed
        feed.selector, feed.percentile, feed.since = selector, percentile, since
        return observation if feed.result is None else merge(observation, feed.result, since)

    def problem(self, key: str) -> str | None:
        """What was wrong with the last look, empty where nothing was; None without Prometheus."""
        feed = self._feeds.get(key)
        if feed is None:
            return None
        return feed.result.problem if feed.result else NOT_YET

    def unfollow(self, key: str) -> None:
        """Ends the looking for a policy."""
        feed = self._feeds.pop(key, None)
        if feed is not None and feed.task is not None:
            feed.task.cancel()

    async def close(self) -> None:
        """Ends all."""
        tasks = [feed.task for feed in self._feeds.values() if feed.task]
        for key in list(self._feeds):
            self.unfollow(key)
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, feed: _Feed) -> None:
        client = Client(feed.settings.url, self.allowed)
        interval = units.seconds(feed.settings.interval)
        try:
            while True:
                started = time.monotonic()
                await self._look(feed, client)
                pause = interval * 2 ** min(feed.failures, 6)
                pause = max(interval, min(pause, LONGEST_PAUSE)) if feed.failures > 1 else interval
                await asyncio.sleep(max(0.1, pause - (time.monotonic() - started)))
        finally:
            client.close()

    async def _look(self, feed: _Feed, client: Client) -> None:
        try:
            pods = await self._pods(feed)
        except (KubeError, aiohttp.ClientError, OSError, TimeoutError) as error:
            # The loop itself tells of an API server that is away; the last look ages meanwhile.
            log.debug("pods for Prometheus: %r", error)
            return
        ask = Ask(
            namespace=feed.namespace,
            pods=tuple(pod.name for pod in pods),
            expected=tuple(pod.name for pod in pods if _settled(pod, time.time())),
            queries=feed.settings.queries,
            selector=feed.settings.selector,
            percentile=feed.percentile,
            since=feed.since,
        )
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="prometheus")
        async with self._places:
            if feed.under_way is None:
                loop = asyncio.get_running_loop()
                feed.under_way = loop.run_in_executor(self._threads, client.look, ask)
            # Not begun anew while it is late: a client is for one thread at a time.
            await asyncio.wait((feed.under_way,), timeout=LATE_SECONDS)
        if not feed.under_way.done():
            late = f"Prometheus at {feed.settings.url} does not come to an end; check the url"
            feed.result = replace(feed.result or _nothing(ask), problem=late)
        elif (surprise := feed.under_way.exception()) is not None:
            # It must not end the looking, nor hide.
            log.error("look at Prometheus %s failed", feed.settings.url, exc_info=surprise)
            feed.result = replace(feed.result or _nothing(ask), problem=f"a bug: {surprise!r}")
            feed.under_way = None
        else:
            feed.result, feed.under_way = feed.under_way.result(), None
        failed = bool(feed.result.problem and not feed.result.systems)
        feed.failures = feed.failures + 1 if failed else 0
        feed.wake()

    async def _pods(self, feed: _Feed) -> list[Pod]:
        """All pods of the target, injected or not, from the API server's cache."""
        listed = await self.kube.get(
            f"/api/v1/namespaces/{feed.namespace}/pods",
            labelSelector=to_string(feed.selector),
            resourceVersion="0",
        )
        return sorted((pod_of(item) for item in listed.get("items", [])), key=lambda pod: pod.name)


def _nothing(ask: Ask) -> Sourced:
    return Sourced(time=time.time(), pods=ask.expected, since=ask.since)


def _settled(pod: Pod, now: float) -> bool:
    """Whether a pod runs for so long that figures of it are due."""
    if not pod.running or not pod.started:
        return False
    started = datetime.fromisoformat(pod.started.replace("Z", "+00:00"))
    return now - started.timestamp() > EXPECT_SECONDS
