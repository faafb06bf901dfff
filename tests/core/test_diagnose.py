"""Signals in, causes out: what is confirmed, what is ruled out, and what stays unsaid."""

from __future__ import annotations

import re
from typing import Any

import pytest
from bottleneck_operator.api.policy import Objectives
from bottleneck_operator.decide.remedies import REMEDIES
from bottleneck_operator.diagnose.catalogue import CATALOGUE, CauseEntry, Predicate, Why
from bottleneck_operator.diagnose.diagnosis import Diagnosis
from bottleneck_operator.diagnose.engine import diagnose
from bottleneck_operator.diagnose.objectives import evaluate, figure
from bottleneck_operator.observe.observation import NoData, Reading, Signal, WorkloadType
from hypothesis import given
from hypothesis import strategies as st

from .builders import CASES, MISSING, observation, queueing, reading, starved

TRAINING = Objectives.model_validate({"dataWait": {"max": "20%"}})
SERVING = Objectives.model_validate({"latency": {"percentile": 95, "target": "250ms"}})
FIXED_REPLICAS: dict[str, Signal] = {
    "replicas.desired": Reading(2, "replicas", 0, "last", 0, "API server"),
    "replicas.unowned": Reading(1, "", 0, "last", 0, "API server"),
}
DERIVED = {"objective.latency", "cpu.busyShare", "inference.serviceShare"}
"""Signals that the engine makes from others."""


def of_training(**changes: Signal | None) -> Diagnosis:
    return diagnose(observation(signals=starved(**changes)), TRAINING)


def of_serving(**changes: Signal | None) -> Diagnosis:
    seen = observation(WorkloadType.INFERENCE, queueing(**changes))
    return diagnose(seen, SERVING, FIXED_REPLICAS)


def ids(diagnosis: Diagnosis) -> list[str]:
    return [cause.id for cause in diagnosis.causes]


@pytest.mark.parametrize(
    ("changes", "causes"),
    [
        ({}, ["loader-without-workers"]),
        ({"dataLoader_workers": reading(2, "workers")}, ["loader-too-slow"]),
        ({"dataLoader_workers": None}, []),
        (
            {"cpu_throttledShare": reading(0.5)},
            ["loader-without-workers", "cpu-throttled"],
        ),
        (
            {"cpu_throttledShare": reading(0.9)},
            ["cpu-throttled", "loader-without-workers"],
        ),
    ],
    ids=[
        "no workers",
        "too few workers",
        "a loader that cannot be seen",
        "throttled as well, and less",
        "throttled as well, and more",
    ],
)
def test_a_starved_trainer(changes: dict[str, Signal | None], causes: list[str]) -> None:
    diagnosis = of_training(**changes)
    assert diagnosis.known
    assert diagnosis.breached
    assert ids(diagnosis) == causes


@pytest.mark.parametrize(
    ("changes", "causes"),
    [
        ({}, ["queueing"]),
        ({"inference_queueShare": reading(0.4)}, []),
        ({"inference_serviceSeconds": reading(0.3, "s")}, ["slow-model"]),
        (
            {"inference_queueShare": None, "inference_serviceSeconds": reading(0.3, "s")},
            [],
        ),
        ({"inference_serviceSeconds": MISSING}, []),
        ({"cpu_throttledShare": reading(0.3)}, ["queueing", "cpu-throttled"]),
    ],
    ids=[
        "requests queue",
        "latency comes from elsewhere",
        "queueing is ruled out where the model alone is too slow",
        "a slow model whose share is not known",
        "the model's time is not known",
        "throttled as well, and less",
    ],
)
def test_a_server_that_is_too_slow(changes: dict[str, Signal | None], causes: list[str]) -> None:
    diagnosis = of_serving(**changes)
    assert diagnosis.breached
    assert ids(diagnosis) == causes


def test_what_is_ruled_out_says_by_which_figure() -> None:
    ruled_out = {item.id: item.reason for item in of_training().ruled_out}
    assert ruled_out["loader-too-slow"] == (
        "dataLoader.workers is 0 workers over 10s, not at least 1 workers"
    )
    assert ruled_out["cpu-throttled"] == "cpu.throttledShare is 0.0% over 10s, not at least 25%"


def test_what_could_not_be_tried_says_so_and_is_not_confirmed() -> None:
    ruled_out = {item.id: item.reason for item in of_training(cpu_throttledShare=None).ruled_out}
    assert ruled_out["cpu-throttled"] == "no data: cpu.throttledShare is not measured"


def test_causes_of_the_other_kind_of_workload_are_not_even_mentioned() -> None:
    serving = of_serving()
    mentioned = {*ids(serving), *(item.id for item in serving.ruled_out)}
    assert mentioned == {"queueing", "slow-model", "cpu-throttled"}


@pytest.mark.parametrize(
    ("signals", "met"),
    [
        (starved(training_dataShare=reading(0.2)), True),
        (starved(training_dataShare=reading(0.05)), True),
        (starved(training_dataShare=NoData("no steps")), None),
        ({}, None),
    ],
    ids=["at its objective", "well under it", "no data", "nothing was ever received"],
)
def test_without_a_breach_there_is_no_symptom_and_no_cause(
    signals: dict[str, Signal], met: bool | None
) -> None:
    diagnosis = diagnose(observation(signals=signals), TRAINING)
    assert [state.met for state in diagnosis.objectives] == [met]
    assert diagnosis.known is (met is True)
    assert not diagnosis.breached
    assert (diagnosis.causes, diagnosis.ruled_out, diagnosis.whys) == ((), (), ())
    assert bool(diagnosis.objectives[0].reason) is (met is None)


def test_one_objective_without_data_leaves_a_healthy_workload_unknown() -> None:
    both = Objectives.model_validate({"dataWait": {"max": "90%"}, "goodput": {"min": "10"}})
    signals = starved(training_samplesPerSecond=None)
    assert not diagnose(observation(signals=signals), both).known


def test_one_objective_without_data_does_not_hide_the_breach_of_another() -> None:
    both = Objectives.model_validate({"dataWait": {"max": "20%"}, "goodput": {"min": "10"}})
    diagnosis = diagnose(observation(signals=starved(training_samplesPerSecond=None)), both)
    assert diagnosis.known
    assert diagnosis.breached


def test_failures_are_more_urgent_than_slowness() -> None:
    both = Objectives.model_validate({"latency": {"target": "250ms"}, "errorRate": {"max": "1%"}})
    signals = queueing(inference_errorRate=reading(0.02))
    symptom = diagnose(observation(WorkloadType.INFERENCE, signals), both).symptom
    assert symptom is not None
    assert symptom.objective == "ErrorRate"
    assert symptom.evidence.threshold == 0.01


def test_evidence_holds_the_figure_its_window_and_where_the_threshold_is_from() -> None:
    (cause,) = of_training().causes
    (share, workers) = cause.evidence
    assert (share.signal, share.value, share.window) == ("training.dataShare", 0.8, "10s")
    assert (share.threshold, share.statistic) == (0.2, "ratio of sums")
    assert "XProf" in share.source
    assert workers.signal == "dataLoader.workers"


def test_confidence_grows_with_the_distance_from_the_threshold() -> None:
    near = of_training(training_dataShare=reading(0.21)).causes[0].confidence
    far = of_training(training_dataShare=reading(0.40)).causes[0].confidence
    assert 0.5 <= near < far <= 1.0


# -- whys ------------------------------------------------------------------------------------------


def test_the_whys_begin_with_the_symptom_and_cite_a_figure_in_every_line() -> None:
    symptom, *because = of_training().whys
    assert symptom == "Waiting for input is 80%, over its objective of at most 20%"
    assert len(because) == 3
    assert "80%" in because[0]
    for line in because:
        assert re.search(r"\[[\w.]+ [\w ]+ over 10s", line), line


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, 4),
        ({"cpu_usedCores": None}, 3),
        ({"cpu_availableCores": MISSING}, 3),
        ({"cpu_usedCores": reading(3.9, "cores")}, 3),
    ],
    ids=["all is known", "no CPU time", "no CPU limit", "its CPUs were busy, so none stood idle"],
)
def test_the_chain_stops_where_evidence_stops(
    changes: dict[str, Signal | None], lines: int
) -> None:
    assert len(of_training(**changes).whys) == lines


def test_a_later_line_is_not_reached_over_a_gap() -> None:
    entry = _entry(whys=(Why("a {a.a}", ("a.a",)), Why("b {b.b}", ("b.b",)), Why("c", ())))
    signals = starved() | {"a.a": reading(0.5)}
    diagnosis = diagnose(observation(signals=signals), TRAINING, catalogue=[entry])
    assert diagnosis.whys[1:] == ("Because a 50% [a.a ratio of sums over 10s]",)


def test_without_a_confirmed_cause_there_are_no_whys() -> None:
    assert of_training(dataLoader_workers=None).whys == ()


def test_an_autoscaler_ends_the_chain_before_it_is_denied() -> None:
    seen = observation(WorkloadType.INFERENCE, queueing())
    owned = {name: fact for name, fact in FIXED_REPLICAS.items() if name != "replicas.unowned"}
    with_hpa, without = diagnose(seen, SERVING, owned), diagnose(seen, SERVING, FIXED_REPLICAS)
    assert len(with_hpa.whys) == len(without.whys) - 1


# -- the catalogue itself --------------------------------------------------------------------------


def _known_signals() -> set[str]:
    return set(starved()) | set(queueing()) | set(FIXED_REPLICAS) | DERIVED


def _predicates(entry: CauseEntry) -> list[Predicate]:
    return [*entry.predicates, *(why.when for why in entry.whys if why.when is not None)]


def test_every_cause_has_its_own_id() -> None:
    assert len({entry.id for entry in CATALOGUE}) == len(CATALOGUE)


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.id)
def test_a_catalogue_entry_is_complete(entry: CauseEntry) -> None:
    assert entry.predicates
    assert entry.whys
    assert entry.title
    assert entry.category in ("Infrastructure", "Data", "Models", "People", "Processes")
    assert set(entry.remedies) <= set(REMEDIES)
    assert entry.remedies or entry.advice, "a cause that cannot be fixed needs advice"
    for predicate in _predicates(entry):
        assert predicate.source, predicate
        assert predicate.op in (">=", "<")


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.id)
def test_a_catalogue_entry_names_signals_that_exist(entry: CauseEntry) -> None:
    named = {entry.share}
    for predicate in _predicates(entry):
        named |= {predicate.signal}
        named |= {predicate.threshold} if isinstance(predicate.threshold, str) else set()
    for why in entry.whys:
        named |= set(why.signals)
        written = set(re.findall(r"\{([\w.]+)\}", why.text))
        assert written <= set(why.signals), "a figure in the text that is not cited"
    assert named <= _known_signals()


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.id)
def test_every_cause_can_be_found_with_a_figure_in_every_why(entry: CauseEntry) -> None:
    diagnoses = [
        of_training(),
        of_training(dataLoader_workers=reading(2, "workers"), cpu_usedCores=reading(4, "cores")),
        of_training(cpu_throttledShare=reading(0.9)),
        of_serving(),
        of_serving(inference_serviceSeconds=reading(0.3, "s")),
    ]
    first = [diagnosis for diagnosis in diagnoses if ids(diagnosis)[:1] == [entry.id]]
    assert first, "no case here finds it: add one"
    whys = first[0].whys[1:]
    assert len(whys) == len(entry.whys), "a line of its chain was never shown: add such a case"
    assert all(re.search(r"\[.+ over \d+s", why) or not _measured(why) for why in whys)


def _measured(why: str) -> bool:
    # A line about the cluster's objects has no window to cite.
    return "replicas" not in why


# -- objectives ------------------------------------------------------------------------------------


def test_objectives_are_told_with_their_units() -> None:
    all_of_them = Objectives.model_validate(
        {
            "latency": {"target": "1.5s"},
            "errorRate": {"max": "1%"},
            "goodput": {"min": "500"},
            "dataWait": {"max": "20%"},
        }
    )
    states = evaluate(all_of_them, observation(signals=starved() | queueing()))
    assert [(s.name, s.current, s.target, s.met) for s in states] == [
        ("ErrorRate", "0.0%", "≤ 1.0%", True),
        ("Latency", "2000 ms", "≤ 1500 ms", False),
        ("Goodput", "100 samples/s", "≥ 500 samples/s", False),
        ("DataWait", "80%", "≤ 20%", False),
    ]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0, "", "0.0%"),
        (0.014, "", "1.4%"),
        (0.8, "", "80%"),
        (0.0123, "s", "12 ms"),
        (12.0, "s", "12.0 s"),
        (2.0, "workers", "2 workers"),
        (100.0, "samples/s", "100 samples/s"),
        (0.5, "cores", "0.5 cores"),
        (1234.5, "samples/s", "1234 samples/s"),
    ],
)
def test_figures_are_written_as_people_read_them(value: float, unit: str, text: str) -> None:
    assert figure(value, unit) == text


# -- properties ------------------------------------------------------------------------------------

NAMES = sorted(_known_signals())
ANY_SIGNAL = st.one_of(
    st.builds(NoData, st.text(max_size=5)),
    st.builds(
        Reading,
        st.floats(0, 2.0**63),
        st.sampled_from(["", "s", "cores", "samples/s"]),
        st.floats(0, 600),
        st.sampled_from(["mean", "p95"]),
        st.floats(0, 60),
        st.just("sidecar"),
    ),
)
ANY_SIGNALS = st.dictionaries(st.sampled_from(NAMES), ANY_SIGNAL)
ANY_OBJECTIVES = st.fixed_dictionaries(
    {},
    optional={
        "latency": st.just({"target": "250ms"}),
        "errorRate": st.just({"max": "1%"}),
        "goodput": st.just({"min": "500"}),
        "dataWait": st.just({"max": "20%"}),
    },
).map(Objectives.model_validate)


@CASES
@given(ANY_SIGNALS, ANY_SIGNALS, ANY_OBJECTIVES, st.sampled_from(WorkloadType))
def test_any_signals_give_one_and_the_same_sound_diagnosis(
    signals: dict[str, Signal], facts: dict[str, Signal], objectives: Objectives, kind: Any
) -> None:
    seen = observation(kind, signals)
    diagnosis = diagnose(seen, objectives, facts)
    assert diagnose(seen, objectives, facts) == diagnosis
    if not diagnosis.breached:
        assert (diagnosis.causes, diagnosis.whys) == ((), ())
    if diagnosis.causes:
        assert diagnosis.whys
    shares = [cause.share for cause in diagnosis.causes]
    assert shares == sorted(shares, reverse=True)
    for cause in diagnosis.causes:
        entry = next(entry for entry in CATALOGUE if entry.id == cause.id)
        assert len(cause.evidence) == len(entry.predicates)
        for predicate in entry.predicates:
            known = signals.get(predicate.signal, facts.get(predicate.signal))
            assert isinstance(known, Reading) or predicate.signal in DERIVED


def _entry(**changes: Any) -> CauseEntry:
    fields: dict[str, Any] = {
        "id": "made-up",
        "class_": "test",
        "category": "Data",
        "title": "A cause",
        "workload": WorkloadType.TRAINING,
        "predicates": (Predicate("training.dataShare", ">=", 0.2, "here"),),
        "share": "training.dataShare",
        "remedies": (),
        "whys": (),
        **changes,
    }
    return CauseEntry(**fields)
