"""From a diagnosis to one action, or to a refusal that says why not. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from ..api import units
from ..api.conditions import Reason
from ..api.policy import Disruption, Mode, PolicySpec
from ..api.report import Action, Aim, BottleneckReport, Cause, Phase, VerdictResult
from ..diagnose.catalogue import CATALOGUE, CauseEntry
from ..diagnose.diagnosis import Diagnosis
from ..observe.observation import Observation, WorkloadType
from .decision import Decision, Facts, Plan, Refusal
from .lifecycle import SUPERSEDABLE
from .remedies import DEVICES, MEANS, REMEDIES, SAVINGS
from .remedies.batch_size import further
from .remedies.replicas import demanded, more

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
        return _ahead(observation, spec, facts, now) or _saving(observation, spec, facts, now)
    onward = _onward(observation, spec, facts)
    if not diagnosis.causes and onward is None:
        return _ahead(observation, spec, facts, now) or Refusal(
            Reason.CAUSE_UNKNOWN, "an objective is breached, and no known cause is confirmed"
        )
    if not observation.streaming or observation.streaming < observation.expected:
        if not diagnosis.causes:
            return Refusal(Reason.NO_DATA, "a replica is silent, so nothing is done")
        # It stands still: the cause is known, but without telemetry only people may act on it.
        return _for_people(_ENTRIES[diagnosis.causes[0].id], None)
    held = _too_soon(spec, facts, now)
    refusals: list[Refusal] = []
    plans: list[Action] = []
    for cause in _to_remove(diagnosis.causes):
        entry = _ENTRIES[cause.id]
        for remedy in entry.remedies:
            answer = REMEDIES[remedy](cause, observation, spec, facts)
            if isinstance(answer, Action):
                answer = _too_strong(answer, spec) or _quarantined(answer, facts, now) or answer
            if isinstance(answer, Action):
                plans.append(answer)
            else:
                refusals.append(_with_advice(answer, entry))
        if not entry.remedies:
            refusals.append(_for_people(entry, cause))
    if not plans and onward is not None:
        return held or _quarantined(onward, facts, now) or Plan(onward)
    if not plans:
        return _telling(refusals)
    chosen = _cheapest(plans, diagnosis, observation, spec)
    if demanded(chosen, observation, spec, facts):
        # Following the load is no experiment: no pause is due before it.
        held = _under_way(facts) or _over_budget(spec, facts, now)
    return held or Plan(chosen)


def follow(
    diagnosis: Diagnosis, observation: Observation, spec: PolicySpec, facts: Facts, now: float
) -> Plan | None:
    """Further growth while an earlier change of replicas is not closed yet, which it supersedes; a
    burst does not wait for verdicts. None where the load demands none; nothing else may begin."""
    under_way = [report for report in facts.reports if report.status.phase.open]
    if len(under_way) != 1 or spec.paused or spec.mode is not Mode.AUTO or not diagnosis.known:
        return None
    report = under_way[0]
    change = report.spec.action.replicas if report.spec.action else None
    if change is None or report.status.phase not in SUPERSEDABLE:
        return None
    plan = more(observation, spec, facts, diagnosis.breached)
    if plan is None or facts.replicas != change.desired:
        return None
    if _too_strong(plan.action, spec) or _quarantined(plan.action, facts, now):
        return None
    if _over_budget(spec, facts, now):
        return None
    return replace(plan, supersedes=report.metadata.name)


def _ahead(observation: Observation, spec: PolicySpec, facts: Facts, now: float) -> Decision | None:
    """Growth that the load demands by itself: before an objective is missed, or where it was missed
    so suddenly that no cause is confirmed yet."""
    if not observation.streaming or observation.streaming < observation.expected:
        return None
    plan = more(observation, spec, facts)
    if plan is None or _too_strong(plan.action, spec):
        return None
    if _quarantined(plan.action, facts, now):
        return None
    return _under_way(facts) or _over_budget(spec, facts, now) or plan


def _saving(observation: Observation, spec: PolicySpec, facts: Facts, now: float) -> Decision:
    """What could be done with less while every objective is met; devices first, since they cost
    most. Nothing is taken from a workload of which a replica is silent."""
    met = Refusal(Reason.OBJECTIVES_MET, "every objective is met")
    if not observation.streaming or observation.streaming < observation.expected:
        return met
    for saving in SAVINGS:
        plan = saving(observation, spec, facts, now)
        if plan is None or _too_strong(plan.action, spec) or _regretted(plan.action, facts, now):
            continue
        if _saved(facts, now) >= max(1, spec.limits.actions_per_hour // 2):
            return met
        return _too_soon(spec, facts, now) or plan
    return met


def _saved(facts: Facts, now: float) -> int:
    """How often something was taken away in the last hour. Half of the hour's actions are kept for
    giving it back."""
    return sum(
        report.spec.action is not None
        and report.spec.action.aim is Aim.SAVE
        and (acted := _acted(report)) is not None
        and now - acted.timestamp() < 3600
        for report in facts.reports
    )


def _regretted(action: Action, facts: Facts, now: float) -> bool:
    """Whether the same was taken away lately and had to be given back."""
    return any(
        report.spec.action is not None
        and report.spec.action.aim is Aim.SAVE
        and report.spec.action.type == action.type
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


def _cheapest(
    plans: Sequence[Action], diagnosis: Diagnosis, observation: Observation, spec: PolicySpec
) -> Action:
    """The cheapest action that is predicted to meet the breached objective: settings before
    resources, and devices last. Where none is, the one against the first cause that is predicted to
    return most: the engine ranks causes by what removing them returns."""
    assert diagnosis.symptom is not None
    objective = diagnosis.symptom.objective

    def price(action: Action) -> tuple[bool, int]:
        return action.type in DEVICES, list(Disruption).index(MEANS[action.type])

    if enough := [plan for plan in plans if _meets(plan, objective, spec)]:
        return min(enough, key=price)
    latency = observation.type is WorkloadType.INFERENCE
    first = [plan for plan in plans if plan.cause == plans[0].cause]
    return max(first, key=lambda plan: _gain(plan, lower_is_better=latency))


def _meets(action: Action, objective: str, spec: PolicySpec) -> bool:
    if action.prediction is None:
        return False
    after, objectives = action.prediction.after, spec.objectives
    if objective == "Latency" and objectives.latency:
        return after <= units.seconds(objectives.latency.target)
    if objective == "Goodput" and objectives.goodput:
        return after >= units.number(objectives.goodput.min)
    return False


def _gain(action: Action, lower_is_better: bool) -> float:
    """How many times better the metric is predicted to be."""
    if action.prediction is None:
        return 1.0
    before, after = action.prediction.before, action.prediction.after
    better, worse = (before, after) if lower_is_better else (after, before)
    return better / worse if worse > 0 else math.inf


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


def _too_soon(spec: PolicySpec, facts: Facts, now: float) -> Refusal | None:
    return _under_way(facts) or _resting(spec, facts, now) or _over_budget(spec, facts, now)


def _under_way(facts: Facts) -> Refusal | None:
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


def _over_budget(spec: PolicySpec, facts: Facts, now: float) -> Refusal | None:
    """Whether the hour's actions are used up. The steps of one burst, each of which carries the one
    before it further, count once."""
    moment = datetime.fromtimestamp(now, UTC)
    carried = {report.spec.supersedes for report in facts.reports}
    ages = [
        (moment - acted).total_seconds()
        for r in facts.reports
        if (acted := _acted(r)) is not None and not _woke(r) and r.metadata.name not in carried
    ]
    recent = [age for age in ages if age < 3600]
    if len(recent) >= spec.limits.actions_per_hour:
        return Refusal(
            Reason.ACTIONS_PER_HOUR,
            f"{len(recent)} actions in the last hour, the policy's maximum",
            retry_after=3600 - max(recent),
        )
    return None


def _quarantined(action: Action, facts: Facts, now: float) -> Refusal | None:
    """The same action for the same cause is not tried again after a miss, until the policy was
    changed: what did not help a minute ago will not help now. Of replicas that holds for so many or
    fewer, and for half an hour: more of them are for another load, and so are those of later."""
    for report in facts.reports:
        before, verdict = report.spec.action, report.status.verdict
        if before is not None and before.grows and not _vain(report, action, now):
            continue
        missed = report.status.phase is Phase.REVERTED or (
            verdict is not None and verdict.result is not VerdictResult.IMPROVED
        )
        if (
            before is not None
            and before.aim is Aim.IMPROVE
            and missed
            and (before.cause == action.cause or before.grows)
            and before.type == action.type
            and (before.grows or _desired(before) == _desired(action))
            and report.spec.policy_generation == facts.policy_generation
        ):
            result = verdict.result if verdict else report.status.phase
            return Refusal(
                Reason.QUARANTINED,
                f"{action.summary} was tried by {report.metadata.name} and ended {result}; it is "
                "tried again when the policy changes",
            )
    return None


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


def _desired(action: Action) -> object:
    """What makes an action the same one again. Of a resize it is the direction: the amount follows
    from a figure that moves a little with every window."""
    if action.knobs is not None:
        return action.knobs.desired
    if action.replicas is not None:
        return action.replicas.desired
    assert action.resources is not None
    change = action.resources
    new, old = change.desired.model_dump(), change.replaces.model_dump()
    return change.container, [name for name in new if new[name] != old[name]]
