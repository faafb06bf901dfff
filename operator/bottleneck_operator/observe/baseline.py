"""What is usual for a workload, at similar load, and how far from it the workload is now. Pure.

A load that doubles makes a healthy server slower, so figures are only held against those that were
learnt at similar load. What is kept is small, plain and persisted as it stands: a restarted
operator goes on from exactly where it was. ``docs/signals.md`` explains the rules to users.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ..api.policy_status import BaselineStatus
from .observation import NoData, Observation, Reading, Signal
from .pod_window import MIN_SPAN_SECONDS, WINDOW_SECONDS

MIN_WINDOWS = 5
"""Least windows that count as knowing a load."""

SETTLED_WINDOWS = 30
"""Windows (five minutes) after which the anchor stands."""

MEMORY_WINDOWS = 60
"""Windows (ten minutes) over which the running middle is taken."""

LOAD_MEMORY_WINDOWS = 8640
"""The same for the load itself: a day, since load comes in days."""

WORSE_A_DAY = 0.005
"""By how much the anchor may get worse in a day: slow drift is news, not a new usual."""

DEGRADED = 1.2
"""From this ratio on, beyond the usual scatter, a window is not learnt from once the anchor stands:
≥20% slower than the workload's own baseline is a degradation."""

CLIP = 3.0
"""Spreads that an outlier moves the middle like."""

LEAST_SPREAD = 0.03
"""Least spread, as a share of the figure: what is quite constant must not make noise news."""

SIGMAS = 3.0 * 1.25
"""Width of the usual scatter in spreads: three standard deviations, where the mean absolute
deviation is 0.8 of one."""

MAX_ENTRIES = 64
"""Most entries kept; what was not updated for longest gives way."""

ANY_LOAD = "any"

_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Tracked:
    """A figure that has a usual: the signal, and the name of the comparison with it."""

    signal: str
    compared: str


TRACKED = (
    Tracked("training.stepSeconds", "training.stepSlowdown"),
    Tracked("inference.latency", "inference.latencySlowdown"),
    Tracked("inference.serviceSeconds", "inference.serviceSlowdown"),
    Tracked("inference.dependencySeconds", "inference.dependencySlowdown"),
)
LOAD = Tracked("inference.arrivalRate", "inference.loadRatio")

COMPARED = tuple(tracked.compared for tracked in (*TRACKED, LOAD))
"""Names of the signals that a comparison gives."""


@dataclass(frozen=True, slots=True)
class Usual:
    """What one signal usually is at one load: the running ``median`` and its ``spread`` (typical
    distance of a window from it), both in the signal's unit; the ``anchor`` that is compared with;
    the number of windows learnt from; times in whole seconds since the Unix epoch."""

    median: float
    spread: float
    anchor: float
    count: int
    since: float
    updated_at: float

    @property
    def scatter(self) -> float:
        """How far from the anchor a window may lie without being news."""
        spread = max(self.spread, LEAST_SPREAD * self.anchor)
        return SIGMAS * spread * (1.0 + 3.0 / self.count)

    def slowdown(self, value: float) -> float:
        """``value`` over the usual; 1 within the usual scatter."""
        if abs(value - self.anchor) <= self.scatter:
            return 1.0
        return value / self.anchor

    def learnt(self, value: float, now: float, memory: int) -> Usual:
        """With one more window."""
        weight = max(1.0 / (self.count + 1), 1.0 / memory)
        step = value - self.median
        if self.count >= MIN_WINDOWS:
            reach = CLIP * max(self.spread, LEAST_SPREAD * self.median)
            step = max(-reach, min(reach, step))
        median = _tidy(self.median + weight * step)
        spread = _tidy(self.spread + weight * (abs(step) - self.spread))
        return Usual(
            median,
            spread,
            self._anchored(median, spread, now),
            self.count + 1,
            self.since,
            float(round(now)),
        )

    def _anchored(self, median: float, spread: float, now: float) -> float:
        if self.count < SETTLED_WINDOWS or median < self.anchor - spread:
            return median
        # A long absence is no excuse for a big step.
        days = min(1.0, max(0.0, now - self.updated_at) / _DAY)
        worse = self.anchor * (1.0 + WORSE_A_DAY * days)
        return _tidy(max(self.anchor, min(median, worse)))


Key = tuple[str, str]


class Baselines:
    """All that is usual for one workload, by signal and load."""

    def __init__(self, entries: Mapping[Key, Usual] | None = None) -> None:
        self.entries: dict[Key, Usual] = dict(entries or {})

    @classmethod
    def restored(cls, statuses: Iterable[BaselineStatus]) -> Baselines:
        """From what ``statuses`` gave; what cannot be a usual figure is left out."""
        entries = {}
        for status in statuses:
            anchor = status.median if status.anchor is None else status.anchor
            if min(status.median, anchor) <= 0 or status.count < 1:
                continue
            updated = float(round(status.updated_at.timestamp()))
            since = updated if status.since is None else float(round(status.since.timestamp()))
            entries[status.signal, status.load] = Usual(
                status.median, status.spread, anchor, status.count, since, updated
            )
        return cls(entries)

    def statuses(self) -> list[BaselineStatus]:
        """As they are persisted, in a fixed order."""
        return [
            BaselineStatus(
                signal=signal,
                load=load,
                median=usual.median,
                spread=usual.spread,
                anchor=usual.anchor,
                count=usual.count,
                since=_moment(usual.since),
                updated_at=_moment(usual.updated_at),
            )
            for (signal, load), usual in sorted(self.entries.items())
        ]

    def known_since(self) -> float | None:
        """Since when anything that is known well enough to compare with was learnt, seconds since
        the Unix epoch; None where nothing is."""
        known = [
            usual.since
            for (signal, _), usual in self.entries.items()
            if signal != LOAD.signal and usual.count >= MIN_WINDOWS
        ]
        return min(known, default=None)

    def learn(
        self,
        observation: Observation,
        now: float,
        wrong: bool = False,
        every: float = WINDOW_SECONDS,
    ) -> bool:
        """Learns from an observation at ``now``, unless something is known to be ``wrong``, or a
        replica is silent; at most one window in ``every`` seconds. Whether anything was learnt."""
        if wrong or not observation.expected or observation.streaming < observation.expected:
            return False
        learnt = False
        for tracked in TRACKED:
            figure, load = _figure(observation, tracked), _load(observation, tracked.signal)
            if figure is not None and load is not None:
                key = _key(tracked.signal, figure), load
                learnt = self._learn(key, figure.value, now, every, MEMORY_WINDOWS) or learnt
        rate = _figure(observation, LOAD)
        if rate is not None:
            key = LOAD.signal, ANY_LOAD
            learnt = self._learn(key, rate.value, now, every, LOAD_MEMORY_WINDOWS) or learnt
        while len(self.entries) > MAX_ENTRIES:
            del self.entries[min(self.entries, key=lambda key: self.entries[key].updated_at)]
        return learnt

    def _learn(self, key: Key, value: float, now: float, every: float, memory: int) -> bool:
        known = self.entries.get(key)
        if known is None:
            at = float(round(now))
            self.entries[key] = Usual(_tidy(value), 0.0, _tidy(value), 1, at, at)
            return True
        if now - known.updated_at < every - 0.5:  # the time kept is a whole second
            return False
        settled = key[0] != LOAD.signal and known.count >= SETTLED_WINDOWS
        if settled and known.slowdown(value) >= DEGRADED:
            return False
        self.entries[key] = known.learnt(value, now, memory)
        return True

    def compare(self, observation: Observation) -> dict[str, Signal]:
        """How the observation compares with what is usual at its load: a ratio for each figure that
        it has, or why there is none."""
        found: dict[str, Signal] = {}
        for tracked in TRACKED:
            figure = observation.signal(tracked.signal)
            if isinstance(figure, Reading):
                load = _load(observation, tracked.signal)
                found[tracked.compared] = self._compare(tracked, figure, load)
        figure = observation.signal(LOAD.signal)
        if isinstance(figure, Reading):
            found[LOAD.compared] = self._compare(LOAD, figure, ANY_LOAD)
        return found

    def _compare(self, tracked: Tracked, figure: Reading, load: str | None) -> Signal:
        if load is None:
            return NoData("the load is not known")
        usual = self._usual(_key(tracked.signal, figure), load)
        if usual is None:
            return NoData(f"nothing was learnt yet at this load ({load})")
        if usual.count < MIN_WINDOWS:
            return NoData(f"only {usual.count} windows were learnt at this load ({load})")
        value = figure.value
        ratio = value / usual.anchor if tracked is LOAD else usual.slowdown(value)
        if not math.isfinite(ratio):
            return NoData("the figures give no finite ratio")
        return replace(figure, value=ratio, unit="×", statistic="over the usual")

    def _usual(self, signal: str, load: str) -> Usual | None:
        known = self.entries.get((signal, load))
        if known is not None and known.count >= MIN_WINDOWS:
            return known
        octave = _octave_of(load)
        if octave is None:
            return known
        below, above = (self.entries.get((signal, _octave(octave + i))) for i in (-1, 1))
        if below is None or above is None or min(below.count, above.count) < MIN_WINDOWS:
            return known
        return Usual(
            median=math.sqrt(below.median * above.median),
            spread=max(below.spread, above.spread),
            anchor=math.sqrt(below.anchor * above.anchor),
            count=min(below.count, above.count),
            since=max(below.since, above.since),
            updated_at=min(below.updated_at, above.updated_at),
        )


def _figure(observation: Observation, tracked: Tracked) -> Reading | None:
    """A figure that can be learnt from: one of a window of its own, above zero."""
    figure = observation.signal(tracked.signal)
    if isinstance(figure, Reading) and figure.value > 0 and figure.window >= MIN_SPAN_SECONDS:
        return figure
    return None


def _key(signal: str, figure: Reading) -> str:
    """Another percentile is another figure."""
    return f"{signal} {figure.statistic}" if signal == "inference.latency" else signal


def _load(observation: Observation, signal: str) -> str | None:
    """What must be alike for two figures to be compared; None where it is not known."""
    if signal.startswith("training."):
        batch, ranks = (observation.value(f"training.{n}") for n in ("microBatch", "ranks"))
        if not batch or not ranks:
            return None
        # The last batch of an epoch is smaller: quarters of an octave make that no difference.
        samples = batch * (observation.value("training.accumulation") or 1.0)
        usual = 2.0 ** (round(4.0 * math.log2(samples)) / 4.0)
        workers = observation.value("dataLoader.workers")
        loaded = "" if workers is None else f", {workers:.0f} workers"
        return f"{usual:.3g} samples × {ranks:.0f} ranks{loaded}"
    rate = observation.value(LOAD.signal)
    if not rate or not observation.streaming:
        return None
    return _octave(math.floor(math.log2(rate / observation.streaming)))


def _octave(number: int) -> str:
    """Of the requests that one replica gets in a second: from a power of two to the next."""
    return f"2^{number} requests/s a replica"


def _octave_of(load: str) -> int | None:
    head, _, tail = load.partition(" ")
    if tail != "requests/s a replica" or not head.startswith("2^"):
        return None
    try:
        return int(head[2:])
    except ValueError:
        return None


def _tidy(value: float) -> float:
    """Nine digits: what is kept is what is written down."""
    return float(f"{value:.9g}")


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
