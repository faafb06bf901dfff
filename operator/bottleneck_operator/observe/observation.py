"""What is known about a workload at one moment. Pure: the pure folders may import this module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class WorkloadType(StrEnum):
    """What the telemetry says the workload does."""

    TRAINING = "training"
    INFERENCE = "inference"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Reading:
    """A measured figure. ``window`` and ``age`` in seconds."""

    value: float
    unit: str
    window: float
    statistic: str
    age: float
    source: str


@dataclass(frozen=True, slots=True)
class NoData:
    """Not known, and why. It is never read as zero."""

    reason: str


Signal = Reading | NoData

NEVER_SEEN = NoData("no such telemetry was ever received")


@dataclass(frozen=True, slots=True)
class Replica:
    """One pod of the workload."""

    pod: str
    signals: Mapping[str, Signal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rank:
    """What one process says of its knobs."""

    pod: str
    epoch: str
    rank: int
    knobs: Mapping[str, float | str | bool]
    settable: frozenset[str]
    generation: int | None
    result: str
    message: str
    fresh: bool
    world_size: int | None = None
    """Ranks of the group that it trains in; None for a server."""


@dataclass(frozen=True, slots=True)
class Observation:
    """All signals of a workload, over all its replicas and for each.

    ``signals`` maps a signal's name (see ``docs/signals.md``) to its figure over the whole
    workload; a name that is not there is ``NoData``. ``newest`` is the operator's time of the
    newest sample in it, seconds since the Unix epoch, absent where there is none.
    """

    time: float
    type: WorkloadType
    signals: Mapping[str, Signal]
    replicas: tuple[Replica, ...] = ()
    ranks: tuple[Rank, ...] = ()
    expected: int = 0
    streaming: int = 0
    newest: float | None = None

    def signal(self, name: str) -> Signal:
        """The figure of that name, or ``NoData``."""
        return self.signals.get(name, NEVER_SEEN)

    def value(self, name: str) -> float | None:
        """The figure's value, or None where there is no data."""
        signal = self.signal(name)
        return signal.value if isinstance(signal, Reading) else None
