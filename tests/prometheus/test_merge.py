"""Prometheus' figures beside those of the sidecars."""

from __future__ import annotations

from bottleneck_operator.api.conditions import Reason
from bottleneck_operator.observe.observation import (
    NoData,
    Observation,
    Reading,
    Replica,
    WorkloadType,
)
from bottleneck_operator.observe.prometheus_merge import merge
from bottleneck_operator.observe.prometheus_signals import NOT_YET, Figure, Sourced
from bottleneck_operator.report.prometheus import with_prometheus
from bottleneck_operator.report.status import Problem

NOW = 1_800_000_000.0


def figure(value: float, age: float = 1.0, limit: float = 15.0) -> Figure:
    return Figure(Reading(value, "", 60.0, "mean", age, "Prometheus: x"), limit)


def own(value: float) -> Reading:
    return Reading(value, "", 10.0, "mean", 0.5, "sidecar")


def test_a_sidecars_figure_stays_and_what_it_does_not_see_is_filled_in() -> None:
    observation = Observation(
        time=NOW,
        type=WorkloadType.TRAINING,
        signals={"cpu.usedCores": own(1.0), "memory.usedShare": NoData("1 of 2 are silent")},
        replicas=(Replica("a-0", {"cpu.usedCores": own(1.0)}),),
        expected=2,
        streaming=1,
        newest=NOW - 0.5,
    )
    sourced = Sourced(
        time=NOW - 2,
        figures={
            "cpu.usedCores": figure(9.0),
            "memory.usedShare": figure(0.5),
            "gpu.utilization": figure(0.8),
            "io.pressureShare": Figure(NoData("it is not told")),
        },
        replicas={
            "a-0": {"cpu.usedCores": figure(9.0), "gpu.utilization": figure(0.7)},
            "a-1": {"gpu.utilization": figure(0.9)},
        },
        workload="inference",
        pods=("a-0", "a-1"),
    )
    merged = merge(observation, sourced, since=0.0)
    assert merged.value("cpu.usedCores") == 1.0
    assert merged.value("memory.usedShare") == 0.5
    assert merged.value("gpu.utilization") == 0.8
    assert merged.signal("io.pressureShare") == NoData("it is not told")
    # Its age is that of the sample, and what has passed since the look.
    assert merged.signal("gpu.utilization") == Reading(0.8, "", 60.0, "mean", 3.0, "Prometheus: x")
    assert {r.pod: {n: merged_value(s) for n, s in r.signals.items()} for r in merged.replicas} == {
        "a-0": {"cpu.usedCores": 1.0, "gpu.utilization": 0.7},
        "a-1": {"gpu.utilization": 0.9},
    }
    # A silent sidecar stays silent, whoever else speaks of its pod.
    assert (merged.expected, merged.streaming, merged.newest) == (2, 1, NOW - 0.5)
    assert merged.type is WorkloadType.TRAINING


def merged_value(signal: object) -> float:
    assert isinstance(signal, Reading)
    return signal.value


def test_a_query_of_the_policy_goes_before_a_sidecar_even_without_a_figure() -> None:
    observation = Observation(
        NOW,
        WorkloadType.INFERENCE,
        {"inference.latency": own(1.0), "inference.queued": own(1.0)},
        expected=1,
        streaming=1,
    )
    sourced = Sourced(
        time=NOW,
        figures={
            "inference.latency": figure(2.0),
            "inference.queued": Figure(NoData("answered 400")),
        },
        explicit=frozenset(("inference.latency", "inference.queued")),
    )
    merged = merge(observation, sourced, since=0.0)
    assert merged.value("inference.latency") == 2.0
    assert merged.signal("inference.queued") == NoData("answered 400")


def nothing() -> Observation:
    return Observation(NOW, WorkloadType.UNKNOWN, {})


def test_without_sidecars_prometheus_speaks_for_the_pods() -> None:
    sourced = Sourced(
        time=NOW - 4,
        figures={"inference.latency": figure(2.0, age=3.0)},
        replicas={"a-0": {"inference.latency": figure(2.0, age=3.0)}},
        workload="inference",
        pods=("a-0", "a-1"),
    )
    merged = merge(nothing(), sourced, since=0.0)
    assert merged.type is WorkloadType.INFERENCE
    assert (merged.expected, merged.streaming, merged.newest) == (2, 1, NOW - 7)
    assert [replica.pod for replica in merged.replicas] == ["a-0"]


def test_figures_of_no_pod_are_of_all() -> None:
    sourced = Sourced(NOW, figures={"inference.latency": figure(2.0)}, pods=("a-0", "a-1"))
    merged = merge(nothing(), sourced, since=0.0)
    assert (merged.expected, merged.streaming) == (2, 2)


def test_the_type_follows_from_the_policys_queries_where_nothing_is_recognised() -> None:
    sourced = Sourced(
        NOW,
        figures={"training.stepSeconds": figure(1.0)},
        explicit=frozenset(("training.stepSeconds", "custom.x")),
    )
    assert merge(nothing(), sourced, since=0.0).type is WorkloadType.TRAINING


def test_a_look_grows_old() -> None:
    sourced = Sourced(
        time=NOW - 20,
        figures={"inference.latency": figure(2.0), "gpu.utilization": figure(0.5, limit=30.0)},
        replicas={"a-0": {"inference.latency": figure(2.0)}},
        pods=("a-0",),
    )
    merged = merge(nothing(), sourced, since=0.0)
    stale = merged.signal("inference.latency")
    assert stale == NoData("the newest sample behind Prometheus: x is 21s old")
    assert merged.value("gpu.utilization") == 0.5
    assert merged.streaming == 0


def test_a_look_from_before_a_change_says_nothing_after_it() -> None:
    sourced = Sourced(
        NOW - 3, figures={"inference.latency": figure(2.0)}, pods=("a-0",), since=NOW - 100
    )
    assert merge(nothing(), sourced, since=NOW - 100).value("inference.latency") == 2.0
    changed = merge(nothing(), sourced, since=NOW - 1)
    assert changed.signal("inference.latency") == NoData("not looked at since the last change")
    assert changed.newest is None


NOT_INJECTED = Problem(Reason.NOT_INJECTED, "the pods have no sidecar")
SILENT = Problem(Reason.NO_DATA, "1 of 2 replicas are silent")


def test_the_condition_without_prometheus_is_the_sidecars() -> None:
    assert with_prometheus(SILENT, nothing(), None) is SILENT
    assert with_prometheus(None, nothing(), None) is None


def test_the_condition_tells_what_was_wrong_with_the_look() -> None:
    said = "Prometheus at http://x cannot be reached: Connection refused"
    assert with_prometheus(None, nothing(), said) == Problem(Reason.PROMETHEUS_FAILED, said)
    both = with_prometheus(SILENT, nothing(), said)
    assert both == Problem(Reason.PROMETHEUS_FAILED, f"{said}; 1 of 2 replicas are silent")
    assert with_prometheus(None, nothing(), "") is None


def test_before_the_first_look_there_is_no_failure() -> None:
    assert with_prometheus(NOT_INJECTED, nothing(), NOT_YET) == Problem(Reason.NO_DATA, NOT_YET)


def test_pods_without_a_sidecar_on_purpose_are_no_mistake() -> None:
    observation = Observation(NOW, WorkloadType.INFERENCE, {}, expected=3, streaming=2)
    found = with_prometheus(NOT_INJECTED, observation, "")
    assert found == Problem(Reason.NO_DATA, "Prometheus has fresh figures of 2 of 3 replicas")
    assert with_prometheus(NOT_INJECTED, nothing(), "") == Problem(
        Reason.NO_DATA, "no replica has run long enough for figures from Prometheus"
    )
