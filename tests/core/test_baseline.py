"""What is usual: how it is learnt, what it is compared with, and that a restart loses nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence

import pytest
from bottleneck_operator.api.policy_status import BaselineStatus
from bottleneck_operator.observe.baseline import (
    COMPARED,
    MAX_ENTRIES,
    MIN_WINDOWS,
    SETTLED_WINDOWS,
    Baselines,
)
from bottleneck_operator.observe.observation import (
    NoData,
    Observation,
    Reading,
    Signal,
    WorkloadType,
)
from hypothesis import given
from hypothesis import strategies as st

from .builders import CASES, NOW, observation, reading

HOUR = 3600.0


def training(step: float, batch: float = 32, ranks: float = 4, workers: float = 2) -> Observation:
    return observation(
        signals={
            "training.stepSeconds": reading(step, "s", "mean"),
            "training.microBatch": reading(batch, "samples", "mean"),
            "training.ranks": reading(ranks, "ranks", "last"),
            "dataLoader.workers": reading(workers, "workers", "minimum over ranks"),
        }
    )


def serving(
    latency: float, rate: float = 10.0, percentile: int = 95, replicas: int = 1, **more: float
) -> Observation:
    signals: dict[str, Signal] = {
        "inference.latency": reading(latency, "s", f"p{percentile}"),
        "inference.arrivalRate": reading(rate, "requests/s", "rate"),
    }
    signals |= {f"inference.{name}": reading(value, "s", "mean") for name, value in more.items()}
    return observation(WorkloadType.INFERENCE, signals, expected=replicas, streaming=replicas)


def learnt(
    seen: Sequence[Observation], baselines: Baselines | None = None, start: float = NOW
) -> Baselines:
    """After these observations, ten seconds apart."""
    baselines = baselines or Baselines()
    for number, each in enumerate(seen):
        assert baselines.learn(each, start + 10 * number)
    return baselines


def ratio(found: Mapping[str, Signal], name: str) -> float:
    signal = found[name]
    assert isinstance(signal, Reading), signal
    return signal.value


def why(found: Mapping[str, Signal], name: str) -> str:
    signal = found[name]
    assert isinstance(signal, NoData), signal
    return signal.reason


def test_a_slower_step_is_told_as_a_ratio_and_the_usual_one_as_1() -> None:
    baselines = learnt([training(0.5)] * 10)
    found = baselines.compare(training(0.75))
    assert ratio(found, "training.stepSlowdown") == pytest.approx(1.5)
    assert ratio(baselines.compare(training(0.51)), "training.stepSlowdown") == 1.0
    assert ratio(baselines.compare(training(0.25)), "training.stepSlowdown") == pytest.approx(0.5)
    slower = found["training.stepSlowdown"]
    assert isinstance(slower, Reading)
    assert (slower.unit, slower.statistic, slower.source) == ("×", "over the usual", "sidecar")


@pytest.mark.parametrize("windows", range(MIN_WINDOWS))
def test_a_few_windows_are_no_usual(windows: int) -> None:
    found = learnt([training(0.5)] * windows).compare(training(0.75))
    expected = f"only {windows} windows" if windows else "nothing was learnt yet"
    assert why(found, "training.stepSlowdown").startswith(expected)
    assert ratio(
        learnt([training(0.5)] * MIN_WINDOWS).compare(training(0.75)), "training.stepSlowdown"
    ) == pytest.approx(1.5)


def test_what_is_20_percent_slower_shows_after_five_steady_windows() -> None:
    found = learnt([training(0.5)] * MIN_WINDOWS).compare(training(0.5 * 1.2))
    assert ratio(found, "training.stepSlowdown") == pytest.approx(1.2)


@pytest.mark.parametrize(
    "other", [training(0.75, batch=64), training(0.75, ranks=8), training(0.75, workers=0)]
)
def test_another_setting_of_training_is_another_workload(other: Observation) -> None:
    found = learnt([training(0.5)] * 10).compare(other)
    assert "nothing was learnt yet" in why(found, "training.stepSlowdown")


def test_the_smaller_last_batch_of_an_epoch_is_the_same_setting() -> None:
    found = learnt([training(0.5)] * 10).compare(training(0.75, batch=31.2))
    assert ratio(found, "training.stepSlowdown") == pytest.approx(1.5)


def test_latency_is_only_held_against_that_at_similar_load() -> None:
    baselines = learnt([serving(0.1, rate=10)] * 10)
    baselines = learnt([serving(0.4, rate=40)] * 10, baselines, NOW + 1000)
    assert ratio(baselines.compare(serving(0.4, 40)), "inference.latencySlowdown") == 1.0
    assert ratio(baselines.compare(serving(0.4, 15)), "inference.latencySlowdown") == 4.0
    assert ratio(baselines.compare(serving(0.4, 80, replicas=2)), "inference.latencySlowdown") == 1
    assert "nothing was learnt" in why(
        baselines.compare(serving(0.4, 100)), "inference.latencySlowdown"
    )


def test_an_octave_that_was_never_seen_is_read_between_its_neighbours() -> None:
    # 8 to 16 and 32 to 64 are known; 16 to 32 lies between, 4 to 8 and 64 to 128 outside.
    baselines = learnt([serving(0.1, rate=10)] * 10)
    baselines = learnt([serving(0.4, rate=40)] * 10, baselines, NOW + 1000)
    between = baselines.compare(serving(0.6, rate=20))
    assert ratio(between, "inference.latencySlowdown") == pytest.approx(3.0)
    for rate in (5.0, 70.0):
        assert isinstance(
            baselines.compare(serving(0.6, rate))["inference.latencySlowdown"], NoData
        )


def test_each_part_of_serving_has_its_own_usual() -> None:
    usual = serving(0.1, serviceSeconds=0.04, dependencySeconds=0.03)
    slow = serving(0.2, serviceSeconds=0.04, dependencySeconds=0.12)
    found = learnt([usual] * 10).compare(slow)
    assert found.keys() == {name for name in COMPARED if name.startswith("inference.")}
    assert ratio(found, "inference.latencySlowdown") == pytest.approx(2.0)
    assert ratio(found, "inference.serviceSlowdown") == 1.0
    assert ratio(found, "inference.dependencySlowdown") == pytest.approx(4.0)


def test_load_is_held_against_the_usual_load_whatever_the_octave() -> None:
    found = learnt([serving(0.1, rate=10)] * 10).compare(serving(0.1, rate=45))
    assert ratio(found, "inference.loadRatio") == pytest.approx(4.5)


def test_another_percentile_is_another_figure() -> None:
    found = learnt([serving(0.1)] * 10).compare(serving(0.3, percentile=99))
    assert "nothing was learnt yet" in why(found, "inference.latencySlowdown")


@pytest.mark.parametrize(
    ("seen", "wrong"),
    [
        (training(0.5), True),
        (observation(signals=training(0.5).signals, expected=2, streaming=1), False),
        (observation(signals=training(0.5).signals, expected=0, streaming=0), False),
        (observation(signals={"training.stepSeconds": NoData("silent")}), False),
        (observation(signals={"training.stepSeconds": reading(0.5, "s")}), False),
    ],
    ids=["something is wrong", "one is silent", "nobody is there", "no figure", "no load"],
)
def test_nothing_is_learnt_from_doubtful_windows(seen: Observation, wrong: bool) -> None:
    baselines = Baselines()
    assert not baselines.learn(seen, NOW, wrong=wrong)
    assert baselines.statuses() == []


def test_windows_that_overlap_count_once() -> None:
    baselines = Baselines()
    taken = [baselines.learn(training(0.5), NOW + second) for second in range(31)]
    assert sum(taken) == 4
    assert [each.count for each in baselines.statuses()] == [4]


# -- robust, and not to be talked into anything ----------------------------------------------------


def test_an_outlier_hardly_moves_the_usual() -> None:
    baselines = learnt([training(0.5)] * 20 + [training(50.0)] + [training(0.5)] * 5)
    (entry,) = baselines.statuses()
    assert entry.median == pytest.approx(0.5, rel=0.01)
    assert ratio(baselines.compare(training(0.65)), "training.stepSlowdown") == pytest.approx(
        1.3, rel=0.02
    )


def test_what_scatters_is_not_called_slower_within_its_scatter() -> None:
    noisy = [training(0.5 * factor) for factor in (0.8, 1.0, 1.2, 0.9, 1.1) * 8]
    baselines = learnt(noisy)
    assert ratio(baselines.compare(training(0.61)), "training.stepSlowdown") == 1.0
    assert ratio(baselines.compare(training(1.0)), "training.stepSlowdown") > 1.8


@pytest.mark.parametrize("percent_an_hour", [2, 5, 20])
def test_a_slow_drift_is_not_learnt_away(percent_an_hour: float) -> None:
    baselines = learnt([training(0.5)] * 60)
    start, step = NOW + 600, 0.5
    for window in range(int(24 * HOUR / 10)):
        step = 0.5 * (1 + percent_an_hour / 100 * window * 10 / HOUR)
        baselines.learn(training(step), start + window * 10)
    assert ratio(baselines.compare(training(step)), "training.stepSlowdown") == pytest.approx(
        step / 0.5, rel=0.02
    )


def test_a_window_that_is_degraded_is_not_learnt_from() -> None:
    baselines = learnt([training(0.5)] * SETTLED_WINDOWS)
    before = baselines.statuses()
    assert not baselines.learn(training(0.7), NOW + HOUR)
    assert baselines.statuses() == before


def test_an_improvement_becomes_the_usual_within_minutes() -> None:
    baselines = learnt([training(0.5)] * 60)
    baselines = learnt([training(0.4)] * 240, baselines, NOW + HOUR)
    assert ratio(baselines.compare(training(0.5)), "training.stepSlowdown") == pytest.approx(
        1.25, rel=0.02
    )


def test_noise_does_not_drag_the_anchor_down() -> None:
    noise = random.Random(1)
    wave = [training(0.5 * max(0.2, noise.gauss(1.0, 0.2))) for _ in range(3000)]
    baselines = learnt(wave[:SETTLED_WINDOWS])
    (settled,) = baselines.statuses()
    for number, each in enumerate(wave):
        baselines.learn(each, NOW + HOUR + 10 * number)
    (entry,) = baselines.statuses()
    assert entry.count > 2000
    assert entry.anchor is not None
    assert settled.anchor is not None
    assert settled.anchor <= entry.anchor <= settled.anchor * 1.005


def test_a_few_windows_make_the_scatter_wider() -> None:
    slower = training(0.5 * 1.15)
    few, many = learnt([training(0.5)] * MIN_WINDOWS), learnt([training(0.5)] * 60)
    assert ratio(few.compare(slower), "training.stepSlowdown") == 1.0
    assert ratio(many.compare(slower), "training.stepSlowdown") == pytest.approx(1.15)


def test_what_is_kept_is_written_with_nine_digits() -> None:
    (entry,) = learnt([training(1 / 3), training(0.4)]).statuses()
    assert entry.median == pytest.approx((1 / 3 + 0.4) / 2)
    assert len(f"{entry.median!r}") <= 11


def test_a_long_absence_does_not_let_the_anchor_leap() -> None:
    baselines = learnt([training(0.5)] * 60)
    baselines = learnt([training(0.55)] * 60, baselines, NOW + 365 * 24 * HOUR)
    (entry,) = baselines.statuses()
    assert entry.anchor is not None
    assert entry.anchor <= 0.5 * 1.0051


def test_the_number_of_loads_is_bounded_and_the_oldest_give_way() -> None:
    baselines = Baselines()
    for number in range(2 * MAX_ENTRIES):
        baselines.learn(training(0.5, ranks=number + 1), NOW + number)
    loads = [status.load for status in baselines.statuses()]
    assert len(loads) == MAX_ENTRIES
    assert all(f"× {number + 1} ranks" not in load for number in range(9) for load in loads)


# -- restarts --------------------------------------------------------------------------------------

OBSERVATIONS = st.one_of(
    st.builds(
        training,
        st.floats(0.001, 1000.0),
        batch=st.sampled_from([1.0, 32.0, 31.3]),
        ranks=st.sampled_from([1.0, 8.0]),
    ),
    st.builds(
        serving,
        st.floats(0.001, 100.0),
        rate=st.floats(0.1, 1e5),
        serviceSeconds=st.floats(1e-6, 10.0),
    ),
)


@CASES
@given(
    st.lists(st.tuples(OBSERVATIONS, st.floats(0, 300)), max_size=30),
    st.lists(OBSERVATIONS, max_size=5),
)
def test_a_restart_changes_nothing(
    seen: list[tuple[Observation, float]], later: list[Observation]
) -> None:
    going_on, now = Baselines(), NOW
    restarting = Baselines()
    for each, wait in seen:
        now += wait
        going_on.learn(each, now)
        restarting.learn(each, now)
        written = json.dumps([status.dump() for status in restarting.statuses()])
        restarting = Baselines.restored(
            BaselineStatus.model_validate(status) for status in json.loads(written)
        )
    assert restarting.statuses() == going_on.statuses()
    for each in later:
        assert restarting.compare(each) == going_on.compare(each)


@pytest.mark.parametrize(
    "broken", [{"median": 0.0}, {"median": -1.0}, {"anchor": 0.0}, {"count": 0}]
)
def test_an_entry_that_cannot_be_usual_is_left_out(broken: dict[str, float]) -> None:
    (good,) = learnt([training(0.5)] * 10).statuses()
    bad = good.model_copy(update=broken)
    assert Baselines.restored([good]).statuses() == [good]
    assert Baselines.restored([bad]).statuses() == []


def test_an_entry_from_before_there_were_anchors_is_compared_with_its_median() -> None:
    (entry,) = learnt([training(0.5)] * 10).statuses()
    old = Baselines.restored([entry.model_copy(update={"anchor": None, "since": None})])
    assert ratio(old.compare(training(1.0)), "training.stepSlowdown") == pytest.approx(2.0)
