"""From a diagnosis to one action, or to a refusal that says why not. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..api.conditions import Reason
from ..api.policy import Mode, PolicySpec
from ..api.report import Action, Cause
from ..diagnose.catalogue import CATALOGUE, CauseEntry
from ..diagnose.diagnosis import Diagnosis
from ..observe.observation import Observation
from .choice import alternatives, choose, priced
from .decision import Decision, Facts, Plan, Refusal
from .exploration import explore
from .guards import (
    over_budget,
    quarantined,
    regretted,
    saved_enough,
    too_early,
    too_soon,
    too_strong,
    under_way,
)
from .holds import undecided
from .lifecycle import ON_TRIAL
from .remedies import REMEDIES, SAVINGS
from .remedies.owners import room_for, through_hpa
from .remedies.replicas import demanded, more

_ENTRIES: dict[str, CauseEntry] = {entry.id: entry for entry in CATALOGUE}

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
        return _ahead(observation, spec, facts, now) or _saving(observation, spec, facts, now)
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
                answer = (
                    too_strong(answer, spec)
                    or undecided(answer, facts)
                    or quarantined(answer, facts, now)
                    or answer
                )
            if isinstance(answer, Action):
                plans.append(priced(answer, observation, facts))
            else:
                refused.append((cause.id, remedy, _with_advice(answer, entry)))
        if not entry.remedies:
            refused.append((cause.id, "", _for_people(entry, cause)))
    if not plans:
        if not diagnosis.causes and (ahead := _ahead(observation, spec, facts, now)) is not None:
            return ahead
        trial = explore(diagnosis, observation, spec, facts)
        if trial is not None:
            trial = priced(trial, observation, facts)
            return held or too_early(facts, now) or Plan(trial)
        if not refused:
            return Refusal(Reason.CAUSE_UNKNOWN, UNKNOWN)
        return _telling([refusal for _, _, refusal in refused])
    assert diagnosis.symptom is not None
    chosen = choose(plans, diagnosis, observation, spec)
    if demanded(chosen, observation, spec, facts):
        # Following the load is no experiment: no pause is due before it.
        held = under_way(facts) or over_budget(spec, facts, now)
    if held is not None:
        return held
    others = alternatives(chosen, plans, refused, diagnosis.symptom.objective, spec)
    return Plan(chosen, alternatives=tuple(others))


def follow(
    diagnosis: Diagnosis, observation: Observation, spec: PolicySpec, facts: Facts, now: float
) -> Plan | None:
    """Further growth while an earlier change of replicas is not closed yet, which it supersedes; a
    burst does not wait for verdicts. None where the load demands none; nothing else may begin."""
    open_ones = [report for report in facts.reports if report.status.phase.open]
    if len(open_ones) != 1 or spec.paused or spec.mode is not Mode.AUTO or not diagnosis.known:
        return None
    report = open_ones[0]
    change = report.spec.action.replicas if report.spec.action else None
    if change is None or report.spec.trade is not None or report.status.phase not in ON_TRIAL:
        return None
    plan = _grown(observation, spec, facts, diagnosis.breached)
    if plan is None or plan.action.replicas is None or facts.replicas != change.desired:
        return None
    if too_strong(plan.action, spec) or quarantined(plan.action, facts, now):
        return None
    if over_budget(spec, facts, now):
        return None
    return replace(plan, supersedes=report.metadata.name)


def _ahead(observation: Observation, spec: PolicySpec, facts: Facts, now: float) -> Decision | None:
    """Growth that the load demands by itself: before an objective is missed, or where it was missed
    so suddenly that no cause is confirmed yet."""
    if not observation.streaming or observation.streaming < observation.expected:
        return None
    plan = _grown(observation, spec, facts)
    if plan is None or too_strong(plan.action, spec) or quarantined(plan.action, facts, now):
        return None
    return under_way(facts) or over_budget(spec, facts, now) or plan


def _grown(
    observation: Observation, spec: PolicySpec, facts: Facts, breached: bool = False
) -> Plan | None:
    """What the load demands, within what the owners of the replicas leave to the operator."""
    room = room_for(spec, facts)
    if isinstance(room, Refusal):
        return None
    plan = more(observation, *room, breached)
    action = through_hpa(plan.action, facts) if plan is not None else None
    if plan is None or not isinstance(action, Action):
        return None
    return replace(plan, action=priced(action, observation, facts))


def _saving(observation: Observation, spec: PolicySpec, facts: Facts, now: float) -> Decision:
    """What could be done with less while every objective is met; devices first, since they cost
    most. Nothing is taken from a workload of which a replica is silent."""
    met = Refusal(Reason.OBJECTIVES_MET, "every objective is met")
    if not observation.streaming or observation.streaming < observation.expected:
        return met
    for saving in SAVINGS:
        plan = saving(observation, spec, facts, now)
        if plan is None or too_strong(plan.action, spec) or regretted(plan.action.type, facts, now):
            continue
        if saved_enough(spec, facts, now):
            return met
        return too_soon(spec, facts, now) or replace(
            plan, action=priced(plan.action, observation, facts)
        )
    return met


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
