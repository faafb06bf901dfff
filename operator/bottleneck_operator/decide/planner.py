"""From a diagnosis to one action, or to a refusal that says why not. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from ..api import units
from ..api.conditions import Reason
from ..api.policy import Disruption, PolicySpec
from ..api.report import Action, BottleneckReport, Cause, Phase, VerdictResult
from ..diagnose.catalogue import CATALOGUE, CauseEntry
from ..diagnose.diagnosis import Diagnosis
from ..observe.observation import Observation, WorkloadType
from ..observe.windows import WINDOW_SECONDS
from .decision import Decision, Facts, Plan, Refusal
from .exploration import explore
from .points import left_for_better, same_point
from .remedies import DEVICES, MEANS, REMEDIES

_ENTRIES: dict[str, CauseEntry] = {entry.id: entry for entry in CATALOGUE}

PATIENCE_SECONDS = 2 * WINDOW_SECONDS
"""How long an objective has to be breached before anything is tried without a confirmed cause."""

UNKNOWN = "an objective is breached, and no known cause is confirmed"

_NOT_WANTED = frozenset({Reason.ACTION_NOT_ALLOWED, Reason.KNOB_NOT_SETTABLE})


def decide(
    diagnosis: Diagnosis,
    observation: Observation,
    spec: PolicySpec,
    facts: Facts,
    now: float,
) -> Decision:
    """The one thing to do now. Nothing is ever done without data, while an action is open, or while
    paused; where no confirmed cause calls for anything, a trial (``exploration.py``). ``now`` in
    seconds since the Unix epoch."""
    if spec.paused:
        return Refusal(Reason.PAUSED, "the policy is paused; set spec.paused to false to go on")
    if not diagnosis.known:
        return Refusal(Reason.NO_DATA, _missing(diagnosis))
    if not diagnosis.breached:
        return Refusal(Reason.OBJECTIVES_MET, "every objective is met")
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
    if not plans:
        trial = explore(diagnosis, observation, spec, facts)
        if trial is not None:
            return held or _too_early(facts, now) or Plan(trial)
        return _telling(refusals) if refusals else Refusal(Reason.CAUSE_UNKNOWN, UNKNOWN)
    return held or Plan(_cheapest(plans, diagnosis, observation, spec))


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


def _too_soon(spec: PolicySpec, facts: Facts, now: float) -> Refusal | None:
    moment = datetime.fromtimestamp(now, UTC)
    cooldown = units.seconds(spec.limits.cooldown)
    for report in facts.reports:
        if report.status.phase.open:
            return Refusal(
                Reason.COOLDOWN, f"{report.metadata.name} is still open; one action at a time"
            )
        closed = report.status.closed_at
        if closed is not None and _acted(report) is not None:
            waited = (moment - closed).total_seconds()
            if waited < cooldown:
                return Refusal(
                    Reason.COOLDOWN,
                    f"the last action ended {waited:.0f}s ago; the policy's cooldown is "
                    f"{spec.limits.cooldown}",
                    retry_after=cooldown - waited,
                )
    ages = [
        (moment - acted).total_seconds() for r in facts.reports if (acted := _acted(r)) is not None
    ]
    recent = [age for age in ages if age < 3600]
    if len(recent) >= spec.limits.actions_per_hour:
        return Refusal(
            Reason.ACTIONS_PER_HOUR,
            f"{len(recent)} actions in the last hour, the policy's maximum",
            retry_after=3600 - max(recent),
        )
    return None


def _too_early(facts: Facts, now: float) -> Refusal | None:
    """A burst may be over soon, or its cause be confirmed: a trial would only be in the way. What
    is still breached right after an action is no burst."""
    if facts.breached_since is None or now - facts.breached_since >= PATIENCE_SECONDS:
        return None
    closed = [each.status.closed_at for each in facts.reports if _acted(each) is not None]
    if any(each is not None and now - each.timestamp() < PATIENCE_SECONDS for each in closed):
        return None
    left = PATIENCE_SECONDS - (now - facts.breached_since)
    message = f"a trial waits until the objective was breached for {PATIENCE_SECONDS:.0f}s"
    return Refusal(Reason.COOLDOWN, message, retry_after=left)


def _quarantined(action: Action, facts: Facts, now: float) -> Refusal | None:
    """The same action for the same cause is not tried again after a miss, until the policy was
    changed: what did not help a minute ago will not help now. Nor is one that a kept action would
    have to be undone for."""
    if better := left_for_better(action, facts, now):
        message = f"{action.summary} would undo {better}, which helped"
        return Refusal(Reason.QUARANTINED, message)
    for report in facts.reports:
        before, verdict = report.spec.action, report.status.verdict
        missed = report.status.phase is Phase.REVERTED or (
            verdict is not None and verdict.result is not VerdictResult.IMPROVED
        )
        if (
            before is not None
            and missed
            and before.cause == action.cause
            and before.type == action.type
            and _same(before, action, facts)
            and report.spec.policy_generation == facts.policy_generation
        ):
            result = verdict.result if verdict else report.status.phase
            return Refusal(
                Reason.QUARANTINED,
                f"{action.summary} was tried by {report.metadata.name} and ended {result}; it is "
                "tried again when the policy changes",
            )
    return None


def _same(before: Action, action: Action, facts: Facts) -> bool:
    """Whether an action is the same one again."""
    if before.knobs is not None and action.knobs is not None:
        return same_point(before.knobs, action.knobs, facts)
    return before.knobs is action.knobs and _desired(before) == _desired(action)


def _desired(action: Action) -> object:
    """Of a resize it is the direction: the amount follows from a figure that moves a little with
    every window."""
    if action.replicas is not None:
        return action.replicas.desired
    assert action.resources is not None
    change = action.resources
    new, old = change.desired.model_dump(), change.replaces.model_dump()
    return change.container, [name for name in new if new[name] != old[name]]
