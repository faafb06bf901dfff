"""Counters of processes: their growth over a window, and the percentile of counted latencies. Pure.

A counter that went back within one epoch lies and is left out, and with it the whole process where
it is one of those that everything else is measured by. A new epoch begins at zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, TypeVar

from bottleneck_sidecar.wire import LATENCY_BOUNDS_SECONDS, InferenceServer, Sample, TrainingRank

from .history import Received

STALE_SECONDS = 15.0
"""Age at which a sample no longer counts: one and a half heartbeats of the stream."""

_TRAINING = ("steps", "samples", "step_seconds")
_TRAINING_MORE = (
    "run_queue_seconds",
    "loader_seconds",
    "loader_cpu_seconds",
    "loader_run_queue_seconds",
    "low_precision_steps",
    "losses",
    "nonfinite_losses",
    "skipped_steps",
)
_INFERENCE = ("requests", "errors", "arrivals", "latency_seconds")
_INFERENCE_MORE = (
    "queue_seconds",
    "service_seconds",
    "batches",
    "busy_seconds",
    "dependency_seconds",
    "retries",
    "run_queue_seconds",
)
_Getter = Callable[[Any], tuple[Any, ...]]
_GET: dict[type, tuple[tuple[str, ...], int, _Getter]] = {
    kind: (main + more, len(main), attrgetter(*main, *more))
    for kind, main, more in (
        (TrainingRank, _TRAINING, _TRAINING_MORE),
        (InferenceServer, _INFERENCE, _INFERENCE_MORE),
    )
}

Process = TypeVar("Process", TrainingRank, InferenceServer)


@dataclass(frozen=True, slots=True)
class Delta:
    """Growth of one process's counters over a window, ``span`` in seconds.

    ``counters`` are its fields of the wire format, ``seconds`` a step's phases or a request's
    dependencies, ``cpu`` the CPU seconds by phase; what is not measured, or went back, is not in
    them (``None`` where all of it is not measured). ``seat`` is what only one process at a time can
    be: a rank or a worker of one pod.
    """

    span: float
    counters: Mapping[str, float]
    seat: tuple[int, int]
    seconds: Mapping[str, float] | None = field(default_factory=dict)
    cpu: Mapping[str, float] | None = None
    buckets: tuple[int, ...] = ()


def speaking(sample: Sample) -> list[InferenceServer]:
    """The servers of which the agent has heard lately."""
    ages = sample.ages
    return [s for s in sample.inference if ages.get(s.epoch, 0.0) <= STALE_SECONDS]


def deltas(
    pod: int,
    samples: Sequence[Received],
    processes: Callable[[Sample], Sequence[Process]],
    changed: bool,
) -> list[Delta]:
    """Growth of each process's counters between its first and its last sample. ``changed`` tells
    whether processes came or went meanwhile: if not, only the first and the last sample are looked
    at. A process whose main counters went back within one epoch lies, and is left out."""
    first: dict[str, tuple[float, Process]] = {}
    last: dict[str, tuple[float, Process]] = {}
    ends: Sequence[Received] = samples if changed else (samples[:1] + samples[-1:])  # type: ignore[operator]
    for _, sample in ends:
        for process in processes(sample):
            last[process.epoch] = (sample.time, process)
            first.setdefault(process.epoch, last[process.epoch])
    found = []
    for epoch, (end, newest) in last.items():
        start, oldest = first[epoch]
        delta = _delta(pod, start, oldest, end, newest)
        if delta is not None:
            found.append(delta)
    return found


def _delta(pod: int, start: float, oldest: Process, end: float, newest: Process) -> Delta | None:
    step_start = getattr(oldest, "last_step_at", None)
    step_end = getattr(newest, "last_step_at", None)
    if step_start is not None and step_end is not None:
        start, end = step_start, step_end
    if end <= start:
        return None
    names, main, get = _GET[type(newest)]
    growth: dict[str, float] = {}
    # A server that has answered nothing yet cannot say what it measures; all of it was zero.
    unused = isinstance(oldest, InferenceServer) and oldest.requests == 0
    pairs = zip(names, get(newest), get(oldest), strict=True)
    for index, (name, after, before) in enumerate(pairs):
        if before is None and unused and name != "run_queue_seconds":
            before = 0
        if after is None or before is None:
            continue
        if after >= before:
            growth[name] = float(after - before)
        elif index < main:
            return None
    if isinstance(newest, TrainingRank) and isinstance(oldest, TrainingRank):
        seconds = _grown(newest.seconds, oldest.seconds)
        cpu = _grown(newest.cpu_seconds, oldest.cpu_seconds)
        return Delta(end - start, growth, (pod, newest.rank), seconds, cpu)
    assert isinstance(newest, InferenceServer)
    assert isinstance(oldest, InferenceServer)
    if not counts_latency(newest) or not counts_latency(oldest):
        return None
    counts = zip(newest.latency_buckets, oldest.latency_buckets, strict=True)
    buckets = tuple([b - a for b, a in counts])
    if min(buckets) < 0:
        return None
    # A dependency that was never called before has no entry yet: it began at zero.
    since = None if oldest.dependencies is None and not unused else newest.dependencies
    called = None if since is None else dict.fromkeys(since, 0.0) | (oldest.dependencies or {})
    return Delta(end - start, growth, (pod, newest.worker), _grown(since, called), None, buckets)


def _grown(
    after: Mapping[str, float] | None, before: Mapping[str, float] | None
) -> dict[str, float] | None:
    if after is None or before is None:
        return None
    found = {}
    for name, value in after.items():
        old = before.get(name)
        if old is not None and value >= old:
            found[name] = value - old
    return found


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


def total(deltas: Iterable[Delta], name: str) -> float | None:
    """The growth of one counter over all of them; None as soon as one does not measure it."""
    result = 0.0
    for delta in deltas:
        grown = delta.counters.get(name)
        if grown is None:
            return None
        result += grown
    return result


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
