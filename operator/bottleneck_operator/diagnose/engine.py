"""Tries every hypothesis of the catalogue on an observation. Pure: same input, same diagnosis."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..api import units
from ..api.policy import Objectives
from ..api.report import Cause, Evidence, RuledOut
from ..observe.observation import NoData, Observation, Reading, Signal, WorkloadType
from .catalogue import CATALOGUE, CauseEntry, Predicate, Why
from .diagnosis import Diagnosis
from .objectives import evaluate, evidence, figure


@dataclass(frozen=True, slots=True)
class _Tried:
    """A predicate's outcome: True, False, or None without data."""

    holds: bool | None
    evidence: Evidence | None
    reason: str


def diagnose(
    observation: Observation,
    objectives: Objectives | None,
    facts: Mapping[str, Signal] | None = None,
    texts: Mapping[str, str] | None = None,
    catalogue: Sequence[CauseEntry] = CATALOGUE,
) -> Diagnosis:
    """The diagnosis of ``observation``. ``facts`` are signals that telemetry cannot know, such as
    the desired number of replicas; they may be named in the catalogue like any other."""
    if objectives is None:
        objectives = Objectives()
    states = evaluate(objectives, observation)
    symptom = next((state.symptom for state in states if state.symptom), None)
    unjudged = any(state.met is None for state in states)
    if symptom is None:
        return Diagnosis(observation.time, not unjudged, states)

    signals = dict(observation.signals) | dict(facts or {}) | _derived(observation, objectives)
    confirmed: list[tuple[Cause, CauseEntry]] = []
    ruled_out: list[RuledOut] = []
    for entry in catalogue:
        if entry.workload not in (observation.type, WorkloadType.UNKNOWN):
            continue
        tried = [_try(predicate, signals) for predicate in entry.predicates]
        failed = next((t for t in tried if t.holds is not True), None)
        share = signals.get(entry.share)
        if failed is not None:
            prefix = "no data: " if failed.holds is None else ""
            ruled_out.append(RuledOut(id=entry.id, reason=prefix + failed.reason))
        elif not isinstance(share, Reading):
            ruled_out.append(RuledOut(id=entry.id, reason=f"no data: {entry.share}"))
        else:
            confirmed.append((_cause(entry, tried, share), entry))
    confirmed.sort(key=lambda pair: -pair[0].share)
    whys: list[str] = []
    if confirmed:
        whys = _whys(symptom.text, confirmed[0][1].whys, signals)
    return Diagnosis(
        time=observation.time,
        known=True,
        objectives=states,
        symptom=symptom,
        causes=tuple(cause for cause, _ in confirmed),
        ruled_out=tuple(ruled_out),
        whys=tuple(whys),
    )


def _derived(observation: Observation, objectives: Objectives) -> dict[str, Signal]:
    """Figures that follow from others: the objective as a signal, the model's share of latency."""
    derived: dict[str, Signal] = {}
    if objectives.latency is not None:
        target = units.seconds(objectives.latency.target)
        derived["objective.latency"] = Reading(target, "s", 0.0, "constant", 0.0, "policy")
    used, available = (observation.signal(f"cpu.{n}Cores") for n in ("used", "available"))
    if isinstance(used, Reading) and isinstance(available, Reading) and available.value > 0:
        derived["cpu.busyShare"] = Reading(
            used.value / available.value, "", used.window, used.statistic, used.age, used.source
        )
    queue = observation.signal("inference.queueShare")
    if isinstance(queue, Reading):
        derived["inference.serviceShare"] = Reading(
            max(0.0, 1.0 - queue.value), "", queue.window, queue.statistic, queue.age, queue.source
        )
    return derived


def _try(predicate: Predicate, signals: Mapping[str, Signal]) -> _Tried:
    signal = signals.get(predicate.signal, NoData(f"{predicate.signal} is not measured"))
    if isinstance(signal, NoData):
        return _Tried(None, None, signal.reason)
    threshold = predicate.threshold
    if isinstance(threshold, str):
        bound = signals.get(threshold, NoData(f"{threshold} is not set"))
        if isinstance(bound, NoData):
            return _Tried(None, None, bound.reason)
        threshold = bound.value
    holds = {
        ">=": signal.value >= threshold,
        "<": signal.value < threshold,
    }[predicate.op]
    reason = (
        f"{predicate.signal} is {figure(signal.value, signal.unit)} over {signal.window:.0f}s,"
        f" not {'at least' if predicate.op == '>=' else 'under'} {figure(threshold, signal.unit)}"
    )
    return _Tried(holds, evidence(predicate.signal, signal, threshold, predicate.source), reason)


def _cause(entry: CauseEntry, tried: Sequence[_Tried], share: Reading) -> Cause:
    found = [t.evidence for t in tried if t.evidence is not None]
    return Cause(
        id=entry.id,
        class_=entry.class_,
        category=entry.category,
        title=entry.title,
        share=min(1.0, max(0.0, share.value)),
        confidence=_confidence(found),
        evidence=found,
    )


def _confidence(found: Sequence[Evidence]) -> float:
    """How far the weakest figure is beyond its threshold: 0.5 at the threshold, towards 1 away from
    it. A ranking aid, not a probability."""
    margins = []
    for item in found:
        if item.threshold is None:
            continue
        scale = max(abs(item.threshold), 1e-9)
        margins.append(min(1.0, abs(item.value - item.threshold) / scale))
    return round(0.5 + 0.5 * min(margins, default=0.0), 2)


def _whys(symptom: str, chain: Sequence[Why], signals: Mapping[str, Signal]) -> list[str]:
    lines = [symptom]
    for why in chain:
        readings = {name: signals.get(name) for name in why.signals}
        if not all(isinstance(reading, Reading) for reading in readings.values()):
            break
        if why.when is not None and _try(why.when, signals).holds is not True:
            break

        def fill(match: re.Match[str]) -> str:
            reading = signals[match.group(1)]
            assert isinstance(reading, Reading)
            return figure(reading.value, reading.unit)

        text = re.sub(r"\{([\w.]+)\}", fill, why.text)
        cited = [
            f"{name} {reading.statistic} over {reading.window:.0f}s"
            for name, reading in readings.items()
            if isinstance(reading, Reading) and reading.window > 0
        ]
        lines.append(f"Because {text}" + (f" [{'; '.join(cited)}]" if cited else ""))
    return lines
