"""The verdict on changed replicas beside untouched ones, and how often it is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from bottleneck_operator.api.report import VerdictResult as V
from bottleneck_operator.verify.judge import judge_controlled
from bottleneck_operator.verify.rule import (
    ALONE,
    IMPROVED_BY_CHANCE,
    LOOKS,
    MATTERS,
    WORSE_BY_CHANCE,
    judge_panel,
)
from bottleneck_operator.verify.shift import shift
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import lfilter

from .builders import CASES

BEFORE, FEW, AFTER = 45, LOOKS[0], LOOKS[1]


def series(seed: int, replicas: int, phi: float = 0.5, spread: float = 0.1) -> np.ndarray:
    """Logarithms of replicas over ``BEFORE`` and the last look's bins: autocorrelated, with heavy
    tails, and a load that moves all of them."""
    rng = np.random.default_rng(seed)
    size = BEFORE + LOOKS[-1]
    shocks = rng.standard_t(4, (size + 50, replicas)) / np.sqrt(2)
    own = lfilter([np.sqrt(1 - phi**2)], [1, -phi], shocks, axis=0)[50:]
    load = np.cumsum(0.1 * rng.standard_normal((size, 1)), axis=0)
    return np.asarray(np.exp(spread * own + load + rng.uniform(-1, 1, replicas)))


def verdict(
    values: np.ndarray,
    change: float = 1.0,
    treated: int = 1,
    after: int = AFTER,
    lower: bool = False,
) -> V:
    """Of the first ``treated`` columns, changed by a factor from the action on."""
    changed = values[: BEFORE + after].copy()
    changed[BEFORE:, :treated] *= change
    flags = np.arange(values.shape[1]) < treated
    found = judge_panel(changed, flags, BEFORE, lower, final=True)
    assert found is not None
    return found.result


@pytest.mark.parametrize(
    ("change", "after", "lower", "result"),
    [
        (2.0, AFTER, False, V.IMPROVED),
        (2.0, AFTER, True, V.WORSE),
        (0.5, AFTER, True, V.IMPROVED),
        (0.5, AFTER, False, V.WORSE),
        (2.0, FEW, False, V.IMPROVED),
        (2.0, FEW - 1, False, V.INCONCLUSIVE),
        (1.0, LOOKS[-1], False, V.NO_EFFECT),
    ],
)
def test_load_that_moves_all_replicas_hides_no_change_and_makes_none(
    change: float, after: int, lower: bool, result: V
) -> None:
    values = series(3, 8, spread=0.05)
    assert verdict(values, change, 3, after, lower) is result


def test_without_untouched_replicas_the_word_is_likely() -> None:
    values = np.exp(0.05 * np.random.default_rng(1).standard_normal((BEFORE + AFTER, 2)))
    values[BEFORE:] *= 2
    found = judge_panel(values, np.array([True, True]), BEFORE, False)
    assert found is not None
    assert found.result is V.IMPROVED
    assert found.control is False
    assert found.reason.startswith("likely")


def test_back_to_what_was_usual_is_no_improvement() -> None:
    values = np.exp(0.05 * np.random.default_rng(2).standard_normal((BEFORE + AFTER, 6)))
    values[BEFORE - 5 : BEFORE, 0] *= 3  # a bad stretch of the replica, for which it was changed
    assert verdict(values, lower=True) is not V.IMPROVED
    assert verdict(values[:, :1], lower=True) is not V.IMPROVED


def test_a_bad_stretch_that_goes_on_is_not_the_actions_doing() -> None:
    values = np.exp(0.05 * np.random.default_rng(2).standard_normal((BEFORE + AFTER, 6)))
    values[BEFORE - 5 :, 0] *= 1.5
    assert verdict(values, lower=True) is V.INCONCLUSIVE


def test_what_does_not_last_is_no_improvement() -> None:
    values = np.exp(0.05 * np.random.default_rng(4).standard_normal((BEFORE + AFTER, 6)))
    values[BEFORE : BEFORE + AFTER // 2, 0] *= 3
    assert verdict(values) is V.INCONCLUSIVE


def test_one_bin_of_a_thousand_times_as_much_changes_nothing() -> None:
    values = np.exp(0.05 * np.random.default_rng(4).standard_normal((BEFORE + AFTER, 6)))
    values[BEFORE + 3, 0] *= 1000
    assert verdict(values) in (V.NO_EFFECT, V.INCONCLUSIVE)
    assert verdict(values, 2.0) is V.IMPROVED


@pytest.mark.parametrize(
    ("values", "split", "control"),
    [
        (np.ones((0, 2)), 0, True),
        (np.ones((20, 2)), 0, True),
        (np.ones((20, 2)), 20, True),
        (np.ones((20, 2)), 2, True),
        (np.zeros((60, 2)), 40, True),
        (np.full((60, 2), np.nan), 40, True),
        (np.full((60, 1), -np.inf), 40, False),
    ],
    ids=["nothing", "none before", "none after", "few before", "zero", "NaN", "infinite"],
)
def test_missing_figures_are_no_data(values: np.ndarray, split: int, control: bool) -> None:
    found = judge_panel(values, np.arange(values.shape[1]) == 0, split, False, final=True)
    assert found is not None
    assert found.result is V.NO_DATA
    assert found.control is control
    assert found.reason


def test_replicas_that_are_missing_now_and_then_do_not_hinder() -> None:
    values = series(5, 8, spread=0.05)
    values[np.random.default_rng(1).random(values.shape) < 0.2] = np.nan
    values[BEFORE + 2] = np.nan
    values[:, -1] = 0.0
    assert verdict(values, 2.0, 3) is V.IMPROVED


def test_the_error_of_a_shift_is_what_shifts_differ_by_however_alike_the_figures_are() -> None:
    for phi in (0.0, 0.8):
        shocks = np.random.default_rng(6).standard_normal((BEFORE + AFTER + 100, 200))
        noise = lfilter([np.sqrt(1 - phi**2)], [1, -phi], shocks, axis=0)[100:]
        shifts = [shift(column[:BEFORE], column[BEFORE:]) for column in np.asarray(noise).T]
        true = float(np.std([each.size for each in shifts]))
        assert 0.85 * true < float(np.mean([each.error for each in shifts])) < 1.6 * true


def test_the_error_rates_of_all_looks_are_those_that_are_promised() -> None:
    assert sum(IMPROVED_BY_CHANCE.values()) <= 0.025
    assert sum(WORSE_BY_CHANCE.values()) <= 0.005
    assert ALONE < 1


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("replicas", [2, 5])
def test_doing_nothing_is_rarely_called_a_change(phi: float, replicas: int) -> None:
    found = [verdict(series(seed, replicas, phi, 0.2)) for seed in range(150)]
    # Three standard deviations of a count over the rate that is promised.
    assert found.count(V.IMPROVED) <= 150 * 0.025 + 3 * (150 * 0.025) ** 0.5
    assert found.count(V.WORSE) <= 150 * 0.005 + 3 * (150 * 0.005) ** 0.5


def test_a_change_by_three_tenths_is_seen() -> None:
    found = [verdict(series(seed, 6, 0.4, 0.1), 1.3, 2) for seed in range(40)]
    assert found.count(V.IMPROVED) >= 30


FIGURES = st.lists(
    st.one_of(st.floats(1e-3, 1e6), st.just(float("nan")), st.just(0.0), st.just(-1.0)),
    max_size=LOOKS[-1] + 5,
)


@CASES
@given(FIGURES, FIGURES, FIGURES, FIGURES, st.booleans())
def test_any_figures_give_a_sound_verdict_and_always_the_same(
    ours: list[float], later: list[float], others: list[float], also: list[float], lower: bool
) -> None:
    found = judge_controlled(ours, later, others, also, lower)
    assert found == judge_controlled(ours, later, others, also, lower)
    if found is None:
        return
    assert all(np.isfinite(found.interval))
    if found.result in (V.IMPROVED, V.WORSE):
        assert found.effect is not None
        assert abs(np.log1p(found.effect)) >= np.log1p(MATTERS) - 1e-3
        assert (found.effect < 0) is (lower is (found.result is V.IMPROVED))


def test_a_guardrail_needs_no_statistics_and_unequal_lengths_are_cut() -> None:
    found = judge_controlled([], [], [], [], False, "1 out-of-memory kills")
    assert found is not None
    assert found.result is V.WORSE
    wave = [1.0, 1.1, 0.9, 1.05] * 5
    found = judge_controlled([50.0, *wave], [2 * x for x in wave], wave, [*wave, 50.0], False)
    assert found is not None
    assert found.result is V.IMPROVED
    assert judge_controlled(wave, wave[: FEW - 1], wave, wave, False) is None
