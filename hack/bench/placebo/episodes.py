"""Moments at which an operator would have acted, and what rules say of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from bottleneck_operator.api.report import VerdictResult
from bottleneck_operator.verify.rule import judge_panel
from scipy import stats

from .noise import Noise

BEFORE = (15, 30, 60, 120)
"""Bins of history that an episode has."""

TRIES = 40
"""Moments looked at for each episode that is wanted."""


@dataclass(frozen=True, slots=True)
class Episode:
    """A stretch of noise; the action would have been at the row ``split``."""

    family: str
    values: np.ndarray
    treated: np.ndarray
    split: int
    lower_is_better: bool

    def changed(self, times: float) -> Episode:
        """With the changed replicas so many times better from the action on."""
        values = self.values.copy()
        values[self.split :, self.treated] *= 1 / times if self.lower_is_better else times
        return Episode(self.family, values, self.treated, self.split, self.lower_is_better)

    def alone(self) -> Episode:
        """Without the untouched replicas."""
        values = self.values[:, self.treated]
        every = np.ones(values.shape[1], dtype=bool)
        return Episode(self.family, values, every, self.split, self.lower_is_better)


def episodes(noise: Noise, count: int, after: int, rng: np.random.Generator) -> Iterator[Episode]:
    """At breaches: the mean of the last one, three or five bins of those that are to be changed (or
    of all replicas) is worse than 90% of the bins before it."""
    length, replicas = noise.values.shape
    found = 0
    for _ in range(count * TRIES):
        before = int(rng.choice([each for each in BEFORE if each + after < length]))
        split = int(rng.integers(before, length - after))
        treated = np.zeros(replicas, dtype=bool)
        some = int(rng.integers(1, max(2, replicas // 2 + 1)))
        treated[rng.choice(replicas, some, replace=False)] = True
        seen = treated if rng.random() < 0.6 else np.ones(replicas, dtype=bool)
        values = noise.values[split - before : split + after]
        if not _breach(values[:before, seen], int(rng.choice([1, 3, 5])), noise.lower_is_better):
            continue
        yield Episode(noise.family, values, treated, before, noise.lower_is_better)
        found += 1
        if found == count:
            return


def _breach(values: np.ndarray, last: int, lower_is_better: bool) -> bool:
    known = np.isfinite(values)
    if known.sum(axis=0).min() < 6:
        return False
    usual = np.nanmedian(values, axis=0)
    if not (usual > 0).all():
        return False
    there = known.any(axis=1)
    level = np.nanmean(values[there] / usual, axis=1) * (1 if lower_is_better else -1)
    return bool(level[-last:].mean() > np.quantile(level[:-last], 0.9))


def ours(episode: Episode) -> VerdictResult:
    """The judge."""
    found = judge_panel(
        episode.values, episode.treated, episode.split, episode.lower_is_better, final=True
    )
    assert found is not None
    return found.result


def _mean(episode: Episode) -> tuple[np.ndarray, np.ndarray]:
    there = np.isfinite(episode.values[:, episode.treated])
    sums = np.where(there, episode.values[:, episode.treated], 0.0).sum(axis=1)
    means = np.divide(sums, there.sum(axis=1), out=np.full(len(sums), np.nan), where=sums > 0)
    before, after = means[: episode.split], means[episode.split :]
    return before[np.isfinite(before)][-15:], after[np.isfinite(after)]


def _said(effect: float, sure: bool, lower_is_better: bool) -> VerdictResult:
    if not sure or abs(effect) < 0.1:
        return VerdictResult.NO_EFFECT
    better = (effect < 0) is lower_is_better
    return VerdictResult.IMPROVED if better else VerdictResult.WORSE


def naive(episode: Episode) -> VerdictResult:
    """The mean of the changed replicas moved by 10% from the 15 bins before the action."""
    before, after = _mean(episode)
    if not (len(before) and len(after)):
        return VerdictResult.NO_DATA
    return _said(float(after.mean() / before.mean()) - 1, True, episode.lower_is_better)


def ranks(episode: Episode) -> VerdictResult:
    """The rule that this one came after: Mann-Whitney U at p < 0.0125 and a median that moved by
    10%, before against after."""
    before, after = _mean(episode)
    if min(len(before), len(after)) < 3:
        return VerdictResult.NO_DATA
    sure = stats.mannwhitneyu(after, before).pvalue < 0.0125
    effect = float(np.median(after) / np.median(before)) - 1
    return _said(effect, bool(sure), episode.lower_is_better)


RULES: dict[str, Callable[[Episode], VerdictResult]] = {
    "judge": ours,
    "judge alone": lambda episode: ours(episode.alone()),
    "mean moved 10%": naive,
    "rank test": ranks,
}
