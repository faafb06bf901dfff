"""The verdict on one action, and how often it is wrong when nothing was done."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from bottleneck_operator.api.report import VerdictResult as V
from bottleneck_operator.verify.judge import (
    ALPHA,
    LOOKS,
    MATTERS,
    MIN_BEFORE,
    SAVING_LOOKS,
    judge,
    judge_growth,
    judge_saving,
)
from hypothesis import given
from hypothesis import strategies as st

from .builders import CASES

FEW, _, _, LAST = LOOKS


def noisy(level: float, count: int, seed: int = 0, spread: float = 0.05) -> list[float]:
    rng = np.random.default_rng(seed)
    return [float(x) for x in level * (1 + spread * rng.standard_normal(count))]


@pytest.mark.parametrize(
    ("before", "after", "lower_is_better", "result"),
    [
        (noisy(100, 10), noisy(200, FEW, 1), False, V.IMPROVED),
        (noisy(100, 10), noisy(50, FEW, 1), False, V.WORSE),
        (noisy(100, 10), noisy(200, FEW, 1), True, V.WORSE),
        (noisy(100, 10), noisy(50, FEW, 1), True, V.IMPROVED),
        (noisy(100, 10), noisy(100, FEW, 1), False, None),
        (noisy(100, 30), noisy(100, LAST, 1), False, V.NO_EFFECT),
        (noisy(100, 30, spread=0.6), noisy(105, LAST, 3, 0.6), False, V.INCONCLUSIVE),
        (noisy(100, 30, spread=0.01), noisy(106, 30, 1, 0.01), False, V.NO_EFFECT),
        ([5.0] * 10, [5.0] * LOOKS[1], False, V.NO_EFFECT),
        ([5.0] * 10, [9.0] * FEW, False, V.IMPROVED),
        ([5.0] * 10, [9.0] * (FEW - 1), False, None),
        ([1.0, 2.0, 3.0][:MIN_BEFORE], [9.0] * FEW, False, V.IMPROVED),
        ([1.0, 2.0], [9.0] * FEW, False, V.NO_DATA),
        ([], [9.0] * FEW, False, V.NO_DATA),
        ([0.0] * 10, [9.0] * FEW, False, V.NO_DATA),
        (noisy(100, 10), [], False, None),
    ],
    ids=[
        "twice as much",
        "half as much",
        "twice as long",
        "half as long",
        "nothing yet",
        "nothing at last",
        "too noisy to tell",
        "a sure change that is too small to matter",
        "a constant series that stays",
        "a constant series that jumps",
        "a figure short of the first look",
        "as few figures from before as can be",
        "too few figures from before",
        "no figures from before",
        "nothing but zero before",
        "no figures after",
    ],
)
def test_the_verdict(
    before: Sequence[float], after: Sequence[float], lower_is_better: bool, result: V | None
) -> None:
    found = judge(before, after, lower_is_better)
    assert (found.result if found else None) == result


def test_a_verdict_holds_the_statistics_it_rests_on() -> None:
    found = judge(noisy(100, 10), noisy(200, 20, 1), False)
    assert found is not None
    assert found.before == pytest.approx(100, rel=0.1)
    assert found.after == pytest.approx(200, rel=0.1)
    assert found.effect == pytest.approx(1.0, abs=0.1)
    assert found.interval[0] <= found.effect <= found.interval[1]
    assert found.p_value is not None
    assert found.p_value < ALPHA
    assert found.bins == [10, LOOKS[1]]
    assert found.control is False


@pytest.mark.parametrize("after", [[], noisy(200, LAST)], ids=["at once", "however good it looks"])
def test_a_broken_guardrail_needs_no_statistics(after: list[float]) -> None:
    found = judge([], after, False, "1 out-of-memory kills")
    assert found is not None
    assert found.result is V.WORSE
    assert "out-of-memory" in found.reason


def test_the_fewest_figures_before_can_reach_a_verdict_and_one_less_cannot() -> None:
    def p_value(before: int) -> float:
        found = judge([1.0, 1.1, 1.2][:before] or [1.0], [9.0] * FEW, False)
        assert found is not None
        return found.p_value if found.p_value is not None else 1.0

    assert p_value(MIN_BEFORE) < ALPHA
    # Two before and eight after: 2 of 45 orders are as extreme, which is over every look's rate.
    assert ALPHA < 2 / 45


def test_the_interval_is_the_same_each_time_it_is_asked_for() -> None:
    before, after = noisy(100, 12, spread=0.3), noisy(180, 20, 1, 0.3)
    verdicts = [judge(before, after, False) for _ in range(3)]
    assert verdicts[0] is not None
    assert verdicts[0].interval
    assert verdicts[0] == verdicts[1] == verdicts[2]


SERIES = st.lists(st.floats(1e-3, 1e6), min_size=0, max_size=LAST + 5)


@CASES
@given(SERIES, SERIES, st.booleans())
def test_the_same_figures_give_the_same_verdict(
    before: list[float], after: list[float], lower: bool
) -> None:
    assert judge(before, after, lower) == judge(before, after, lower)


@CASES
@given(SERIES, SERIES)
def test_what_is_better_for_one_direction_is_worse_for_the_other(
    before: list[float], after: list[float]
) -> None:
    mirror = {V.IMPROVED: V.WORSE, V.WORSE: V.IMPROVED}
    one, other = judge(before, after, False), judge(before, after, True)
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert other.result == mirror.get(one.result, one.result)


@CASES
@given(SERIES, SERIES, st.booleans())
def test_no_verdict_for_a_change_that_does_not_matter(
    before: list[float], after: list[float], lower: bool
) -> None:
    found = judge(before, after, lower)
    if found is not None and found.result in (V.IMPROVED, V.WORSE):
        assert found.effect is not None
        gain = -found.effect if lower else found.effect
        assert abs(gain) >= MATTERS - 1e-4
        assert (gain > 0) == (found.result is V.IMPROVED)


def one_look_at_a_time(before: list[float], after: list[float]) -> V | None:
    """As the loop asks: at every new figure, until there is a verdict."""
    for count in LOOKS:
        found = judge(before, after[:count], False)
        if found is not None:
            return found.result
    return None


@pytest.mark.parametrize("spread", [0.02, 0.3])
def test_doing_nothing_is_rarely_called_a_change(spread: float) -> None:
    """Independent figures from one distribution: Bonferroni over the looks bounds the rate of a
    wrong Improved or Worse by the sum of the looks' ``ALPHA``, whatever the spread."""
    trials = 100
    rng = np.random.default_rng(20)
    verdicts = [
        one_look_at_a_time(
            [float(x) for x in rng.lognormal(0, spread, 15)],
            [float(x) for x in rng.lognormal(0, spread, LAST)],
        )
        for _ in range(trials)
    ]
    wrong = sum(verdict in (V.IMPROVED, V.WORSE) for verdict in verdicts)
    bound = ALPHA * len(LOOKS)
    # Three standard deviations of a count with that rate: the seeds are fixed, the bound is not.
    assert wrong <= trials * bound + 3 * (trials * bound * (1 - bound)) ** 0.5
    assert None not in verdicts
    if spread <= 0.02:
        assert wrong == 0, "a change of under a tenth was called one"


def test_a_real_change_is_found() -> None:
    """The same rule that is silent on nothing has to speak on half as much again."""
    rng = np.random.default_rng(21)
    found = [
        one_look_at_a_time(
            [float(x) for x in rng.lognormal(0, 0.1, 15)],
            [float(x) for x in 1.5 * rng.lognormal(0, 0.1, LAST)],
        )
        for _ in range(40)
    ]
    assert found.count(V.IMPROVED) == len(found)


@pytest.mark.parametrize(
    ("before", "after", "unmet", "guardrail", "result"),
    [
        (noisy(0.1, 10), noisy(0.1, 30, 1), "", "", V.NO_EFFECT),
        (noisy(0.1, 10), noisy(0.2, 30, 1), "", "", V.NO_EFFECT),
        ([], noisy(0.1, 30), "", "", V.NO_EFFECT),
        (noisy(0.1, 10), noisy(0.1, 29, 1), "", "", None),
        (noisy(0.1, 10), noisy(0.3, 8, 1), "Latency", "", V.WORSE),
        (noisy(0.1, 10), noisy(0.3, 7, 1), "Latency", "", None),
        (noisy(0.1, 10), [], "", "1 out-of-memory kills", V.WORSE),
    ],
    ids=[
        "as before",
        "slower, within the objective",
        "nothing from before",
        "not long enough",
        "an objective is missed",
        "too early to blame it",
        "a guardrail",
    ],
)
def test_the_verdict_on_a_saving(
    before: list[float], after: list[float], unmet: str, guardrail: str, result: V | None
) -> None:
    found = judge_saving(before, after, unmet, guardrail)
    assert (found.result if found else None) is result


def test_a_saving_is_not_kept_before_it_could_be_undone() -> None:
    assert SAVING_LOOKS[0] < SAVING_LOOKS[1]


# -- added replicas --------------------------------------------------------------------------------

SLOW, AS_SLOW, FASTER = [1.0] * 10, [1.0, 1.02] * 30, [0.3, 0.31] * 30


@pytest.mark.parametrize(
    ("after", "met", "load", "guardrail", "expected"),
    [
        (FASTER, False, None, "", V.IMPROVED),
        (AS_SLOW, True, None, "", V.NO_EFFECT),
        (AS_SLOW[:8], True, 1.5, "", V.NO_EFFECT),
        (AS_SLOW[:7], True, None, "", None),
        (AS_SLOW, False, None, "", V.NO_EFFECT),
        (AS_SLOW, False, 1.05, "", V.NO_EFFECT),
        (AS_SLOW, False, 1.5, "", V.INCONCLUSIVE),
        (AS_SLOW[:30], False, 1.5, "", None),
        ([2.0, 2.1] * 30, False, 1.5, "", V.INCONCLUSIVE),
        ([2.0, 2.1] * 30, False, 1.0, "", V.WORSE),
        (FASTER, True, None, "3 out-of-memory kills", V.WORSE),
    ],
)
def test_added_replicas_are_judged_by_the_objective_and_at_like_load(
    after: list[float], met: bool, load: float | None, guardrail: str, expected: V | None
) -> None:
    found = judge_growth(SLOW, after, True, met, load, guardrail)
    assert (found.result if found else None) == expected
    if found is not None and met and not guardrail and expected is V.NO_EFFECT:
        assert found.reason.startswith("every objective is met")


@pytest.mark.parametrize(("capacity", "expected"), [(2.0, V.NO_EFFECT), (1.25, V.INCONCLUSIVE)])
def test_load_that_grew_by_less_than_half_of_the_capacity_is_alike(
    capacity: float, expected: V
) -> None:
    found = judge_growth(SLOW, AS_SLOW, True, False, 1.3, capacity=capacity)
    assert found is not None
    assert found.result is expected
