"""More ranks for a training job: what they return, and when nobody may add one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from bottleneck_operator.api.conditions import Reason
from bottleneck_operator.api.report import Action
from bottleneck_operator.decide.decision import Facts, Refusal
from bottleneck_operator.decide.planner import decide
from bottleneck_operator.decide.remedies.ranks import EFFICIENCY, MOST_AT_ONCE, Group, gain, ranks
from bottleneck_operator.diagnose.engine import diagnose
from bottleneck_operator.observe.observation import Observation, Rank, Signal
from bottleneck_operator.observe.scale import scale_of
from hypothesis import given
from hypothesis import strategies as st

from .builders import CASES, NOW, observation, reading, spec, talking
from .scaled import batch_job, pytorch_job
from .test_remedies import cause

ELASTIC = Facts(replicas=2, ready=2, scale=scale_of(pytorch_job()))
APART = Facts(replicas=2, ready=2, scale=scale_of(batch_job()))
COMPUTING = cause("compute-bound")


def group(
    pods: int = 2,
    world: int | None = None,
    each: int = 1,
    micro: int = 8,
    accumulation: int = 1,
    share: float | None = 0.1,
) -> Observation:
    """Ranks that train together, ``each`` of them in every pod."""
    size = pods * each if world is None else world
    knobs = {"batch.micro": micro, "batch.accumulation": accumulation}
    seen: list[Rank] = [
        talking(pod=f"pod-{n // each}", rank=n, world_size=size, knobs=knobs)
        for n in range(pods * each)
    ]
    signals: dict[str, Signal] = {"training.samplesPerSecond": reading(100.0)}
    if share is not None:
        signals["training.collectiveShare"] = reading(share)
    return observation(signals=signals, ranks=seen, expected=pods, streaming=pods)


def ask(
    seen: Observation, facts: Facts = ELASTIC, most: int = 8, goodput: str = ""
) -> Action | Refusal:
    wanted: dict[str, Any] = {"actions": {"replicas": {"min": 1, "max": most}}}
    if goodput:
        wanted["objectives"] = {"goodput": {"min": goodput}}
    return ranks(COMPUTING, seen, spec(**wanted), facts)


@pytest.mark.parametrize(
    ("seen", "facts", "goodput", "desired", "after"),
    [
        # Without communication between them, the rates add up.
        (group(world=1), APART, "", 4, 200.0),
        (group(world=1), APART, "140", 3, 150.0),
        (group(each=2, world=2), APART, "140", 3, 150.0),
        # 90% is divided, 10% grows with (1 - 1/4) / (1 - 1/2).
        (group(), ELASTIC, "", 4, 100 / (0.45 + 0.15)),
        # Three ranks divide no batch of 16.
        (group(), ELASTIC, "110", 4, 100 / (0.45 + 0.15)),
        (group(micro=12), ELASTIC, "110", 3, 100 / (0.6 + 0.1 * 4 / 3)),
        # A rank alone communicates with nobody yet, whatever it measures.
        (group(pods=1), replace(ELASTIC, replicas=1, ready=1), "", 2, 200.0),
        (group(each=2, micro=4), ELASTIC, "", 4, 100 / (0.45 + 0.1 * (7 / 8) / (3 / 4))),
    ],
)
def test_growth_as_far_as_it_is_wanted(
    seen: Observation, facts: Facts, goodput: str, desired: int, after: float
) -> None:
    answer = ask(seen, facts, goodput=goodput)
    assert isinstance(answer, Action), answer
    assert answer.replicas is not None
    assert (answer.replicas.replaces, answer.replicas.desired) == (facts.replicas, desired)
    assert answer.prediction is not None
    assert answer.prediction.before == 100
    assert answer.prediction.after == pytest.approx(after, abs=1e-3)


STATIC = replace(ELASTIC, scale=None)
UNTOLD = observation(
    signals={"training.samplesPerSecond": reading(100.0)}, ranks=[talking()], expected=1
)


@pytest.mark.parametrize(
    ("seen", "facts", "reason", "words"),
    [
        (group(), STATIC, Reason.REPLICAS_FIXED, "2 ranks train together, and their world size is"),
        (group(), APART, Reason.REPLICAS_FIXED, "a PyTorchJob with spec.elasticPolicy"),
        (group(world=4), ELASTIC, Reason.NO_DATA, "some of the ranks are not known"),
        (group(share=None), ELASTIC, Reason.NO_DATA, "the share of communication"),
        (UNTOLD, ELASTIC, Reason.NO_DATA, "do not say of how many their group is"),
        (observation(), ELASTIC, Reason.NO_DATA, "do not say of how many their group is"),
        (group(), replace(ELASTIC, ready=1), Reason.REPLICAS_PENDING, "1 of 2 replicas are ready"),
        (group(), replace(ELASTIC, ready=None), Reason.REPLICAS_PENDING, "0 of 2 replicas"),
        (group(), replace(ELASTIC, replicas=8, ready=8), Reason.AT_MAXIMUM, "8 replicas is the"),
        (
            group(micro=7),
            ELASTIC,
            Reason.NO_REMEDY,
            "the global batch of 14 samples cannot be divided among the ranks of 3 to 4 replicas",
        ),
        (
            group(pods=1, micro=7),
            replace(ELASTIC, replicas=1, ready=1),
            Reason.NO_REMEDY,
            "the global batch of 7 samples cannot be divided among the ranks of 2 replicas",
        ),
        (
            group(share=0.5),
            ELASTIC,
            Reason.NO_REMEDY,
            "communication is 50% of the step, so 4 replicas would train 1.00 times as fast as 2",
        ),
    ],
)
def test_when_there_is_no_growth(
    seen: Observation, facts: Facts, reason: Reason, words: str
) -> None:
    answer = ask(seen, facts)
    assert isinstance(answer, Refusal), answer
    assert answer.reason == reason
    assert words in answer.message


@CASES
@given(
    st.integers(1, 8), st.integers(1, 8), st.integers(1, 64), st.floats(0, 1), st.integers(1, 20)
)
def test_growth_keeps_within_bounds_and_never_breaks_the_batch(
    pods: int, each: int, micro: int, share: float, most: int
) -> None:
    facts = replace(ELASTIC, replicas=pods, ready=pods)
    answer = ask(group(pods, each=each, micro=micro, share=share), facts, most)
    if isinstance(answer, Refusal):
        return
    assert answer.replicas is not None
    assert answer.prediction is not None
    desired = answer.replicas.desired
    assert pods < desired <= min(most, MOST_AT_ONCE * pods)
    assert micro * pods * each % (desired * each) == 0
    faster = answer.prediction.after / answer.prediction.before
    assert faster >= 1 + EFFICIENCY * (desired / pods - 1) - 1e-3
    assert faster <= desired / pods + 1e-3


@CASES
@given(st.integers(2, 64), st.floats(0, 1), st.integers(1, 64))
def test_more_communication_never_returns_more(size: int, share: float, added: int) -> None:
    less, more = (Group(size, size, 1, each) for each in (share, min(1.0, share + 0.1)))
    assert gain(more, size + added) <= gain(less, size + added) + 1e-9
    assert gain(less, size + added) <= (size + added) / size + 1e-9
    assert gain(less, size) == pytest.approx(1)


def test_a_computing_job_is_given_ranks_by_the_planner() -> None:
    seen = group()
    signals = {
        **seen.signals,
        "training.computeShare": reading(0.85),
        "training.dataShare": reading(0.02),
    }
    wanted = spec(actions={"replicas": {"max": 8}}, objectives={"goodput": {"min": "150"}})
    seen = replace(seen, signals=signals)
    diagnosis = diagnose(seen, wanted.objectives)
    plan = decide(diagnosis, seen, wanted, ELASTIC, NOW)
    assert not isinstance(plan, Refusal), plan
    assert plan.action.summary == "replicas 2 → 4"
    refused = decide(diagnosis, seen, wanted, STATIC, NOW)
    assert isinstance(refused, Refusal)
    assert refused.reason == Reason.REPLICAS_FIXED
