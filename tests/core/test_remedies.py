"""The remedies one by one: what each would change, what it predicts, and why it does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from bottleneck_operator.api import units
from bottleneck_operator.api.conditions import Reason
from bottleneck_operator.api.report import (
    Action,
    BottleneckReport,
    Cause,
    Phase,
    Verdict,
    VerdictResult,
)
from bottleneck_operator.decide.decision import Facts, Refusal
from bottleneck_operator.decide.remedies import REMEDIES
from bottleneck_operator.decide.remedies.batch_size import further
from bottleneck_operator.decide.remedies.resources import MOST_AT_ONCE
from bottleneck_operator.observe.containers import ResizeState
from bottleneck_operator.observe.observation import Observation, Signal, WorkloadType
from hypothesis import given
from hypothesis import strategies as st

from .builders import (
    CASES,
    LARGE,
    SMALL,
    observation,
    reading,
    report,
    resources_action,
    sized,
    spec,
    talking,
)

TRAINING = frozenset({"batch.micro", "batch.accumulation", "precision.autocast"})
SERVER = frozenset({"batch.maxSize", "batch.delayMilliseconds", "precision.weights"})
FACTS = Facts(settable=TRAINING | SERVER, generation=4, containers={"main": (sized(SMALL),)})


def cause(name: str, share: float = 0.5) -> Cause:
    return Cause.model_validate(
        {
            "id": name,
            "class": "c",
            "category": "Models",
            "title": name,
            "share": share,
            "confidence": 1.0,
        }
    )


def trainer(
    micro: int = 8, accumulation: int = 4, autocast: str = "off", **signals: float
) -> Observation:
    knobs = {
        "batch.micro": micro,
        "batch.accumulation": accumulation,
        "precision.autocast": autocast,
    }
    seen: dict[str, Signal] = {"training.samplesPerSecond": reading(100.0)}
    seen |= {name.replace("_", "."): reading(value) for name, value in signals.items()}
    return observation(signals=seen, ranks=[talking(knobs=knobs), talking(rank=1, knobs=knobs)])


def server(size: int = 8, delay: float = 0.02, rate: float = 72.0, **signals: float) -> Observation:
    knobs = {"batch.maxSize": size, "batch.delayMilliseconds": delay * 1000}
    knobs |= {"precision.weights": "fp32"}  # type: ignore[dict-item]
    seen = {
        "inference.latency": reading(0.4),
        "inference.serviceSeconds": reading(0.1),
        "inference.batchDelaySeconds": reading(delay),
        "inference.batchSize": reading(float(size)),
        "inference.occupancy": reading(0.9),
        "inference.arrivalRate": reading(rate),
    }
    seen |= {name.replace("_", "."): reading(value) for name, value in signals.items()}
    return observation(WorkloadType.INFERENCE, seen, [talking(knobs=knobs)])


def ask(
    remedy: str, why: Cause, seen: Observation, facts: Facts = FACTS, **actions: Any
) -> Action | Refusal:
    return REMEDIES[remedy](why, seen, spec(actions=actions), facts)


def done(answer: Action | Refusal) -> Action:
    assert isinstance(answer, Action), answer
    return answer


def desired(answer: Action | Refusal) -> dict[str, int | str]:
    knobs = done(answer).knobs
    assert knobs is not None
    return knobs.desired


def reason(answer: Action | Refusal) -> Reason:
    assert isinstance(answer, Refusal), answer
    assert answer.message
    return answer.reason


BATCH = {"min": 1, "max": 64}


# -- batch size in training ------------------------------------------------------------------------


def test_a_host_bound_job_gets_larger_micro_batches_at_the_same_global_batch() -> None:
    done = desired(ask("BatchSize", cause("host-bound", 0.4), trainer(8, 4), batchSize=BATCH))
    assert done == {"batch.micro": 32, "batch.accumulation": 1}


def test_no_larger_than_it_takes() -> None:
    """At a tenth of the step, half of the fixed cost is left with twice the size: enough."""
    answer = ask("BatchSize", cause("host-bound", 0.1), trainer(8, 16), batchSize=BATCH)
    assert desired(answer)["batch.micro"] == 16


def test_no_larger_than_the_memory_takes() -> None:
    full = trainer(8, 16, gpu_memoryShare=0.4)
    answer = ask("BatchSize", cause("host-bound", 0.5), full, batchSize=BATCH)
    assert desired(answer)["batch.micro"] == 16


@pytest.mark.parametrize("why", ["gpu-memory-full", "memory-pressure"])
def test_where_memory_is_short_the_micro_batch_is_halved(why: str) -> None:
    answer = ask("BatchSize", cause(why, 0.1), trainer(8, 4), batchSize=BATCH)
    assert desired(answer) == {"batch.micro": 4, "batch.accumulation": 8}


@pytest.mark.parametrize(
    ("seen", "facts", "actions", "expected"),
    [
        (trainer(), FACTS, {}, Reason.ACTION_NOT_ALLOWED),
        (trainer(), Facts(), {"batchSize": BATCH}, Reason.KNOB_NOT_SETTABLE),
        (observation(ranks=[talking(knobs={})]), FACTS, {"batchSize": BATCH}, Reason.NO_DATA),
        (trainer(32, 1), FACTS, {"batchSize": BATCH}, Reason.AT_MAXIMUM),
        (trainer(8, 4), FACTS, {"batchSize": {"max": 8}}, Reason.AT_MAXIMUM),
        (trainer(8, 4, gpu_memoryShare=0.9), FACTS, {"batchSize": BATCH}, Reason.AT_MAXIMUM),
    ],
    ids=["not allowed", "not settable", "not known", "no accumulation", "bounds", "memory"],
)
def test_why_a_micro_batch_stays(
    seen: Observation, facts: Facts, actions: Any, expected: Reason
) -> None:
    assert reason(ask("BatchSize", cause("host-bound"), seen, facts, **actions)) is expected


@CASES
@given(
    st.integers(1, 512),
    st.integers(1, 64),
    st.tuples(st.integers(1, 600), st.integers(1, 600)).map(sorted),
    st.sampled_from(["host-bound", "gpu-memory-full"]),
    st.floats(0, 1),
)
def test_an_optimizer_step_stays_of_as_many_samples_within_the_bounds(
    micro: int, accumulation: int, bounds: list[int], why: str, share: float
) -> None:
    wanted = {"min": bounds[0], "max": bounds[1]}
    answer = ask("BatchSize", cause(why, share), trainer(micro, accumulation), batchSize=wanted)
    if isinstance(answer, Action):
        knobs = answer.knobs
        assert knobs is not None
        now, then = knobs.replaces, knobs.desired
        assert (
            int(now["batch.micro"]) * int(now["batch.accumulation"])
            == int(then["batch.micro"]) * int(then["batch.accumulation"])
            == micro * accumulation
        )
        assert bounds[0] <= int(then["batch.micro"]) <= bounds[1]
        assert then != now
        assert (int(then["batch.micro"]) > micro) is (why == "host-bound")


def grown(old: int, new: int, before: float, after: float) -> BottleneckReport:
    """A kept report of a larger micro-batch."""
    step = ask("BatchSize", cause("host-bound"), trainer(old, 64 // old), batchSize={"max": new})
    assert desired(step)["batch.micro"] == new
    verdict = Verdict(result=VerdictResult.IMPROVED, before=before, after=after)
    return report(done(step), Phase.KEPT, verdict=verdict)


def test_what_was_measured_at_two_sizes_tells_how_much_a_third_returns() -> None:
    # 1 ms for each batch and 1 ms for each sample.
    kept = grown(2, 8, 1000 / 1.5, 1000 / 1.125)
    now = trainer(8, 8, training_samplesPerSecond=1000 / 1.125)
    allowed = spec(actions={"batchSize": BATCH})
    step = further(kept, now, allowed, FACTS)
    assert step is not None
    assert step.cause == "host-bound"
    assert desired(step) == {"batch.micro": 32, "batch.accumulation": 2}
    assert step.prediction is not None
    assert step.prediction.after == pytest.approx(1000 / (1 + 1 / 32), abs=0.01)


@pytest.mark.parametrize(
    ("old", "new", "before", "after", "micro"),
    [(2, 32, 600, 990, 32), (2, 8, 600, 610, 16), (2, 8, 600, 500, 8), (2, 4, 0, 500, 4)],
    ids=["it returns too little", "somebody changed it", "it was no gain", "no figures"],
)
def test_where_no_further_step_is_taken(
    old: int, new: int, before: float, after: float, micro: int
) -> None:
    now = trainer(micro, 64 // micro, training_samplesPerSecond=after)
    allowed = spec(actions={"batchSize": BATCH})
    assert further(grown(old, new, before, after), now, allowed, FACTS) is None


# -- batch size in serving -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("why", "expected"),
    [
        ("queueing", {"batch.maxSize": 16, "batch.delayMilliseconds": 20}),
        ("batching-delay", {"batch.maxSize": 8, "batch.delayMilliseconds": 5}),
        ("batch-too-large", {"batch.maxSize": 4, "batch.delayMilliseconds": 20}),
    ],
)
def test_the_limits_of_a_batcher(why: str, expected: dict[str, int]) -> None:
    busy = server(rate=72.0 if why == "queueing" else 30.0)
    answer = done(ask("BatchSize", cause(why), busy, batchSize=BATCH))
    assert desired(answer) == expected
    assert answer.prediction is not None
    assert answer.prediction.after <= answer.prediction.before


def test_a_queue_that_still_grows_is_not_predicted_to_vanish() -> None:
    """Batches of 8 in 0.1 s are 80 requests a second; twice as large they are 107."""
    enough = done(ask("BatchSize", cause("queueing"), server(8, rate=75.0), batchSize=BATCH))
    short = done(ask("BatchSize", cause("queueing"), server(8, rate=150.0), batchSize=BATCH))
    assert enough.prediction is not None
    assert short.prediction is not None
    assert short.prediction.after == pytest.approx(0.4 / (2 / 1.5), abs=1e-4)
    assert enough.prediction.after < 0.38


@pytest.mark.parametrize(
    ("why", "seen", "bounds", "expected"),
    [
        ("queueing", server(8), {"max": 8}, Reason.AT_MAXIMUM),
        ("queueing", server(8, inference_batchSize=2), BATCH, Reason.NO_REMEDY),
        ("queueing", server(8, inference_latency=0.16), BATCH, Reason.NO_REMEDY),
        ("batch-too-large", server(8), {"min": 8, "max": 9}, Reason.AT_MAXIMUM),
        ("batch-too-large", server(8, rate=60.0), BATCH, Reason.NO_REMEDY),
        ("batching-delay", server(8, 0.0), BATCH, Reason.AT_MAXIMUM),
    ],
    ids=[
        "largest",
        "batches that do not fill",
        "it would return nothing",
        "smallest",
        "smaller ones would not keep up",
        "no delay at all",
    ],
)
def test_why_a_batcher_stays(why: str, seen: Observation, bounds: Any, expected: Reason) -> None:
    assert reason(ask("BatchSize", cause(why), seen, batchSize=bounds)) is expected


# -- precision -------------------------------------------------------------------------------------

BF16 = {"allowed": ["bf16"]}


def test_autocast_is_switched_on_where_the_hardware_is_made_for_it() -> None:
    seen = trainer(hardware_bf16=1)
    answer = done(ask("Precision", cause("precision-unused", 0.3), seen, precision=BF16))
    assert desired(answer) == {"precision.autocast": "bf16"}
    assert answer.summary == "precision.autocast off → bf16"
    assert answer.prediction is not None
    assert answer.prediction.after == pytest.approx(100 / 0.7, abs=0.001)


def test_the_weights_of_a_server_are_converted() -> None:
    seen = server(hardware_bf16=1)
    answer = ask("Precision", cause("slow-model"), seen, precision={"allowed": ["fp16", "bf16"]})
    assert desired(answer) == {"precision.weights": "fp16"}


@pytest.mark.parametrize(
    ("seen", "facts", "actions", "expected"),
    [
        (trainer(hardware_bf16=1), FACTS, {}, Reason.ACTION_NOT_ALLOWED),
        (trainer(hardware_bf16=1), Facts(), {"precision": BF16}, Reason.KNOB_NOT_SETTABLE),
        (trainer(8, 4, "bf16", hardware_bf16=1), FACTS, {"precision": BF16}, Reason.AT_MAXIMUM),
        (trainer(hardware_bf16=0), FACTS, {"precision": BF16}, Reason.NO_REMEDY),
        (trainer(), FACTS, {"precision": BF16}, Reason.NO_REMEDY),
        (observation(ranks=[talking(knobs={})]), FACTS, {"precision": BF16}, Reason.NO_DATA),
    ],
    ids=["not allowed", "not settable", "on already", "no hardware", "hardware unknown", "unknown"],
)
def test_why_precision_stays(
    seen: Observation, facts: Facts, actions: Any, expected: Reason
) -> None:
    assert reason(ask("Precision", cause("precision-unused"), seen, facts, **actions)) is expected


# -- resources -------------------------------------------------------------------------------------

CPU = {"cpu": {"max": "2"}}
MEMORY = {"memory": {"max": "8Gi"}}
GUARANTEED = SMALL.model_copy(
    update={"cpu_request": "500m", "memory_request": "1Gi", "memory_limit": "1Gi"}
)


def resized(answer: Action | Refusal) -> Any:
    change = done(answer).resources
    assert change is not None
    return change


def test_a_throttled_container_gets_what_it_lost_and_some_headroom() -> None:
    change = resized(ask("Resources", cause("cpu-throttled", 0.5), trainer(), resources=CPU))
    # 500m, half of the time stopped: 1 core would do, and a quarter more is given.
    assert change.desired == SMALL.model_copy(update={"cpu_limit": "1250m"})
    assert (change.container, change.replaces) == ("main", SMALL)


def test_within_the_policys_bound_with_a_prediction_of_what_that_brings() -> None:
    answer = done(
        ask("Resources", cause("cpu-throttled", 0.5), trainer(), resources={"cpu": {"max": "750m"}})
    )
    assert resized(answer).desired.cpu_limit == "750m"
    assert answer.prediction is not None
    assert answer.prediction.after == pytest.approx(150)


def test_a_guaranteed_pod_stays_one() -> None:
    facts = replace(FACTS, containers={"main": (sized(GUARANTEED),)})
    cpu = resized(ask("Resources", cause("cpu-throttled"), trainer(), facts, resources=CPU))
    assert cpu.desired.cpu_request == cpu.desired.cpu_limit == "1250m"
    memory = resized(ask("Resources", cause("memory-pressure"), trainer(), facts, resources=MEMORY))
    assert memory.desired.memory_request == memory.desired.memory_limit == "1536Mi"


def test_later_pods_are_known_by_the_sizes_of_before() -> None:
    kept = report(resources_action(), Phase.KEPT)
    facts = replace(FACTS, containers={"main": (sized(LARGE),)}, reports=(kept,))
    more = {"cpu": {"max": "16"}}
    change = resized(ask("Resources", cause("cpu-throttled"), trainer(), facts, resources=more))
    assert (change.replaces, change.earlier) == (LARGE, [SMALL])


UNLIMITED = SMALL.model_copy(update={"cpu_limit": None})
TWO = {"main": (sized(),), "proxy": (sized(),)}


@pytest.mark.parametrize(
    ("containers", "actions", "expected"),
    [
        ({"main": (sized(),)}, {}, Reason.ACTION_NOT_ALLOWED),
        ({"main": (sized(),)}, {"resources": MEMORY}, Reason.ACTION_NOT_ALLOWED),
        ({"main": (sized(),)}, {"resources": {"cpu": {"max": "500m"}}}, Reason.AT_MAXIMUM),
        ({"main": (sized(),)}, {"resources": {**CPU, "container": "model"}}, Reason.NO_REMEDY),
        (TWO, {"resources": CPU}, Reason.NO_REMEDY),
        ({"main": (sized(UNLIMITED),)}, {"resources": CPU}, Reason.NO_REMEDY),
        ({"main": (sized(), sized(LARGE))}, {"resources": CPU}, Reason.NO_DATA),
        ({"main": (sized(LARGE, SMALL, "Deferred", "full"),)}, {"resources": CPU}, Reason.COOLDOWN),
        ({}, {"resources": CPU}, Reason.NO_DATA),
    ],
    ids=[
        "not allowed",
        "only memory allowed",
        "at the bound",
        "no such container",
        "which container",
        "no limit to raise",
        "pods differ",
        "a resize is under way",
        "no pod",
    ],
)
def test_why_a_size_stays(
    containers: dict[str, tuple[ResizeState, ...]], actions: Any, expected: Reason
) -> None:
    facts = replace(FACTS, containers=containers)
    assert reason(ask("Resources", cause("cpu-throttled"), trainer(), facts, **actions)) is expected


def test_what_a_vertical_autoscaler_sets_is_left_to_it() -> None:
    facts = replace(FACTS, vpa="vertical")
    answer = ask("Resources", cause("cpu-throttled"), trainer(), facts, resources=CPU)
    assert reason(answer) is Reason.RESOURCES_OWNED_BY_VPA


@CASES
@given(st.floats(0, 1), st.integers(100, 8000), st.integers(100, 64000))
def test_a_cpu_limit_only_grows_within_its_bound_and_step_by_step(
    share: float, now: int, most: int
) -> None:
    small = SMALL.model_copy(update={"cpu_limit": f"{now}m", "cpu_request": "50m"})
    facts = replace(FACTS, containers={"main": (sized(small),)})
    bound = {"cpu": {"max": f"{most}m"}}
    answer = ask("Resources", cause("cpu-throttled", share), trainer(), facts, resources=bound)
    if isinstance(answer, Action):
        given_now = units.quantity(resized(answer).desired.cpu_limit)
        assert now / 1000 < given_now <= min(most, MOST_AT_ONCE * now) / 1000 + 0.001
        assert answer.prediction is not None
        assert answer.prediction.after >= answer.prediction.before * 0.999
