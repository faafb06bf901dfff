"""The next step of an open report. Pure: this is the whole state machine of an action.

::

    Recommended ──approved──▶ Planned ──effect──▶ Applied ──acknowledged──▶ Verifying ──▶ Kept
                                 │                   │                          │
                                 ▼                   ▼                          ▼
                             Abandoned           Reverting ◀── Worse, NoEffect, a guardrail
                          (nothing was done)         └──acknowledged──▶ Reverted

What begins on some of the replicas (an image; knobs and sizes of several servers) goes through
Applied and Verifying twice: with the stage Canary, and after a good verdict on that with the stage
Rolled. Which replicas it begins on is recorded while it is Planned.
A change of replicas that a later report carries further is Kept from Applied or Verifying.
What people take back (``rollback.py``) goes to Reverting from wherever it stands, Kept included.

Each step is recorded before the next begins, and each effect is idempotent, so any process can
take over at any point.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from ..api.conditions import APPROVED_ANNOTATION, Reason
from ..api.meta import Setting
from ..api.report import (
    Action,
    Aim,
    BottleneckReport,
    Phase,
    ResourcesChange,
    Stage,
    VerdictResult,
)
from ..observe.changes import CLOCKS_SECONDS
from ..observe.windows import WINDOW_SECONDS
from .effects import effect_of
from .effects.standing import Effect, Progress, Standing
from .halves import on_some, some_first
from .rollback import answer, as_issued
from .step import Next as Next
from .step import Step as Step
from .trading import ruling, unsettled

ON_TRIAL = (Phase.APPLIED, Phase.VERIFYING)
"""Phases in which an action has its effect and is not judged yet: so long a change of replicas may
be carried further by another report."""


def next_step(report: BottleneckReport, progress: Progress, now: datetime) -> Next:
    """What to do with an open report at ``now``."""
    phase, action = report.status.phase, as_issued(report)
    if not (phase.open and progress.target_gone) and (told := answer(report, progress, now)):
        return Next(Step.MOVE, told.phase, told.reason, told.message, rollback=told.rollback)
    if not phase.open and phase is not Phase.RECOMMENDED:
        return Next(Step.WAIT)
    if action is None:
        return Next(Step.MOVE, Phase.ABANDONED, Reason.ACTION_ABANDONED, "it has no action")
    if progress.target_gone:
        return Next(
            Step.MOVE, Phase.ABANDONED, Reason.ACTION_ABANDONED, "the target no longer exists"
        )
    if report.spec.approval_required and phase in (Phase.PLANNED, Phase.RECOMMENDED):
        # A process that died between recording a recommendation and marking it as one leaves it
        # Planned; it still needs its approval.
        if not _approved(report):
            waiting = phase is Phase.RECOMMENDED
            return Next(Step.WAIT) if waiting else Next(Step.MOVE, Phase.RECOMMENDED)
        if action.knobs is not None and progress.newest_generation >= action.knobs.generation:
            return Next(
                Step.MOVE,
                Phase.ABANDONED,
                Reason.ACTION_SUPERSEDED,
                "another change was made since it was recommended",
            )
        if phase is Phase.RECOMMENDED:
            if progress.another_open:
                return Next(Step.WAIT)
            return Next(Step.MOVE, Phase.PLANNED, Reason.ACTION_PLANNED, "approved")
    if progress.superseded_by and phase in ON_TRIAL:
        # First of all: the number that it wants will not be there any more.
        message = f"carried further by {progress.superseded_by}"
        return Next(Step.MOVE, Phase.KEPT, Reason.ACTION_KEPT, message)
    if phase is Phase.PLANNED and progress.beyond:
        message = f"the policy does not allow it: {progress.beyond}"
        return Next(Step.MOVE, Phase.ABANDONED, Reason.ACTION_ABANDONED, message)
    trade = progress.trade
    if trade is not None and (said := ruling(report, trade, now)) is not None:
        step = Step.WAIT if said.phase is None else Step.MOVE
        return Next(step, said.phase, said.reason, said.message)
    if (chosen := some_first(report, progress, now)) is not None:
        return chosen
    effect = effect_of(action, phase, progress)
    if effect.standing is Standing.UNKNOWN and phase is not Phase.VERIFYING:
        return Next(Step.WAIT)
    if effect.standing is Standing.FOREIGN and on_some(report) and phase in ON_TRIAL:
        # Half of the replicas must not be left with it.
        return _revert(Reason.ACTION_SUPERSEDED, effect.message)
    if effect.standing is Standing.FOREIGN:
        return Next(Step.MOVE, Phase.ABANDONED, Reason.ACTION_SUPERSEDED, effect.message)
    if effect.standing is Standing.OVERTAKEN:
        return _revert(Reason.ACTION_SUPERSEDED, effect.message)
    if phase is Phase.PLANNED:
        stage = Stage.CANARY if action.image is not None else None
        return Next(Step.APPLY, Phase.APPLIED, Reason.ACTION_APPLIED, action.summary, stage=stage)
    if effect.standing is Standing.MISSING:
        return Next(Step.UNDO if phase is Phase.REVERTING else Step.APPLY)
    if phase is Phase.APPLIED:
        return _await_effect(report, action, effect, now)
    if phase is Phase.VERIFYING and report.status.stage is not None:
        return _await_stage(report, action, effect, progress, now)
    if phase is Phase.VERIFYING:
        found = _await_verdict(progress, action)
        if found.phase is Phase.KEPT and trade is not None and unsettled(report, trade, now):
            return Next(Step.WAIT)
        return found
    return _await_undone(report, action, effect, now)


def _approved(report: BottleneckReport) -> bool:
    return report.metadata.annotations.get(APPROVED_ANNOTATION) == "true"


def _await_effect(report: BottleneckReport, action: Action, effect: Effect, now: datetime) -> Next:
    if effect.standing is Standing.REFUSED:
        return _revert(Reason.ACTION_REFUSED, effect.message)
    if effect.standing is Standing.IN_FORCE and not action.judged:
        return Next(Step.MOVE, Phase.KEPT, Reason.ACTION_KEPT, effect.message, at=effect.at)
    if effect.standing is Standing.IN_FORCE:
        return Next(
            Step.MOVE, Phase.VERIFYING, Reason.ACTION_ACKNOWLEDGED, effect.message, at=effect.at
        )
    begun = report.status.applied_at or report.spec.decided_at
    if report.status.stage is Stage.ROLLED:
        begun = report.status.judged_at or begun
    if effect.deadline is not None and (now - begun).total_seconds() > effect.deadline:
        if action.aim is Aim.WAKE:
            # Somebody waits all the same; why it does not start is the diagnosis's affair.
            message = f"{effect.message}; left as it is, please look"
            return Next(Step.MOVE, Phase.KEPT, Reason.ACTION_KEPT, message)
        return _revert(Reason.ACTION_REFUSED, effect.message)
    return Next(Step.WAIT)


def _await_verdict(progress: Progress, action: Action) -> Next:
    verdict = progress.verdict
    if verdict is None or verdict.result is VerdictResult.NO_DATA:
        # Never kept and never undone on missing data.
        return Next(Step.WAIT)
    # Growth that keeps the objectives met while load grows need not make anything better.
    enough = action.aim is Aim.SAVE or (action.grows and progress.met)
    enough = enough and verdict.result is VerdictResult.NO_EFFECT
    if enough or verdict.result in (VerdictResult.IMPROVED, VerdictResult.INCONCLUSIVE):
        held = verdict.result is VerdictResult.INCONCLUSIVE
        message = f"{verdict.result}: {verdict.reason}" + ("; kept, please look" if held else "")
        return Next(Step.MOVE, Phase.KEPT, Reason.ACTION_KEPT, message, verdict)
    return Next(
        Step.MOVE,
        Phase.REVERTING,
        Reason.REVERTING,
        f"{verdict.result}: {verdict.reason}",
        verdict,
    )


def _await_stage(
    report: BottleneckReport, action: Action, effect: Effect, progress: Progress, now: datetime
) -> Next:
    """What is on some replicas has to prove itself there: what stays unclear is undone, too. An
    image costs accuracy, and of anything else a workload of two halves is no state to hold."""
    verdict, begun = progress.verdict, report.status.acknowledged_at
    waited = (now - begun).total_seconds() if begun is not None else 0.0
    left = action.image is not None and effect.standing is Standing.UNDER_WAY
    if left and waited > (effect.deadline or waited):
        # It was ready and is no longer: out of service it gives no figures to judge it by.
        return _revert(Reason.ACTION_REFUSED, effect.message)
    if verdict is None or verdict.result is VerdictResult.NO_DATA:
        return Next(Step.WAIT)
    wanted = VerdictResult.NO_EFFECT if action.aim is Aim.SAVE else VerdictResult.IMPROVED
    message = f"{verdict.result}: {verdict.reason}"
    if verdict.result not in (wanted, VerdictResult.IMPROVED):
        return Next(Step.MOVE, Phase.REVERTING, Reason.REVERTING, message, verdict)
    if report.status.stage is Stage.ROLLED:
        return Next(Step.MOVE, Phase.KEPT, Reason.ACTION_KEPT, message)
    return Next(
        Step.MOVE,
        Phase.APPLIED,
        Reason.ACTION_APPLIED,
        f"{message}; the rest follows",
        verdict,
        stage=Stage.ROLLED,
    )


def _await_undone(report: BottleneckReport, action: Action, effect: Effect, now: datetime) -> Next:
    if effect.standing is Standing.UNDER_WAY:
        begun = report.status.judged_at or report.status.applied_at or report.spec.decided_at
        # What was there before is wanted again, whoever is late with it: nothing else can follow.
        if effect.deadline is None or (now - begun).total_seconds() <= effect.deadline:
            return Next(Step.WAIT)
    return Next(Step.MOVE, Phase.REVERTED, Reason.ACTION_REVERTED, f"undone: {action.summary}")


def _revert(reason: Reason, message: str) -> Next:
    return Next(Step.MOVE, Phase.REVERTING, reason, message)


@dataclass(frozen=True, slots=True)
class DesiredKnobs:
    """The knobs that running pods should carry now."""

    generation: int
    values: dict[str, Setting]


def desired_knobs(reports: Iterable[BottleneckReport]) -> DesiredKnobs | None:
    """The knobs that every pod should carry, those that come later too: the newest generation that
    the reports brought into force. What is on some replicas only, or follows on the rest just now,
    is not for pods that come later until it is kept; and what was undone on some was never for
    all."""
    newest: DesiredKnobs | None = None
    for report in reports:
        phase, stage = report.status.phase, report.status.stage
        if stage is Stage.CANARY or phase is Phase.PLANNED:
            continue
        if stage is not None and phase in ON_TRIAL:
            continue
        found = own_knobs(report)
        if found is not None and (newest is None or found.generation > newest.generation):
            newest = found
    return newest


def own_knobs(report: BottleneckReport) -> DesiredKnobs | None:
    """The knobs that the pods that a report acts on should carry in its phase, if it has any."""
    action, phase = as_issued(report), report.status.phase
    if action is None or action.knobs is None:
        return None
    change = action.knobs
    if phase is Phase.PLANNED and report.spec.approval_required and not _approved(report):
        return None
    if phase in (Phase.REVERTING, Phase.REVERTED):
        return DesiredKnobs(change.generation + 1, dict(change.replaces))
    if phase in (Phase.APPLIED, Phase.VERIFYING, Phase.KEPT, Phase.PLANNED):
        return DesiredKnobs(change.generation, dict(change.desired))
    return None


def desired_sizes(reports: Iterable[BottleneckReport]) -> dict[str, ResourcesChange]:
    """For each container the newest change that was kept: pods that come later get its size too.
    A container with an action under way is left to that. ``reports`` are oldest first."""
    newest: dict[str, ResourcesChange] = {}
    open_ones = set()
    for report in reports:
        action = report.spec.action
        if action is None or action.resources is None:
            continue
        if report.status.phase is Phase.KEPT:
            newest[action.resources.container] = action.resources
        elif report.status.phase.open:
            open_ones.add(action.resources.container)
    return {name: change for name, change in newest.items() if name not in open_ones}


def superseded_by(report: BottleneckReport, reports: Iterable[BottleneckReport]) -> str:
    """The name of the report that carries this one's action further, or nothing. It was recorded
    before anything changed, so a new process finds it, too."""
    for other in reports:
        if other.spec.supersedes == report.metadata.name and not other.spec.approval_required:
            return other.metadata.name
    return ""


def issued_generation(reports: Iterable[BottleneckReport]) -> int:
    """The newest generation that any report has reserved; the next one is higher."""
    newest = 0
    for report in reports:
        if (action := as_issued(report)) is not None and action.knobs is not None:
            # Its undoing takes the next number.
            newest = max(newest, action.knobs.generation + 1)
    return newest


def evidence_window(known: Iterable[BottleneckReport], now: float) -> float:
    """The evaluation window in seconds, cut where the newest change of an action lies: evidence
    from before an action must not be read after it."""
    return min(WINDOW_SECONDS, max(0.0, now - last_change(known)))


def last_change(known: Iterable[BottleneckReport]) -> float:
    """When the newest change of an action took effect, seconds since the Unix epoch; 0 without."""
    changes = [
        moment.timestamp()
        for report in known
        for moment in (
            report.status.applied_at,
            report.status.acknowledged_at,
            report.status.closed_at if report.status.phase is Phase.REVERTED else None,
        )
        if moment is not None
    ]
    return max(changes, default=0.0)


def rolled_by_us(known: Iterable[BottleneckReport], at: float) -> bool:
    """Whether a pod template that changed at ``at`` (seconds since the Unix epoch) was changed by
    an action of the operator: its verdict judges that, and nobody else is to blame."""
    for report in known:
        if report.spec.action is None or report.spec.action.image is None:
            continue
        begun, closed = report.spec.decided_at, report.status.closed_at
        until = at if closed is None else closed.timestamp() + CLOCKS_SECONDS
        if (
            report.status.applied_at is not None
            and begun.timestamp() - CLOCKS_SECONDS <= at <= until
        ):
            return True
    return False
