"""Trials: what is tried while an objective is breached and no confirmed cause calls for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from bottleneck_operator.api.conditions import Reason
from bottleneck_operator.api.meta import Setting
from bottleneck_operator.api.report import (
    Action,
    BottleneckReport,
    Cause,
    Metric,
    Phase,
    Verdict,
    VerdictResult,
)
from bottleneck_operator.decide.decision import Facts, Plan, Refusal
from bottleneck_operator.decide.exploration import explore
from bottleneck_operator.decide.guards import PATIENCE_SECONDS
from bottleneck_operator.decide.planner import decide
from bottleneck_operator.diagnose.diagnosis import Diagnosis
from bottleneck_operator.diagnose.engine import diagnose
from bottleneck_operator.observe.observation import Observation, WorkloadType
from hypothesis import given
from hypothesis import strategies as st

from .builders import (
    CASES,
    NOW,
    knobs_action,
    moment,
    observation,
    reading,
    report,
    spec,
    talking,
)

SETTABLE = frozenset(
    {
        *("dataLoader.workers", "dataLoader.prefetch", "batch.micro", "batch.accumulation"),
        *("precision.autocast", "batch.maxSize", "batch.delayMilliseconds", "precision.weights"),
    }
)
FACTS = Facts(policy_generation=3, settable=SETTABLE)
TRAINING: dict[str, Setting] = {
    "dataLoader.workers": 2,
    "dataLoader.prefetch": 4,
    "batch.micro": 16,
    "batch.accumulation": 4,
    "precision.autocast": "off",
}
SERVING: dict[str, Setting] = {
    "batch.maxSize": 8,
    "batch.delayMilliseconds": 20,
    "precision.weights": "fp32",
}
AT_ONCE: dict[str, Setting] = {"batch.delayMilliseconds": 0}
ALL = {
    "batchSize": {"min": 2, "max": 64},
    "dataLoader": {"maxWorkers": 6},
    "precision": {"allowed": ["bf16"]},
}


def trainer(knobs: dict[str, Setting] | None = None, **signals: float) -> Observation:
    """By default it computes, and neither its batch nor its precision is suspicious enough."""
    settings = {**TRAINING, **(knobs or {})}
    found = {
        "training.samplesPerSecond": 100.0,
        "training.stepSeconds": 0.64,
        "training.dataShare": 0.02,
        "training.computeShare": 0.9,
        "dataLoader.workers": float(settings["dataLoader.workers"]),
        "cpu.availableCores": 8.0,
        "hardware.bf16": 1.0,
        **{name.replace("_", "."): value for name, value in signals.items()},
    }
    seen = {name: reading(value) for name, value in found.items()}
    return observation(signals=seen, ranks=[talking(knobs=settings)])


def server(knobs: dict[str, Setting] | None = None, **signals: float) -> Observation:
    """By default half of the latency is the model, and a fifth the batcher's delay."""
    settings = {**SERVING, **(knobs or {})}
    found = {
        "inference.latency": 0.1,
        "inference.serviceSeconds": 0.05,
        "inference.queueShare": 0.2,
        "inference.serviceShare": 0.8,
        "inference.batchDelaySeconds": float(settings["batch.delayMilliseconds"]) / 1000,
        "inference.batchSize": 6.0,
        "inference.arrivalRate": 100.0,
        "inference.batching": 1.0,
        "hardware.bf16": 1.0,
        **{name.replace("_", "."): value for name, value in signals.items()},
    }
    seen = {name: reading(value) for name, value in found.items()}
    return observation(WorkloadType.INFERENCE, seen, [talking(knobs=settings)])


def diagnosis(*causes: str) -> Diagnosis:
    found = tuple(
        Cause.model_validate(
            {
                "id": name,
                "class": "c",
                "category": "Models",
                "title": name,
                "share": 0.5,
                "confidence": 1.0,
            }
        )
        for name in causes
    )
    return Diagnosis(NOW, True, (), causes=found)


def tried(
    seen: Observation, *causes: str, reports: tuple[BottleneckReport, ...] = (), **actions: Any
) -> Action | None:
    objectives = {"goodput": {"min": "100000"}}
    if seen.type is WorkloadType.INFERENCE:
        objectives = {"latency": {"percentile": 95, "target": "40ms"}}
    wanted = spec(objectives=objectives, actions=actions)
    facts = replace(FACTS, reports=reports)
    return explore(diagnosis(*causes), seen, wanted, facts)


def change(action: Action | None) -> dict[str, Setting]:
    assert action is not None
    assert action.knobs is not None
    now, then = action.knobs.replaces, action.knobs.desired
    return {name: value for name, value in then.items() if now.get(name) != value}


def ended(
    action: Action | None,
    result: VerdictResult,
    before: float,
    after: float,
    p: float = 0.001,
    lower_is_better: bool = False,
) -> BottleneckReport:
    """The report of an action."""
    assert action is not None
    verdict = Verdict(result=result, before=before, after=after, p_value=p)
    phase = Phase.KEPT if result is VerdictResult.IMPROVED else Phase.REVERTED
    times = {"applied_at": moment(-60), "closed_at": moment(-40)}
    done = report(action, phase, verdict=verdict, **times)
    metric = Metric(name="m", unit="", lower_is_better=lower_is_better)
    return done.model_copy(update={"spec": done.spec.model_copy(update={"metric": metric})})


# -- what is tried ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "actions", "expected"),
    [
        (
            trainer(),
            {"batchSize": {"max": 256}},
            {"batch.micro": 64, "batch.accumulation": 1},
        ),
        (trainer(), {"precision": {"allowed": ["bf16"]}}, {"precision.autocast": "bf16"}),
        (
            trainer(training_dataShare=0.15),
            {"dataLoader": {"maxWorkers": 3}},
            {"dataLoader.workers": 3},
        ),
        (
            trainer({"batch.micro": 64, "batch.accumulation": 1}),
            {"batchSize": {"max": 64}},
            {"batch.micro": 16, "batch.accumulation": 4},
        ),
        (
            trainer(training_stepSeconds=0.04),
            {"dataLoader": {"maxWorkers": 2}},
            {"dataLoader.workers": 1},
        ),
        (server(), {"precision": {"allowed": ["bf16"]}}, {"precision.weights": "bf16"}),
        (server(), {"batchSize": {"max": 8}}, {"batch.delayMilliseconds": 5}),
        (
            server(AT_ONCE),
            {"batchSize": {"min": 8, "max": 64}},
            {"batch.maxSize": 16},
        ),
        (
            server(AT_ONCE, inference_arrivalRate=20.0),
            {"batchSize": {"max": 8}},
            {"batch.maxSize": 4},
        ),
    ],
    ids=[
        "a larger micro-batch",
        "16 bits",
        "more workers",
        "a smaller micro-batch, where it cannot be larger",
        "fewer workers, where handing over is long beside the step",
        "16-bit weights",
        "a shorter delay",
        "a larger batch",
        "a smaller one, where there is time for it",
    ],
)
def test_what_is_tried(seen: Observation, actions: Any, expected: dict[str, Setting]) -> None:
    action = tried(seen, **actions)
    assert change(action) == expected
    assert action is not None
    assert action.summary.startswith("trial: ")
    assert action.prediction is not None
    assert action.prediction.basis.startswith("a trial, no cause is confirmed: ")


def test_what_is_suspected_to_return_most_is_tried_first() -> None:
    assert "dataLoader.workers" in change(tried(trainer(training_dataShare=0.25), **ALL))
    assert "precision.autocast" in change(tried(trainer(training_dataShare=0.06), **ALL))


@pytest.mark.parametrize(
    ("causes", "expected"),
    [
        (["compute-bound"], True),
        (["slow-storage"], True),
        (["host-bound"], True),
        (["cpu-throttled"], False),
        (["gpu-memory-full"], False),
        (["compute-bound", "straggler-rank"], False),
    ],
)
def test_nothing_is_tried_where_the_cause_is_known_and_out_of_reach(
    causes: list[str], expected: bool
) -> None:
    assert (tried(trainer(), *causes, **ALL) is not None) is expected


@pytest.mark.parametrize(
    ("full", "expected"),
    [
        ({"inference_queueShare": 0.95, "inference_occupancy": 0.95}, True),
        ({"inference_queueShare": 0.95, "inference_occupancy": 0.50}, False),
        ({"inference_queueShare": 0.10, "inference_occupancy": 0.95}, False),
        ({}, False),
    ],
    ids=["full", "not busy", "no queue", "not known"],
)
def test_failures_are_in_reach_of_settings_where_a_full_server_turns_requests_away(
    full: dict[str, float], expected: bool
) -> None:
    seen = server(AT_ONCE, inference_batchSize=8, **full)
    assert (tried(seen, "error-burst", **ALL) is not None) is expected


@pytest.mark.parametrize(
    ("seen", "actions"),
    [
        (trainer(), {}),
        (trainer(), {"replicas": {"max": 9}}),
        (observation(ranks=[talking(knobs=TRAINING)]), ALL),
        (observation(WorkloadType.INFERENCE, ranks=[talking(knobs=SERVING)]), ALL),
        (server(AT_ONCE, inference_batchSize=1.5), {"batchSize": {"min": 8, "max": 64}}),
    ],
    ids=[
        "nothing allowed",
        "only replicas",
        "no data",
        "no data of a server",
        "batches stay small",
    ],
)
def test_nothing_is_tried_without_permission_or_data(seen: Observation, actions: Any) -> None:
    assert tried(seen, **actions) is None


@pytest.mark.parametrize(
    ("since", "waits"), [(5.0, True), (PATIENCE_SECONDS, False), (None, False)]
)
def test_a_trial_waits_for_what_may_be_over_soon(since: float | None, waits: bool) -> None:
    wanted = spec(objectives={"goodput": {"min": "100000"}}, actions={"batchSize": {"max": 256}})
    began = None if since is None else NOW - since
    seen = trainer(hardware_bf16=0)
    found = diagnose(seen, wanted.objectives)
    decision = decide(found, seen, wanted, replace(FACTS, breached_since=began), NOW)
    assert isinstance(decision, Refusal) is waits
    if isinstance(decision, Refusal):
        assert decision.reason is Reason.COOLDOWN
        assert decision.retry_after == PATIENCE_SECONDS - 5.0


def test_what_is_still_breached_right_after_an_action_is_no_burst() -> None:
    wanted = spec(
        objectives={"goodput": {"min": "100000"}},
        actions={"batchSize": {"max": 256}},
        limits={"cooldown": "1s"},
    )
    done = report(
        knobs_action(), Phase.KEPT, applied_at=moment(-20), closed_at=moment(-5), verdict=None
    )
    seen = trainer(hardware_bf16=0)
    facts = replace(FACTS, breached_since=NOW - 3, reports=(done,))
    assert isinstance(decide(diagnose(seen, wanted.objectives), seen, wanted, facts, NOW), Plan)


def test_nothing_is_tried_while_a_recommendation_waits() -> None:
    waiting = report(tried(trainer(), **ALL), Phase.RECOMMENDED, approval=True)
    assert tried(trainer(), reports=(waiting,), **ALL) is None


# -- further on a way that helped ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (0.2, 0.1, {"batch.maxSize": 16}),
        (0.11, 0.1, None),
    ],
    ids=["it halved the latency", "the root of what it returned is too little"],
)
def test_a_way_that_helped_is_gone_on(
    before: float, after: float, expected: dict[str, Setting] | None
) -> None:
    allowed = {"batchSize": {"min": 4, "max": 64}}
    first = tried(server({"batch.maxSize": 4, **AT_ONCE}), **allowed)
    assert change(first) == {"batch.maxSize": 8}
    kept = ended(first, VerdictResult.IMPROVED, before, after, lower_is_better=True)
    step = tried(server(AT_ONCE), reports=(kept,), **allowed)
    if expected is None:
        assert step is None or step.summary.startswith("trial: ")
    else:
        assert change(step) == expected
        assert step is not None
        assert not step.summary.startswith("trial: ")


@pytest.mark.parametrize(
    ("after", "p", "expected"),
    [(93.0, 0.001, 16), (93.0, 0.2, None), (99.0, 0.001, None)],
    ids=["a little", "by chance", "next to nothing"],
)
def test_what_returned_too_little_to_be_kept_is_tried_twice_as_far(
    after: float, p: float, expected: int | None
) -> None:
    allowed = {"batchSize": {"min": 4, "max": 64}}
    seen = server({"batch.maxSize": 4, **AT_ONCE}, inference_arrivalRate=500.0)
    first = tried(seen, **allowed)
    assert change(first) == {"batch.maxSize": 8}
    done = ended(first, VerdictResult.NO_EFFECT, 100.0, after, p, lower_is_better=True)
    step = tried(seen, reports=(done,), **allowed)
    assert (change(step) if step else None) == (expected and {"batch.maxSize": expected})


# -- it ends ---------------------------------------------------------------------------------------


def test_the_same_settings_are_not_tried_again_however_they_are_written() -> None:
    both = {"precision": {"allowed": ["bf16"]}, "batchSize": {"max": 64}}
    first = tried(trainer(), **both)
    second = tried(trainer(), reports=(missed(first),), **both)
    assert change(first) == {"precision.autocast": "bf16"}
    assert change(second) == {"batch.micro": 64, "batch.accumulation": 1}
    assert tried(trainer(), reports=(missed(first), missed(second)), **both) is None


def test_what_is_worth_little_alone_is_tried_together() -> None:
    both = {"precision": {"allowed": ["bf16"]}, "batchSize": {"max": 64}}
    first = tried(trainer(), **both)
    small = ended(first, VerdictResult.NO_EFFECT, 100.0, 107.0)
    second = tried(trainer(), reports=(small,), **both)
    more = ended(second, VerdictResult.NO_EFFECT, 100.0, 104.0)
    third = tried(trainer(), reports=(small, more), **both)
    assert change(third) == {
        "precision.autocast": "bf16",
        "batch.micro": 64,
        "batch.accumulation": 1,
    }
    assert third is not None
    assert third.prediction is not None
    assert third.prediction.after == pytest.approx(100 * 1.07 * 1.04)


def test_what_returned_nothing_of_the_much_that_was_predicted_is_tried_with_more_workers() -> None:
    """As long as computing and loading take the same time, neither shows anything alone."""
    both = {"precision": {"allowed": ["bf16"]}, "dataLoader": {"maxWorkers": 4}}
    first = tried(trainer(), **both)
    assert change(first) == {"precision.autocast": "bf16"}
    nothing = ended(first, VerdictResult.NO_EFFECT, 100.0, 100.0)
    second = tried(trainer(), reports=(nothing,), **both)
    assert change(second) == {"precision.autocast": "bf16", "dataLoader.workers": 3}


def test_what_harmed_is_not_tried_together_with_anything() -> None:
    both = {"precision": {"allowed": ["bf16"]}, "batchSize": {"max": 64}}
    first = tried(trainer(), **both)
    small = ended(first, VerdictResult.NO_EFFECT, 100.0, 107.0)
    second = tried(trainer(), reports=(small,), **both)
    harm = ended(second, VerdictResult.WORSE, 100.0, 60.0)
    third = tried(trainer(), reports=(small, harm), **both)
    # A smaller micro-batch, as the larger one harmed.
    assert change(third) == {"batch.micro": 4, "batch.accumulation": 16}


def missed(action: Action | None) -> BottleneckReport:
    return ended(action, VerdictResult.NO_EFFECT, 100.0, 100.0)


@CASES
@given(st.booleans(), st.lists(st.floats(0.5, 3.0), min_size=40, max_size=40))
def test_trials_end_and_stay_within_the_bounds(training: bool, returns: list[float]) -> None:
    """Whatever comes of them, no settings come into force twice, but by being undone."""
    knobs = dict(TRAINING if training else SERVING)
    start, points = dict(knobs), [dict(knobs)]
    reports: list[BottleneckReport] = []
    for better in returns:
        seen = trainer(knobs) if training else server(knobs)
        current = {name: value for name, value in knobs.items() if reports}
        wanted = spec(
            objectives={"goodput": {"min": "100000"}}
            if training
            else {"latency": {"percentile": 95, "target": "40ms"}},
            actions=ALL,
        )
        facts = replace(FACTS, reports=tuple(reports), knobs=current)
        action = explore(diagnosis(), seen, wanted, facts)
        if action is None:
            break
        assert action.knobs is not None
        point = {**knobs, **action.knobs.desired}
        assert point not in points
        points.append(point)
        kept = better >= 1.1
        result = VerdictResult.IMPROVED if kept else VerdictResult.NO_EFFECT
        after = 100.0 * better if training else 100.0 / better
        reports.append(ended(action, result, 100.0, after, lower_is_better=not training))
        if kept:
            knobs = point
    else:
        pytest.fail("it goes on and on")
    for point in points:
        assert 2 <= int(point.get("batch.micro", 2)) <= 64
        assert 2 <= int(point.get("batch.maxSize", 2)) <= 64
        assert 1 <= int(point.get("dataLoader.workers", 1)) <= 6
        if training:
            samples = int(start["batch.micro"]) * int(start["batch.accumulation"])
            assert int(point["batch.micro"]) * int(point["batch.accumulation"]) == samples
