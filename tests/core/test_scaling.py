"""How many replicas a load needs: the queue, the replay, the forecast, growing and shrinking."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from bottleneck_operator.api.objectives import Objectives
from bottleneck_operator.api.report import Phase
from bottleneck_operator.decide.scaling.forecast import LEAST_TESTS, forecast, steps_of
from bottleneck_operator.decide.scaling.growth import (
    START_SECONDS,
    There,
    carrying,
    growth,
    there_of,
)
from bottleneck_operator.decide.scaling.load import VARIABILITY, Load, load_of, variability
from bottleneck_operator.decide.scaling.queueing import (
    LEAST_OCCUPANCY,
    MOST_OCCUPANCY,
    Goal,
    Service,
    erlang_c,
    latency,
    margin,
    needed,
)
from bottleneck_operator.decide.scaling.replay import late, standing
from bottleneck_operator.decide.scaling.shrink import MOST_AT_ONCE, fewer
from bottleneck_operator.observe.observation import Observation, WorkloadType
from bottleneck_operator.observe.trail import Slot, Trail
from hypothesis import given
from hypothesis import strategies as st

from .builders import CASES, NOW, moment, observation, reading, replicas_action, report

RATES = st.floats(0, 2000)
SERVICES = st.builds(
    Service, st.floats(0.001, 30), st.integers(1, 64), st.floats(VARIABILITY[0], VARIABILITY[1])
)
GOALS = st.builds(
    Goal, st.floats(50, 99), st.one_of(st.none(), st.floats(0.005, 60)), st.floats(0, 20)
)
ONE = Service(0.1)
QUICK = Goal(95, 0.5)


# -- the queue -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("places", "load", "expected"),
    [(1, 0.5, 0.5), (1, 0.9, 0.9), (2, 1.0, 1 / 3), (5, 4.0, 0.5541), (3, 3.0, 1.0), (4, 0.0, 0.0)],
)
def test_the_probability_to_wait(places: int, load: float, expected: float) -> None:
    """Against values of the textbooks: M/M/1 waits as often as it is busy."""
    assert erlang_c(places, load) == pytest.approx(expected, abs=1e-4)


def test_a_patient_objective_lets_servers_be_busier() -> None:
    many = Service(0.1, places=8)
    assert needed(400, many, Goal(95, 10.0)) == math.ceil(40 / 8 / MOST_OCCUPANCY)
    assert needed(400, many, Goal(95, 0.11)) == math.ceil(40 / 8 / LEAST_OCCUPANCY)


@CASES
@given(RATES, RATES, SERVICES, GOALS)
def test_more_load_never_needs_fewer(one: float, more: float, service: Service, goal: Goal) -> None:
    assert needed(one, service, goal) <= needed(one + more, service, goal)


@CASES
@given(RATES, SERVICES, GOALS, st.floats(1, 10))
def test_a_laxer_goal_never_needs_more(
    rate: float, service: Service, goal: Goal, times: float
) -> None:
    if goal.seconds is not None:
        laxer = replace(goal, seconds=goal.seconds * times)
        assert needed(rate, service, laxer) <= needed(rate, service, goal)


@CASES
@given(RATES, SERVICES, GOALS, st.integers(0, 20))
def test_enough_stays_enough(rate: float, service: Service, goal: Goal, more: int) -> None:
    found = needed(rate, service, goal)
    assert latency(rate, service, goal, found + more) <= latency(rate, service, goal, found) + 1e-9
    assert found == 1 or rate / service.capacity / found <= MOST_OCCUPANCY + 1e-6


@CASES
@given(RATES, SERVICES, GOALS, st.integers(1, 50))
def test_one_more_never_hurts_and_one_fewer_never_helps(
    rate: float, service: Service, goal: Goal, replicas: int
) -> None:
    found = margin(rate, service, goal, replicas)
    assert found.gain >= -1e-9
    assert found.loss >= -1e-9


# -- the load --------------------------------------------------------------------------------------

SERVING = Objectives.model_validate({"latency": {"percentile": 95, "target": "500ms"}})


def seen(second: float = 0.0, streaming: int = 1, **signals: float) -> Observation:
    figures = {"arrivalRate": 10.0, "serviceSeconds": 0.1, "queued": 0.0, **signals}
    readings = {f"inference.{name}": reading(value) for name, value in figures.items()}
    found = observation(WorkloadType.INFERENCE, readings, streaming=streaming)
    return replace(found, time=NOW + second)


def trail_of(rates: Sequence[float], end: float = NOW, **signals: float) -> Trail:
    """One figure a second, the last at ``end``."""
    found = Trail()
    for index, rate in enumerate(rates):
        found.note(seen(end - NOW - len(rates) + 1 + index, arrivalRate=rate, **signals))
    return found


@pytest.mark.parametrize(
    "what",
    [
        seen(streaming=0),
        replace(seen(), type=WorkloadType.TRAINING),
        replace(seen(), signals={"inference.arrivalRate": reading(10.0)}),
        replace(seen(), signals={"inference.serviceSeconds": reading(0.1)}),
    ],
    ids=["silent", "training", "no service time", "no rate"],
)
def test_a_load_that_is_not_known_is_none(what: Observation) -> None:
    assert load_of(what, SERVING, Trail()) is None


def test_a_batcher_that_is_not_full_can_take_more() -> None:
    half = load_of(seen(batchSize=4, batchLimit=8), SERVING, Trail())
    assert half is not None
    assert half.service.places == 8
    assert half.service.seconds == pytest.approx(0.15)


def test_a_backlog_is_what_waits_too_long() -> None:
    found = load_of(seen(queued=14), SERVING, Trail())
    assert found is not None
    assert found.backlog == pytest.approx(14 - 10 * 0.4)


@pytest.mark.parametrize(("waits", "expected"), [(0.1, 1.0), (0.05, 0.5), (9.0, 4.0), (0.0, 0.25)])
def test_variability_is_measured_on_calm_waits(waits: float, expected: float) -> None:
    """At 50% busy M/M/1 waits for one service time on average."""
    past = trail_of([5.0] * 120, occupancy=0.5, queueSeconds=waits)
    assert variability(ONE, past, NOW) == pytest.approx(expected)
    full = trail_of([10.0] * 120, occupancy=0.99, queueSeconds=waits)
    assert variability(ONE, full, NOW) == 1.0


# -- the replay ------------------------------------------------------------------------------------


def slots(*rates: float) -> list[Slot]:
    return [Slot(NOW + 5.0 * i, rate, 1, rate, rate) for i, rate in enumerate(rates)]


def test_a_rare_burst_is_stood_by_fewer_than_its_peak_needs() -> None:
    load = slots(*([5.0] * 150), 30.0)
    assert needed(30, ONE, QUICK) >= 4
    rare = standing(load, ONE, QUICK)
    assert needed(5, ONE, QUICK) <= rare < needed(30, ONE, QUICK)
    often = slots(*([5.0, 5.0, 30.0, 30.0] * 30))
    assert standing(often, ONE, QUICK) > rare


def test_what_waited_before_a_gap_is_forgotten() -> None:
    burst = [Slot(NOW, 100, 1, 100, 100), Slot(NOW + 600, 1, 1, 1, 1)]
    assert late(burst, ONE, QUICK, 1) == pytest.approx(100 / 101)


@CASES
@given(st.lists(st.floats(0, 200), min_size=1, max_size=40), SERVICES, GOALS, st.floats(1, 3))
def test_the_replay_is_monotone_and_bounded(
    rates: list[float], service: Service, goal: Goal, times: float
) -> None:
    load = slots(*rates)
    found = standing(load, service, goal)
    assert found <= standing(load, service, goal, times)
    assert found <= needed(max(rates), service, goal)
    assert late(load, service, goal, found + 1) <= late(load, service, goal, found)


# -- the forecast ----------------------------------------------------------------------------------


def test_a_trend_is_told_better_than_by_persistence() -> None:
    found = forecast([10 + step * 0.5 for step in range(120)], 4)
    assert found is not None
    assert found.better
    assert 69.5 < found.value < 74


@pytest.mark.parametrize("ahead", [3, 6])
def test_what_is_no_better_than_persistence_is_not_believed(ahead: int) -> None:
    jumps = [10.0 if step // 7 % 2 else 30.0 for step in range(180)]
    found = forecast(jumps, ahead)
    assert found is not None
    assert not found.better
    few = forecast([float(step) for step in range(LEAST_TESTS)], ahead)
    assert few is not None
    assert not few.better


@CASES
@given(st.lists(st.floats(0, 1e6), max_size=60), st.integers(1, 12))
def test_a_forecast_does_not_run_away(steps: list[float], ahead: int) -> None:
    found = forecast(steps, ahead)
    if found is not None:
        assert 0 <= found.value <= 2 * steps[-1]


def test_only_what_came_after_a_gap_is_learnt_from() -> None:
    both = trail_of([5.0] * 60, NOW - 200), trail_of([7.0] * 60)
    past = [*both[0].series("inference.arrivalRate", 900, NOW)]
    past += both[1].series("inference.arrivalRate", 900, NOW)
    steps = steps_of(past)
    assert steps is not None
    assert set(steps) == {7.0}
    assert steps_of([]) is None


# -- growing ---------------------------------------------------------------------------------------


def asked(rate: float, steady: float | None = None, backlog: float = 0.0) -> Load:
    return Load(rate, rate if steady is None else steady, backlog, ONE, QUICK)


def test_a_new_burst_is_followed_at_once() -> None:
    found = growth(asked(40, 5), trail_of([5.0] * 300), There(1, 1), 600, NOW)
    assert found.panic
    assert found.replicas >= needed(40, ONE, QUICK)


def test_a_burst_that_was_seen_before_is_not_chased() -> None:
    past = trail_of([5.0] * 250 + [40.0] * 15 + [5.0] * 150)
    found = growth(asked(40, 5), past, There(2, 2), 600, NOW)
    assert not found.panic
    assert found.replicas < needed(40, ONE, QUICK)


def test_what_has_lasted_is_grown_for_before_it_hurts() -> None:
    found = growth(asked(9), trail_of([9.0] * 60), There(1, 1), 600, NOW)
    assert found.replicas == needed(9, ONE, QUICK) == 2


def test_a_ramp_is_grown_for_before_it_arrives() -> None:
    ramp = trail_of([2 + 10 * second / 900 for second in range(900)])
    there = There(2, 2, start=60)
    found = growth(asked(11.9), ramp, there, 600, NOW)
    assert needed(11.9, ONE, QUICK) == there.replicas < found.replicas
    assert "predicted" in found.reason


def test_what_is_on_its_way_is_not_ordered_twice() -> None:
    """While replicas start, the backlog grows as it was foreseen, and the answer stays."""
    answers = []
    for waited in range(0, 30, 5):
        backlog = (40 - 10) * waited
        there = There(1, 1) if waited == 0 else There(9, 1, due=30 - waited)
        answers.append(carrying(40, asked(40, backlog=backlog), there, 30 - waited))
    assert len(set(answers)) == 1


@CASES
@given(RATES, RATES, st.floats(0, 1000), st.integers(1, 50), st.floats(0, 60))
def test_growth_is_monotone_in_load_and_backlog(
    rate: float, more: float, backlog: float, ready: int, wait: float
) -> None:
    there = There(ready, ready)
    less = carrying(rate, asked(rate), there, wait)
    assert less <= carrying(rate, asked(rate, backlog=backlog), there, wait)
    assert less <= carrying(rate + more, asked(rate + more), there, wait)


def test_how_long_a_start_takes_is_measured() -> None:
    def grown(took: float, at: float) -> object:
        return report(
            replicas_action(3, 1),
            Phase.KEPT,
            applied_at=moment(at),
            acknowledged_at=moment(at + took),
        )

    past = [grown(took, -1000 + 100 * index) for index, took in enumerate((90, 50, 40))]
    assert there_of(3, 3, past, NOW).start == 50  # type: ignore[arg-type]
    assert there_of(3, 3, [], NOW).start == START_SECONDS
    under_way = report(replicas_action(5, 3), Phase.APPLIED, applied_at=moment(-10))
    assert there_of(5, 3, [under_way], NOW).due == START_SECONDS - 10


# -- shrinking -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rates", "there", "load", "expected"),
    [
        ([8.0] * 620, There(6, 6), asked(8), 3),
        ([4.0] * 620, There(3, 3), asked(4), 2),
        ([8.0] * 300, There(6, 6), asked(8), None),
        ([8.0] * 620, There(6, 5), asked(8), None),
        ([8.0] * 620, There(6, 6), asked(8, backlog=5), None),
        ([8.0] * 620, There(6, 6), asked(50), None),
        ([8.0] * 620, There(2, 2), asked(8), None),
        ([8.0] * 500 + [50.0] * 100 + [8.0] * 20, There(6, 6), asked(8), None),
    ],
    ids=[
        "half at most",
        "enough",
        "not seen long enough",
        "one is on its way",
        "a backlog",
        "load is back",
        "nothing to spare",
        "a burst in the window",
    ],
)
def test_what_can_be_given_back(
    rates: list[float], there: There, load: Load, expected: int | None
) -> None:
    assert fewer(load, trail_of(rates), there, 600, NOW) == expected


@CASES
@given(st.lists(st.floats(0, 100), min_size=1, max_size=8), st.integers(1, 60))
def test_a_shrink_is_bounded_and_asks_for_no_growth_at_once(
    levels: list[float], replicas: int
) -> None:
    rates = [level for level in levels for _ in range(640 // len(levels) + 1)]
    past, load = trail_of(rates), asked(rates[-1])
    survivors = fewer(load, past, There(replicas, replicas), 600, NOW)
    if survivors is not None:
        assert max(1, replicas * MOST_AT_ONCE) <= survivors < replicas
        after = growth(load, past, There(survivors, survivors), 600, NOW)
        assert after.replicas <= survivors
