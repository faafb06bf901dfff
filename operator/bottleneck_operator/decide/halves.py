"""The steps of an action that begins on some of the replicas: which ones, and what follows where
the treated or the untouched ones are gone. Pure; all other steps are in ``lifecycle.py``."""

from __future__ import annotations

from datetime import datetime

from ..api.conditions import Reason
from ..api.report import BottleneckReport, Phase, Stage
from ..api.split import Split
from .effects.standing import Progress
from .step import Next, Step

CHOSEN_AT_MOST = 2
"""How often replicas are chosen to begin on. Where those that have it go away again and again, that
may be its doing."""

GATHER_DEADLINE = 60.0
"""Seconds in which there have to be figures of both halves. Without them it is on all at once, and
before is compared with after."""

REPLACED_DEADLINE = 300.0
"""Seconds in which there have to be replicas again to begin on."""


def on_some(report: BottleneckReport) -> bool:
    """Whether knobs or sizes are on the treated replicas alone."""
    return report.status.split is not None and report.status.stage is Stage.CANARY


def some_first(report: BottleneckReport, progress: Progress, now: datetime) -> Next | None:
    """On which replicas it begins, before it has any effect; and what follows where the treated or
    the untouched ones are gone. None where there is nothing to say about that."""
    phase, split, choice = report.status.phase, report.status.split, progress.choice
    if split is None:
        if phase is not Phase.PLANNED:
            return None
        if choice is not None:
            return _begin(Phase.PLANNED, choice)
        timeline = report.status.timeline
        since = timeline[-1].time if timeline else report.spec.decided_at
        waits = progress.gathering and (now - since).total_seconds() <= GATHER_DEADLINE
        return Next(Step.WAIT) if waits else None
    if not on_some(report) or progress.halves is None:
        return None
    treated, untouched = progress.halves
    if treated and (untouched or phase in (Phase.PLANNED, Phase.REVERTING)):
        return None
    if phase is Phase.REVERTING:
        message = "the replicas that had it are gone"
        return Next(Step.MOVE, Phase.REVERTED, Reason.ACTION_REVERTED, message)
    if phase is Phase.PLANNED:
        message = "the replicas that it should begin on are gone"
        return Next(Step.MOVE, Phase.ABANDONED, Reason.ACTION_ABANDONED, message)
    if treated:
        return _undone("no untouched replica is left to compare with")
    begun = report.status.acknowledged_at or report.status.applied_at or report.spec.decided_at
    if split.chosen < CHOSEN_AT_MOST and choice is not None:
        return _begin(Phase.APPLIED, choice)
    if split.chosen < CHOSEN_AT_MOST and (now - begun).total_seconds() <= REPLACED_DEADLINE:
        return Next(Step.WAIT)
    return _undone(f"the replicas that had it went away: {split.names}")


def _begin(phase: Phase, choice: Split) -> Next:
    again = "those that had it went away; again " if choice.chosen > 1 else ""
    message = f"{again}first on {choice.names}; the others stay as they are until it is judged"
    return Next(Step.MOVE, phase, Reason.ACTION_PLANNED, message, stage=Stage.CANARY, split=choice)


def _undone(message: str) -> Next:
    return Next(Step.MOVE, Phase.REVERTING, Reason.ACTION_REFUSED, message)
