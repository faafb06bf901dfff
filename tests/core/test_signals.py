"""The signals one by one: what each says of lines that are known, and when it says nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from bottleneck_operator.observe.history import KEEP_SECONDS, History
from bottleneck_operator.observe.observation import NoData, Observation, Reading
from bottleneck_sidecar.wire import Gpu, InferenceServer, Sample

from .builders import NOW, buckets, history, sample
from .telemetry import (
    SHARES,
    container,
    device,
    model_server,
    pod,
    reason,
    seen,
    training_rank,
    value,
)


def rank_pod(number: int = 0, **changes: Any) -> History:
    return pod(lambda t: [training_rank(t, number=number, **changes)])


def server_pod(number: int = 0, **changes: Any) -> History:
    return pod(lambda t: [model_server(t, number=number, **changes)])


# -- training --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("training.samplesPerSecond", 64.0),
        ("training.stepSeconds", 0.5),
        ("training.microBatch", 16.0),  # a step is of two of them
        ("training.accumulation", 2.0),
        ("training.collectiveShare", 0.05),
        ("training.computeShare", 0.85),
        ("training.cpuShare", 0.8),
        ("training.lowPrecisionShare", 0.0),
        ("training.usualStepSeconds", 0.5),
        ("training.longPhase", 0.0),
        ("training.ranks", 1.0),
        ("training.restarts", 0.0),
        ("training.checkpointShare", 0.0),
        ("training.loss", 0.5),
        ("training.nonFiniteLossShare", 0.0),
        ("training.gradientNorm", 2.0),
        ("training.skippedStepShare", 0.0),
        ("training.noiseScale", 300.0),
        ("loader.cpuShare", 0.25),
        ("loader.runQueueShare", 0.05),
        ("loader.blockedShare", 0.7),
        ("cpu.runQueueShare", 0.01),
        ("hardware.bf16", 1.0),
    ],
)
def test_a_healthy_rank(name: str, expected: float) -> None:
    assert value(seen(rank_pod()), name) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("absent", "signals"),
    [
        ("cpu_seconds", ["training.cpuShare"]),
        ("run_queue_seconds", ["cpu.runQueueShare"]),
        ("loader_seconds", ["loader.cpuShare", "loader.runQueueShare", "loader.blockedShare"]),
        ("loader_cpu_seconds", ["loader.cpuShare", "loader.blockedShare"]),
        ("loader_run_queue_seconds", ["loader.runQueueShare", "loader.blockedShare"]),
        ("checkpoint_seconds", ["training.checkpointShare"]),
        ("low_precision_steps", ["training.lowPrecisionShare"]),
        ("loss", ["training.loss"]),
        ("losses", ["training.nonFiniteLossShare"]),
        ("nonfinite_losses", ["training.nonFiniteLossShare"]),
        ("gradient_norm", ["training.gradientNorm"]),
        ("skipped_steps", ["training.skippedStepShare"]),
        ("gradient_square", ["training.noiseScale"]),
        ("gradient_variance", ["training.noiseScale"]),
        ("capabilities", ["hardware.bf16"]),
        ("phase", ["training.longPhase"]),
        ("last_step_at", ["training.sinceStepSeconds"]),
    ],
)
def test_what_one_rank_does_not_measure_is_not_known(absent: str, signals: list[str]) -> None:
    whole = seen(rank_pod(), rank_pod(1))
    partly = seen(rank_pod(), rank_pod(1, **{absent: None}))
    alone = seen(rank_pod(1, **{absent: None}))
    for name in signals:
        assert isinstance(whole.signal(name), Reading)
        assert isinstance(alone.signal(name), NoData)
        # Of these one rank's word is enough, or all that there is.
        if name not in ("cpu.runQueueShare", "training.sinceStepSeconds"):
            assert isinstance(partly.signal(name), NoData), name
        assert isinstance(partly.replicas[0].signals[name], Reading)


def test_the_noise_scale_is_a_ratio_of_sums_over_the_ranks() -> None:
    # 300 and 300 of tr(Σ) over 1 and 2 of |G|²
    assert value(seen(rank_pod(), rank_pod(1)), "training.noiseScale") == pytest.approx(200)


def test_without_workers_the_training_thread_loads() -> None:
    alone = {"knobs": {"dataLoader.workers": 0}, "loader_seconds": None}
    observation = seen(rank_pod(**alone))
    # 0.8 of the phase data on a CPU; of the 1% in the run queue 5% belong to it.
    assert value(observation, "loader.cpuShare") == pytest.approx(0.8)
    assert value(observation, "loader.runQueueShare") == pytest.approx(0.01)
    assert value(observation, "loader.blockedShare") == pytest.approx(0.19)


def test_a_rank_with_workers_and_one_without_count_by_their_seconds() -> None:
    without = rank_pod(1, knobs={"dataLoader.workers": 0})
    observation = seen(rank_pod(), without)
    # 5 of 20 seconds of workers, 0.4 of 0.5 seconds of the other one's phase.
    assert value(observation, "loader.cpuShare") == pytest.approx(5.4 / 20.5)


def hanging(since: float, **changes: Any) -> History:
    """A rank that stepped until ``since`` seconds ago; the agent goes on telling of it."""
    return pod(
        lambda t: [training_rank(min(t, 1000 - since), **changes)], seconds=min(since + 60, 200)
    )


@pytest.mark.parametrize("since", [12, 60, 170, 190])
def test_a_hang_is_seen_although_no_step_ends(since: float) -> None:
    observation = seen(hanging(since))
    assert "only 0 steps" in reason(observation, "training.stepSeconds")
    assert value(observation, "training.sinceStepSeconds") == pytest.approx(since)
    assert value(observation, "training.usualStepSeconds") == pytest.approx(0.5)
    assert value(observation, "training.longPhase") == 0


def test_the_silence_itself_is_not_usual() -> None:
    # A report from within the hang has its time in the unfinished step.
    def said(t: float) -> Sequence[object]:
        rank = training_rank(min(t, 970.0))
        waited = max(0.0, t - 970.0)
        return [training_rank(min(t, 970.0), step_seconds=rank.step_seconds + waited)]

    assert value(seen(pod(said, seconds=60)), "training.usualStepSeconds") == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        (["step", "step"], 0.0),
        (["step", "checkpoint"], 1.0),
        (["evaluation", None], 1.0),
        (["step", None], None),
        ([None, None], None),
    ],
)
def test_a_long_phase_of_one_rank_holds_up_all(
    phases: list[str | None], expected: float | None
) -> None:
    pods = [rank_pod(number, phase=phase) for number, phase in enumerate(phases)]
    assert seen(*pods).value("training.longPhase") == expected


def test_a_checkpoint_every_minute_shows_in_the_long_window() -> None:
    def said(t: float) -> Sequence[object]:
        # Ten seconds of each minute; the last one ended 30 seconds ago.
        saved = 10.0 * ((t + 30) // 60)
        return [training_rank(t, step_seconds=t - saved, checkpoint_seconds=saved)]

    observation = seen(pod(said, seconds=170))
    assert value(observation, "training.checkpointShare") == pytest.approx(20 / 120)
    reading = observation.signal("training.checkpointShare")
    assert isinstance(reading, Reading)
    assert reading.window == 120


def test_the_long_window_does_not_reach_behind_a_change() -> None:
    def said(t: float) -> Sequence[object]:
        return [training_rank(t, checkpoint_seconds=min(t, 992.0))]

    assert value(seen(pod(said, seconds=170), window=7.0), "training.checkpointShare") == 0
    assert value(seen(pod(said, seconds=170), since=NOW - 8), "training.checkpointShare") == 0
    assert value(seen(pod(said, seconds=170)), "training.checkpointShare") > 0


def test_a_process_that_took_anothers_rank_is_a_restart_as_long_as_it_is_remembered() -> None:
    def lines(count: int, **of_new: Any) -> History:
        old = [sample(NOW + i, i, training_rank(990.0 + i)) for i in range(5)]
        both = [
            sample(NOW + 5, 5, training_rank(994.0), training_rank(1.0, **of_new), ages={"e0": 5})
        ]
        new = [sample(NOW + 6 + i, 6 + i, training_rank(2.0 + i, **of_new)) for i in range(count)]
        return history(*old, *both, *new)

    def restarts(history: History, count: int) -> float:
        return value(seen(history, at=NOW + 5 + count), "training.restarts")

    assert restarts(lines(3, epoch="n"), 3) == 1
    assert restarts(lines(3, epoch="n", number=1), 3) == 0
    assert restarts(lines(int(KEEP_SECONDS) + 5, epoch="n"), int(KEEP_SECONDS) + 5) == 0


# -- ranks in lock-step ----------------------------------------------------------------------------


def lockstep(own: Sequence[float], one_pod: bool = False, **changes: Any) -> Observation:
    """Ranks whose own work takes these seconds; all wait for the slowest, and a further 10% of its
    time for the network."""
    step = max(own) * 1.1

    def rank(t: float, number: int) -> object:
        shares = {"forward": own[number] / step, "collective": 1 - own[number] / step}
        fields = {"world_size": len(own), "shares": shares, **changes}
        return training_rank(t, 1 / step, number=number, **fields)

    numbers = range(len(own))
    if one_pod:
        return seen(pod(lambda t: [rank(t, number) for number in numbers]))
    return seen(*(pod(lambda t, n=number: [rank(t, n)]) for number in numbers))  # type: ignore[misc]


@pytest.mark.parametrize("one_pod", [True, False])
@pytest.mark.parametrize(
    ("own", "ratio", "rank", "spread"),
    [
        ([0.2, 0.2], 1.0, 0, 0.0),
        ([0.2, 0.5], 2.5, 1, 1.5),
        ([0.5, 0.2, 0.2], 2.5, 0, 1.5),
        ([0.2, 0.2, 0.4, 0.4], 2.0, 2, 1.0),
        ([0.1, 0.2, 0.3], 1.5, 2, 1.0),
    ],
)
def test_the_slowest_rank_is_told_by_its_own_time(
    own: list[float], ratio: float, rank: int, spread: float, one_pod: bool
) -> None:
    observation = lockstep(own, one_pod)
    assert value(observation, "training.stragglerRatio") == pytest.approx(ratio)
    assert value(observation, "training.stragglerRank") == rank
    assert value(observation, "training.rankSpread") == pytest.approx(spread)
    excess = max(own) * (1 - 1 / ratio)
    share = value(observation, "training.stragglerShare")
    assert share == pytest.approx(excess / (max(own) * 1.1))
    # What the slowest spends in collectives is the network; the others wait for it as well.
    assert value(observation, "training.collectiveFloorShare") == pytest.approx(0.1 / 1.1)


def test_sixty_four_ranks_and_one_of_them_slow() -> None:
    own = [0.2] * 64
    own[41] = 0.3
    observation = lockstep(own)
    assert value(observation, "training.stragglerRatio") == pytest.approx(1.5)
    assert value(observation, "training.stragglerRank") == 41


def test_ranks_are_only_compared_where_they_are_of_one_job_and_have_stepped() -> None:
    assert isinstance(lockstep([0.2]).signal("training.stragglerRatio"), NoData)
    apart = lockstep([0.2, 0.5], world_size=1)
    assert isinstance(apart.signal("training.stragglerRatio"), NoData)
    seldom = lockstep([4.0, 2.0])
    assert "less than 3 steps" in reason(seldom, "training.stragglerRatio")
    unmeasured = lockstep([0.2, 0.5], seconds={"forward": 1.0})
    assert isinstance(unmeasured.signal("training.stragglerRatio"), NoData)


# -- serving ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("inference.arrivalRate", 20.0),
        ("inference.retryShare", 0.1),
        ("inference.queued", 1.0),
        ("inference.queueShare", 0.2),
        ("inference.serviceShare", 0.4),
        ("inference.dependencyShare", 0.3),
        ("inference.dependency.features", 0.2),
        ("inference.dependency.cache", 0.1),
        ("inference.restShare", 0.1),
        ("inference.queueSeconds", 0.02),
        ("inference.serviceSeconds", 0.04),
        ("inference.dependencySeconds", 0.03),
        ("inference.batchSize", 4.0),
        ("inference.batchLimit", 8.0),
        ("inference.batchDelaySeconds", 0.01),
        ("inference.concurrency", 8.0),
        ("inference.occupancy", 0.2),
        ("inference.uptimeSeconds", 1000.0),
        ("cpu.runQueueShare", 0.02),
        ("hardware.bf16", 1.0),
    ],
)
def test_a_healthy_server(name: str, expected: float) -> None:
    one = seen(server_pod())
    assert value(one, name) == pytest.approx(expected)
    two = seen(server_pod(), server_pod(1))
    doubled = name in ("inference.arrivalRate", "inference.queued")
    assert value(two, name) == pytest.approx(expected * (2 if doubled else 1))


@pytest.mark.parametrize(
    ("absent", "signals"),
    [
        ("queue_seconds", ["inference.queueShare", "inference.queueSeconds"]),
        ("service_seconds", ["inference.serviceShare", "inference.restShare"]),
        ("dependency_seconds", ["inference.dependencyShare", "inference.dependencySeconds"]),
        ("dependencies", ["inference.dependency.features"]),
        ("retries", ["inference.retryShare"]),
        ("queued", ["inference.queued"]),
        ("batches", ["inference.batchSize"]),
        ("concurrency", ["inference.concurrency", "inference.occupancy"]),
        ("started_at", ["inference.uptimeSeconds"]),
        ("knobs", ["inference.batchLimit", "inference.batchDelaySeconds"]),
        ("capabilities", ["hardware.bf16"]),
    ],
)
def test_what_one_server_does_not_measure_is_not_known_of_all(
    absent: str, signals: list[str]
) -> None:
    blind = {absent: None}
    for observation in (seen(server_pod(**blind)), seen(server_pod(), server_pod(1, **blind))):
        for name in signals:
            assert isinstance(observation.signal(name), NoData), name
    for name in signals:
        assert isinstance(seen(server_pod()).signal(name), Reading)


def test_a_server_that_has_answered_nothing_yet_began_at_zero() -> None:
    """The SDK does not know that it can tell queue and model apart until the model is first called,
    which may be in the middle of the window."""
    begin = 995.0
    unknown = dict.fromkeys(
        ("queue_seconds", "service_seconds", "batches", "busy_seconds", "dependency_seconds")
    )

    def said(t: float) -> list[InferenceServer]:
        if t <= begin:
            return [model_server(0.0, dependencies=None, retries=None, **unknown)]
        return [model_server(t - begin)]

    observation = seen(pod(said))
    assert value(observation, "inference.queueShare") == pytest.approx(0.2)
    assert value(observation, "inference.dependencyShare") == pytest.approx(0.3)
    assert value(observation, "inference.batchSize") == pytest.approx(4.0)


def test_a_batch_counts_once_where_batches_are_measured() -> None:
    requests_only = seen(server_pod(busy_seconds=None))
    assert value(requests_only, "inference.occupancy") == pytest.approx(20 * 0.04 / 8)
    unlimited = seen(server_pod(knobs={}, concurrency=1))
    assert value(unlimited, "inference.occupancy") == pytest.approx(20 * 0.01)


def test_what_is_left_of_the_latency_includes_dependencies_that_nobody_measures() -> None:
    blind = seen(server_pod(dependency_seconds=None, dependencies=None))
    assert value(blind, "inference.restShare") == pytest.approx(0.4)


def test_a_dependency_with_a_strange_name_has_a_signal_and_a_thousand_have_eight() -> None:
    def called(names: Sequence[str]) -> Observation:
        return seen(
            pod(
                lambda t: [
                    model_server(
                        t,
                        dependencies={name: (i + 1) * t / 1000 for i, name in enumerate(names)},
                    )
                ]
            )
        )

    assert value(called(["a b/c:80"]), "inference.dependency.a_b_c_80") == pytest.approx(0.0005)
    many = [f"d{number}" for number in range(200)]
    found = [name for name in called(many).signals if name.startswith("inference.dependency.")]
    assert sorted(found) == [f"inference.dependency.d{number}" for number in range(192, 200)]


@pytest.mark.parametrize(("age", "known"), [(100, True), (121, False)], ids=["young", "old"])
def test_the_first_batch_itself_is_told_while_a_server_is_young(age: float, known: bool) -> None:
    server = seen(pod(lambda t: [model_server(t, started_at=NOW - age)]))
    if known:
        assert value(server, "inference.firstServiceSeconds") == pytest.approx(0.05)
    else:
        assert "inference.firstServiceSeconds" not in server.signals


def test_a_server_that_had_answered_nothing_yet_had_measured_zero() -> None:
    unsaid = ("queue_seconds", "service_seconds", "batches", "busy_seconds", "dependencies")

    def said(t: float) -> Sequence[object]:
        idle = t < 985
        changes = dict.fromkeys(unsaid) if idle else {}
        return [model_server(max(0.0, t - 985), started_at=NOW - 100, **changes)]

    young = seen(pod(said), window=20.0)
    assert value(young, "inference.queueShare") == pytest.approx(0.2)
    assert value(young, "inference.batchSize") == pytest.approx(4)
    assert value(young, "inference.dependency.features") == pytest.approx(0.2)


def test_a_dependency_that_is_called_for_the_first_time_counts_from_zero() -> None:
    def said(t: float) -> Sequence[object]:
        calls = {} if t < 995 else {"late": (t - 995) * 0.4}
        return [model_server(t, dependencies=calls)]

    assert value(seen(pod(said)), "inference.dependency.late") == pytest.approx(2 / 20)


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({"started_at": NOW - 100, "first_service_seconds": 5.0}, True),
        ({"started_at": NOW - 121, "first_service_seconds": 5.0}, False),
        ({"started_at": NOW - 100, "first_service_seconds": None}, False),
        ({"started_at": NOW - 100, "first_service_seconds": 5.0, "batches": 4}, False),
        ({"started_at": NOW - 100, "first_service_seconds": 5.0, "busy_seconds": None}, False),
    ],
    ids=["young", "old", "not measured", "too few batches since", "batches not timed"],
)
def test_the_first_batch_of_a_young_server(changes: dict[str, Any], known: bool) -> None:
    found = seen(server_pod(**changes)).value("inference.firstServiceRatio")
    # 5000 batches took 200 s; without the first one 195 s.
    assert found == (pytest.approx(5.0 / (195 / 4999)) if known else None)


# -- containers and nodes --------------------------------------------------------------------------


def contained(**changes: Any) -> History:
    return pod(lambda t: [container(t, **{k: v(t) for k, v in changes.items()})])


def per_second(rate: float | None) -> Callable[[float], Any]:
    return lambda t: None if rate is None else rate * t


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cpu.usedCores", 3.0),
        ("cpu.availableCores", 4.0),
        ("cpu.busyShare", 0.75),
        ("cpu.throttledShare", 0.1),
        ("cpu.throttledTimeShare", 0.05),
        ("cpu.pressureShare", 0.1),
        ("node.busyShare", 0.5),
        ("node.othersCores", 6.5),
        ("node.othersShare", 6.5 / 16),
        ("memory.usedShare", 0.75),
        ("memory.pressureShare", 0.0),
        ("memory.oomKills", 0.0),
        ("memory.limitHitsPerSecond", 2.0),
        ("memory.majorFaultsPerSecond", 3.0),
        ("io.pressureShare", 0.2),
        ("io.readBytesPerSecond", 2e6),
    ],
)
def test_two_healthy_containers(name: str, expected: float) -> None:
    assert value(seen(contained(), contained()), name) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("counter", "rate", "name", "expected"),
    [
        ("throttled_seconds", 0.6, "cpu.throttledTimeShare", 0.6),
        ("throttled_seconds", 3.0, "cpu.throttledTimeShare", 1.0),
        ("node_busy_seconds", 15.5, "node.busyShare", 15.5 / 16),
        ("node_busy_seconds", 15.5, "node.othersCores", 14.0),
        ("memory_limit_hits", 50, "memory.limitHitsPerSecond", 50.0),
        ("major_faults", 90, "memory.majorFaultsPerSecond", 90.0),
    ],
)
def test_of_two_pods_the_worst_one_is_told(
    counter: str, rate: float, name: str, expected: float
) -> None:
    bad = contained(**{counter: per_second(rate)})
    for pods in ((contained(), bad), (bad, contained())):
        assert value(seen(*pods), name) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("counter", "signals"),
    [
        ("throttled_seconds", ["cpu.throttledTimeShare"]),
        ("node_busy_seconds", ["node.busyShare", "node.othersCores", "node.othersShare"]),
        ("node_cpus", ["node.busyShare", "node.othersShare"]),
        ("memory_limit_hits", ["memory.limitHitsPerSecond"]),
        ("major_faults", ["memory.majorFaultsPerSecond"]),
        ("read_bytes", ["io.readBytesPerSecond"]),
        ("cpu_seconds", ["cpu.usedCores", "cpu.busyShare", "node.othersCores"]),
    ],
)
def test_what_one_container_does_not_measure_is_not_known(counter: str, signals: list[str]) -> None:
    observation = seen(contained(), contained(**{counter: per_second(None)}))
    for name in signals:
        assert isinstance(observation.signal(name), NoData), name
        assert isinstance(observation.replicas[0].signals[name], Reading)


def test_several_ranks_of_one_container_share_its_figures() -> None:
    both = pod(
        lambda t: [training_rank(t), training_rank(t, number=1), container(t)],
    )
    assert value(seen(both), "cpu.usedCores") == pytest.approx(1.5)
    assert value(seen(both), "training.ranks") == 2
    assert value(seen(both), "loader.readBytesPerSecond") == pytest.approx(1e6)


def test_the_process_that_waits_longest_for_a_cpu_is_told() -> None:
    ranks = [rank_pod(), rank_pod(1)]
    worst = pod(lambda t: [training_rank(t, number=2, run_queue_seconds=0.4 * t)])
    assert value(seen(*ranks, worst), "cpu.runQueueShare") == pytest.approx(0.4, rel=0.05)
    threads = pod(lambda t: [model_server(t, run_queue_seconds=3.0 * t)])
    assert value(seen(threads), "cpu.runQueueShare") == 1.0


# -- GPUs ------------------------------------------------------------------------------------------


def on_gpus(devices: Callable[[float], Sequence[Gpu]]) -> Observation:
    return seen(pod(lambda t: [training_rank(t), *devices(t)]))


def test_gauges_of_devices_count_in_every_sample() -> None:
    def devices(t: float) -> list[Gpu]:
        late = t > 995  # 5 of the 11 samples
        first = device(utilization=1.0 if late else 0.0, memory_used_bytes=2**34 * (1 + late))
        return [first, device(index=1, uuid="GPU-1", utilization=1.0)]

    observation = on_gpus(devices)
    assert value(observation, "gpu.utilization") == pytest.approx((5 / 11 + 1) / 2)
    assert value(observation, "gpu.memoryShare") == 0.5


@pytest.mark.parametrize(
    ("mask", "share"),
    [
        (0x0, 0.0),
        (0x1, 0.0),
        (0x4, 0.0),
        (0x8, 1.0),
        (0x20, 1.0),
        (0x40, 1.0),
        (0x80, 1.0),
        (0x44, 1.0),
        (None, None),
    ],
)
def test_a_device_is_throttled_by_heat_and_supply_but_not_by_its_power_cap(
    mask: int | None, share: float | None
) -> None:
    cool = device(index=1, uuid="GPU-1", throttle_reasons=0)
    observation = on_gpus(lambda t: [device(throttle_reasons=mask), cool])
    assert observation.value("gpu.throttledShare") == share


@pytest.mark.parametrize("absent", ["utilization", "memory_used_bytes", "throttle_reasons"])
def test_what_one_device_does_not_tell_is_not_known(absent: str) -> None:
    blind = device(index=1, uuid="GPU-1", **{absent: None})
    name = {
        "utilization": "gpu.utilization",
        "memory_used_bytes": "gpu.memoryShare",
        "throttle_reasons": "gpu.throttledShare",
    }[absent]
    both = on_gpus(lambda t: [device(), blind])
    assert isinstance(both.signal(name), NoData)
    assert isinstance(on_gpus(lambda t: [device()]).signal(name), Reading)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([["bf16"], ["bf16", "amx"]], 1.0),
        ([["bf16"], []], 0.0),
        ([["bf16"], None], None),
        ([None, None], None),
    ],
)
def test_16_bit_hardware_is_what_every_process_has(
    told: list[list[str] | None], expected: float | None
) -> None:
    pods = [rank_pod(number, capabilities=each) for number, each in enumerate(told)]
    assert seen(*pods).value("hardware.bf16") == expected


def test_shares_of_the_builders_add_up() -> None:
    assert sum(SHARES.values()) == pytest.approx(1.0)
    assert sum(buckets([0.1])) == 1


def test_a_server_that_was_away_counts_from_when_it_spoke_again() -> None:
    def line(number: int, at: float) -> Sample:
        # What it did while nobody heard of it is told at once, with its first word.
        t = 500.0 if number < 4 else 990.0 + number
        return sample(at, number, model_server(t), ages={"s0": 20.0 if number < 4 else 0.0})

    observation = seen(history(*(line(i, NOW - 10 + i) for i in range(11))))
    assert value(observation, "inference.arrivalRate") == pytest.approx(20.0)
