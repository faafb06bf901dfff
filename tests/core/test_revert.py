"""Whether the metric came back after an action was undone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from bottleneck_operator.api.consequences import RevertResult
from bottleneck_operator.verify.revert import judge_revert


def noise(level: float, n: int, seed: int = 0) -> list[float]:
    return list(np.random.default_rng(seed).normal(level, 0.02 * level, n))


BEFORE = noise(100, 30)


@pytest.mark.parametrize(
    ("after", "late", "expected"),
    [
        (noise(100, 8, 1), False, RevertResult.RESTORED),
        (noise(180, 8, 1), False, RevertResult.RESTORED),
        ([*noise(50, 8, 1), *noise(100, 22, 2)], False, RevertResult.RESTORED),
        (noise(70, 30, 1), False, None),
        (noise(70, 60, 1), False, RevertResult.NOT_RESTORED),
        (noise(70, 20, 1), True, RevertResult.NOT_RESTORED),
        ([], False, None),
        ([], True, RevertResult.NO_DATA),
        (noise(100, 7, 1), True, RevertResult.NO_DATA),
    ],
    ids=[
        "back",
        "better",
        "back after a while",
        "perhaps on its way",
        "gone",
        "gone, and no time left",
        "nothing yet",
        "nothing at all",
        "too little",
    ],
)
def test_the_verdict_on_an_undoing(
    after: Sequence[float], late: bool, expected: RevertResult | None
) -> None:
    for lower in (False, True):
        old, new = BEFORE, list(after)
        if lower:
            old, new = [1 / x for x in old], [1 / x for x in new]
        found = judge_revert(old, new, lower, late)
        assert (found.result if found is not None else None) is expected


def test_the_figures_are_in_it() -> None:
    found = judge_revert(BEFORE, noise(70, 60, 1), False, False)
    assert found is not None
    assert found.before == pytest.approx(100, rel=0.02)
    assert found.after == pytest.approx(70, rel=0.02)
    assert found.effect == pytest.approx(-0.3, abs=0.03)
    low, high = found.interval
    assert low < -0.3 < high < -0.2
    assert found.p_value is not None
    assert found.p_value < 0.001
    assert "-30%" in found.reason


@pytest.mark.parametrize("before", [[], [100.0, 100.0], [0.0] * 10])
def test_without_figures_from_before_nothing_is_known(before: list[float]) -> None:
    found = judge_revert(before, noise(100, 60), False, False)
    assert found is not None
    assert found.result is RevertResult.NO_DATA


def test_what_came_back_is_seldom_called_lost() -> None:
    wrong = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        old, new = draw.lognormal(0, 0.3, 30), draw.lognormal(0, 0.3, 60)
        for n in (8, 15, 30, 60):
            found = judge_revert([*old], [*new[:n]], True, n == 60)
            if found is not None:
                wrong += found.result is RevertResult.NOT_RESTORED
                break
    assert wrong <= 4
