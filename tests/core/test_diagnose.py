"""Signals in, causes out: what is confirmed, what is ruled out, and what stays unsaid."""

from __future__ import annotations

import re
from typing import Any

import pytest
from bottleneck_operator.api.objectives import Objectives
from bottleneck_operator.diagnose import shares
from bottleneck_operator.diagnose.catalogue import CATALOGUE, CauseEntry, Predicate, Why
from bottleneck_operator.diagnose.diagnosis import Diagnosis
from bottleneck_operator.diagnose.engine import diagnose
from bottleneck_operator.diagnose.objectives import evaluate, figure, shown
from bottleneck_operator.observe.observation import NoData, Reading, Signal, WorkloadType

from .builders import MISSING, observation, queueing, reading, starved

TRAINING = Objectives.model_validate({"dataWait": {"max": "20%"}})
SERVING = Objectives.model_validate({"latency": {"percentile": 95, "target": "250ms"}})
FIXED_REPLICAS: dict[str, Signal] = {
    "replicas.desired": Reading(2, "replicas", 0, "last", 0, "API server"),
    "replicas.unowned": Reading(1, "", 0, "last", 0, "API server"),
}


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
        ({"dataLoader_workers": reading(2, "workers")}, ["cpu-heavy-preprocessing"]),
        ({"loader_blockedShare": reading(0.9)}, ["slow-storage", "loader-without-workers"]),
        ({"dataLoader_workers": None}, []),
        ({"training_stepSeconds": reading(0.004, "s", "mean")}, []),
        (
            {"cpu_throttledShare": reading(0.5)},
            ["cpu-throttled", "loader-without-workers"],
        ),
    ],
    ids=[
        "no workers",
        "workers that compute",
        "no workers, and storage that is slow",
        "a loader that cannot be seen",
        "a wait that workers would not shorten",
        "throttled as well, which more workers would not change",
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
        ({"inference_serviceSeconds": MISSING}, ["queueing"]),
        ({"cpu_throttledShare": reading(0.3)}, ["cpu-throttled", "queueing"]),
        ({"inference_occupancy": reading(0.5)}, []),
    ],
    ids=[
        "requests queue",
        "latency comes from elsewhere",
        "queueing is ruled out where the model alone is too slow",
        "a slow model whose share is not known",
        "what would rule it out is not known",
        "throttled as well",
        "they wait, but not for a busy server",
    ],
)
def test_a_server_that_is_too_slow(changes: dict[str, Signal | None], causes: list[str]) -> None:
    diagnosis = of_serving(**changes)
    assert diagnosis.breached
    assert ids(diagnosis) == causes


def test_what_is_ruled_out_says_by_which_figure() -> None:
    ruled_out = {item.id: item.reason for item in of_training().ruled_out}
    assert ruled_out["cpu-heavy-preprocessing"] == (
        "dataLoader.workers is 0 workers over 10s, not at least 1 worker"
    )
    assert ruled_out["cpu-throttled"] == "cpu.throttledShare is 0.0% over 10s, not at least 25%"


def test_what_could_not_be_tried_says_so_and_is_not_confirmed() -> None:
    ruled_out = {item.id: item.reason for item in of_training(cpu_throttledShare=None).ruled_out}
    assert ruled_out["cpu-throttled"] == (
        "no data: cpu.throttledShare is not measured; cpu.throttledTimeShare is not measured"
    )


def test_causes_of_the_other_kind_of_workload_are_not_even_mentioned() -> None:
    serving = of_serving()
    mentioned = {*ids(serving), *(item.id for item in serving.ruled_out)}
    assert mentioned == {
        entry.id for entry in CATALOGUE if entry.workload is not WorkloadType.TRAINING
    }


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


def test_an_optional_line_is_only_left_out() -> None:
    whys = (Why("a {a.a}", ("a.a",), optional=True), Why("it is so: {text:b}"), Why("c {text:d}"))
    seen = observation(signals=starved())
    told = diagnose(seen, TRAINING, None, {"b": "the API  server\nsays"}, [_entry(whys=whys)]).whys
    assert told[1:] == ("Because it is so: the API server says",)


def test_without_a_confirmed_cause_there_are_no_whys() -> None:
    assert of_training(dataLoader_workers=None).whys == ()


def test_an_autoscaler_ends_the_chain_before_it_is_denied() -> None:
    seen = observation(WorkloadType.INFERENCE, queueing())
    owned = {name: fact for name, fact in FIXED_REPLICAS.items() if name != "replicas.unowned"}
    with_hpa, without = diagnose(seen, SERVING, owned), diagnose(seen, SERVING, FIXED_REPLICAS)
    assert len(with_hpa.whys) == len(without.whys) - 1


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
        (1.0, "workers", "1 worker"),
        (1.0, "samples/s", "1 samples/s"),
        (2_500_000.0, "bytes/s", "2.5 MB/s"),
        (12.0, "bytes", "12.0 B"),
    ],
)
def test_figures_are_written_as_people_read_them(value: float, unit: str, text: str) -> None:
    assert figure(value, unit) == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("training.stragglerRatio", 1.5, "1.50 times"),
        ("training.stepSlowdown", 1.2, "1.20 times"),
        ("training.stragglerRank", 3.0, "3"),
        ("inference.batchSize", 2.5, "2.5"),
        ("pods.notReady", 2.0, "2"),
        ("training.dataShare", 0.5, "50%"),
    ],
)
def test_a_figure_without_a_unit_is_written_by_what_it_is(
    name: str, value: float, text: str
) -> None:
    assert shown(name, value, "") == text


def _entry(**changes: Any) -> CauseEntry:
    fields: dict[str, Any] = {
        "id": "made-up",
        "class_": "test",
        "category": "Data",
        "stage": "ingestion",
        "title": "A cause",
        "workload": WorkloadType.TRAINING,
        "predicates": (Predicate("training.dataShare", ">=", 0.2, "here"),),
        "share": shares.signal("training.dataShare"),
        "whys": (),
        **changes,
    }
    return CauseEntry(**fields)
