"""Counters of processes: their growth over a window, and the percentile of counted latencies. Pure.

A counter that went back within one epoch lies and is left out; a new epoch begins at zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bottleneck_sidecar.wire import LATENCY_BOUNDS_SECONDS, InferenceServer, Sample, TrainingRank

STALE_SECONDS = 15.0
"""Age at which a sample no longer counts: one and a half heartbeats of the stream."""


@dataclass(frozen=True, slots=True)
class Delta:
    """Growth of one process's counters over a window, ``span`` in seconds. ``seat`` is what only
    one process at a time can be: a rank or a worker of one pod."""

    span: float
    counters: Mapping[str, float]
    seat: tuple[int, int]
    buckets: tuple[int, ...] = ()


def training_counters(process: TrainingRank) -> tuple[str, float | None, dict[str, float]]:
    counters = {
        "steps": float(process.steps),
        "samples": float(process.samples),
        "step_seconds": process.step_seconds,
    }
    return process.epoch, process.last_step_at, counters | process.seconds


def inference_counters(process: InferenceServer) -> tuple[str, float | None, dict[str, float]]:
    names = ("requests", "errors", "arrivals", "latency_seconds", "queue_seconds")
    counters = {
        name: float(value)
        for name in (*names, "service_seconds")
        if (value := getattr(process, name)) is not None
    }
    return process.epoch, None, counters


def speaking(sample: Sample, servers: Sequence[InferenceServer]) -> list[InferenceServer]:
    """The servers of which the agent has heard lately."""
    return [s for s in servers if sample.ages.get(s.epoch, 0.0) <= STALE_SECONDS]


def deltas(
    pod: int,
    samples: Sequence[tuple[float, Sample]],
    processes: Callable[[Sample], Sequence[Any]],
    read: Callable[[Any], tuple[str, float | None, dict[str, float]]],
) -> Iterable[Delta]:
    """Growth of each process's counters between its first and last sample. A process whose counter
    went back within one epoch lies, and is left out."""
    first: dict[str, tuple[float, Any]] = {}
    last: dict[str, tuple[float, Any]] = {}
    for _, sample in samples:
        for process in processes(sample):
            first.setdefault(process.epoch, (sample.time, process))
            last[process.epoch] = (sample.time, process)
    for epoch, (end, newest) in last.items():
        start, oldest = first[epoch]
        _, step_start, before = read(oldest)
        _, step_end, after = read(newest)
        if step_start is not None and step_end is not None:
            start, end = step_start, step_end
        growth = {name: after[name] - before[name] for name in after if name in before}
        buckets: tuple[int, ...] = ()
        if isinstance(newest, InferenceServer):
            if not counts_latency(newest) or not counts_latency(oldest):
                continue
            pairs = zip(newest.latency_buckets, oldest.latency_buckets, strict=True)
            buckets = tuple(b - a for b, a in pairs)
        if (
            end - start > 0
            and all(g >= 0 for g in growth.values())
            and all(b >= 0 for b in buckets)
        ):
            number = newest.rank if isinstance(newest, TrainingRank) else newest.worker
            yield Delta(end - start, growth, (pod, number), buckets)


def counts_latency(server: InferenceServer) -> bool:
    """Whether its buckets are ours; a list of another length counts something else."""
    return len(server.latency_buckets) == len(LATENCY_BOUNDS_SECONDS) + 1


def rate_of(deltas: Iterable[Delta], name: str) -> float:
    """Growth per second over all seats. A process and the one that took its seat ran one after the
    other: their rates are averaged over their time, not added up."""
    seats: dict[tuple[int, int], tuple[float, float]] = {}
    for delta in deltas:
        grown, seconds = seats.get(delta.seat, (0.0, 0.0))
        seats[delta.seat] = (grown + delta.counters[name], seconds + delta.span)
    return sum(grown / seconds for grown, seconds in seats.values())


def sum_of(deltas: Iterable[Delta]) -> dict[str, float]:
    total: dict[str, float] = {}
    for delta in deltas:
        for name, value in delta.counters.items():
            total[name] = total.get(name, 0.0) + value
    return total


def bucket_percentile(buckets: Sequence[int], percentile: float) -> float:
    """The percentile (0..100) of latencies counted in ``LATENCY_BOUNDS_SECONDS`` buckets, in
    seconds, interpolated within the bucket; the last bound for what overflowed it.
    Raises ValueError where nothing was counted."""
    total = sum(buckets)
    if total <= 0:
        raise ValueError("no request was counted")
    rank = total * percentile / 100
    below = 0
    for index, count in enumerate(buckets):
        if count and below + count >= rank:
            if index >= len(LATENCY_BOUNDS_SECONDS):
                break
            lower = LATENCY_BOUNDS_SECONDS[index - 1] if index else 0.0
            upper = LATENCY_BOUNDS_SECONDS[index]
            return lower + (upper - lower) * (rank - below) / count
        below += count
    return LATENCY_BOUNDS_SECONDS[-1]
