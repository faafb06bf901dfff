"""From lines to signals: what counts, what is left out, and what is not known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from bottleneck_operator.observe.counters import STALE_SECONDS, bucket_percentile
from bottleneck_operator.observe.history import History
from bottleneck_operator.observe.observation import NoData, Observation, Reading, WorkloadType
from bottleneck_operator.observe.series import goodput_series, latency_series
from bottleneck_operator.observe.windows import observe
from bottleneck_sidecar.wire import LATENCY_BOUNDS_SECONDS, PHASES, Container
from hypothesis import given
from hypothesis import strategies as st

from .builders import CASES, NOW, buckets, history, rank, sample, server

TIMES = [NOW - 10 + second for second in range(11)]
"""Eleven lines, a second apart, the last of them now."""


def trainer(epoch: str = "e0", pace: float = 1.0, **changes: object) -> History:
    """A pod whose rank takes ``pace`` steps a second."""
    return history(
        *(
            sample(time, number, rank(epoch, int(100 + pace * number), time, **changes))
            for number, time in enumerate(TIMES)
        )
    )


def seen(*pods: History, **options: float) -> Observation:
    named = {f"pod-{number}": pod for number, pod in enumerate(pods)}
    return observe(named, list(named), NOW, **options)  # type: ignore[arg-type]


def value(observation: Observation, name: str) -> float:
    signal = observation.signal(name)
    assert isinstance(signal, Reading), signal
    return signal.value


def reason(observation: Observation, name: str) -> str:
    signal = observation.signal(name)
    assert isinstance(signal, NoData), signal
    return signal.reason


# -- training --------------------------------------------------------------------------------------


def test_a_rank_has_its_rate_step_time_and_shares() -> None:
    observation = seen(trainer())
    assert observation.type is WorkloadType.TRAINING
    assert value(observation, "training.samplesPerSecond") == 32
    assert value(observation, "training.stepSeconds") == 1
    assert value(observation, "training.dataShare") == 0.5
    reading = observation.signal("training.dataShare")
    assert isinstance(reading, Reading)
    assert (reading.window, reading.statistic, reading.source) == (10, "ratio of sums", "sidecar")


def test_a_share_over_ranks_is_a_ratio_of_sums_and_rates_add_up() -> None:
    slow = trainer("e0")
    fast = trainer("e1", 3.0, rank=1, seconds=dict.fromkeys(PHASES, 0.0))
    observation = seen(slow, fast)
    # 5 of 10 seconds and 0 of 30; the mean of the ratios would be 0.25.
    assert value(observation, "training.dataShare") == pytest.approx(5 / 40)
    assert value(observation, "training.samplesPerSecond") == pytest.approx(32 + 96)


def test_an_expected_replica_that_is_silent_leaves_every_figure_without_data() -> None:
    histories = {"pod-0": trainer()}
    observation = observe(histories, ["pod-0", "pod-1"], NOW)
    assert (observation.expected, observation.streaming) == (2, 1)
    assert observation.signals
    assert all(isinstance(signal, NoData) for signal in observation.signals.values())
    assert "pod-1" in reason(observation, "training.samplesPerSecond")
    assert isinstance(observation.replicas[0].signals["training.dataShare"], Reading)


@pytest.mark.parametrize(("age", "fresh"), [(STALE_SECONDS, True), (STALE_SECONDS + 0.1, False)])
def test_a_sample_counts_until_it_is_stale(age: float, fresh: bool) -> None:
    observation = observe({"pod-0": trainer()}, ["pod-0"], NOW + age)
    assert observation.streaming == fresh
    assert (observation.newest is not None) == fresh


def test_without_pods_there_is_no_data_and_no_zero() -> None:
    observation = observe({}, [], NOW)
    assert observation.signals == {}
    assert observation.type is WorkloadType.UNKNOWN
    assert observation.value("training.samplesPerSecond") is None


def test_a_counter_that_went_back_within_one_life_is_left_out() -> None:
    lying = history(*(sample(t, i, rank("e0", 100 - i, t)) for i, t in enumerate(TIMES)))
    assert "only 0 steps" in reason(seen(lying), "training.dataShare")
    both = seen(trainer("e1"), lying)
    assert value(both, "training.samplesPerSecond") == 32


def test_a_restarted_rank_counts_from_its_first_appearance_and_only_once() -> None:
    old = [sample(t, i, rank("e0", 100_000 + i, t)) for i, t in enumerate(TIMES[:6])]
    new = [sample(t, i + 6, rank("e1", 500 + i, t)) for i, t in enumerate(TIMES[6:])]
    observation = seen(history(*old, *new))
    # Both lives ran at one step of 32 samples a second, one after the other.
    assert value(observation, "training.samplesPerSecond") == pytest.approx(32)
    assert value(observation, "training.stepSeconds") == pytest.approx(1)


def test_a_rank_that_is_seen_once_has_no_figures_yet() -> None:
    once = history(sample(NOW, 1, rank("e0", 1_000_000, NOW)))
    assert "only 0 steps" in reason(seen(once), "training.samplesPerSecond")


def test_too_short_a_stretch_is_no_evidence() -> None:
    short = history(*(sample(t, i, rank("e0", i, t)) for i, t in enumerate(TIMES[-5:])))
    assert reason(seen(short), "training.dataShare") == "only 4 steps over 4.0s so far"


def test_a_phase_that_one_rank_does_not_measure_is_not_known() -> None:
    partly = trainer("e1", seconds={"forward": 1.0}, rank=1)
    observation = seen(trainer(), partly)
    assert "training.dataShare" not in observation.signals
    assert value(observation, "training.forwardShare") == 0


def test_the_window_can_be_cut_and_nothing_from_before_it_counts() -> None:
    turned = history(
        *(sample(t, i, rank("e0", i if i < 5 else 5 + 4 * (i - 5), t)) for i, t in enumerate(TIMES))
    )
    assert value(seen(turned, window=5.0), "training.samplesPerSecond") == pytest.approx(32 * 4)
    assert isinstance(seen(turned, window=0.0).signal("training.samplesPerSecond"), NoData)


def test_workers_are_the_fewest_of_all_ranks() -> None:
    two = trainer("e0", knobs={"dataLoader.workers": 2})
    none = trainer("e1", rank=1, knobs={"dataLoader.workers": 0})
    assert value(seen(two, none), "dataLoader.workers") == 0
    assert "dataLoader.workers" not in seen(trainer()).signals


@CASES
@given(st.floats(-1e6, 1e6))
def test_the_agents_clock_makes_no_difference(offset: float) -> None:
    def pod(shift: float) -> History:
        lines = [
            sample(t + shift, i, rank("e0", i, t + shift), server("s0", [0.01] * 5 * i))
            for i, t in enumerate(TIMES)
        ]
        return history(*lines, offset=-shift)

    right, wrong = seen(pod(0.0)), seen(pod(offset))
    assert right.signals.keys() == wrong.signals.keys()
    for name in right.signals:
        assert value(wrong, name) == pytest.approx(value(right, name), rel=1e-6)
    for series in (
        lambda h: goodput_series([h], NOW - 10, NOW, 2.0),
        lambda h: latency_series([h], NOW - 10, NOW, 2.0, 95),
    ):
        assert series(pod(offset)) == pytest.approx(series(pod(0.0)), rel=1e-5)


# -- inference -------------------------------------------------------------------------------------


def serving(count: Callable[[int], list[float]], epoch: str = "s0", **changes: object) -> History:
    """A pod whose server has answered ``count(second)`` by each second."""
    return history(*(sample(t, i, server(epoch, count(i), **changes)) for i, t in enumerate(TIMES)))


def test_a_server_has_its_rates_and_a_percentile_of_what_came_in_the_window() -> None:
    # 1000 slow requests from before the window must not be seen.
    pod = serving(lambda i: [9.0] * 1000 + [0.010] * 19 * i + [0.100] * i)
    observation = seen(pod, percentile=90)
    assert observation.type is WorkloadType.INFERENCE
    assert value(observation, "inference.arrivalRate") == pytest.approx(20)
    assert value(observation, "inference.errorRate") == 0
    assert value(observation, "inference.latency") == pytest.approx(0.010, rel=0.2)
    assert value(seen(pod, percentile=99), "inference.latency") == pytest.approx(0.1, rel=0.2)


def test_queue_service_and_occupancy_of_two_servers_come_from_sums() -> None:
    def pod(epoch: str, per_second: int, service: float) -> History:
        return history(
            *(
                sample(
                    t,
                    i,
                    server(
                        epoch,
                        [1.0] * per_second * i,
                        queue_seconds=0.5 * per_second * i,
                        service_seconds=service * per_second * i,
                        concurrency=2,
                    ),
                )
                for i, t in enumerate(TIMES)
            )
        )

    observation = seen(pod("s0", 1, 0.1), pod("s1", 3, 0.5))
    assert value(observation, "inference.queueShare") == pytest.approx(0.5)
    assert value(observation, "inference.serviceSeconds") == pytest.approx((0.1 + 3 * 0.5) / 4)
    assert value(observation, "inference.concurrency") == 2
    assert value(observation, "inference.occupancy") == pytest.approx(16 / (10 * 4))


def test_what_one_busy_server_does_not_measure_is_not_known_of_all() -> None:
    full = serving(lambda i: [0.1] * 2 * i, queue_seconds=0.0, service_seconds=0.0)
    blind = serving(lambda i: [0.1] * 2 * i, "s1")
    idle = serving(lambda i: [], "s2")
    assert "inference.queueShare" in seen(full).signals
    assert "inference.queueShare" in seen(full, idle).signals
    observation = seen(full, blind)
    assert "inference.queueShare" not in observation.signals
    assert "inference.serviceSeconds" not in observation.signals


def test_few_requests_are_no_evidence_of_latency_but_their_rate_is_known() -> None:
    observation = seen(serving(lambda i: [0.1] * min(i, 9)))
    assert value(observation, "inference.arrivalRate") == pytest.approx(0.9)
    assert reason(observation, "inference.latency") == "only 9 requests over 10.0s"


def test_a_server_that_died_is_not_an_idle_one() -> None:
    dead = history(
        *(
            sample(t, i, server("s0", [0.1] * 50), ages={"s0": 20.0 + i})
            for i, t in enumerate(TIMES)
        )
    )
    assert isinstance(seen(dead).signal("inference.arrivalRate"), NoData)


@pytest.mark.parametrize("counts", [[], [5], [1] * 200, [0] * 66])
def test_latency_counted_in_other_buckets_is_left_out(counts: list[int]) -> None:
    good = serving(lambda i: [0.1] * 2 * i)
    odd = history(
        *(
            sample(t, i, server("s1", [0.1] * 2 * i, latency_buckets=counts))
            for i, t in enumerate(TIMES)
        )
    )
    assert isinstance(seen(odd).signal("inference.latency"), NoData)
    assert value(seen(good, odd), "inference.latency") == pytest.approx(0.1, rel=0.2)
    assert len(latency_series([good, odd], NOW - 10, NOW, 2.0, 95)) == 5
    assert latency_series([odd], NOW - 10, NOW, 2.0, 95) == []


@CASES
@given(
    st.lists(st.floats(0.0011, 60.0), min_size=1, max_size=200),
    st.integers(1, 99),
)
def test_a_percentile_is_within_one_bucket_of_the_exact_one(
    latencies: list[float], percentile: int
) -> None:
    exact = sorted(latencies)[max(0, math.ceil(len(latencies) * percentile / 100) - 1)]
    found = bucket_percentile(buckets(latencies), percentile)
    width = 2**0.25 * (1 + 1e-3)
    assert exact / width <= found <= exact * width


def test_a_percentile_beyond_the_last_bound_is_the_last_bound() -> None:
    assert bucket_percentile(buckets([0.01, 900.0]), 99) == LATENCY_BOUNDS_SECONDS[-1]


def test_a_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no request"):
        bucket_percentile([0] * 66, 95)


# -- the container ---------------------------------------------------------------------------------


def contained(
    cpu: float, epoch: str | None = "c0", lines: list[float] = TIMES, **changes: object
) -> History:
    """A pod that uses ``cpu`` cores of the 2 that its limit allows."""
    fields = {
        "cpu_limit_cores": 2.0,
        "cpus": 8,
        "periods": None,
        "epoch": epoch,
        **changes,
    }
    return history(
        *(
            sample(t, i, Container(cpu_seconds=1000 + cpu * i, **fields))  # type: ignore[arg-type]
            for i, t in enumerate(lines)
        )
    )


def test_cores_used_and_available_add_up_over_pods() -> None:
    observation = seen(contained(0.5), contained(1.5), contained(1.0, cpu_limit_cores=None))
    assert value(observation, "cpu.usedCores") == pytest.approx(3.0)
    assert value(observation, "cpu.availableCores") == 2 + 2 + 8


def test_a_pod_that_came_later_does_not_dilute_what_is_used() -> None:
    late = contained(1.0, lines=TIMES[5:])
    assert value(seen(contained(1.0), late), "cpu.usedCores") == pytest.approx(2.0)


@pytest.mark.parametrize(
    "other",
    [
        history(*(sample(t, i, rank("e1", i, t)) for i, t in enumerate(TIMES))),
        contained(1.0, lines=TIMES[-3:]),
    ],
    ids=["no figures of its container", "only for two seconds"],
)
def test_a_sum_over_a_part_of_the_pods_is_not_known(other: History) -> None:
    assert "cpu.usedCores" not in seen(contained(1.0), other).signals


def test_a_new_container_counts_from_its_first_appearance() -> None:
    def line(i: int, t: float) -> object:
        return Container(cpu_seconds=2.0 * i, epoch="old" if i < 4 else "new", oom_kills=i // 4)

    restarted = history(*(sample(t, i, line(i, t)) for i, t in enumerate(TIMES)))
    observation = seen(restarted)
    assert value(observation, "cpu.usedCores") == pytest.approx(2.0)
    assert value(observation, "memory.oomKills") == 1


@pytest.mark.parametrize("figure", ["cpu_seconds", "oom_kills", "throttled_periods"])
def test_a_container_counter_that_went_back_is_not_known(figure: str) -> None:
    backwards = history(
        *(
            sample(t, i, Container(**{"periods": 10 * i, figure: 100 - i}))  # type: ignore[arg-type]
            for i, t in enumerate(TIMES)
        )
    )
    names = ("cpu.usedCores", "memory.oomKills", "cpu.throttledShare")
    assert not [name for name in names if name in seen(backwards).signals]


def test_throttling_pressure_and_memory_are_shares() -> None:
    pod = history(
        *(
            sample(
                t,
                i,
                Container(
                    periods=10 * i,
                    throttled_periods=4 * i,
                    io_pressure_seconds=0.3 * i,
                    memory_bytes=3,
                    memory_limit_bytes=4,
                ),
            )
            for i, t in enumerate(TIMES)
        )
    )
    observation = seen(pod, pod)
    assert value(observation, "cpu.throttledShare") == pytest.approx(0.4)
    assert value(observation, "io.pressureShare") == pytest.approx(0.3)
    assert value(observation, "memory.usedShare") == pytest.approx(0.75)
    assert "memory.oomKills" not in observation.signals


# -- ranks and knobs -------------------------------------------------------------------------------


@pytest.mark.parametrize(("age", "fresh"), [(0.0, True), (14.0, True), (16.0, False)])
def test_a_rank_is_fresh_while_its_own_words_are(age: float, fresh: bool) -> None:
    pod = history(sample(NOW, 1, rank("e0", 1, NOW), ages={"e0": age}))
    (found,) = seen(pod).ranks
    assert found.fresh is fresh


# -- series ----------------------------------------------------------------------------------------


def test_goodput_is_interpolated_between_steps() -> None:
    # 32 samples in every 4 seconds: no bin of a second holds a whole step.
    slow = history(*(sample(NOW + 4 * i, i, rank("e0", i, NOW + 4 * i)) for i in range(5)))
    assert goodput_series([slow], NOW, NOW + 16, 1.0) == pytest.approx([8.0] * 16)


def test_a_bin_that_one_rank_does_not_cover_is_left_out() -> None:
    whole = trainer("e0")
    late = history(*(sample(t, i, rank("e1", i, t, rank=1)) for i, t in enumerate(TIMES) if i >= 5))
    # It begins in the middle of the third of five bins.
    assert goodput_series([whole, late], NOW - 10, NOW, 2.0) == pytest.approx([32, 32, 64, 64])


def test_a_bin_before_the_first_and_after_the_last_step_is_left_out() -> None:
    assert goodput_series([trainer()], NOW - 20, NOW + 20, 2.0) == pytest.approx([32.0] * 5)
    assert goodput_series([], NOW - 20, NOW, 2.0) == []


def test_a_bin_without_requests_is_left_out() -> None:
    pause = serving(lambda i: [0.1] * (5 * i if i < 4 else 20 if i < 8 else 5 * i))
    assert len(latency_series([pause], NOW - 10, NOW, 2.0, 95)) == 4


def test_a_server_that_is_first_seen_in_a_bin_does_not_bring_its_past() -> None:
    def late(i: int) -> list[float]:
        return [9.0] * 1000 + [0.1] * 5 * i

    lines = [sample(t, i, server("s0", late(i))) for i, t in enumerate(TIMES) if i >= 3]
    series = latency_series([history(*lines)], NOW - 10, NOW, 2.0, 95)
    assert len(series) == 4
    assert series == pytest.approx([0.1] * 4, rel=0.2)


def test_a_server_whose_buckets_went_back_is_left_out_of_the_bin() -> None:
    lying = serving(lambda i: [9.0] * (100 - i), "s1")
    honest = serving(lambda i: [0.1] * 5 * i)
    assert latency_series([honest, lying], NOW - 10, NOW, 2.0, 95) == pytest.approx(
        [0.1] * 5, rel=0.2
    )


@CASES
@given(st.floats(0.1, 30.0), st.floats(0.5, 5.0))
def test_only_whole_bins_are_judged(length: float, width: float) -> None:
    assert len(goodput_series([trainer()], NOW - 10, NOW - 10 + length, width)) <= length / width
