"""Call graphs with a known fault in, the component at fault out; silence on healthy ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bottleneck_operator.diagnose.calls import Calls
from bottleneck_operator.diagnose.components import Family, Key, Series, family, panel, signs
from bottleneck_operator.diagnose.graph import GraphDiagnosis, SymptomError, diagnose_graph
from hypothesis import given, settings
from hypothesis import strategies as st

from hack.bench.made_up import STEP, Samples, System

from .builders import CASES


def components(diagnosis: GraphDiagnosis) -> list[str]:
    return [suspect.component for suspect in diagnosis.ranking]


def shown(diagnosis: GraphDiagnosis) -> list[tuple[str, str, float]]:
    return [(one.component, one.metric, one.score) for one in diagnosis.ranking]


def changed(series: Series, change: Callable[[Key, list[float], list[float]], Any]) -> Samples:
    return dict(change(key, list(t), list(v)) for key, (t, v) in series.items())


# -- whom it blames --------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 3, 5])
@pytest.mark.parametrize("rows", [slice(-5, None), slice(-4, -2)], ids=["all steps", "two steps"])
def test_in_a_chain_the_deepest_slow_component_is_blamed(depth: int, rows: slice) -> None:
    system = System(seed=depth, components=6, chain=True)
    system.slow(depth, 0.5, rows)
    assert components(system.diagnose())[0] == f"s{depth}"


@pytest.mark.parametrize("depth", [2, 4])
def test_a_failing_component_is_blamed_for_failures(depth: int) -> None:
    system = System(seed=depth, components=6, chain=True)
    system.break_(depth, 0.2)
    diagnosis = system.diagnose("availability")
    assert components(diagnosis)[0] == f"s{depth}"
    assert diagnosis.ranking[0].metric == "availability"


def test_an_entry_that_is_slow_itself_is_blamed_itself() -> None:
    system = System(seed=3)
    system.slow(0, 0.5)
    assert components(system.diagnose())[0] == "s0"


def test_a_fault_in_random_systems_is_found() -> None:
    """What hack/bench measures on one real system, on other graphs, faults and noise."""
    first, third = 0, 0
    seeds = range(40)
    for seed in seeds:
        system = System(seed)
        cause = 1 + seed % (system.size - 1)
        if seed % 2:
            system.slow(cause, 0.3)
        else:
            system.break_(cause, 0.3)
        order = components(system.diagnose("latency" if seed % 2 else "availability"))
        first += order[:1] == [f"s{cause}"]
        third += f"s{cause}" in order[:3]
    assert first >= 0.8 * len(seeds)
    assert third >= 0.9 * len(seeds)


def test_healthy_systems_are_left_in_peace() -> None:
    seeds = range(40)
    quiet = [
        System(1000 + seed).diagnose("latency" if seed % 2 else "availability").healthy
        for seed in seeds
    ]
    assert sum(quiet) >= 0.9 * len(seeds)


def test_a_component_without_figures_is_looked_through() -> None:
    system = System(seed=2, components=5, chain=True)
    system.slow(4, 0.5)
    blind = [
        changed(some, lambda key, t, v: (("none", *key[1:]) if key[0] == "s2" else key, (t, v)))
        for some in system.metrics()
    ]
    diagnosis = diagnose_graph(system.topology, *blind, ("s0", "latency"))
    assert components(diagnosis)[0] == "s4"


def test_a_slow_component_that_is_not_called_is_behind_one_that_is() -> None:
    system = System(seed=5, components=6, chain=True)
    system.slow(4, 0.4)
    topology = [edge for edge in system.topology if edge[1] != "s4"] + [("s1", "s3")]
    order = components(diagnose_graph(topology, *system.metrics(), ("s0", "latency")))
    assert order.index("s3") < order.index("s4")


def test_a_drift_since_the_baseline_is_not_the_incident() -> None:
    """The baseline is of another week: one component is always slower, another just became so."""
    system = System(seed=6, components=6, chain=True)
    system.slow(3, 0.5, slice(-3, -1))
    before, during = system.metrics()
    times, values = during["s5", "latency", "Average"]
    during["s5", "latency", "Average"] = (times, [3 * value for value in values])
    order = components(diagnose_graph(system.topology, before, during, ("s0", "latency")))
    assert order[0] == "s3"


def test_traffic_is_traced_to_who_sends_it() -> None:
    system = System(seed=7, components=5, chain=True)
    system.calls[:, -3:] *= 3
    before, during = system.metrics()
    topology = [*system.topology, ("quiet", "s4")]
    diagnosis = diagnose_graph(topology, before, during, ("s4", "requests"))
    assert not diagnosis.healthy
    assert components(diagnosis)[0] == "s0"


def test_a_busy_cpu_is_shown_with_the_component_that_it_slows() -> None:
    system = System(seed=8, components=6, chain=True)
    system.slow(3, 0.5)
    system.cpu[3, -4:-1] *= 2.5
    first = system.diagnose().ranking[0]
    assert first.component == "s3"
    assert "s3:cpu_usage" in [figure.signal for figure in first.evidence]


def test_calls_in_a_circle_end() -> None:
    system = System(seed=9, components=6, chain=True)
    system.slow(3, 0.5)
    topology = [*system.topology, ("s5", "s1"), ("s4", "s4"), ("s0", "s0")]
    order = components(diagnose_graph(topology, *system.metrics(), ("s0", "latency")))
    assert sorted(order) == sorted(set(order))
    assert "s3" in order[:2]


# -- what it says ----------------------------------------------------------------------------------


def test_a_suspect_comes_with_figures_that_can_be_checked() -> None:
    system = System(seed=1, components=6, chain=True)
    system.slow(3, 0.5)
    first = system.diagnose(missing=0.0).ranking[0]
    figure, share, *_ = first.evidence
    assert (figure.signal, figure.window) == ("s3:latency", "900s")
    assert figure.threshold is not None
    assert figure.value > figure.threshold
    assert "99% of healthy windows" in figure.source
    assert share.signal == "share of s0:latency"
    assert 0.5 < share.value <= 1


def test_each_component_appears_once_and_scores_fall() -> None:
    system = System(seed=11)
    system.slow(4, 0.6)
    diagnosis = system.diagnose()
    order = components(diagnosis)
    assert len(order) == len(set(order))
    scores = [suspect.score for suspect in diagnosis.ranking]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


def test_healthy_says_so_and_blames_nobody() -> None:
    diagnosis = System(seed=12).diagnose("availability")
    assert (diagnosis.healthy, diagnosis.ranking) == (True, ())
    assert "s0:availability" in diagnosis.reason


# -- properties ------------------------------------------------------------------------------------


def _faulty(seed: int) -> System:
    system = System(seed, components=12)
    system.slow(1 + seed % 11, 0.4)
    return system


SEEDS = st.integers(0, 200)
FEW = settings(CASES, max_examples=20)
"""Each diagnoses a system of twelve components twice, which takes a third of a second."""


@FEW
@given(SEEDS, st.sampled_from([1e-6, 1000.0, 60.0]))
def test_the_unit_of_a_metric_does_not_matter(seed: int, unit: float) -> None:
    system = _faulty(seed)
    before, during = system.metrics()

    def rescaled(key: Key, times: list[float], values: list[float]) -> Any:
        factor = unit if key[1] == "latency" else 1.0
        return key, (times, [factor * value for value in values])

    symptom = ("s0", "latency")
    as_is = diagnose_graph(system.topology, before, during, symptom)
    other = diagnose_graph(
        system.topology, changed(before, rescaled), changed(during, rescaled), symptom
    )
    assert components(other) == components(as_is)


@FEW
@given(SEEDS)
def test_names_and_the_order_of_rows_do_not_matter(seed: int) -> None:
    system = _faulty(seed)
    before, during = system.metrics()
    names = {f"s{one}": f"zone/{97 * (one + 3) % 101}:api" for one in range(system.size)}
    order = np.random.default_rng(seed)

    def renamed(key: Key, times: list[float], values: list[float]) -> Any:
        places = order.permutation(len(times))
        shuffled = [times[one] for one in places], [values[one] for one in places]
        return (names[key[0]], *key[1:]), shuffled

    as_is = diagnose_graph(system.topology, before, during, ("s0", "latency"))
    topology = [(names[a], names[b]) for a, b in reversed(system.topology)]
    other = diagnose_graph(
        topology, changed(before, renamed), changed(during, renamed), (names["s0"], "latency")
    )
    # Equal scores are ordered by name, so compare as sets of places.
    assert sorted(shown(other)) == sorted((names[a], b, c) for a, b, c in shown(as_is))


@FEW
@given(SEEDS, st.sampled_from([float("nan"), float("inf"), -float("inf")]))
def test_what_is_not_a_number_is_missing(seed: int, odd: float) -> None:
    system = _faulty(seed)
    before, during = system.metrics()

    def spoiled(key: Key, times: list[float], values: list[float]) -> Any:
        return key, ([*times, times[0] if times else 0.0], [*values, odd])

    symptom = ("s0", "latency")
    as_is = diagnose_graph(system.topology, before, during, symptom)
    other = diagnose_graph(
        system.topology, changed(before, spoiled), changed(during, spoiled), symptom
    )
    assert shown(other) == shown(as_is)


@pytest.mark.parametrize("copies", [1, 3])
def test_the_baseline_itself_is_healthy(copies: int) -> None:
    before, _ = System(seed=13).metrics()
    again = changed(before, lambda key, t, v: (key, (t * copies, v * copies)))
    topology = System(seed=13).topology
    assert diagnose_graph(topology, before, again, ("s0", "latency")).healthy


# -- missing figures -------------------------------------------------------------------------------


def test_missing_values_are_not_zero() -> None:
    """An availability that nobody measured for three of five steps is no outage."""
    system = System(seed=14, components=6, chain=True)
    before, during = system.metrics(missing=0.0)
    times, values = during["s0", "availability", "Average"]
    during["s0", "availability", "Average"] = (times[:2], values[:2])
    assert diagnose_graph(system.topology, before, during, ("s0", "availability")).healthy


def test_a_constant_series_may_move_a_little() -> None:
    system = System(seed=15, components=6, chain=True)
    before, during = system.metrics(missing=0.0)
    times, values = during["s0", "availability", "Average"]
    during["s0", "availability", "Average"] = (times, [value - 0.2 for value in values])
    assert diagnose_graph(system.topology, before, during, ("s0", "availability")).healthy
    during["s0", "availability", "Average"] = (times, [value - 5.0 for value in values])
    assert not diagnose_graph(system.topology, before, during, ("s0", "availability")).healthy


@pytest.mark.parametrize(
    ("symptom", "message"),
    [
        (("s00", "latency"), "did you mean s0?"),
        (("s0", "latencies"), "it has: availability, cpu_usage, latency, memory_limit, requests"),
        (("silent", "latency"), "has no values in the incident"),
        (("new", "latency"), "fewer than 8 values in the baseline"),
    ],
)
def test_a_symptom_that_cannot_be_judged_is_refused(symptom: tuple[str, str], message: str) -> None:
    system = System(seed=16, components=3, chain=True)
    before, during = system.metrics()
    before["silent", "latency", "Average"] = before["s0", "latency", "Average"]
    during["silent", "latency", "Average"] = ([], [])
    before["new", "latency", "Average"] = ([0.0, STEP], [0.1, 0.1])
    during["new", "latency", "Average"] = during["s0", "latency", "Average"]
    with pytest.raises(SymptomError) as error:
        diagnose_graph(system.topology, before, during, symptom)
    assert message in str(error.value)


# -- parts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "kind", "bad"),
    [
        ("latency", Family.LATENCY, (1,)),
        ("request_duration_seconds", Family.LATENCY, (1,)),
        ("response_time", Family.LATENCY, (1,)),
        ("availability", Family.FAILURES, (-1,)),
        ("success_rate", Family.FAILURES, (-1,)),
        ("error_rate", Family.FAILURES, (1,)),
        ("request_errors", Family.FAILURES, (1,)),
        ("requests", Family.TRAFFIC, (1, -1)),
        ("cpu_usage", Family.RESOURCE, (1, -1)),
    ],
)
def test_a_metric_is_known_by_its_name(metric: str, kind: Family, bad: tuple[int, ...]) -> None:
    assert (family(metric), signs(metric)) == (kind, bad)


def test_duplicates_are_averaged_and_gaps_cost_nothing() -> None:
    times = [STEP * one for one in range(20)] + [0.0, 1e9]
    values = [1.0] * 20 + [3.0, 7.0]
    series = {("a", "latency", "p50"): (times, values)}
    track = panel(series, series).tracks["a", "latency", "p50"]
    assert track.baseline.tolist() == [2.0, *[1.0] * 19, 7.0]


def test_calls_are_shared_out_over_callers() -> None:
    values = {"a": 100.0, "b": 300.0, "c": 800.0}
    series: Samples = {
        (name, "requests", "Sum"): ([STEP * one for one in range(10)], [value] * 10)
        for name, value in values.items()
    }
    topology = [("a", "c"), ("b", "c"), ("c", "d")]
    calls = Calls(topology, panel(series, series).tracks, upstream=False)
    assert calls.ratio("a", "c") == calls.ratio("b", "c") == 2.0
    assert calls.ratio("c", "d") is None
