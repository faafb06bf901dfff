"""What a few signals were over the last minutes, for decisions that must not follow a moment. Pure.

It is held in memory: a restarted operator has seen nothing yet, and knows that it has not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

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
