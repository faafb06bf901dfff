"""Trials: what may be worth a try where no confirmed cause calls for it. Pure.

A cause is confirmed down to a threshold, and the model of its remedy is a guess until something was
measured. So while an objective is breached and nothing better is known, one of the knobs that the
policy allows is changed, and verified like any other action: what does not help is undone. Each
combination of settings is tried once for a generation of the policy, so trials come to an end.

In this order: further on a way that helped; what the catalogue suspects most; the other ways.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..api.meta import Setting
from ..api.policy import Disruption, PolicySpec
from ..api.report import Action, BottleneckReport, Cause, Phase, VerdictResult
from ..diagnose.catalogue import CATALOGUE, CauseEntry, Predicate
from ..diagnose.derived import with_derived
from ..diagnose.diagnosis import Diagnosis
from ..diagnose.predicates import holds
from ..observe.observation import Observation, WorkloadType
from .combined import together
from .decision import Facts
from .holds import TRIAL
from .points import changed, effective, here, knobs_of, visited
from .remedies import MEANS, REMEDIES
from .remedies.common import WORTH
from .remedies.data_loader import WORKERS
from .steps import SEEN, beside, directions, other_ways, returned, same_way

SUSPECTED = 0.20
"""Most that removing a cause is taken to return, as a share, which is not confirmed: a smaller step
than for one that is."""

FULL = {"inference.queueShare": 0.80, "inference.occupancy": 0.90}
"""A server that is this full may fail requests only since it turns them away: the bounds
of the cause ``queueing`` (M/M/1)."""

_ENTRIES = {entry.id: entry for entry in CATALOGUE}


def explore(
    diagnosis: Diagnosis, observation: Observation, spec: PolicySpec, facts: Facts
) -> Action | None:
    """The next trial; None where there is none, where what is wrong is not in these knobs, or while
    people have a recommendation to answer."""
    if any(report.status.phase is Phase.RECOMMENDED for report in facts.reports):
        return None
    roots = [cause for cause in diagnosis.causes if _root(cause)]
    if not all(_in_reach(_ENTRIES[it.id]) or _turned_away(it, observation) for it in roots):
        return None
    suspected = _suspected(observation, spec, facts)
    harmful = {
        each
        for report in effective(facts)
        if returned(report) < 1 / SEEN
        for each in changed(knobs_of(report))
    }
    found = [
        *_onward(observation, spec, facts),
        *suspected,
        *together(
            [
                action
                for action in (*suspected, *beside(observation, spec, facts))
                if harmful.isdisjoint(_changes(action))
            ],
            facts,
        ),
        *(
            as_trial(action)
            for action in other_ways(observation, spec, facts)
            if not _backwards(action, facts)
        ),
    ]
    fresh = [action for action in found if not visited(action, facts)]
    # What missed with other settings comes last: it may pay now, but rather something new.
    missed = {
        each for report in effective(facts) if _missed(report) for each in changed(knobs_of(report))
    }
    return min(fresh, key=lambda action: not missed.isdisjoint(_changes(action)), default=None)


def _backwards(action: Action, facts: Facts) -> bool:
    """Whether the other direction of a knob helped already, or was tried from here and did not
    harm: then this one is no better. No loader workers at all are another thing than fewer."""
    assert action.knobs is not None
    if action.knobs.desired.get(WORKERS) == 0:
        return False
    for report in effective(facts):
        if _missed(report) and (not here(knobs_of(report), facts) or returned(report) < 1 / SEEN):
            continue
        ways = directions(knobs_of(report))
        if any(ways.get(name, up) is not up for name, up in directions(action.knobs).items()):
            return True
    return False


def _root(cause: Cause) -> bool:
    return not cause.explained_by


def _in_reach(entry: CauseEntry) -> bool:
    """Whether other settings may help against a confirmed cause: against what limits every healthy
    job, what has settings as a remedy, or a wait for data. Not where memory is short."""
    if entry.class_ == "memory":
        return False
    return entry.needs_breach or entry.class_ == "data-loading" or any(_hot(entry))


def _turned_away(cause: Cause, observation: Observation) -> bool:
    """Whether requests fail where most of the time is spent in a full queue: settings that serve
    more at once may then help against the failures, too."""
    if cause.id != "error-burst":
        return False
    seen = {name: observation.value(name) for name in FULL}
    return all(value is not None and value >= FULL[name] for name, value in seen.items())


def _hot(entry: CauseEntry) -> Iterator[str]:
    return (name for name in entry.remedies if MEANS[name] is Disruption.HOT_ONLY)


def _missed(report: BottleneckReport) -> bool:
    verdict = report.status.verdict
    return verdict is None or verdict.result is not VerdictResult.IMPROVED


def _changes(action: Action) -> set[tuple[str, Setting]]:
    return changed(action.knobs) if action.knobs is not None else set()


def _onward(observation: Observation, spec: PolicySpec, facts: Facts) -> Iterator[Action]:
    """Further on the ways that helped, be it by too little to be kept, the last one first."""
    for report in reversed(effective(facts)):
        kept = report.status.phase is Phase.KEPT and not _missed(report)
        verdict = report.status.verdict
        if kept or (verdict is not None and verdict.result is VerdictResult.NO_EFFECT):
            step = same_way(report, observation, spec, facts)
            if step is not None:
                yield step


def _suspected(observation: Observation, spec: PolicySpec, facts: Facts) -> list[Action]:
    """What the remedies would do about causes that are not confirmed, those that are predicted to
    return most first."""
    signals = with_derived(observation, {}, spec.objectives)
    found: list[Action] = []
    for entry in CATALOGUE:
        if entry.workload not in (observation.type, WorkloadType.UNKNOWN) or not _in_reach(entry):
            continue
        flags = [each for each in entry.predicates if isinstance(each, Predicate) and each.flag]
        share = entry.share.of(signals)
        against = any(holds(veto.condition, signals) for veto in entry.vetoes)
        if share is None or against or not all(holds(flag, signals) for flag in flags):
            continue
        cause = _unconfirmed(entry, min(max(share, 0.0), SUSPECTED))
        for remedy in _hot(entry):
            answer = REMEDIES[remedy](cause, observation, spec, facts)
            if isinstance(answer, Action) and _gain(answer, observation) >= WORTH:
                found.append(as_trial(answer))
    return sorted(found, key=lambda action: -_gain(action, observation))


def _gain(action: Action, observation: Observation) -> float:
    """How many times better the metric is predicted to be."""
    if action.prediction is None:
        return 1.0
    before, after = action.prediction.before, action.prediction.after
    if observation.type is WorkloadType.INFERENCE:
        before, after = after, before
    return after / before if before > 0 else 1.0


def _unconfirmed(entry: CauseEntry, share: float) -> Cause:
    return Cause.model_validate(
        {
            "id": entry.id,
            "class": entry.class_,
            "category": entry.category,
            "title": entry.title,
            "share": share,
            "confidence": 0.0,
        }
    )


def as_trial(action: Action) -> Action:
    """The action, marked for people as one that no confirmed cause calls for."""
    prediction = action.prediction
    if prediction is not None:
        basis = f"a trial, no cause is confirmed: {prediction.basis}"
        prediction = prediction.model_copy(update={"basis": basis})
    changes = {"summary": f"{TRIAL}{action.summary}", "prediction": prediction}
    return action.model_copy(update=changes)
