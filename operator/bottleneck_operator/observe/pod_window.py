"""What one pod said in a window: the growth of its counters, looked for once and then used for the
pod's own signals and for those of the whole workload. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bottleneck_sidecar.wire import Container, InferenceServer, Sample, TrainingRank

from .counters import STALE_SECONDS, Delta, deltas, speaking
from .history import History, Received
from .long_view import LongView, long_view
from .observation import NoData, Reading, Signal

WINDOW_SECONDS = 10.0
"""Width of the window in which objectives are evaluated. Short, since a decision is due within five
seconds of a breach; long enough for ten steps or requests of the slow workloads it is meant for."""

MIN_SPAN_SECONDS = 5.0
"""Least time that the samples in a window must span to count as evidence."""

SOURCE = "sidecar"


@dataclass(frozen=True, slots=True)
class Life:
    """The first and the last figures of a container's newest life in the window, ``seconds``
    apart."""

    seconds: float
    first: Container
    last: Container


@dataclass(frozen=True, slots=True)
class PodWindow:
    """One pod's part of an observation."""

    number: int
    """Its place among the pods observed; the first half of its processes' seats."""
    samples: Sequence[Received]
    """Those of the window, and the one before it where the window was not cut short."""
    ranks: Sequence[TrainingRank]
    """What each rank said last."""
    servers: Sequence[InferenceServer]
    """What each server said last, without those that are silent."""
    training: Sequence[Delta]
    inference: Sequence[Delta]
    life: Life | None
    long: LongView | None
    """None for a pod that does not train."""

    @property
    def newest(self) -> Sample | None:
        """The newest sample of the window."""
        return self.samples[-1][1] if self.samples else None


def pod_window(
    pod: int, history: History, now: float, window: float, since: float | None = None
) -> PodWindow:
    """The window of ``window`` seconds before ``now``, and not before ``since``. One that was cut
    short begins with a change: what is from before it must not be read after it."""
    start = now - window
    cut = start if window < WINDOW_SECONDS else None
    if since is not None and since > start:
        start = cut = since
    samples = history.since(start, covered=cut is None)
    if not samples:
        return PodWindow(pod, samples, (), (), (), (), None, None)
    newest = samples[-1][1]
    changed = history.changed_since(samples[0][0])
    training: Sequence[Delta] = ()
    inference: Sequence[Delta] = ()
    if changed or newest.training:
        training = deltas(pod, samples, _ranks, changed)
    servers = speaking(newest)
    if changed or newest.inference:
        # A server tells of itself even while it is idle: one that does not is gone, not idle. One
        # that was away meanwhile is looked for in every sample, like one that came.
        ages = samples[0][1].ages.values()
        away = len(servers) < len(newest.inference) or max(ages, default=0.0) > STALE_SECONDS
        inference = deltas(pod, samples, speaking, changed or away)
    return PodWindow(
        pod,
        samples,
        newest.training,
        servers,
        training,
        inference,
        _life(samples),
        long_view(history, newest.training, now, cut) if newest.training else None,
    )


def _ranks(sample: Sample) -> list[TrainingRank]:
    return sample.training


def _life(samples: Sequence[Received]) -> Life | None:
    """Of the newest life of the cgroup only: another one's counters began again at zero."""
    last = next((s for _, s in reversed(samples) if s.container is not None), None)
    if last is None or last.container is None:
        return None
    for _, first in samples:
        if first.container is not None and first.container.epoch == last.container.epoch:
            seconds = last.time - first.time
            if seconds < MIN_SPAN_SECONDS:
                return None
            return Life(seconds, first.container, last.container)
    return None


@dataclass(slots=True)
class Figures:
    """Signals in the making. ``span`` is the window that the samples cover, ``age`` that of the
    pod that has been silent longest, both in seconds."""

    age: float
    span: float = 0.0
    signals: dict[str, Signal] = field(default_factory=dict)

    def put(
        self, name: str, value: float | None, unit: str, statistic: str, span: float | None = None
    ) -> None:
        """One figure; None is not measured, and not put down."""
        if value is None:
            return
        if not math.isfinite(value):
            self.signals[name] = NoData("the counters give no finite number")
            return
        window = self.span if span is None else span
        self.signals[name] = Reading(value, unit, window, statistic, self.age, SOURCE)

    def ratio(
        self,
        name: str,
        part: float | None,
        whole: float | None,
        unit: str = "",
        statistic: str = "ratio of sums",
        most: float = math.inf,
    ) -> None:
        """``part / whole``, at most ``most``; not put down where either is not measured or the
        whole is nothing."""
        if part is not None and whole is not None and whole > 0:
            self.put(name, min(most, part / whole), unit, statistic)

    def missing(self, names: Iterable[str], reason: str) -> None:
        """Figures that there would be, and why there are none yet."""
        self.signals |= dict.fromkeys(names, NoData(reason))


def oldest(parts: Sequence[PodWindow], now: float) -> float:
    """Age of the newest sample of the pod that has been silent longest, in seconds."""
    return max((now - part.samples[-1][0] for part in parts if part.samples), default=0.0)


def lower_median(values: Sequence[float]) -> float:
    """The middle one; the lower of two. Raises IndexError where there is none."""
    return sorted(values)[(len(values) - 1) // 2]
