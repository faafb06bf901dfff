"""From counters to signals: differences over a window, for each replica and over all. Pure.

A figure over all replicas is a ratio of sums, never a mean of ratios: a rank that did twice the
steps counts twice. A percentile comes from the merged latency buckets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bottleneck_sidecar.wire import (
    PHASES,
    Container,
    InferenceServer,
    Sample,
    TrainingRank,
)

from .counters import (
    STALE_SECONDS,
    bucket_percentile,
    deltas,
    inference_counters,
    rate_of,
    speaking,
    sum_of,
    training_counters,
)
from .history import History
from .observation import NoData, Observation, Rank, Reading, Replica, Signal, WorkloadType

WINDOW_SECONDS = 10.0
"""Width of the window in which objectives are evaluated. Short, since a decision is due within five
seconds of a breach; long enough for ten steps or requests of the slow workloads it is meant for."""

MIN_SPAN_SECONDS = 5.0
"""Least time that the samples in a window must span to count as evidence."""

MIN_EVENTS = 10
"""Least steps or requests in a window to count as evidence."""

SOURCE = "sidecar"


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
    growths = [
        delta
        for pod, samples in enumerate(inside)
        for delta in deltas(pod, samples, lambda sample: sample.training, training_counters)
    ]
    age = _age(inside, now)
    total = sum_of(growths)
    span = max((delta.span for delta in growths), default=0.0)
    steps = total.get("steps", 0.0)
    names = ["training.samplesPerSecond", "training.stepSeconds"]
    names += [f"training.{phase}Share" for phase in PHASES]
    # A step longer than the window's share of MIN_EVENTS still counts once the span is long enough.
    if span < MIN_SPAN_SECONDS or steps < min(MIN_EVENTS, 3):
        reason = NoData(f"only {steps:.0f} steps over {span:.1f}s so far")
        return dict.fromkeys(names, reason) | _since_step(inside, now)
    signals = _since_step(inside, now) | {
        "training.samplesPerSecond": Reading(
            rate_of(growths, "samples"), "samples/s", span, "rate", age, SOURCE
        ),
        "training.stepSeconds": Reading(
            total["step_seconds"] / steps, "s", span, "mean", age, SOURCE
        ),
    }
    for phase in PHASES:
        # A phase that some rank does not measure is not known; it is not zero.
        if total["step_seconds"] > 0 and all(phase in delta.counters for delta in growths):
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
    growths = [
        delta
        for pod, samples in enumerate(inside)
        for delta in deltas(
            pod, samples, lambda sample: speaking(sample, sample.inference), inference_counters
        )
    ]
    age = _age(inside, now)
    total = sum_of(growths)
    span = max((delta.span for delta in growths), default=0.0)
    requests = total.get("requests", 0.0)
    signals: dict[str, Signal] = {}

    def put(name: str, value: float, unit: str, statistic: str) -> None:
        signals[name] = Reading(value, unit, span, statistic, age, SOURCE)

    names = ["latency", "arrivalRate", "errorRate", "queueShare", "serviceSeconds", "occupancy"]
    if span < MIN_SPAN_SECONDS:
        reason = NoData(f"only {span:.1f}s of requests so far")
        return {f"inference.{name}": reason for name in names}
    put("inference.arrivalRate", rate_of(growths, "arrivals"), "requests/s", "rate")
    buckets = [sum(column) for column in zip(*(d.buckets for d in growths), strict=True)]
    if requests < MIN_EVENTS or not sum(buckets):
        reason = NoData(f"only {requests:.0f} requests over {span:.1f}s")
        for name in names:
            signals.setdefault(f"inference.{name}", reason)
        return signals
    # A figure that one of the busy servers does not measure is not known of them together.
    busy = [delta for delta in growths if delta.counters["requests"] > 0]
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
            for server in speaking(samples[-1][1], samples[-1][1].inference)
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
