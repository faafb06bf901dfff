"""Tries every hypothesis of the catalogue on an observation. Pure: same input, same diagnosis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..api.objectives import Objectives
from ..api.report import Evidence, HypothesisState, RuledOut, Symptom
from ..observe.observation import Observation, Reading, Signal, WorkloadType
from .catalogue import CATALOGUE, CauseEntry
from .derived import with_derived
from .diagnosis import Diagnosis
from .objectives import evaluate, evidence, unknown
from .pictures import Outcome, fault_tree, fishbone
from .predicates import Signals, Tried, attempt
from .ranking import Confirmed, cause_of, confirmed, ranked
from .whys import Line, chain, told

HEALTHY = "nothing is wrong"
NORMAL = "no objective is breached, and every healthy workload is limited by something"


def diagnose(
    observation: Observation,
    objectives: Objectives | None,
    facts: Mapping[str, Signal] | None = None,
    texts: Mapping[str, str] | None = None,
    catalogue: Sequence[CauseEntry] = CATALOGUE,
) -> Diagnosis:
    """The diagnosis of ``observation``.

    ``facts`` are signals that telemetry cannot know, such as the desired number of replicas, and
    ``texts`` what the API server says about them; the catalogue may name both. Without
    ``objectives`` the strongest fault that is confirmed is itself the symptom; with them nothing is
    looked for while all are met.
    """
    signals = with_derived(observation, facts or {}, objectives)
    entries = [e for e in catalogue if e.workload in (observation.type, WorkloadType.UNKNOWN)]
    stopped = [_attempt(entry, signals, True) for entry in entries if entry.breaks]
    if objectives is not None:
        stop = _stopped([found for _, found in stopped if found], signals, texts or {})
        states = evaluate(objectives, observation, stop)
        symptom = next((state.symptom for state in states if state.symptom), None)
        if symptom is None:
            return Diagnosis(observation.time, not unknown(states), states)
    else:
        states, symptom = (), None

    tried = {outcome.entry.id: (outcome, found) for outcome, found in stopped}
    for entry in entries:
        if not entry.breaks:
            tried[entry.id] = _attempt(entry, signals, symptom is not None)
    outcomes = [tried[entry.id][0] for entry in entries]
    found = {id: cause for id, (_, cause) in tried.items() if cause is not None}
    order = ranked(found, signals, symptom.objective if symptom else None, entries)
    roots = [cause for cause in order if cause.root == cause.entry.id]
    lines = chain(roots[0], found, signals, texts or {}) if roots else []
    if symptom is None and roots:
        symptom, lines = _itself(roots[0], lines, signals)
    runner_up = roots[1] if len(roots) > 1 else None
    effect = symptom.text if symptom else HEALTHY
    return Diagnosis(
        time=observation.time,
        known=True,
        objectives=states,
        symptom=symptom,
        causes=tuple(cause_of(cause, runner_up if cause is roots[0] else None) for cause in order),
        ruled_out=tuple(
            RuledOut(id=outcome.entry.id, reason=outcome.reason)
            for outcome in outcomes
            if outcome.state is not HypothesisState.CONFIRMED
        ),
        whys=told(symptom.text, lines) if symptom and roots else (),
        runner_up=runner_up.entry.id if runner_up else "",
        fishbone=fishbone(effect, outcomes, signals),
        fault_tree=fault_tree(effect, outcomes),
    )


def _attempt(
    entry: CauseEntry, signals: Signals, breached: bool
) -> tuple[Outcome, Confirmed | None]:
    """Tries one cause."""
    tried = [attempt(condition, signals) for condition in entry.predicates]
    against = [(veto, attempt(veto.condition, signals)) for veto in entry.vetoes]
    conditions = [(each.text, each.holds) for each in tried]
    # A reason against it that is not measured does not hold it up, so it is no condition here.
    conditions += [
        (f"not so: {each.text}" if each.holds else each.text, not each.holds)
        for _, each in against
        if each.holds is not None
    ]
    if entry.needs_breach:
        conditions.append(("an objective is breached", breached))

    def outcome(state: HypothesisState, reason: str) -> Outcome:
        return Outcome(entry, state, reason, tuple(conditions))

    failed = next((each for each in tried if each.holds is False), None)
    missing = next((each for each in tried if each.holds is None), None)
    if failed is not None:
        return outcome(HypothesisState.RULED_OUT, failed.text), None
    for veto, each in against:
        if each.holds:
            return outcome(HypothesisState.RULED_OUT, f"{veto.reason} ({each.text})"), None
    if entry.needs_breach and not breached:
        return outcome(HypothesisState.RULED_OUT, NORMAL), None
    if missing is not None:
        return outcome(HypothesisState.NO_DATA, f"no data: {missing.text}"), None
    share = entry.share.of(signals)
    if share is None:
        conditions.append(("it is known what removing it would return", None))
        reason = f"no data: what removing it would return ({entry.share.text})"
        return outcome(HypothesisState.NO_DATA, reason), None
    reason = " and ".join(each.text for each in tried)
    cause = confirmed(entry, [*tried, *(_against(each) for _, each in against)], share)
    return outcome(HypothesisState.CONFIRMED, reason), cause


def _against(tried: Tried) -> Tried:
    """A reason against, for the count of what was measured: it brings no evidence for the cause."""
    return Tried(tried.holds, tried.text, (), tried.asked, tried.measured)


def _stopped(
    found: Sequence[Confirmed], signals: Signals, texts: Mapping[str, str]
) -> Symptom | None:
    """That the workload does not run, where a cause says so."""
    if not found:
        return None
    lines = chain(found[0], {}, signals, texts)
    symptom, _ = _itself(found[0], lines, signals)
    return symptom


def _itself(cause: Confirmed, lines: list[Line], signals: Signals) -> tuple[Symptom, list[Line]]:
    """A cause as its own symptom: the first line of its chain is what is wrong, the rest is why."""
    text, figures = f"{cause.entry.title}", _figures(cause)
    if lines:
        text = lines[0].text[:1].upper() + lines[0].text[1:]
        for name in lines[0].signals:
            reading = signals.get(name)
            if isinstance(reading, Reading):
                figures = evidence(name, reading, None, reading.source)
                break
    return Symptom(objective="Fault", text=text, evidence=figures), lines[1:]


def _figures(cause: Confirmed) -> Evidence:
    first = cause.found[0]
    return evidence(first.predicate.signal, first.reading, first.bound, first.predicate.source)
