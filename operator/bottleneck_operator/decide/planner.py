"""From a diagnosis to one action, or to a refusal that says why not. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from ..api import units
from ..api.conditions import Reason
from ..api.policy import Disruption, PolicySpec
from ..api.report import Action, Aim, BottleneckReport, Cause, Phase, VerdictResult
from ..diagnose.catalogue import CATALOGUE, CauseEntry
from ..diagnose.diagnosis import Diagnosis
from ..observe.observation import Observation
from .choice import alternatives, choose, priced
from .decision import Decision, Facts, Plan, Refusal
from .remedies import MEANS, REMEDIES, SAVINGS
from .remedies.batch_size import further

_ENTRIES: dict[str, CauseEntry] = {entry.id: entry for entry in CATALOGUE}

REGRET_SECONDS = 1800.0
"""How long nothing of a kind is taken away after it had to be given back: load comes again."""

_NOT_WANTED = frozenset({Reason.ACTION_NOT_ALLOWED, Reason.KNOB_NOT_SETTABLE})


def decide(
    diagnosis: Diagnosis,
    observation: Observation,
    spec: PolicySpec,
    facts: Facts,
    now: float,
) -> Decision:
    """The one thing to do now. Nothing is ever done without data, while an action is open, while
    paused, or for a cause that was not confirmed. ``now`` in seconds since the Unix epoch."""
    if spec.paused:
        return Refusal(Reason.PAUSED, "the policy is paused; set spec.paused to false to go on")
    if not diagnosis.known:
        return Refusal(Reason.NO_DATA, _missing(diagnosis))
    if not diagnosis.breached:
        return _saving(observation, spec, facts, now)
    onward = _onward(observation, spec, facts)
    if not diagnosis.causes and onward is None:
        return Refusal(
            Reason.CAUSE_UNKNOWN, "an objective is breached, and no known cause is confirmed"
        )
    if not observation.streaming or observation.streaming < observation.expected:
        if not diagnosis.causes:
            return Refusal(Reason.NO_DATA, "a replica is silent, so nothing is done")
        # It stands still: the cause is known, but without telemetry only people may act on it.
        return _for_people(_ENTRIES[diagnosis.causes[0].id], None)
    held = too_soon(spec, facts, now)
    refused: list[tuple[str, str, Refusal]] = []
    plans: list[Action] = []
    for cause in _to_remove(diagnosis.causes):
        entry = _ENTRIES[cause.id]
        for remedy in entry.remedies:
            answer = REMEDIES[remedy](cause, observation, spec, facts)
            if isinstance(answer, Action):
                answer = _too_strong(answer, spec) or _quarantined(answer, facts) or answer
            if isinstance(answer, Action):
                plans.append(priced(answer, observation, facts))
            else:
                refused.append((cause.id, remedy, _with_advice(answer, entry)))
        if not entry.remedies:
            refused.append((cause.id, "", _for_people(entry, cause)))
    if not plans and onward is not None:
        return held or _quarantined(onward, facts) or Plan(priced(onward, observation, facts))
    if not plans:
        return _telling([refusal for _, _, refusal in refused])
    if held is not None:
        return held
    assert diagnosis.symptom is not None
    chosen = choose(plans, diagnosis, observation, spec)
    others = alternatives(chosen, plans, refused, diagnosis.symptom.objective, spec)
    return Plan(chosen, alternatives=tuple(others))


def _saving(observation: Observation, spec: PolicySpec, facts: Facts, now: float) -> Decision:
    """What could be done with less while every objective is met; devices first, since they cost
    most. Nothing is taken from a workload of which a replica is silent."""
    met = Refusal(Reason.OBJECTIVES_MET, "every objective is met")
    if not observation.streaming or observation.streaming < observation.expected:
        return met
    for saving in SAVINGS:
        plan = saving(observation, spec, facts, now)
        if (
            plan is None
            or _too_strong(plan.action, spec)
            or regretted(plan.action.type, facts, now)
        ):
            continue
        return too_soon(spec, facts, now) or _with_cost(plan, observation, facts)
    return met


def _with_cost(plan: Plan, observation: Observation, facts: Facts) -> Plan:
    return replace(plan, action=priced(plan.action, observation, facts))


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


def _onward(observation: Observation, spec: PolicySpec, facts: Facts) -> Action | None:
    """The next step on a way that has just proved right, for where the diagnosis has no better one:
    a cause is confirmed down to a threshold, and what was measured on the way tells more."""
    newest = max(facts.reports, key=lambda report: report.spec.decided_at, default=None)
    if newest is None or newest.status.phase is not Phase.KEPT:
        return None
    verdict = newest.status.verdict
    if verdict is None or verdict.result is not VerdictResult.IMPROVED:
        return None
    return further(newest, observation, spec, facts)


def _to_remove(causes: Sequence[Cause]) -> Iterator[Cause]:
    """The causes that are worth removing: not those that only follow from one that has a remedy,
    allowed by the policy or not: workers do not help behind a CPU limit."""
    remediable = {cause.id for cause in causes if _ENTRIES[cause.id].remedies}
    return (cause for cause in causes if cause.explained_by not in remediable)


def _with_advice(refusal: Refusal, entry: CauseEntry) -> Refusal:
    """What people can do themselves, where the operator was not given the means."""
    if refusal.reason not in _NOT_WANTED:
        return refusal
    return replace(refusal, message=f"{refusal.message}. Or do it yourself: {entry.advice}")


def _too_strong(action: Action, spec: PolicySpec) -> Refusal | None:
    """Whether the policy's ``limits.disruption`` rules an action out."""
    allowed, needed = spec.limits.disruption, MEANS[action.type]
    order = list(Disruption)
    if order.index(needed) <= order.index(allowed):
        return None
    return Refusal(
        Reason.DISRUPTION_NOT_ALLOWED,
        f"{action.summary} needs limits.disruption: {needed}; the policy allows {allowed}",
    )


def _telling(refusals: Sequence[Refusal]) -> Refusal:
    """The refusal that tells most: what stands in the way of something that the policy wants comes
    before what it does not want at all."""
    return next((each for each in refusals if each.reason not in _NOT_WANTED), refusals[0])


def _for_people(entry: CauseEntry, cause: Cause | None) -> Refusal:
    """What people can do about a cause that the operator does nothing about, and what it would
    return, where that was measured."""
    gain = f" Expected: up to {cause.share:.0%} less time." if cause and cause.share >= 0.01 else ""
    return Refusal(Reason.NO_REMEDY, f"{entry.title}. {entry.advice}{gain}".strip())


def _missing(diagnosis: Diagnosis) -> str:
    reasons = [f"{s.name}: {s.reason}" for s in diagnosis.objectives if s.met is None]
    return "no data, so nothing is done: " + "; ".join(reasons)


def _acted(report: BottleneckReport) -> datetime | None:
    """When a report had an effect, or None where it had none."""
    return report.status.applied_at


def _woke(report: BottleneckReport) -> bool:
    """Whether it only brought replicas back for somebody who waited: that is no experiment."""
    return report.spec.action is not None and report.spec.action.aim is Aim.WAKE


def too_soon(spec: PolicySpec, facts: Facts, now: float) -> Refusal | None:
    """Whether an open action, the cooldown or the number of actions an hour holds the next one."""
    moment = datetime.fromtimestamp(now, UTC)
    cooldown = units.seconds(spec.limits.cooldown)
    for report in facts.reports:
        if report.status.phase.open:
            return Refusal(
                Reason.COOLDOWN, f"{report.metadata.name} is still open; one action at a time"
            )
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
    ages = [
        (moment - acted).total_seconds()
        for r in facts.reports
        if (acted := _acted(r)) is not None and not _woke(r)
    ]
    recent = [age for age in ages if age < 3600]
    if len(recent) >= spec.limits.actions_per_hour:
        return Refusal(
            Reason.ACTIONS_PER_HOUR,
            f"{len(recent)} actions in the last hour, the policy's maximum",
            retry_after=3600 - max(recent),
        )
    return None


def _quarantined(action: Action, facts: Facts) -> Refusal | None:
    """The same action for the same cause is not tried again after a miss, until the policy was
    changed: what did not help a minute ago will not help now."""
    for report in facts.reports:
        before, verdict = report.spec.action, report.status.verdict
        missed = report.status.phase is Phase.REVERTED or (
            verdict is not None and verdict.result is not VerdictResult.IMPROVED
        )
        if (
            before is not None
            and before.aim is Aim.IMPROVE
            and missed
            and before.cause == action.cause
            and before.type == action.type
            and _desired(before) == _desired(action)
            and report.spec.policy_generation == facts.policy_generation
        ):
            result = verdict.result if verdict else report.status.phase
            return Refusal(
                Reason.QUARANTINED,
                f"{action.summary} was tried by {report.metadata.name} and ended {result}; it is "
                "tried again when the policy changes",
            )
    return None


def _desired(action: Action) -> object:
    """What makes an action the same one again. Of a resize it is the direction: the amount follows
    from a figure that moves a little with every window."""
    if action.knobs is not None:
        return action.knobs.desired
    if action.replicas is not None:
        return action.replicas.desired
    if action.image is not None:
        return action.image.container, action.image.desired
    if action.hpa is not None:
        return action.hpa.desired
    assert action.resources is not None
    change = action.resources
    new, old = change.desired.model_dump(), change.replaces.model_dump()
    return change.container, [name for name in new if new[name] != old[name]]
