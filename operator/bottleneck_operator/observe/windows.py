"""From counters to signals: differences over a window, for each replica and over all. Pure.

A figure over all replicas is a ratio of sums, never a mean of ratios: a rank that did twice the
steps counts twice. A percentile comes from the merged latency buckets.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bottleneck_sidecar.wire import (
    LATENCY_BOUNDS_SECONDS,
    PHASES,
    Container,
    InferenceServer,
    Sample,
    TrainingRank,
)

from .history import History
from .observation import NoData, Observation, Rank, Reading, Replica, Signal, WorkloadType

WINDOW_SECONDS = 10.0
"""Width of the window in which objectives are evaluated. Short, since a decision is due within five
seconds of a breach; long enough for ten steps or requests of the slow workloads it is meant for."""

STALE_SECONDS = 15.0
"""Age at which a sample no longer counts: one and a half heartbeats of the stream."""

MIN_SPAN_SECONDS = 5.0
"""Least time that the samples in a window must span to count as evidence."""

MIN_EVENTS = 10
"""Least steps or requests in a window to count as evidence."""

SOURCE = "sidecar"


@dataclass(frozen=True, slots=True)
class Delta:
    """Growth of one process's counters over a window, ``span`` in seconds. ``seat`` is what only
    one process at a time can be: a rank or a worker of one pod."""

    span: float
    counters: Mapping[str, float]
    seat: tuple[int, int]
    buckets: tuple[int, ...] = ()


def observe(
    histories: Mapping[str, History],
    expected: Sequence[str],
    now: float,
    percentile: int = 95,
    window: float = WINDOW_SECONDS,
) -> Observation:
    """The observation at ``now`` of the pods named in ``expected``; each is looked up in
    ``histories``. A pod that is expected and silent leaves the workload's signals without data: a
    judgement on a part of the replicas would be a judgement on another workload."""
    fresh: dict[str, History] = {}
    silent: list[str] = []
    for pod in expected:
        history = histories.get(pod)
        if history is not None and history.last and now - history.last[0] <= STALE_SECONDS:
            fresh[pod] = history
        else:
            silent.append(pod)
    replicas = tuple(
        Replica(pod, _signals([history], now, window, percentile)) for pod, history in fresh.items()
    )
    if not expected:
        signals: Mapping[str, Signal] = {}
    elif silent:
        missing = NoData(
            f"{len(silent)} of {len(expected)} replicas are silent, {silent[0]} among them"
        )
        names = {name for replica in replicas for name in replica.signals}
        signals = dict.fromkeys(names, missing)
    elif len(replicas) == 1:
        signals = replicas[0].signals
    else:
        signals = _signals(list(fresh.values()), now, window, percentile)
    newest = max((h.last[0] for h in fresh.values() if h.last), default=None)
    return Observation(
        time=now,
        type=_type(fresh.values()),
        signals=signals,
        replicas=replicas,
        ranks=tuple(_ranks(fresh, now)),
        expected=len(expected),
        streaming=len(fresh),
        newest=newest,
    )


def _type(histories: Iterable[History]) -> WorkloadType:
    for history in histories:
        if history.last and history.last[1].training:
            return WorkloadType.TRAINING
        if history.last and history.last[1].inference:
            return WorkloadType.INFERENCE
    return WorkloadType.UNKNOWN


def _ranks(fresh: Mapping[str, History], now: float) -> Iterable[Rank]:
    for pod, history in fresh.items():
        if history.last is None:
            continue
        received, sample = history.last
        processes: list[TrainingRank | InferenceServer] = [*sample.training, *sample.inference]
        for process in processes:
            ack = process.acknowledgement
            yield Rank(
                pod=pod,
                epoch=process.epoch,
                rank=process.rank if isinstance(process, TrainingRank) else process.worker,
                knobs=process.knobs or {},
                settable=frozenset(process.settable or ()),
                generation=ack.generation if ack else None,
                result=ack.result if ack else "",
                message=ack.message if ack else "",
                fresh=now - received + sample.ages.get(process.epoch, 0.0) <= STALE_SECONDS,
            )


def _signals(
    histories: Sequence[History], now: float, window: float, percentile: int
) -> dict[str, Signal]:
    """Signals over the given pods together."""
    inside = [_inside(history, now, window) for history in histories]
    signals: dict[str, Signal] = {}
    if any(samples and samples[-1][1].training for samples in inside):
        signals |= _training(inside, now)
    if any(samples and samples[-1][1].inference for samples in inside):
        signals |= _inference(inside, now, percentile)
    signals |= _container(inside, now)
    return signals


def _inside(history: History, now: float, window: float) -> list[tuple[float, Sample]]:
    """Samples of the window, and the one before it, so that the window is wholly covered. A window
    that was cut short begins with a change: what is from before it must not be read after it."""
    samples = list(history.samples)
    if window < WINDOW_SECONDS:
        return [each for each in samples if each[0] >= now - window]
    first = 0
    for index, (received, _) in enumerate(samples):
        if received <= now - window:
            first = index
    return samples[first:]


def _age(inside: Sequence[Sequence[tuple[float, Sample]]], now: float) -> float:
    return max((now - samples[-1][0] for samples in inside if samples), default=0.0)


def _training(inside: Sequence[Sequence[tuple[float, Sample]]], now: float) -> dict[str, Signal]:
    deltas = [
        delta
        for pod, samples in enumerate(inside)
        for delta in _deltas(pod, samples, lambda sample: sample.training, _training_counters)
    ]
    age = _age(inside, now)
    total = _sum(deltas)
    span = max((delta.span for delta in deltas), default=0.0)
    steps = total.get("steps", 0.0)
    names = ["training.samplesPerSecond", "training.stepSeconds"]
    names += [f"training.{phase}Share" for phase in PHASES]
    # A step longer than the window's share of MIN_EVENTS still counts once the span is long enough.
    if span < MIN_SPAN_SECONDS or steps < min(MIN_EVENTS, 3):
        reason = NoData(f"only {steps:.0f} steps over {span:.1f}s so far")
        return dict.fromkeys(names, reason) | _since_step(inside, now)
    signals = _since_step(inside, now) | {
        "training.samplesPerSecond": Reading(
            _rate(deltas, "samples"), "samples/s", span, "rate", age, SOURCE
        ),
        "training.stepSeconds": Reading(
            total["step_seconds"] / steps, "s", span, "mean", age, SOURCE
        ),
    }
    for phase in PHASES:
        # A phase that some rank does not measure is not known; it is not zero.
        if total["step_seconds"] > 0 and all(phase in delta.counters for delta in deltas):
            share = total[phase] / total["step_seconds"]
            signals[f"training.{phase}Share"] = Reading(
                share, "", span, "ratio of sums", age, SOURCE
            )
    workers = [
        float(value)
        for samples in inside
        if samples
        for process in samples[-1][1].training
        for value in [(process.knobs or {}).get("dataLoader.workers")]
        if isinstance(value, int | float)
    ]
    if workers:
        signals["dataLoader.workers"] = Reading(
            min(workers), "workers", span, "minimum over ranks", age, SOURCE
        )
    return signals


def _since_step(inside: Sequence[Sequence[tuple[float, Sample]]], now: float) -> dict[str, Signal]:
    """How long ago the slowest rank ended a step: known also while no step ends."""
    waits = [
        now - samples[-1][0] + max(0.0, samples[-1][1].time - process.last_step_at)
        for samples in inside
        if samples
        for process in samples[-1][1].training
        if process.last_step_at is not None
    ]
    if not waits:
        return {}
    age = _age(inside, now)
    return {
        "training.sinceStepSeconds": Reading(
            max(waits), "s", 0.0, "maximum over ranks", age, SOURCE
        )
    }


def _inference(
    inside: Sequence[Sequence[tuple[float, Sample]]], now: float, percentile: int
) -> dict[str, Signal]:
    # A server tells of itself even while it is idle: one that does not is gone, not idle.
    deltas = [
        delta
        for pod, samples in enumerate(inside)
        for delta in _deltas(
            pod, samples, lambda sample: _speaking(sample, sample.inference), _inference_counters
        )
    ]
    age = _age(inside, now)
    total = _sum(deltas)
    span = max((delta.span for delta in deltas), default=0.0)
    requests = total.get("requests", 0.0)
    signals: dict[str, Signal] = {}

    def put(name: str, value: float, unit: str, statistic: str) -> None:
        signals[name] = Reading(value, unit, span, statistic, age, SOURCE)

    names = ["latency", "arrivalRate", "errorRate", "queueShare", "serviceSeconds", "occupancy"]
    if span < MIN_SPAN_SECONDS:
        reason = NoData(f"only {span:.1f}s of requests so far")
        return {f"inference.{name}": reason for name in names}
    put("inference.arrivalRate", _rate(deltas, "arrivals"), "requests/s", "rate")
    buckets = [sum(column) for column in zip(*(d.buckets for d in deltas), strict=True)]
    if requests < MIN_EVENTS or not sum(buckets):
        reason = NoData(f"only {requests:.0f} requests over {span:.1f}s")
        for name in names:
            signals.setdefault(f"inference.{name}", reason)
        return signals
    # A figure that one of the busy servers does not measure is not known of them together.
    busy = [delta for delta in deltas if delta.counters["requests"] > 0]
    known = {name for name in total if all(name in delta.counters for delta in busy)}
    put("inference.latency", bucket_percentile(buckets, percentile), "s", f"p{percentile}")
    put("inference.errorRate", total.get("errors", 0.0) / requests, "", "ratio of sums")
    if "queue_seconds" in known and total["latency_seconds"] > 0:
        share = total["queue_seconds"] / total["latency_seconds"]
        put("inference.queueShare", share, "", "ratio of sums")
    if "service_seconds" in known:
        put("inference.serviceSeconds", total["service_seconds"] / requests, "s", "mean")
        servers = [
            server
            for samples in inside
            if samples
            for server in _speaking(samples[-1][1], samples[-1][1].inference)
        ]
        if servers and all(server.concurrency for server in servers):
            places = sum(server.concurrency or 0 for server in servers)
            put("inference.concurrency", places / len(servers), "requests", "mean")
            put(
                "inference.occupancy",
                total["service_seconds"] / (span * places),
                "",
                "busy time over time",
            )
    return signals


def _container(inside: Sequence[Sequence[tuple[float, Sample]]], now: float) -> dict[str, Signal]:
    signals: dict[str, Signal] = {}
    age = _age(inside, now)
    pairs: list[tuple[float, Container, Container]] = []
    for samples in inside:
        told = [(s.time, s.container) for _, s in samples if s.container is not None]
        # Of the newest life of the cgroup only: another one's counters began again at zero.
        lives = [(time, each) for time, each in told if each.epoch == told[-1][1].epoch]
        if lives and lives[-1][0] - lives[0][0] >= MIN_SPAN_SECONDS:
            (start, first), (end, last) = lives[0], lives[-1]
            pairs.append((end - start, first, last))
    if not pairs or len(pairs) < len(inside):
        # A sum over a part of the pods would read the others as zero.
        return signals
    span = max(pair[0] for pair in pairs)

    def put(name: str, value: float | None, unit: str, statistic: str) -> None:
        if value is not None:
            signals[name] = Reading(value, unit, span, statistic, age, SOURCE)

    def growths(name: str) -> list[tuple[float, float]] | None:
        """Growth and seconds of each pod; None as soon as one lacks the figure or it went back."""
        found = []
        for seconds, first, last in pairs:
            start, end = getattr(first, name), getattr(last, name)
            if start is None or end is None or end < start:
                return None
            found.append((float(end - start), seconds))
        return found

    def growth(name: str) -> float | None:
        found = growths(name)
        return None if found is None else sum(grown for grown, _ in found)

    used = growths("cpu_seconds")
    if used is not None:
        put("cpu.usedCores", sum(grown / seconds for grown, seconds in used), "cores", "mean")
    limits = [last.cpu_limit_cores for _, _, last in pairs]
    cpus = [last.cpus for _, _, last in pairs]
    bounds = [
        min(float(x) for x in pair if x is not None)
        for pair in zip(limits, cpus, strict=True)
        if any(x is not None for x in pair)
    ]
    if len(bounds) == len(pairs):
        put("cpu.availableCores", sum(bounds), "cores", "last")
    periods, throttled = growth("periods"), growth("throttled_periods")
    if periods and throttled is not None:
        put("cpu.throttledShare", throttled / periods, "", "ratio of sums")
    for resource in ("cpu", "memory", "io"):
        stalled = growth(f"{resource}_pressure_seconds")
        if stalled is not None:
            observed = sum(pair[0] for pair in pairs)
            put(f"{resource}.pressureShare", stalled / observed, "", "ratio of sums")
    memory = [
        last.memory_bytes / last.memory_limit_bytes
        for _, _, last in pairs
        if last.memory_bytes is not None and last.memory_limit_bytes
    ]
    if len(memory) == len(pairs):
        put("memory.usedShare", max(memory), "", "maximum over pods")
    put("memory.oomKills", growth("oom_kills"), "kills", "count")
    return signals


def _training_counters(process: TrainingRank) -> tuple[str, float | None, dict[str, float]]:
    counters = {
        "steps": float(process.steps),
        "samples": float(process.samples),
        "step_seconds": process.step_seconds,
    }
    return process.epoch, process.last_step_at, counters | process.seconds


def _inference_counters(process: InferenceServer) -> tuple[str, float | None, dict[str, float]]:
    names = ("requests", "errors", "arrivals", "latency_seconds", "queue_seconds")
    counters = {
        name: float(value)
        for name in (*names, "service_seconds")
        if (value := getattr(process, name)) is not None
    }
    return process.epoch, None, counters


def _speaking(sample: Sample, servers: Sequence[InferenceServer]) -> list[InferenceServer]:
    """The servers of which the agent has heard lately."""
    return [s for s in servers if sample.ages.get(s.epoch, 0.0) <= STALE_SECONDS]


def _deltas(
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
            if not _counts_latency(newest) or not _counts_latency(oldest):
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


def _counts_latency(server: InferenceServer) -> bool:
    """Whether its buckets are ours; a list of another length counts something else."""
    return len(server.latency_buckets) == len(LATENCY_BOUNDS_SECONDS) + 1


def _rate(deltas: Iterable[Delta], name: str) -> float:
    """Growth per second over all seats. A process and the one that took its seat ran one after the
    other: their rates are averaged over their time, not added up."""
    seats: dict[tuple[int, int], tuple[float, float]] = {}
    for delta in deltas:
        grown, seconds = seats.get(delta.seat, (0.0, 0.0))
        seats[delta.seat] = (grown + delta.counters[name], seconds + delta.span)
    return sum(grown / seconds for grown, seconds in seats.values())


def _sum(deltas: Iterable[Delta]) -> dict[str, float]:
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


def goodput_series(
    histories: Iterable[History], start: float, end: float, width: float
) -> list[float]:
    """Samples per second over all ranks, one figure for each whole bin of ``width`` seconds between
    ``start`` and ``end`` (operator's clock); a bin not covered by every rank is left out."""
    ranks: dict[str, tuple[list[float], list[float]]] = {}
    for history in histories:
        for received, sample in history.samples:
            for process in sample.training:
                moment = process.last_step_at
                if moment is None:
                    continue
                moment += received - sample.time
                times, counts = ranks.setdefault(process.epoch, ([], []))
                if not times or moment > times[-1]:
                    times.append(moment)
                    counts.append(float(process.samples))
    series = []
    for left, right in _bins(start, end, width):
        grown = [
            (_at(times, counts, left), _at(times, counts, right))
            for times, counts in ranks.values()
            if times and times[-1] >= left and times[0] <= right
        ]
        if grown and all(a is not None and b is not None and b >= a for a, b in grown):
            series.append(sum((b or 0.0) - (a or 0.0) for a, b in grown) / width)
    return series


def latency_series(
    histories: Iterable[History], start: float, end: float, width: float, percentile: int
) -> list[float]:
    """The latency percentile in seconds over all servers, one figure for each whole bin between
    ``start`` and ``end`` (operator's clock); a bin without requests is left out."""
    servers: dict[str, tuple[list[float], list[list[int]]]] = {}
    for history in histories:
        for received, sample in history.samples:
            for process in filter(_counts_latency, sample.inference):
                times, counts = servers.setdefault(process.epoch, ([], []))
                times.append(received)
                counts.append(process.latency_buckets)
    series = []
    for left, right in _bins(start, end, width):
        total: list[int] = []
        for times, counts in servers.values():
            # The last line at or before each edge holds all that was counted until then. A server
            # counts from its first line: what it counted before may be days old.
            i, j = max(0, bisect_right(times, left) - 1), bisect_right(times, right) - 1
            if j <= i:
                continue
            grown = [b - a for b, a in zip(counts[j], counts[i], strict=True)]
            if min(grown) >= 0:
                total = [a + b for a, b in zip(total or [0] * len(grown), grown, strict=True)]
        if sum(total) > 0:
            series.append(bucket_percentile(total, percentile))
    return series


def _bins(start: float, end: float, width: float) -> Iterable[tuple[float, float]]:
    count = int((end - start) / width + 1e-9)
    return [(start + i * width, start + (i + 1) * width) for i in range(count)]


def _at(times: Sequence[float], counts: Sequence[float], moment: float) -> float | None:
    """A counter at a moment, interpolated between samples; None outside of them."""
    index = bisect_left(times, moment)
    if index >= len(times) or (index == 0 and times[0] != moment):
        return None
    if times[index] == moment:
        return counts[index]
    share = (moment - times[index - 1]) / (times[index] - times[index - 1])
    return counts[index - 1] + share * (counts[index] - counts[index - 1])
