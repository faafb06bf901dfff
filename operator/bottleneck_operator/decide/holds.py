"""What waits for people, and what waits for the undoing of the last action to prove itself. Pure.

Both are told from the reports alone, and end by themselves once something has changed.
"""

from __future__ import annotations

from ..api.conditions import Reason
from ..api.consequences import RevertResult
from ..api.report import Action, Aim, BottleneckReport, Phase, VerdictResult
from .circumstances import CHANGES, changed
from .decision import Facts, Refusal

TRIAL = "trial: "
"""Begin of the summary of a trial."""

REVERT_MOST = 600.0
"""How long an undoing is looked at in all: replicas that are back may take minutes to start."""


def unsettled(facts: Facts, now: float) -> Refusal | None:
    """Whether an undone action keeps everything else waiting: until it is known whether the metric
    came back, and where it did not, until something changed or people let the operator go on."""
    for report in reversed(facts.reports):
        if unverified(report, now):
            message = f"{report.metadata.name} was undone; whether all is as before is being seen"
            return Refusal(Reason.COOLDOWN, message)
        revert = report.status.revert
        if revert is None or revert.result is not RevertResult.NOT_RESTORED:
            continue
        if not released(report, facts):
            return Refusal(Reason.NOT_RESTORED, _not_restored(report, revert.reason))
    return None


def unverified(report: BottleneckReport, now: float) -> bool:
    """Whether an undone action has no verdict on its undoing yet, and shall get one."""
    status, action = report.status, report.spec.action
    return (
        status.phase is Phase.REVERTED
        and status.revert is None
        and status.applied_at is not None
        and action is not None
        and action.judged
        and status.closed_at is not None
        and now - status.closed_at.timestamp() <= REVERT_MOST
    )


def undecided(action: Action, facts: Facts) -> Refusal | None:
    """Whether an action against the same cause is held because its verdict stayed unclear: another
    one on top of it could not be told apart from it. Replicas have a rule of their own, since the
    load asks for them."""
    if action.grows or action.aim is not Aim.IMPROVE:
        return None
    for report in reversed(facts.reports):
        if is_undecided(report, facts) and _cause(report) == action.cause:
            name = report.metadata.name
            message = (
                f"{name} against the same cause is held and undecided; take it back with kubectl"
                f" bottleneck rollback {name}, or {_go_on(report)}"
            )
            return Refusal(Reason.UNDECIDED, message)
    return None


def is_undecided(report: BottleneckReport, facts: Facts) -> bool:
    """Whether an action is held with an unclear verdict, and people have not said that they know.
    A trial claims no cause, so nothing waits for it."""
    verdict, action = report.status.verdict, report.spec.action
    return (
        report.status.phase is Phase.KEPT
        and verdict is not None
        and verdict.result is VerdictResult.INCONCLUSIVE
        and action is not None
        and not action.grows
        and not is_trial(action)
        and not released(report, facts)
    )


def is_trial(action: Action) -> bool:
    """Whether no confirmed cause called for an action."""
    return action.summary.startswith(TRIAL)


def released(report: BottleneckReport, facts: Facts) -> str:
    """Why what a report has left does not hold any more, in words; empty while it does."""
    closed, resumed = report.status.closed_at, facts.resumed_at
    if resumed is not None and closed is not None and closed.timestamp() <= resumed:
        return "people said so"
    return changed_since(report, facts)


def changed_since(report: BottleneckReport, facts: Facts) -> str:
    """What has changed since an action was tried, in words; empty where nothing has."""
    if report.spec.policy_generation != facts.policy_generation:
        return "the policy changed"
    return changed(report.spec.circumstances, facts.circumstances, report.spec.action)


def _cause(report: BottleneckReport) -> str:
    return report.spec.action.cause if report.spec.action is not None else ""


def _not_restored(report: BottleneckReport, why: str) -> str:
    return (
        f"{report.metadata.name} was undone, but not all is as before: {why}. Nothing else is tried"
        f" until {CHANGES} changes; or {_go_on(report)}"
    )


def _go_on(report: BottleneckReport) -> str:
    return (
        f"let the operator go on: kubectl bottleneck resume {report.spec.policy}"
        f" -n {report.metadata.namespace}"
    )
