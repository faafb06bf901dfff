"""The catalogue of causes: that every entry is whole, and that each cause is found where it is and
only there."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bottleneck_operator.api.objectives import Latency, Objectives
from bottleneck_operator.decide.remedies import REMEDIES
from bottleneck_operator.diagnose.catalogue import (
    CATALOGUE,
    CATEGORIES,
    EFFECTS,
    STAGES,
    CauseEntry,
    Condition,
    Predicate,
    Why,
    edges,
)
from bottleneck_operator.diagnose.derived import DERIVED
from bottleneck_operator.diagnose.document import diagnosis_document
from bottleneck_operator.diagnose.engine import diagnose
from bottleneck_operator.diagnose.predicates import predicates
from bottleneck_operator.diagnose.whys import figure_names
from bottleneck_operator.observe.observation import (
    NoData,
    Observation,
    Reading,
    Signal,
    WorkloadType,
)
from hypothesis import given
from hypothesis import strategies as st

from .builders import CASES, NOW
from .cases import (
    CASES_BY_CAUSE,
    FACTS,
    HEALTHY_SERVING,
    SERVING,
    TRAINING,
    WITH_CASE,
    Case,
    find,
    ids,
    objectives_for,
    seen,
)

DOCS = Path(__file__).parents[2] / "docs"
BY_ID = {entry.id: entry for entry in CATALOGUE}

# -- healthy workloads -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (TRAINING, {}),
        (SERVING, {}),
        (TRAINING, {"training.dataShare": 0.10, "dataLoader.workers": 0.0}),
        (TRAINING, {"training.dataShare": 0.4, "training.stepSeconds": 0.005}),
        (TRAINING, {"training.sinceStepSeconds": 60.0, "training.longPhase": 1.0}),
        (TRAINING, {"training.sinceStepSeconds": 60.0, "training.usualStepSeconds": 20.0}),
        (TRAINING, {"training.sinceStepSeconds": 9.0, "training.usualStepSeconds": 0.01}),
        (TRAINING, {"node.busyShare": 1.0, "node.othersShare": 0.5, "cpu.pressureShare": 0.2}),
        (TRAINING, {"cpu.runQueueShare": 0.4, "node.busyShare": 1.0, "node.othersShare": 0.05}),
        (TRAINING, {"cpu.throttledShare": 0.6, "cpu.throttledTimeShare": 0.03}),
        (TRAINING, {"memory.usedShare": 0.97}),
        (TRAINING, {"memory.limitHitsPerSecond": 50.0, "memory.usedShare": 0.7}),
        (TRAINING, {"training.collectiveShare": 0.35, "training.stepSeconds": 0.02}),
        (TRAINING, {"training.stragglerRatio": 1.5, "training.collectiveShare": 0.05}),
        (TRAINING, {"training.lowPrecisionShare": 0.0}),
        (TRAINING, {"training.microBatch": 1.0, "training.stepSeconds": 0.002}),
        (TRAINING, {"gpu.memoryShare": 0.92}),
        (SERVING, {"gpu.memoryShare": 0.97}),
        (SERVING, {"inference.queueShare": 0.75, "inference.occupancy": 0.75}),
        (SERVING, {"inference.queueShare": 0.9, "inference.occupancy": 0.5}),
        (SERVING, {"inference.dependencyShare": 0.6}),
        (SERVING, {"inference.dependencyShare": 0.8, "inference.dependencySeconds": 0.01}),
        (SERVING, {"inference.uptimeSeconds": 20.0, "inference.firstServiceRatio": 9.0}),
        (SERVING, {"inference.batchSize": 6.0, "inference.batchLimit": 8.0}),
        (
            SERVING,
            {
                "inference.batchLimit": 8.0,
                "inference.queueShare": 0.6,
                "inference.queueSeconds": 0.005,
            },
        ),
        (SERVING, {"inference.serviceSlowdown": 1.3, "inference.loadRatio": 2.0}),
        (SERVING, {"inference.errorRate": 0.04}),
        (SERVING, {"inference.errorRate": 0.1, "inference.arrivalRate": 2.0}),
        (TRAINING, {"training.sinceStepSeconds": 40.0, "cpu.usedCores": 1.0}),
        (TRAINING, {"memory.usedShare": 0.97, "memory.limitHitsPerSecond": 500.0}),
        (
            SERVING,
            {
                "inference.uptimeSeconds": 20.0,
                "inference.firstServiceRatio": 30.0,
                "inference.firstServiceSeconds": 1.0,
            },
        ),
        (SERVING, {"change.precedes": 1.0, "change.ageSeconds": 60.0}),
        (SERVING, {"pods.unschedulable": 1.0, "pods.unschedulableSeconds": 5.0}),
        (SERVING, {"pods.notReady": 1.0, "inference.uptimeSeconds": 10.0}),
    ],
    ids=str,
)
def test_nothing_is_named_on_a_healthy_workload(
    kind: WorkloadType, changes: dict[str, float]
) -> None:
    diagnosis = find(kind, changes)
    assert diagnosis.known
    assert (diagnosis.causes, diagnosis.symptom, diagnosis.whys) == ((), None, ())
    assert diagnosis.fault_tree is not None
    assert diagnosis.fault_tree.state != "Confirmed"


# -- each cause, where it is and where it is not ---------------------------------------------------


def test_every_cause_has_a_case() -> None:
    assert set(CASES_BY_CAUSE) == set(BY_ID)


@pytest.mark.parametrize(("id", "kind", "changes", "healed"), WITH_CASE)
def test_a_cause_comes_first_where_it_is(
    id: str, kind: WorkloadType, changes: dict[str, Any], healed: dict[str, Any]
) -> None:
    diagnosis = find(kind, changes, objectives_for(id, kind))
    assert ids(diagnosis)[:1] == [id]
    assert diagnosis.symptom is not None
    assert 0 < diagnosis.causes[0].confidence <= 1


@pytest.mark.parametrize(("id", "kind", "changes", "healed"), WITH_CASE)
def test_a_cause_is_not_found_on_the_other_side(
    id: str, kind: WorkloadType, changes: dict[str, Any], healed: dict[str, Any]
) -> None:
    assert id not in ids(find(kind, changes | healed, objectives_for(id, kind)))


@pytest.mark.parametrize("id", sorted(CASES_BY_CAUSE))
def test_every_line_of_a_chain_is_told_in_some_case(id: str) -> None:
    texts = {
        "pods.crashLooping": "error",
        "pods.unschedulable": "0/1 nodes",
        "pods.quotaRefused": "exceeded quota",
    }
    texts["change.ageSeconds"] = "image v2 by kubectl"
    told = [
        line
        for kind, changes, _ in CASES_BY_CAUSE[id]
        for line in (find(kind, changes, objectives_for(id, kind), texts=texts).whys)
    ]
    for why in BY_ID[id].whys:
        pattern = re.sub(r"\\\{.+?\\\}", ".+", re.escape(why.text))
        assert any(re.search(pattern, line, re.IGNORECASE) for line in told), why.text


@pytest.mark.parametrize("id", sorted(id for id in BY_ID if BY_ID[id].needs_breach))
def test_what_limits_every_healthy_workload_needs_a_breached_objective(id: str) -> None:
    for kind, changes, _ in CASES_BY_CAUSE[id]:
        assert id not in ids(find(kind, changes))


def test_without_a_policy_a_fault_is_its_own_symptom() -> None:
    diagnosis = find(*CASES_BY_CAUSE["checkpoint-stalls"][0][:2])
    assert diagnosis.symptom is not None
    assert diagnosis.symptom.text == (
        "30% of the time goes into writing checkpoints, and no step runs meanwhile"
    )
    assert diagnosis.symptom.evidence.signal == "training.checkpointShare"
    assert diagnosis.whys[0] == diagnosis.symptom.text


# -- the catalogue itself --------------------------------------------------------------------------


def conditions(entry: CauseEntry) -> Iterator[Condition]:
    yield from entry.predicates
    yield from (veto.condition for veto in entry.vetoes)
    yield from (edge.when for edge in entry.explains if edge.when is not None)
    yield from (why.when for why in entry.whys if why.when is not None)


def tried_by(entry: CauseEntry) -> list[Predicate]:
    return [each for condition in conditions(entry) for each in predicates(condition)]


def known_signals() -> set[str]:
    named = set(re.findall(r"^\| `([\w.]+)` \|", (DOCS / "signals.md").read_text(), re.M))
    return named | DERIVED


def test_every_cause_has_its_own_id() -> None:
    assert len(BY_ID) == len(CATALOGUE) >= 26


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.id)
def test_a_catalogue_entry_is_complete(entry: CauseEntry) -> None:
    assert entry.predicates
    assert entry.whys
    assert entry.title
    assert entry.category in CATEGORIES
    assert entry.stage in STAGES
    assert set(entry.remedies) <= set(REMEDIES)
    assert entry.advice, "people need to know what they can do"
    for predicate in tried_by(entry):
        assert predicate.source, predicate
        assert predicate.op in (">=", ">", "<")
    assert all(veto.reason for veto in entry.vetoes)
    assert {edge.id for edge in entry.explains} <= set(BY_ID) | {effect.id for effect in EFFECTS}


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.id)
def test_a_line_of_a_chain_cites_the_figures_that_it_tells(entry: CauseEntry) -> None:
    for why in entry.whys:
        assert set(figure_names(why.text)) <= set(why.signals), why.text
        assert why.signals or "{text:" in why.text, f"nothing is behind it: {why.text}"


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.id)
def test_a_catalogue_entry_names_signals_that_are_explained(entry: CauseEntry) -> None:
    named = {predicate.signal for predicate in tried_by(entry)}
    named |= {p.threshold for p in tried_by(entry) if isinstance(p.threshold, str)}
    named |= {signal for why in entry.whys for signal in why.signals}
    named |= set(re.findall(r"`([a-zA-Z]+\.\w+)`", entry.share.text))
    assert named <= known_signals()


def test_no_cause_explains_itself_over_any_way() -> None:
    """But for the two that take turns: then one number decides, and only one direction holds."""
    graph = {entry.id: [edge for edge in edges(entry) if edge.id in BY_ID] for entry in CATALOGUE}
    turns = {("straggler-rank", "cpu-throttled"), ("straggler-rank", "node-oversubscribed")}
    for deep, shallow in turns:
        (down,) = [edge.when for edge in graph[deep] if edge.id == shallow]
        (up,) = [edge.when for edge in graph[shallow] if edge.id == deep]
        assert isinstance(down, Predicate)
        assert isinstance(up, Predicate)
        assert (down.signal, down.op, up.op) == (up.signal, "<", ">=")
        assert down.threshold == up.threshold

    def reach(id: str, over: tuple[str, ...]) -> None:
        assert id not in over, (*over, id)
        for edge in graph[id]:
            if (id, edge.id) not in turns:
                reach(edge.id, (*over, id))

    for id in graph:
        reach(id, ())


# -- properties ------------------------------------------------------------------------------------

NAMES = sorted(
    {p.signal for e in CATALOGUE for p in tried_by(e)} | set(HEALTHY_SERVING) | set(FACTS)
)
VALUES = st.one_of(st.floats(0, 2), st.floats(0, 2.0**63), st.sampled_from([0.0, 1.0, 100.0]))
ANY_SIGNAL = st.one_of(
    st.builds(NoData, st.text(max_size=5)),
    st.builds(
        Reading,
        VALUES,
        st.sampled_from(["", "s", "cores", "samples/s", "bytes/s"]),
        st.floats(0, 600),
        st.sampled_from(["mean", "p95"]),
        st.floats(0, 60),
        st.just("sidecar"),
    ),
)
ANY_SIGNALS = st.dictionaries(st.sampled_from(NAMES), ANY_SIGNAL, max_size=60)
ANY_OBJECTIVES = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {},
        optional={
            "latency": st.just({"target": "250ms"}),
            "errorRate": st.just({"max": "1%"}),
            "goodput": st.just({"min": "500"}),
            "dataWait": st.just({"max": "20%"}),
            "stepTime": st.just({"maxRegression": "20%"}),
            "utilization": st.just({"device": "CPU", "min": 40, "max": 90}),
        },
    ).map(Objectives.model_validate),
)
KINDS = st.sampled_from(WorkloadType)


def bare(kind: WorkloadType, signals: dict[str, Signal]) -> Observation:
    return Observation(NOW, kind, signals, (), (), 1, 1, NOW)


def figures(document: Any) -> Iterator[float]:
    if isinstance(document, float):
        yield document
    elif isinstance(document, dict | list):
        for each in document.values() if isinstance(document, dict) else document:
            yield from figures(each)


@CASES
@given(ANY_SIGNALS, ANY_SIGNALS, ANY_OBJECTIVES, KINDS)
def test_any_signals_give_one_and_the_same_sound_diagnosis(
    signals: dict[str, Signal],
    facts: dict[str, Signal],
    objectives: Objectives | None,
    kind: WorkloadType,
) -> None:
    observation = bare(kind, signals)
    diagnosis = diagnose(observation, objectives, facts)
    assert diagnose(observation, objectives, facts) == diagnosis
    assert bool(diagnosis.causes) is bool(diagnosis.whys)
    if not diagnosis.breached:
        assert diagnosis.causes == ()
    document = diagnosis_document(diagnosis)
    assert all(math.isfinite(figure) for figure in figures(document))
    json.dumps(document, allow_nan=False)
    for cause in diagnosis.causes:
        assert 0 <= cause.confidence <= 1
        for item in cause.evidence:
            known = facts.get(item.signal, signals.get(item.signal))
            assert isinstance(known, Reading) or item.signal in DERIVED
    named = [*ids(diagnosis), *(item.id for item in diagnosis.ruled_out)]
    assert len(named) == len(set(named))


@CASES
@given(st.sets(st.sampled_from(NAMES)), ANY_OBJECTIVES, KINDS)
def test_without_data_nothing_is_ever_named(
    names: set[str], objectives: Objectives | None, kind: WorkloadType
) -> None:
    diagnosis = diagnose(bare(kind, dict.fromkeys(names, NoData("silent"))), objectives)
    assert diagnosis.causes == ()
    assert diagnosis.symptom is None


AGAINST = {p.signal for e in CATALOGUE for v in e.vetoes for p in predicates(v.condition)}
"""Figures that speak against a cause: without them more can be confirmed, not less."""
LESSEN = {"cpu.throttledTimeShare", "inference.batchSize", "inference.batchLimit"}
"""Figures that lessen a derived one, such as contention, which is what throttling leaves."""
LESSEN |= {"inference.dependencyShare", "inference.restShare", "inference.queueShare"}


@CASES
@given(
    st.sampled_from([case for cases in CASES_BY_CAUSE.values() for case in cases]),
    st.sets(st.sampled_from(sorted(set(NAMES) - AGAINST - LESSEN)), max_size=5),
)
def test_losing_data_never_confirms_more(case: Case, lost: set[str]) -> None:
    kind, changes, _ = case
    observation, facts = seen(kind, changes)
    before = set(ids(diagnose(observation, None, facts)))
    silent: dict[str, Signal] = dict.fromkeys(lost, NoData("silent"))
    signals = {**observation.signals, **{n: s for n, s in silent.items() if n not in facts}}
    after = diagnose(
        bare(kind, signals), None, {**facts, **{n: s for n, s in silent.items() if n in facts}}
    )
    assert set(ids(after)) <= before


@CASES
@given(
    st.sampled_from(sorted(CASES_BY_CAUSE)),
    st.floats(1.0, 3.0),
)
def test_a_worse_figure_does_not_make_its_cause_go_away(id: str, factor: float) -> None:
    entry = BY_ID[id]
    kind, changes, _ = CASES_BY_CAUSE[id][0]
    worse = dict(changes)
    for predicate in (p for c in entry.predicates for p in predicates(c)):
        value = worse.get(predicate.signal)
        if value is not None and predicate.op == ">=" and predicate.signal not in AGAINST:
            # A share cannot grow beyond all.
            worse[predicate.signal] = min(
                value * factor, 1.0 if predicate.signal.endswith("Share") else math.inf
            )
    assert id in ids(find(kind, worse, objectives_for(id, kind)))


@CASES
@given(st.permutations(range(len(CATALOGUE))), st.sampled_from(sorted(CASES_BY_CAUSE)))
def test_the_first_cause_does_not_depend_on_the_order_of_the_catalogue(
    order: list[int], id: str
) -> None:
    catalogue = [CATALOGUE[number] for number in order]
    kind, changes, _ = CASES_BY_CAUSE[id][0]
    observation, facts = seen(kind, changes)
    diagnosis = diagnose(observation, objectives_for(id, kind), facts, None, catalogue)
    assert ids(diagnosis)[0] == id


def test_a_why_is_data() -> None:
    assert Why("a {b.c} {text:d.e}").signals == ()
    assert figure_names("a {b.c} {text:d.e}") == ["b.c"]


@pytest.mark.parametrize(("target", "named"), [("30ms", True), ("100ms", False)])
def test_a_short_wait_is_much_where_little_time_is_allowed(target: str, named: bool) -> None:
    waiting = {
        "inference.latency": 0.035,
        "inference.serviceSeconds": 0.004,
        "inference.queueShare": 0.8,
        "inference.queueSeconds": 0.02,
        "inference.occupancy": 0.2,
        "inference.batchLimit": 16.0,
        "inference.batchSize": 1.5,
        "inference.batchDelaySeconds": 0.025,
    }
    objectives = Objectives(latency=Latency(percentile=95, target=target))
    found = ids(find(WorkloadType.INFERENCE, waiting, objectives))
    assert ("batching-delay" in found) is named
