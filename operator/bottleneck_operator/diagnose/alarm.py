"""Is the symptom out of what is healthy, and in which steps of the incident?

A scan statistic: over all stretches of the window, how much worse the stretch is than the baseline
(level), or than the rest of the window (onset), weighted by the root of its length as in a test of
means (Otsu's split is the same quantity). The same scan of every healthy window tells how large it
becomes by chance, so that looking at many stretches and statistics is paid for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .components import Array, Rows, Track, quantile, signs
from .parameters import Parameters

Steps = NDArray[np.int64]

CLIP = 5.0
"""One statistic cannot outvote the others by more than five times its limit."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """What a metric alone says. ``affected`` are the steps in which it is worst."""

    certain: bool
    onset: bool
    affected: Rows
    sign: int
    severity: float
    """The scan in multiples of its limit in health."""
    chance: float
    """The share of healthy windows that look at least as bad."""


def alarm(own: Sequence[Track], parameters: Parameters) -> Alarm:
    """Judges the statistics of one metric together, in each direction that can be bad."""
    both = [_alarm(own, sign, parameters) for sign in signs(own[0].key[1])]
    return max(both, key=lambda one: (one.certain, one.severity))


def _alarm(own: Sequence[Track], sign: int, parameters: Parameters) -> Alarm:
    certain = parameters.certain
    severities, healthy, profiles = [], [], []
    for track in own:
        during = sign * (track.incident - track.median)
        before = sign * (track.windows - track.median)
        smallest = track.floor * np.sqrt(2)
        for onset in (False, True):
            null, _ = _scan(_open(before), onset=onset)
            limit = max(quantile(null, certain), smallest)
            severities.append(_scan(_open(during[None, :]), onset=onset)[0][0] / limit)
            healthy.append(null / limit)
        limit = max(quantile(before.ravel(), certain), track.floor)
        profiles.append(np.clip(_open(during[None, :])[0] / limit, -CLIP, CLIP))
    severity = float(np.max(severities))
    chance = float(np.mean(np.max(healthy, axis=0) >= severity))
    profile = _average(np.array(profiles))
    onset, affected = _stretch(profile, parameters.onset_share)
    large = any(_rise(track, affected, onset, sign) >= track.floor for track in own)
    return Alarm(
        certain=large and severity > 1 and chance <= 1 - certain,
        onset=onset,
        affected=affected,
        sign=sign,
        severity=severity,
        chance=chance,
    )


def _stretch(profile: Array, onset_share: float) -> tuple[bool, Rows]:
    """Whether the incident begins inside the window, and the steps that it fills."""
    rows = np.arange(len(profile))
    value, (first, last) = _scan(profile[None, :], onset=True)
    inside = (rows >= first[0]) & (rows < last[0])
    if np.isfinite(value[0]):
        level = float(np.nanmean(profile[inside]))
        if level - float(np.nanmean(profile[~inside])) >= onset_share * level:
            return True, inside
    _, (first, last) = _scan(profile[None, :], onset=False)
    return False, (rows >= first[0]) & (rows < last[0])


def _rise(track: Track, affected: Rows, onset: bool, sign: int) -> float:
    during = sign * (track.incident - track.median)
    inside, outside = during[affected], during[~affected]
    if np.all(np.isnan(inside)):
        return 0.0
    calm = float(np.nanmean(outside)) if onset and not np.all(np.isnan(outside)) else 0.0
    return float(np.nanmean(inside)) - calm


def _scan(windows: Array, *, onset: bool) -> tuple[Array, tuple[Steps, Steps]]:
    """The worst stretch of each row: its weight, first step, and the step after its last.

    -inf where a row has no values to tell.
    """
    many, length = windows.shape
    known = ~np.isnan(windows)
    zero = np.zeros((many, 1))
    total = np.hstack([zero, np.cumsum(np.where(known, windows, 0.0), axis=1)])
    count = np.hstack([zero, np.cumsum(known, axis=1)])
    best = np.full(many, -np.inf)
    first, last = np.zeros(many, np.int64), np.full(many, length, np.int64)
    rows = np.arange(many)
    for size in _sizes(length):
        inside = count[:, size:] - count[:, :-size]
        outside = count[:, -1:] - inside
        summed = total[:, size:] - total[:, :-size]
        mean = summed / np.maximum(inside, 1)
        if onset:
            rest = (total[:, -1:] - summed) / np.maximum(outside, 1)
            weight = (mean - rest) * np.sqrt(inside * outside / np.maximum(count[:, -1:], 1))
            weight = np.where((inside > 0) & (outside > 0), weight, -np.inf)
        else:
            weight = np.where(inside > 0, mean * np.sqrt(inside), -np.inf)
        place = np.argmax(weight, axis=1)
        better = weight[rows, place] > best
        best = np.where(better, weight[rows, place], best)
        first = np.where(better, place, first)
        last = np.where(better, place + size, last)
    return best, (first, last)


def _sizes(length: int) -> list[int]:
    """Lengths of stretches: all of a short window, and in steps of a quarter of a long one."""
    sizes, size = [], min(2, length)
    while size <= length:
        sizes.append(size)
        size = max(size + 1, size * 5 // 4)
    return sizes


def _open(windows: Array) -> Array:
    """Removes what lasts one step only (a morphological opening): one odd sample is no incident."""
    if windows.shape[1] < 2:
        return windows
    pairs = np.fmin(windows[:, 1:], windows[:, :-1])
    opened = np.hstack([pairs[:, :1], np.fmax(pairs[:, 1:], pairs[:, :-1]), pairs[:, -1:]])
    return np.where(np.isnan(windows), np.nan, opened)


def _average(profiles: Array) -> Array:
    known = ~np.isnan(profiles)
    total = np.where(known, profiles, 0.0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)
