"""Whether a workload came back after an action was undone. Pure.

The question is another one than that of an action: not whether something got better, but whether
what was taken is there again. So it is a test of non-inferiority, on the newest figures: coming
back may take a while, and what is better than before has come back, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ..api.consequences import RevertResult
from .judge import ALPHA, LOOKS, MATTERS, MIN_BEFORE, interval_of

REVERT_SECONDS = 120.0
"""How long the metric has to come back once all that is wanted runs again, and is heard of."""


@dataclass(frozen=True, slots=True)
class Restoration:
    """The judgement: medians before the action and since the undoing, the relative change between
    them with its 95% interval, and the one-sided p of its being worse."""

    result: RevertResult
    reason: str
    before: float | None = None
    after: float | None = None
    effect: float | None = None
    interval: tuple[float, ...] = ()
    p_value: float | None = None
    bins: tuple[int, ...] = ()


def judge_revert(
    before: Sequence[float], after: Sequence[float], lower_is_better: bool, late: bool
) -> Restoration | None:
    """Whether the metric came back, or None while it is worth waiting. ``before`` and ``after`` are
    one figure for each bin, oldest first, without warm-up; ``late`` tells that there will be no
    more. Restored: the worse end of the interval is less than 10% from before. NotRestored: at the
    end the later half of the figures is worse by 10% or more, and by more than chance explains."""
    n = (len(before), len(after))
    if len(before) < MIN_BEFORE or not np.median(before) > 0:
        return Restoration(RevertResult.NO_DATA, "there are no figures from before it", bins=n)
    look = max((size for size in LOOKS if size <= len(after)), default=0)
    if look == 0:
        reason = f"only {len(after)} of {LOOKS[0]} figures came since it was undone"
        return Restoration(RevertResult.NO_DATA, reason, bins=n) if late else None
    old = np.asarray(before, dtype=float)
    # The newest ones: what still was on its way back does not count.
    new = np.asarray(after[-max(LOOKS[0], look // 2) :], dtype=float)
    effect = float(np.median(new)) / float(np.median(old)) - 1
    low, high = interval_of(old, new)
    worse, end = (effect, high) if lower_is_better else (-effect, -low)
    p_value = _worse(old, new, lower_is_better)
    figures = f"median {effect:+.0%} against before the action, p={p_value:.1g} for worse"

    def found(result: RevertResult, reason: str) -> Restoration:
        return Restoration(
            result=result,
            reason=reason,
            before=float(np.median(old)),
            after=float(np.median(new)),
            effect=round(effect, 4),
            interval=(round(low, 4), round(high, 4)),
            p_value=float(f"{p_value:.2g}"),
            bins=(len(old), len(new)),
        )

    if end < MATTERS:
        return found(RevertResult.RESTORED, figures)
    if not late and look < LOOKS[-1]:
        return None
    if worse >= MATTERS and p_value < ALPHA:
        return found(RevertResult.NOT_RESTORED, figures)
    if worse < MATTERS:
        return found(RevertResult.RESTORED, f"{figures}; no worse than before can be told")
    return found(RevertResult.NO_DATA, f"{figures}; still unclear")


def _worse(old: np.ndarray, new: np.ndarray, lower_is_better: bool) -> float:
    """One-sided p of the newer figures being worse. Bins that follow each other are alike, so there
    are fewer independent ones: with a lag-1 autocorrelation of r, (1 - r) / (1 + r) of them."""
    if np.ptp(np.concatenate([old, new])) == 0:
        return 1.0
    tail = "greater" if lower_is_better else "less"
    p_value = float(stats.mannwhitneyu(new, old, alternative=tail).pvalue)
    r = min(0.99, max(_autocorrelation(old), _autocorrelation(new), 0.0))
    return float(stats.norm.sf(stats.norm.isf(p_value) * np.sqrt((1 - r) / (1 + r))))


def _autocorrelation(figures: np.ndarray) -> float:
    """Of lag one, around the median; 0 for figures that are all the same."""
    apart = figures - np.median(figures)
    power = float(np.sum(apart**2))
    return float(np.sum(apart[1:] * apart[:-1])) / power if power > 0 else 0.0
