"""What the state machine of an action answers. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ..api.conditions import Reason
from ..api.consequences import Rollback
from ..api.report import Phase, Stage, Verdict
from ..api.split import Split


class Step(StrEnum):
    """What to do with a report now."""

    WAIT = "Wait"
    APPLY = "Apply"
    UNDO = "Undo"
    MOVE = "Move"


@dataclass(frozen=True, slots=True)
class Next:
    """The next step: an effect to bring about (APPLY, UNDO), then or instead a phase to move to."""

    step: Step
    phase: Phase | None = None
    reason: Reason | None = None
    message: str = ""
    verdict: Verdict | None = None
    at: datetime | None = None
    """When it came about, where that was before it could be written down."""
    stage: Stage | None = None
    """The stage that begins with it, of what begins on some replicas."""
    split: Split | None = None
    """The replicas that were chosen."""
    rollback: Rollback | None = None
    """The answer to people who want the action taken back."""
