"""Signals of serving: latency and its parts, load, batches, dependencies, and starts. Pure.

See ``docs/signals.md`` for what each signal means.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bottleneck_sidecar.wire import InferenceServer

from .counters import Delta, bucket_percentile, rate_of, speaking, total
from .pod_window import MIN_SPAN_SECONDS, Figures, PodWindow

MIN_REQUESTS = 10
"""Least requests in a window to count as evidence."""

YOUNG_SECONDS = 120.0
"""Age up to which a server's first batch is held against those that came after it."""

MIN_BATCHES = 5
"""Least batches after the first one to hold it against."""

MAX_DEPENDENCIES = 8
"""Most dependencies with a signal of their own: those that take the most time."""

BATCH_LIMIT, BATCH_DELAY = "batch.maxSize", "batch.delayMilliseconds"

NAMES = tuple(
    f"inference.{name}"
    for name in ("latency", "errorRate", "queueShare", "serviceSeconds", "occupancy")
)
"""What there would be with enough requests, wherever a server is instrumented."""


def inference(figures: Figures, parts: Sequence[PodWindow], percentile: int) -> None:
    """Puts down what is known of the servers of these pods."""
    growths = [delta for part in parts for delta in part.inference]
    servers = [server for part in parts for server in part.servers]
    figures.span = max((delta.span for delta in growths), default=0.0)
    _standing(figures, parts, servers)
    if figures.span < MIN_SPAN_SECONDS:
        reason = f"only {figures.span:.1f}s of requests so far"
        figures.missing((*NAMES, "inference.arrivalRate"), reason)
        return
    figures.put("inference.arrivalRate", rate_of(growths, "arrivals"), "requests/s", "rate")
    retries = total(growths, "retries")
    figures.ratio("inference.retryShare", retries, total(growths, "arrivals"), most=1.0)
    figures.put("inference.queued", _queued(parts), "requests", "mean")
    requests = total(growths, "requests") or 0.0
    buckets = [sum(column) for column in zip(*(d.buckets for d in growths), strict=True)]
    if requests < MIN_REQUESTS or not sum(buckets):
        figures.missing(NAMES, f"only {requests:.0f} requests over {figures.span:.1f}s")
        return
    figures.put("inference.latency", bucket_percentile(buckets, percentile), "s", f"p{percentile}")
    figures.ratio("inference.errorRate", total(growths, "errors"), requests)
    # A figure that one of the busy servers does not measure is not known of them together.
    busy = [delta for delta in growths if delta.counters["requests"] > 0]
    _parts(figures, busy, requests)
    _batches(figures, busy, servers)


def _standing(
    figures: Figures, parts: Sequence[PodWindow], servers: Sequence[InferenceServer]
) -> None:
    """What is known also while no request comes."""
    if not servers:
        return
    for name, knob, unit, per_unit in (
        ("inference.batchLimit", BATCH_LIMIT, "requests", 1.0),
        ("inference.batchDelaySeconds", BATCH_DELAY, "s", 1000.0),
    ):
        values = [_knob(server, knob) for server in servers]
        known = [value for value in values if value is not None]
        if len(known) == len(servers):
            figures.put(name, max(known) / per_unit, unit, "maximum over servers", 0.0)
    ages = [
        max(0.0, part.samples[-1][1].time - server.started_at)
        for part in parts
        for server in part.servers
        if server.started_at is not None
    ]
    if len(ages) == len(servers):
        figures.put("inference.uptimeSeconds", min(ages), "s", "minimum over servers", 0.0)
        ratios = [
            ratio
            for age, server in zip(ages, servers, strict=True)
            if age < YOUNG_SECONDS and (ratio := _first_ratio(server)) is not None
        ]
        firsts = [
            server.first_service_seconds
            for age, server in zip(ages, servers, strict=True)
            if age < YOUNG_SECONDS and server.first_service_seconds is not None
        ]
        if firsts:
            statistic = "maximum over young servers"
            figures.put("inference.firstServiceSeconds", max(firsts), "s", statistic, 0.0)
        if ratios:
            statistic = "maximum over young servers"
            figures.put("inference.firstServiceRatio", max(ratios), "×", statistic, max(ages))


def _first_ratio(server: InferenceServer) -> float | None:
    """How much longer the model took for its first batch than for those since."""
    first, batches = server.first_service_seconds, server.batches
    # Without busy seconds only where every batch was a single request do they mean the same.
    busy = server.busy_seconds
    if busy is None and batches == server.requests:
        busy = server.service_seconds
    if first is None or batches is None or busy is None or batches <= MIN_BATCHES:
        return None
    since = (busy - first) / (batches - 1)
    return first / since if since > 0 else None


def _knob(server: InferenceServer, name: str) -> float | None:
    value = (server.knobs or {}).get(name)
    return float(value) if isinstance(value, int | float) else None


def _queued(parts: Sequence[PodWindow]) -> float | None:
    """Requests that wait, over all servers, as a mean over the samples of the window."""
    result = 0.0
    for part in parts:
        told = 0.0
        for _, sample in part.samples:
            for server in speaking(sample):
                if server.queued is None:
                    return None
                told += server.queued
        result += told / max(1, len(part.samples))
    return result


def _parts(figures: Figures, busy: Sequence[Delta], requests: float) -> None:
    """What the latency is made of."""
    latency = total(busy, "latency_seconds")
    queue, service = total(busy, "queue_seconds"), total(busy, "service_seconds")
    dependency = total(busy, "dependency_seconds")
    figures.ratio("inference.queueShare", queue, latency)
    figures.ratio("inference.serviceShare", service, latency)
    figures.ratio("inference.dependencyShare", dependency, latency)
    if queue is not None and service is not None and latency:
        explained = queue + service + (dependency or 0.0)
        share = max(0.0, 1.0 - explained / latency)
        figures.put("inference.restShare", share, "", "ratio of sums")
    figures.ratio("inference.queueSeconds", queue, requests, "s", "mean")
    figures.ratio("inference.serviceSeconds", service, requests, "s", "mean")
    figures.ratio("inference.dependencySeconds", dependency, requests, "s", "mean")
    by_name: dict[str, float] = {}
    for delta in busy:
        for name, seconds in (delta.seconds or {}).items():
            by_name[name] = by_name.get(name, 0.0) + seconds
    if by_name and all(delta.seconds is not None for delta in busy):
        for name in sorted(by_name, key=lambda name: (-by_name[name], name))[:MAX_DEPENDENCIES]:
            figures.ratio(f"inference.dependency.{_plain(name)}", by_name[name], latency)


def _plain(name: str) -> str:
    """A dependency's name as part of a signal's: letters, digits, ``.``, ``-`` and ``_``."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:63] or "_"


def _batches(figures: Figures, busy: Sequence[Delta], servers: Sequence[InferenceServer]) -> None:
    requests, batches = total(busy, "requests"), total(busy, "batches")
    figures.ratio("inference.batchSize", requests, batches, "requests", "mean")
    if not servers or not all(server.concurrency for server in servers):
        return
    working, service = total(busy, "busy_seconds"), total(busy, "service_seconds")
    places = sum(float(server.concurrency or 0) for server in servers)
    if service is not None:
        figures.put("inference.concurrency", places / len(servers), "requests", "mean")
    if working is not None:
        # A batch is worked on once, however many places its requests take.
        size = requests / batches if requests and batches else 1.0
        places = sum(_runners(server, size) for server in servers)
    elif service is not None:
        working = service
    figures.ratio(
        "inference.occupancy", working, figures.span * places, statistic="busy time over time"
    )


def _runners(server: InferenceServer, size: float) -> float:
    """How many batches a server works on at once: its places over those that one batch may take."""
    limit = _knob(server, BATCH_LIMIT) or size
    return max(1.0, (server.concurrency or 1) / max(1.0, limit))
