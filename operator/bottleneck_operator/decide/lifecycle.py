"""The next step of an open report. Pure: this is the whole state machine of an action.

::

    Recommended ──approved──▶ Planned ──effect──▶ Applied ──acknowledged──▶ Verifying ──▶ Kept
                                 │                   │                          │
                                 ▼                   ▼                          ▼
                             Abandoned           Reverting ◀── Worse, NoEffect, a guardrail
                          (nothing was done)         └──acknowledged──▶ Reverted

Each step is recorded before the next begins, and each effect is idempotent, so any process can
take over at any point.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from ..api.conditions import APPROVED_ANNOTATION, Reason
from ..api.report import BottleneckReport, Phase, Verdict, VerdictResult
from ..observe.observation import Observation
from ..observe.windows import WINDOW_SECONDS

KNOBS_DEADLINE = 60.0
"""Seconds in which every rank has to acknowledge a knobs generation."""

REPLICAS_DEADLINE = 300.0
"""Seconds in which new replicas have to become ready: pulling an image and loading a model."""


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


@dataclass(frozen=True, slots=True)
class Progress:
    """What is known of an action's effect. ``replicas`` and ``ready`` come from the API server."""

    observation: Observation
    replicas: int | None = None
    ready: int | None = None
    annotated: bool = False
    """Whether every running pod carries the generation that the report wants now."""
    in_force_at: float | None = None
    """When every rank ran with the report's knobs, seconds since the Unix epoch. An API server that
    is away must not move it: what was measured since would count as measured before."""
    target_gone: bool = False
    newest_generation: int = 0
    """Newest knobs generation that another report has brought into force."""
    another_open: bool = False
    """Whether another action is under way: a workload gets one experiment at a time."""
    verdict: Verdict | None = None


def next_step(report: BottleneckReport, progress: Progress, now: datetime) -> Next:
    """What to do with an open report at ``now``."""
    phase, action = report.status.phase, report.spec.action
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
    if phase is Phase.PLANNED:
        change = action.replicas
        if change is not None and progress.replicas is None:
            return Next(Step.WAIT)
        if change is not None and progress.replicas not in (change.replaces, change.desired):
            return _superseded(progress, change.desired)
        return Next(Step.APPLY, Phase.APPLIED, Reason.ACTION_APPLIED, action.summary)
    if phase is Phase.APPLIED:
        return _await_acknowledgement(report, progress, now)
    if phase is Phase.VERIFYING:
        return _await_verdict(report, progress)
    if phase is Phase.REVERTING:
        return _await_undone(report, progress, now)
    return Next(Step.WAIT)


def _approved(report: BottleneckReport) -> bool:
    return report.metadata.annotations.get(APPROVED_ANNOTATION) == "true"


def _await_acknowledgement(report: BottleneckReport, progress: Progress, now: datetime) -> Next:
    action = report.spec.action
    assert action is not None
    waited = (now - (report.status.applied_at or report.spec.decided_at)).total_seconds()
    if action.knobs is not None:
        generation = action.knobs.generation
        refused = refusal(progress.observation, generation)
        if refused:
            return _revert(Reason.ACTION_REFUSED, refused)
        if acknowledged(progress.observation, generation):
            return Next(
                Step.MOVE,
                Phase.VERIFYING,
                Reason.ACTION_ACKNOWLEDGED,
                f"generation {generation} is in force in {len(progress.observation.ranks)} ranks",
                at=_moment(progress.in_force_at),
            )
        if not progress.annotated:
            return Next(Step.APPLY)
        # A silent sidecar is no refusal: without telemetry everything is held as it is.
        heard = 0 < progress.observation.streaming == progress.observation.expected
        if waited > KNOBS_DEADLINE and heard:
            return _revert(
                Reason.ACTION_REFUSED,
                f"not every rank acknowledged generation {generation} in {KNOBS_DEADLINE:.0f}s",
            )
        return Next(Step.WAIT)
    desired = action.replicas.desired if action.replicas else None
    if progress.replicas is not None and progress.replicas != desired:
        return _superseded(progress, desired)
    if progress.ready is not None and desired is not None and progress.ready >= desired:
        return Next(
            Step.MOVE,
            Phase.VERIFYING,
            Reason.ACTION_ACKNOWLEDGED,
            f"{progress.ready} replicas are ready",
        )
    if waited > REPLICAS_DEADLINE and progress.ready is not None:
        return _revert(
            Reason.ACTION_REFUSED,
            f"{progress.ready} of {desired} replicas are ready after {REPLICAS_DEADLINE:.0f}s",
        )
    return Next(Step.WAIT)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _await_verdict(report: BottleneckReport, progress: Progress) -> Next:
    action = report.spec.action
    assert action is not None
    if action.replicas is not None and progress.replicas not in (None, action.replicas.desired):
        return _superseded(progress, action.replicas.desired)
    if action.knobs is not None and not progress.annotated:
        return Next(Step.APPLY)
    verdict = progress.verdict
    if verdict is None or verdict.result is VerdictResult.NO_DATA:
        # Never kept and never undone on missing data.
        return Next(Step.WAIT)
    if verdict.result in (VerdictResult.IMPROVED, VerdictResult.INCONCLUSIVE):
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


def _await_undone(report: BottleneckReport, progress: Progress, now: datetime) -> Next:
    action = report.spec.action
    assert action is not None
    if action.knobs is not None:
        generation = action.knobs.generation + 1
        if not progress.annotated:
            return Next(Step.UNDO)
        since = report.status.judged_at or report.status.applied_at or report.spec.decided_at
        late = (now - since).total_seconds() > KNOBS_DEADLINE
        if not acknowledged(progress.observation, generation) and not late:
            return Next(Step.WAIT)
    elif action.replicas is not None and progress.replicas is not None:
        if progress.replicas == action.replicas.desired:
            return Next(Step.UNDO)
        if progress.replicas != action.replicas.replaces:
            return _superseded(progress, action.replicas.replaces)
    elif progress.replicas is None:
        return Next(Step.WAIT)
    return Next(Step.MOVE, Phase.REVERTED, Reason.ACTION_REVERTED, f"undone: {action.summary}")


def _revert(reason: Reason, message: str) -> Next:
    return Next(Step.MOVE, Phase.REVERTING, reason, message)


def _superseded(progress: Progress, wanted: int | None) -> Next:
    return Next(
        Step.MOVE,
        Phase.ABANDONED,
        Reason.ACTION_SUPERSEDED,
        f"somebody else set {progress.replicas} replicas where {wanted} were wanted; left alone",
    )


def acknowledged(observation: Observation, generation: int) -> bool:
    """Whether every rank of every expected pod runs with that generation or a newer one."""
    ranks = observation.ranks
    return (
        bool(ranks)
        and observation.streaming == observation.expected
        and all(
            rank.fresh
            and rank.generation is not None
            and rank.generation >= generation
            and rank.result in ("Applied", "Unchanged")
            for rank in ranks
        )
    )


def refusal(observation: Observation, generation: int) -> str:
    """The message of a rank that refused that generation, or nothing."""
    for rank in observation.ranks:
        if rank.result == "Refused" and rank.generation == generation:
            return f"rank {rank.rank} of {rank.pod} refused: {rank.message}"
    return ""


@dataclass(frozen=True, slots=True)
class DesiredKnobs:
    """The knobs that running pods should carry now."""

    generation: int
    values: dict[str, int]


def desired_knobs(reports: Iterable[BottleneckReport]) -> DesiredKnobs | None:
    """What follows from the reports: the newest generation that had or shall have an effect."""
    newest: DesiredKnobs | None = None
    for report in reports:
        action = report.spec.action
        if action is None or action.knobs is None:
            continue
        phase, change = report.status.phase, action.knobs
        if phase is Phase.PLANNED and report.spec.approval_required and not _approved(report):
            continue
        if phase in (Phase.REVERTING, Phase.REVERTED):
            found = DesiredKnobs(change.generation + 1, dict(change.replaces))
        elif phase in (Phase.APPLIED, Phase.VERIFYING, Phase.KEPT, Phase.PLANNED):
            found = DesiredKnobs(change.generation, dict(change.desired))
        else:
            continue
        if newest is None or found.generation > newest.generation:
            newest = found
    return newest


def issued_generation(reports: Iterable[BottleneckReport]) -> int:
    """The newest generation that any report has reserved; the next one is higher."""
    newest = 0
    for report in reports:
        if report.spec.action is not None and report.spec.action.knobs is not None:
            # Its undoing takes the next number.
            newest = max(newest, report.spec.action.knobs.generation + 1)
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
