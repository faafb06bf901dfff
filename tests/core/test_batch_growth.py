"""A larger global batch: how far, at what learning rate, and what it is judged by."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from bottleneck_operator.api.allowed import LearningRateRule
from bottleneck_operator.api.conditions import Reason
from bottleneck_operator.api.report import Action, KnobsChange, Phase
from bottleneck_operator.decide.decision import Facts, Refusal
from bottleneck_operator.decide.remedies import REMEDIES
from bottleneck_operator.decide.remedies.batch_growth import scaled
from bottleneck_operator.observe.observation import Observation, Signal
from bottleneck_operator.verify.efficiency import discount, efficiency
from bottleneck_operator.verify.measure import after
from hypothesis import given
from hypothesis import strategies as st

from .builders import (
    CASES,
    NOW,
    history,
    knobs_action,
    moment,
    observation,
    policy,
    rank,
    reading,
    report,
    sample,
    spec,
    talking,
)
from .test_remedies import cause, desired, done, reason

KNOBS = ("batch.micro", "batch.accumulation", "optimizer.learningRatePercent")
FACTS = Facts(settable=frozenset(KNOBS), generation=4)
GROW = {"max": 64, "globalBatch": "Grow", "maxGlobal": 4096, "learningRate": "SquareRoot"}


def trainer(
    micro: int = 8,
    accumulation: int = 1,
    noise: float | None = 1e5,
    ranks: int = 2,
    percent: int = 100,
    **shares: float,
) -> Observation:
    knobs = dict(zip(KNOBS, (micro, accumulation, percent), strict=True))
    seen: dict[str, Signal] = {"training.samplesPerSecond": reading(100.0)}
    seen |= {f"training.{name}Share": reading(value) for name, value in shares.items()}
    if noise is not None:
        seen["training.noiseScale"] = reading(noise, "samples")
    talk = [talking(rank=number, knobs=knobs) for number in range(ranks)]
    return observation(signals=seen, ranks=talk)


def ask(
    why: str, seen: Observation, facts: Facts = FACTS, share: float = 0.5, **bounds: Any
) -> Action | Refusal:
    wanted = spec(actions={"batchSize": GROW | bounds})
    return REMEDIES["BatchSize"](cause(why, share), seen, wanted, facts)


def test_ranks_that_exchange_too_often_accumulate_more() -> None:
    answer = done(ask("communication-bound", trainer(8, 1, collective=0.5)))
    assert desired(answer) == {
        "batch.micro": 8,
        "batch.accumulation": 4,
        "optimizer.learningRatePercent": 200,
    }
    assert answer.summary == (
        "batch.accumulation 1 → 4, optimizer.learningRatePercent 100 → 200"
        " (global batch 16 → 64, SquareRoot)"
    )
    assert answer.knobs is not None
    assert answer.knobs.replaces == dict(zip(KNOBS, (8, 1, 100), strict=True))
    assert answer.prediction is not None
    # half of the step is paid a quarter as often; 16 more samples hardly count at such noise
    assert answer.prediction.after == pytest.approx(100 / 0.625, rel=0.01)


def test_work_that_is_started_too_often_gets_larger_micro_batches_once_they_are_the_whole() -> None:
    """Within the global batch first, which costs nothing of what is learnt."""
    at_first = desired(ask("host-bound", trainer(8, 4)))
    assert at_first == {"batch.micro": 32, "batch.accumulation": 1}
    assert desired(ask("host-bound", trainer(8, 1))) == {
        "batch.micro": 32,
        "batch.accumulation": 1,
        "optimizer.learningRatePercent": 200,
    }
    assert desired(ask("host-bound", trainer(8, 1), max=16))["batch.micro"] == 16


def test_what_a_gpu_cannot_hold_is_accumulated() -> None:
    seen = trainer(8, 1, collective=0.3)
    full = replace(seen, signals={**seen.signals, "gpu.memoryShare": reading(0.8)})
    assert desired(ask("host-bound", full, share=0.3))["batch.micro"] == 8


@pytest.mark.parametrize(
    ("seen", "bounds", "facts", "expected", "words"),
    [
        ({"noise": None}, {}, FACTS, Reason.NO_DATA, "noise scale is not known"),
        ({"noise": 30.0}, {}, FACTS, Reason.AT_MAXIMUM, "the gradient noise scale is 30 samples"),
        ({}, {"maxGlobal": 30}, FACTS, Reason.AT_MAXIMUM, "maxGlobal is 30 samples"),
        ({"noise": 32.0}, {}, FACTS, Reason.NO_REMEDY, "less than 5% goodput"),
        ({"collective": 0.02}, {}, FACTS, Reason.NO_REMEDY, "less than 5% goodput"),
        ({"percent": 9000}, {}, FACTS, Reason.AT_MAXIMUM, "18000% of the script"),
        ({}, {}, Facts(), Reason.KNOB_NOT_SETTABLE, "monitor.loader(loader, accumulation=N)"),
        (
            {},
            {"globalBatch": "Preserve", "maxGlobal": None, "learningRate": None},
            FACTS,
            Reason.ACTION_NOT_ALLOWED,
            "globalBatch: Grow, maxGlobal: 4096, learningRate: SquareRoot",
        ),
    ],
    ids=[
        "noise not known",
        "beyond the noise",
        "beyond the bound",
        "not worth its samples",
        "nothing to save",
        "too large a learning rate",
        "not settable",
        "not allowed",
    ],
)
def test_why_it_does_not_grow(
    seen: dict[str, Any], bounds: dict[str, Any], facts: Facts, expected: Reason, words: str
) -> None:
    answer = ask("communication-bound", trainer(**({"collective": 0.5} | seen)), facts, **bounds)
    assert reason(answer) is expected
    assert isinstance(answer, Refusal)
    assert words in answer.message


def test_without_growth_a_batch_that_is_whole_stays_as_it_is() -> None:
    answer = ask("host-bound", trainer(), globalBatch="Preserve", maxGlobal=None, learningRate=None)
    assert reason(answer) is Reason.AT_MAXIMUM


def test_memory_that_is_full_never_makes_it_grow() -> None:
    assert reason(ask("gpu-memory-full", trainer(1, 1))) is Reason.AT_MAXIMUM


@CASES
@given(
    micro=st.integers(1, 64),
    accumulation=st.integers(1, 64),
    noise=st.floats(1, 1e6),
    ranks=st.integers(1, 8),
    most=st.integers(2, 10000),
    exchange=st.floats(0, 1),
    rule=st.sampled_from(list(LearningRateRule)),
    why=st.sampled_from(["communication-bound", "host-bound"]),
    share=st.floats(0, 1),
)
def test_it_never_grows_beyond_the_noise_nor_the_bound_and_always_promises_goodput(
    micro: int,
    accumulation: int,
    noise: float,
    ranks: int,
    most: int,
    exchange: float,
    rule: LearningRateRule,
    why: str,
    share: float,
) -> None:
    seen = trainer(micro, accumulation, noise, ranks, collective=exchange)
    answer = ask(why, seen, share=share, maxGlobal=most, learningRate=str(rule))
    if isinstance(answer, Refusal):
        return
    new = desired(answer)
    size = int(new["batch.micro"]) * int(new["batch.accumulation"]) * ranks
    before = micro * accumulation * ranks
    assert int(new["batch.micro"]) <= max(64, micro)
    if size != before:
        assert before < size <= min(noise, most)
        assert answer.prediction is not None
        assert answer.prediction.after >= 1.05 * answer.prediction.before * 0.999
        assert answer.prediction.after <= 4 * answer.prediction.before
        # no rule goes beyond the linear one, none below leaving it alone
        assert 99 <= int(new["optimizer.learningRatePercent"]) <= 100 * size / before + 1


@pytest.mark.parametrize(
    ("rule", "noise", "percent"),
    [
        ("Linear", 100, 400),
        ("SquareRoot", 100, 200),
        ("AdaScale", 1e9, 400),
        ("AdaScale", 1e-6, 100),
        # (σ² + μ²) / (σ²/4 + μ²) with σ²/μ² = 128/64
        ("AdaScale", 128, 200),
    ],
)
def test_the_rules_are_those_of_their_papers(rule: str, noise: float, percent: int) -> None:
    assert scaled(100, LearningRateRule(rule), 64, 256, noise) == percent


@CASES
@given(
    sizes=st.lists(st.integers(1, 10**5), min_size=2, max_size=4),
    noise=st.floats(1, 1e5),
    rule=st.sampled_from(list(LearningRateRule)),
)
def test_several_steps_of_growth_come_to_the_learning_rate_of_one(
    sizes: list[int], noise: float, rule: LearningRateRule
) -> None:
    ordered = sorted(sizes)
    percent = start = 10**9  # so that rounding does not count
    for old, new in pairwise(ordered):
        percent = scaled(percent, rule, old, new, noise)
    assert percent == pytest.approx(scaled(start, rule, ordered[0], ordered[-1], noise), rel=1e-6)


# -- what it is judged by --------------------------------------------------------------------------


def grown(before: int = 1, then: int = 4) -> Action:
    old = {"batch.micro": 8, "batch.accumulation": before}
    new = {"batch.micro": 8, "batch.accumulation": then}
    change = KnobsChange(generation=1, desired=new, replaces=old)
    return knobs_action().model_copy(update={"type": "BatchSize", "knobs": change})


def lines(**told: float) -> Any:
    """Two ranks in one pod that train 32 samples a second each until now."""
    made = [
        sample(
            NOW - 30 + i,
            i,
            *(
                rank(f"e{n}", steps=10 + i, at=NOW - 30 + i, rank=n, world_size=2, **told)
                for n in range(2)
            ),
        )
        for i in range(31)
    ]
    return {"pod-0": history(*made)}


def test_samples_of_a_larger_batch_count_for_what_they_are_worth() -> None:
    verifying = report(grown(), Phase.VERIFYING, acknowledged_at=moment(-25))
    known = lines(gradient_square=2.0, gradient_variance=128.0)
    worth = (64 + 16) / (64 + 64)
    assert after(policy(), verifying, known, NOW) == [pytest.approx(64 * worth)] * 20
    same = report(grown(1, 1), Phase.VERIFYING, acknowledged_at=moment(-25))
    assert after(policy(), same, known, NOW) == [64.0] * 20


def test_while_their_worth_is_not_known_nothing_is_judged() -> None:
    verifying = report(grown(), Phase.VERIFYING, acknowledged_at=moment(-25))
    assert after(policy(), verifying, lines(), NOW) == []


def test_other_actions_are_judged_by_throughput_alone() -> None:
    assert discount(knobs_action(), []) == 1
    assert discount(grown(4, 4), []) == 1
    assert discount(grown(), []) is None


@CASES
@given(st.floats(1e-3, 1e6), st.floats(1, 1e6), st.floats(1, 100))
def test_a_sample_is_worth_less_the_larger_the_batch(
    noise: float, batch: float, times: float
) -> None:
    assert 0 < efficiency(noise, batch * times) <= efficiency(noise, batch) <= 1
