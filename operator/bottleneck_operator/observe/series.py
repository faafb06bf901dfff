"""A metric over time: one figure for each bin, on the operator's clock. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from operator import itemgetter

from bottleneck_sidecar.wire import InferenceServer, Sample, TrainingRank

from .counters import bucket_percentile, counts_latency
from .history import History


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
    bins = latency_bins(histories, start, end, width, percentile)
    return [figure for figure in bins if figure is not None]


def latency_bins(
    histories: Iterable[History], start: float, end: float, width: float, percentile: int
) -> list[float | None]:
    """The same for every bin, None for one without requests."""
    servers: dict[str, tuple[list[float], list[list[int]]]] = {}
    for history in histories:
        for received, sample in history.samples:
            for process in filter(counts_latency, sample.inference):
                times, counts = servers.setdefault(process.epoch, ([], []))
                times.append(received)
                counts.append(process.latency_buckets)
    series: list[float | None] = []
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
        series.append(bucket_percentile(total, percentile) if sum(total) > 0 else None)
    return series


def arrival_rate(histories: Iterable[History], start: float, end: float) -> float | None:
    """Requests that arrived in a second over all servers, between two moments (operator's clock);
    None where no server was heard of for any time between them. A process and the one that took its
    seat add up, since each counts for its own time."""
    lines: list[tuple[float, dict[str, int]]] = []
    for history in histories:
        for received, sample in history.samples:
            if start <= received <= end and sample.inference:
                lines.append((received, {each.epoch: each.arrivals for each in sample.inference}))
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for _, counts in sorted(lines, key=itemgetter(0)):
        for epoch, arrivals in counts.items():
            first.setdefault(epoch, arrivals)
            last[epoch] = arrivals
    moments = [received for received, _ in lines]
    seconds = max(moments, default=0.0) - min(moments, default=0.0)
    if not seconds > 0:
        return None
    return sum(max(0, last[epoch] - first[epoch]) for epoch in first) / seconds


def drained_at(histories: Iterable[History], since: float) -> float | None:
    """When everything that had arrived by ``since`` was answered (operator's clock); None while it
    is not. First come, first served is assumed; a server that is gone keeps nobody waiting."""
    owed: dict[str, int] = {}
    done: dict[str, float] = {}
    speaking: set[str] = set()
    for history in histories:
        for received, sample in history.samples:
            if received < since:
                continue
            for process in sample.inference:
                target = owed.setdefault(process.epoch, process.arrivals)
                if process.requests >= target:
                    done.setdefault(process.epoch, received)
        if history.last is not None:
            speaking |= {process.epoch for process in history.last[1].inference}
    if not owed or any(epoch in speaking and epoch not in done for epoch in owed):
        return None
    return max(done.values(), default=since)


def in_force_at(histories: Iterable[History], generation: int) -> float | None:
    """When the last rank said for the first time that it runs with that knobs generation or a newer
    one (operator's clock); None while one of those that speak has not said so."""
    moments: list[float] = []
    for history in histories:
        first: dict[str, float] = {}
        for received, sample in history.samples:
            for process in _processes(sample):
                told = process.acknowledgement
                if told is not None and told.generation >= generation and told.result != "Refused":
                    first.setdefault(process.epoch, received)
        if history.last is not None:
            speaking = [process.epoch for process in _processes(history.last[1])]
            if not speaking or any(epoch not in first for epoch in speaking):
                return None
            moments += [first[epoch] for epoch in speaking]
    return max(moments, default=None)


def _processes(sample: Sample) -> list[TrainingRank | InferenceServer]:
    return [*sample.training, *sample.inference]


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
