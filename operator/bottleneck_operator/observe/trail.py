"""What a few signals were over the last minutes, for decisions that must not follow a moment. Pure.

It is held in memory, and taken into the policy's status once a minute: coarser, and only the
signals that more than the present follows from. A restarted operator goes on from there, with a
gap: what needs an unbroken stretch (taking away, forecasting) waits until it has seen one itself.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise

from ..api.policy_status import TrailStatus
from .observation import Observation

TRAILED = (
    "inference.arrivalRate",
    "inference.serviceSeconds",
    "cpu.mostUsedCores",
    "memory.usedShare",
    "inference.queueSeconds",
    "inference.occupancy",
    "inference.latency",
)
"""The signals that are kept."""

SLOT_SECONDS = 5.0
"""Width of a slot: what happened within one is kept as its mean, least and most."""

KEPT_SECONDS = 3600.0

GAP_SLOTS = 2
"""Most slots without a figure in a row that a stretch may have: a turn can be late."""


PERSISTED = (
    "inference.arrivalRate",
    "inference.queueSeconds",
    "inference.occupancy",
    "inference.latency",
)
"""The signals whose last half hour tells what load is new, how variable service is, what latency is
without a queue, and whether requests come past a gate."""

STEP_SLOTS = 6
"""Slots in one persisted step."""

STEPS = 60

GAP_SECONDS = 40.0
"""What is younger is not taken up: what was not seen meanwhile must stay a gap for everybody."""


@dataclass(slots=True)
class Slot:
    """One slot: ``begin`` in seconds since the Unix epoch."""

    begin: float
    total: float
    count: int
    least: float
    most: float

    @property
    def mean(self) -> float:
        """Mean of its figures."""
        return self.total / self.count

    def add(self, value: float) -> None:
        """Takes one more figure."""
        self.total += value
        self.count += 1
        self.least = min(self.least, value)
        self.most = max(self.most, value)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A signal over a stretch of time that was seen without a gap."""

    mean: float
    least: float
    most: float


@dataclass(slots=True)
class Trail:
    """The trail of one workload."""

    _slots: dict[str, deque[Slot]] = field(default_factory=dict)

    def note(self, observation: Observation) -> None:
        """Takes the figures of a turn. What is not known leaves a gap; so does a turn in which a
        replica was silent, since its part is missing in every sum."""
        if observation.streaming < observation.expected:
            return
        for name in TRAILED:
            value = observation.value(name)
            if value is not None:
                self._add(name, observation.time, value)

    def _add(self, name: str, time: float, value: float) -> None:
        begin = time - time % SLOT_SECONDS
        slots = self._slots.setdefault(name, deque())
        if slots and begin < slots[-1].begin:
            return  # the clock was set back
        if slots and slots[-1].begin == begin:
            slots[-1].add(value)
        else:
            slots.append(Slot(begin, value, 1, value, value))
        while slots[0].begin < begin - KEPT_SECONDS:
            slots.popleft()

    def series(self, name: str, seconds: float, now: float) -> Sequence[Slot]:
        """The slots of the last ``seconds``, oldest first, with gaps where nothing was known."""
        found: list[Slot] = []
        # From the end: the hour is long, and most ask for the last minute.
        for slot in reversed(self._slots.get(name, ())):
            if slot.begin <= now - seconds:
                break
            found.append(slot)
        found.reverse()
        return found

    def over(self, name: str, seconds: float, now: float) -> Stretch | None:
        """The last ``seconds``; None where they were not seen without a gap."""
        slots = self.series(name, seconds, now)
        if not slots:
            return None
        gap = (GAP_SLOTS + 1) * SLOT_SECONDS
        edges = [now - seconds, *(slot.begin for slot in slots), now]
        if any(later - earlier > gap for earlier, later in pairwise(edges)):
            return None
        return Stretch(
            mean=sum(slot.total for slot in slots) / sum(slot.count for slot in slots),
            least=min(slot.least for slot in slots),
            most=max(slot.most for slot in slots),
        )

    def statuses(self, now: float) -> list[TrailStatus]:
        """As it is persisted."""
        width = STEP_SLOTS * SLOT_SECONDS
        first = (now // width - STEPS) * width
        found = []
        for name in PERSISTED:
            steps: list[list[Slot]] = [[] for _ in range(STEPS)]
            for slot in self.series(name, now - first, now):
                index = int((slot.begin - first) // width)
                if 0 <= index < STEPS:
                    steps[index].append(slot)
            if any(steps):
                means = (
                    sum(s.total for s in each) / max(1, sum(s.count for s in each))
                    for each in steps
                )
                found.append(
                    TrailStatus(
                        signal=name,
                        begin=datetime.fromtimestamp(first, UTC),
                        means=_written(steps, list(means)),
                        highest=_written(
                            steps, [max((s.most for s in e), default=0) for e in steps]
                        ),
                    )
                )
        return found

    @classmethod
    def restored(cls, statuses: Iterable[TrailStatus], now: float) -> Trail:
        """From what ``statuses`` gave. What cannot be read, by hand or by another version, is a
        gap."""
        made = cls()
        for status in statuses:
            if status.signal not in PERSISTED:
                continue
            pairs = zip(status.means.split(), status.highest.split(), strict=False)
            slots: deque[Slot] = deque()
            for index, (mean, most) in enumerate(pairs):
                begin = status.begin.timestamp() + index * STEP_SLOTS * SLOT_SECONDS
                value, high = _read(mean), _read(most)
                if value is None or high is None:
                    continue
                for number in range(STEP_SLOTS):
                    at = begin + number * SLOT_SECONDS
                    if now - KEPT_SECONDS < at <= now - GAP_SECONDS:
                        slots.append(Slot(at, value, 1, value, high))
            made._slots[status.signal] = slots
        return made


def _written(steps: Sequence[Sequence[Slot]], values: Sequence[float]) -> str:
    return " ".join(
        f"{value:.4g}" if step else "-" for step, value in zip(steps, values, strict=True)
    )


def _read(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
