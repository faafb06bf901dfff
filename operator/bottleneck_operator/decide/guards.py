"""What holds an action back: bounds of the policy's limits, and what was tried before. Pure.

Each answers with a refusal that says why, or with None. ``now`` in seconds since the Unix epoch.
"""

from __future__ import annotations

from datetime import UTC, datetime

from ..api import units
from ..api.conditions import Reason
from ..api.policy import Disruption, PolicySpec
from ..api.report import Action, Aim, BottleneckReport, Phase, VerdictResult
from ..observe.windows import WINDOW_SECONDS
from .circumstances import CHANGES, changed
from .decision import Facts, Refusal
from .holds import changed_since, unsettled
from .ledger import change_of, missed
from .points import left_for_better, same_point
from .remedies import MEANS

REGRET_SECONDS = 1800.0
"""How long nothing of a kind is taken away after it had to be given back: load comes again."""

HOUR = 3600.0

PATIENCE_SECONDS = 2 * WINDOW_SECONDS
"""How long an objective has to be breached before anything is tried without a confirmed cause."""


def too_strong(action: Action, spec: PolicySpec) -> Refusal | None:
    """Whether the policy's ``limits.disruption`` rules an action out."""
    allowed, needed = spec.limits.disruption, MEANS[action.type]
    order = list(Disruption)
    if order.index(needed) <= order.index(allowed):
        return None
    return Refusal(
        Reason.DISRUPTION_NOT_ALLOWED,
        f"{action.summary} needs limits.disruption: {needed}; the policy allows {allowed}",
    )


# -- time ------------------------------------------------------------------------------------------


def too_soon(spec: PolicySpec, facts: Facts, now: float) -> Refusal | None:
    """Whether an open action, an undone one, the cooldown or the number of actions an hour holds
    the next one."""
    return (
        under_way(facts)
        or unsettled(facts, now)
        or _resting(spec, facts, now)
        or over_budget(spec, facts, now)
    )


def under_way(facts: Facts) -> Refusal | None:
    """Whether an action is open: a workload gets one experiment at a time."""
    for report in facts.reports:
        if report.status.phase.open:
            return Refusal(
                Reason.COOLDOWN, f"{report.metadata.name} is still open; one action at a time"
            )
    return None


def _resting(spec: PolicySpec, facts: Facts, now: float) -> Refusal | None:
    moment = datetime.fromtimestamp(now, UTC)
    cooldown = units.seconds(spec.limits.cooldown)
    for report in facts.reports:
        closed = report.status.closed_at
        if closed is not None and _acted(report) is not None and not _woke(report):
            waited = (moment - closed).total_seconds()
            if waited < cooldown:
                return Refusal(
                    Reason.COOLDOWN,
                    f"the last action ended {waited:.0f}s ago; the policy's cooldown is "
                    f"{spec.limits.cooldown}",
                    retry_after=cooldown - waited,
                )
    return None


def over_budget(spec: PolicySpec, facts: Facts, now: float) -> Refusal | None:
    """Whether the hour's actions are used up. The steps of one burst, each of which carries the one
    before it further, count once."""
    moment = datetime.fromtimestamp(now, UTC)
    carried = {report.spec.supersedes for report in facts.reports}
    ages = [
        (moment - acted).total_seconds()
        for r in facts.reports
        if (acted := _acted(r)) is not None and not _woke(r) and r.metadata.name not in carried
    ]
    recent = [age for age in ages if age < HOUR]
    if len(recent) >= spec.limits.actions_per_hour:
        return Refusal(
            Reason.ACTIONS_PER_HOUR,
            f"{len(recent)} actions in the last hour, the policy's maximum",
            retry_after=HOUR - max(recent),
        )
    return None


def too_early(facts: Facts, now: float) -> Refusal | None:
    """Whether a trial waits. A burst may be over soon, or its cause be confirmed: a trial would
    only be in the way. What is still breached right after an action is no burst."""
    if facts.breached_since is None or now - facts.breached_since >= PATIENCE_SECONDS:
        return None
    closed = [each.status.closed_at for each in facts.reports if _acted(each) is not None]
    if any(each is not None and now - each.timestamp() < PATIENCE_SECONDS for each in closed):
        return None
    left = PATIENCE_SECONDS - (now - facts.breached_since)
    message = f"a trial waits until the objective was breached for {PATIENCE_SECONDS:.0f}s"
    return Refusal(Reason.COOLDOWN, message, retry_after=left)


def _acted(report: BottleneckReport) -> datetime | None:
    """When a report had an effect, or None where it had none."""
    return report.status.applied_at


def _woke(report: BottleneckReport) -> bool:
    """Whether it only brought replicas back for somebody who waited: that is no experiment."""
    return report.spec.action is not None and report.spec.action.aim is Aim.WAKE


# -- what was tried before -------------------------------------------------------------------------


def regretted(type: str, facts: Facts, now: float) -> bool:
    """Whether the same (a type of action) was taken away lately and had to be given back."""
    return any(
        report.spec.action is not None
        and report.spec.action.aim is Aim.SAVE
        and report.spec.action.type == type
        and report.status.phase is Phase.REVERTED
        and report.status.closed_at is not None
        and now - report.status.closed_at.timestamp() < REGRET_SECONDS
        for report in facts.reports
    )


def saved_enough(spec: PolicySpec, facts: Facts, now: float) -> bool:
    """Whether so much was taken away in the last hour that the other half of the hour's actions has
    to be kept for giving it back."""
    saved = sum(
        report.spec.action is not None
        and report.spec.action.aim is Aim.SAVE
        and (acted := _acted(report)) is not None
        and now - acted.timestamp() < HOUR
        for report in facts.reports
    )
    return saved >= max(1, spec.limits.actions_per_hour // 2)


def quarantined(action: Action, facts: Facts, now: float) -> Refusal | None:
    """The same action for the same cause is not tried again after a miss, until something changed
    (``circumstances.py``): what did not help a minute ago will not help now. Of replicas that holds
    for so many or fewer, and for half an hour: more of them are for another load, and so are those
    of later. Nor is one tried that a kept action would have to be undone for."""
    if better := left_for_better(action, facts, now):
        message = f"{action.summary} would undo {better}, which helped"
        return Refusal(Reason.QUARANTINED, message)
    for report in facts.reports:
        before, verdict = report.spec.action, report.status.verdict
        if before is None or not missed(report) or before.type != action.type:
            continue
        again = _vain(report, action, now) if before.grows else _same(before, action, facts)
        if (
            again
            and (before.cause == action.cause or before.grows)
            and not changed_since(report, facts)
        ):
            result = verdict.result if verdict else report.status.phase
            return _quarantine(action, report.metadata.name, str(result))
    for miss in facts.ledger.misses:  # of reports that may be gone
        if (
            miss.change == change_of(action)
            and miss.policy_generation == facts.policy_generation
            and not changed(miss.circumstances, facts.circumstances, action)
        ):
            return _quarantine(action, miss.report, miss.result)
    return None


def _quarantine(action: Action, report: str, result: str) -> Refusal:
    return Refusal(
        Reason.QUARANTINED,
        f"{action.summary} was tried by {report} and ended {result}; it is tried again when"
        f" {CHANGES} changes",
    )


def _vain(report: BottleneckReport, action: Action, now: float) -> bool:
    """Whether replicas were added in vain lately, and ``action`` adds no more than they were."""
    tried, closed = report.spec.action, report.status.closed_at
    if tried is None or tried.replicas is None or action.replicas is None or closed is None:
        return False
    kept_well = (
        report.status.phase is Phase.KEPT
        and report.status.verdict is not None
        and report.status.verdict.result is VerdictResult.NO_EFFECT
    )
    lately = now - closed.timestamp() < REGRET_SECONDS
    return not kept_well and lately and action.replicas.desired <= tried.replicas.desired


def _same(before: Action, action: Action, facts: Facts) -> bool:
    """Whether an action is the same one again."""
    if before.knobs is not None and action.knobs is not None:
        return same_point(before.knobs, action.knobs, facts)
    return before.knobs is action.knobs and _change(before) == _change(action)


def _change(action: Action) -> str:
    return change_of(action.model_copy(update={"cause": ""}))
