"""What the gate of a workload says (docs/scale-to-zero.md). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .history import History

FRESH_SECONDS = 3.0
"""How old the newest word of a gate may be; it says something every second."""


@dataclass(frozen=True, slots=True)
class GateView:
    """All pods of a gate together. ``speaking`` of the ``pods`` that there are said something just
    now; what the others hold is not known. ``idle_seconds``: how long nothing has been held or in
    flight at any of them, None unless all speak. ``silent_seconds``: how long not all have spoken.
    """

    pods: int = 0
    speaking: int = 0
    held: int = 0
    in_flight: int = 0
    idle_seconds: float | None = None
    silent_seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether there is a gate and every pod of it speaks."""
        return 0 < self.pods == self.speaking


def view_of(
    pods: Sequence[str], histories: Mapping[str, History], now: float, heard_at: float
) -> GateView:
    """The gate with these pods; ``heard_at`` is when it was last complete. A pod that carries the
    gate's label and speaks as something else is a silent one."""
    said = []
    for pod in pods:
        history = histories.get(pod)
        if history is None or history.last is None:
            continue
        received, sample = history.last
        if sample.gate is None:
            continue
        age = now - received + sample.ages.get(sample.gate.epoch, 0.0)
        if age <= FRESH_SECONDS:
            said.append(sample.gate)
    complete = 0 < len(pods) == len(said)
    return GateView(
        pods=len(pods),
        speaking=len(said),
        held=sum(each.held for each in said),
        in_flight=sum(each.in_flight for each in said),
        idle_seconds=min(each.idle_seconds for each in said) if complete else None,
        silent_seconds=0.0 if complete else max(0.0, now - heard_at),
    )
