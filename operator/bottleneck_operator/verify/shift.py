"""By how much a noisy series moved, and how sure that is. Pure.

Figures that follow each other are alike, so fifteen of them say less than fifteen. The error of the
shift is that of a stationary AR(1) series whose lag-1 autocorrelation is estimated with its
small-sample bias taken off, and not less than what windows of the same length differ by in the
history. Locations are trimmed means: a burst of one bin is no change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

TRIM = 0.2
"""Share left out at each end of a window: the middle 60% of normal figures are nearly as exact as
all of them, and of heavy-tailed ones far more."""

MOST_ALIKE = 0.97
"""Highest autocorrelation that is told from a random walk by so few figures."""


@dataclass(frozen=True, slots=True)
class Shift:
    """A shift with its standard error and the degrees of freedom of that."""

    size: float
    error: float
    freedom: float

    def interval(self) -> tuple[float, float]:
        """95% confidence interval."""
        half = float(special.stdtrit(self.freedom, 0.975)) * self.error
        return self.size - half, self.size + half

    def p_value(self) -> float:
        """Two-sided, of Student's t."""
        if self.error <= 0:
            return 0.0 if self.size else 1.0
        return float(2 * special.stdtr(self.freedom, -abs(self.size) / self.error))


def location(values: np.ndarray) -> float:
    """The trimmed mean of what is there."""
    some = np.sort(values[np.isfinite(values)])
    cut = int(TRIM * len(some))  # as scipy.stats.trim_mean, which takes forty times as long
    return float(some[cut : len(some) - cut].mean()) if len(some) else float("nan")


def shift(before: np.ndarray, after: np.ndarray, gap: int = 0) -> Shift:
    """From ``before`` to ``after``, which begins ``gap`` bins later; NaN where a bin is missing."""
    size = location(after) - location(before)
    apart = [before - location(before), after - location(after)]
    spread = _spread(apart)
    if spread == 0:
        return Shift(size, 0.0, 1.0)
    alike = _alike(apart, spread)
    wander = _wander(apart[0], int(np.isfinite(after).sum()))
    error = spread * np.sqrt(_weight(before, after, gap, alike))
    count = int(np.isfinite(before).sum() + np.isfinite(after).sum())
    freedom = max(2.0, count * (1 - alike) / (1 + alike) - 2)
    return Shift(size, max(error, wander), freedom)


def _spread(apart: list[np.ndarray]) -> float:
    """Standard deviation that a trimmed mean's error follows from (Tukey and McLaughlin 1963):
    winsorised, over the share that was kept."""
    total, count = 0.0, 0.0
    for values in apart:
        some = np.sort(values[np.isfinite(values)])
        cut = int(TRIM * len(some))
        held = np.clip(some, some[cut], some[-1 - cut])
        total += float(((held - held.mean()) ** 2).sum())
        count += max(1, len(some) - 1)
    return float(np.sqrt(total / count) / (1 - 2 * TRIM))


def _alike(apart: list[np.ndarray], spread: float) -> float:
    """Lag-1 autocorrelation within the windows, of residuals held within three spreads."""
    over, under, count = 0.0, 0.0, 0
    for values in apart:
        held = np.clip(values, -3 * spread, 3 * spread)
        held = held - np.nanmean(held)
        pairs = held[1:] * held[:-1]
        over += float(np.nansum(pairs))
        under += float(np.nansum(held**2)) * np.isfinite(pairs).sum() / np.isfinite(held).sum()
        count += int(np.isfinite(pairs).sum())
    if under <= 0:
        return 0.0
    raw = over / under
    # Kendall (1954): (1 + 3 raw) / count is missing for each mean that was taken off.
    missing = len(apart) * (1 + 3 * raw) / max(8, count)
    return float(np.clip(raw + missing, 0.0, MOST_ALIKE))


def _weight(before: np.ndarray, after: np.ndarray, gap: int, alike: float) -> float:
    """Variance of the difference of the two means, of an AR(1) series of variance one."""
    old, new = np.isfinite(before), np.isfinite(after)
    weights = np.concatenate([old * (-1.0 / old.sum()), np.zeros(gap), new * (1.0 / new.sum())])
    lags = np.abs(np.arange(1 - len(weights), len(weights)))
    return float(np.correlate(weights, weights, "full") @ alike**lags)


def _wander(history: np.ndarray, length: int) -> float:
    """What windows of ``length`` bins differ by from the rest of the history; 0 where it has not
    room for four of them."""
    if len(history) < 4 * length:
        return 0.0
    starts = range(0, len(history) - length + 1, max(1, length // 2))
    windows = [history[start : start + length] for start in starts]
    found = [location(each) for each in windows if np.isfinite(each).sum() >= 3]
    return float(np.sqrt(np.mean(np.square(found)))) if found else 0.0
