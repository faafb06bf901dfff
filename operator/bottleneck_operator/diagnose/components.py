"""One component's metrics against their own baseline: how unusual is a change, and how large.

All figures are measured over an incident *window* of n sampling steps and compared with every
window of the same length in the baseline, so that noise, its autocorrelation and the season of a
day are in the comparison as they are in the data. Nothing is assumed about the distribution: the
limit of a figure is a quantile of what the baseline itself does (a "tail rank"), with a floor for
series that are constant while healthy (where a z-score divides by zero).

Missing values stay missing: they are never zero and nothing is interpolated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from .parameters import DEFAULT, Parameters

Array = NDArray[np.float64]
Rows = NDArray[np.bool_]
Key = tuple[str, str, str]
"""Component, metric, statistic."""
Series = Mapping[Key, tuple[Iterable[float], Iterable[float]]]
"""Timestamps in seconds, and values. In any order; NaN and infinities count as missing."""

LIMIT_QUANTILE = 0.99
"""A change is unusual beyond what 99% of healthy windows show. A convention (one false alarm in a
hundred windows of one series), not fitted."""
MINIMUM_BASELINE = 8
"""Fewer baseline values than this tell no distribution; the series is NoData."""
MAXIMUM_WINDOWS = 1000
"""Baseline windows looked at; more of them overlap and tell nothing new."""
OVERLAP = 16
"""Windows of n steps begin n/16 apart, for the same reason."""


class Family(Enum):
    """What a metric tells, which is how it propagates over the call graph."""

    LATENCY = "latency"
    FAILURES = "failures"
    TRAFFIC = "traffic"
    RESOURCE = "resource"


_FAMILIES = (
    (Family.FAILURES, -1, ("availab", "success", "uptime")),
    (Family.FAILURES, 1, ("error", "fault", "fail", "5xx", "4xx", "timeout", "exception")),
    (Family.LATENCY, 1, ("latency", "duration", "response", "delay", "elapsed", "seconds")),
    (Family.TRAFFIC, 0, ("request", "traffic", "rps", "qps", "throughput", "calls", "workload")),
)
_MEAN = ("average", "mean", "avg")


def family(metric: str) -> Family:
    """The family of a metric, from the words in its name; RESOURCE for all others."""
    return _kind(metric)[0]


def signs(metric: str) -> tuple[int, ...]:
    """Which directions are bad: ``(1,)`` up, ``(-1,)`` down, ``(1, -1)`` where nobody can say."""
    sign = _kind(metric)[1]
    return (sign,) if sign else (1, -1)


def _kind(metric: str) -> tuple[Family, int]:
    for kind, sign, words in _FAMILIES:
        if any(word in metric.lower() for word in words):
            return kind, sign
    return Family.RESOURCE, 0


def is_mean(statistic: str) -> bool:
    """Whether the statistic is an average: only averages add up over calls."""
    return any(word in statistic.lower() for word in _MEAN)


@dataclass(frozen=True, slots=True)
class Track:
    """One series on the common grid: the baseline's steps and the incident's, NaN where missing."""

    key: Key
    baseline: Array
    incident: Array
    median: float
    floor: float
    windows: Array
    """Baseline windows of the incident's length, one a row."""


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of the incident against the same figure of the baseline windows."""

    key: Key
    sign: int
    value: float
    """The metric over the affected steps, in its own unit."""
    reference: float
    """What it is compared with, in its own unit."""
    rise: float
    """By how much it is worse, in its own unit; negative when better."""
    limit: float
    """The rise that 99% of healthy windows stay below; positive."""
    chance: float
    """The share of healthy windows whose rise is at least as large."""
    onset: bool
    """Whether the reference is the incident's own other steps, and not the baseline."""

    @property
    def severity(self) -> float:
        """The rise in multiples of its limit: above 1 is unusual."""
        return self.rise / self.limit


@dataclass(frozen=True, slots=True)
class Panel:
    """All series that can be compared, and the sampling step in seconds (0 for a single sample)."""

    step: float
    tracks: dict[Key, Track]


def panel(baseline: Series, incident: Series, parameters: Parameters = DEFAULT) -> Panel:
    """Puts the series that are in both on one grid of sampling steps.

    The step is the typical distance between samples; samples in the same step are averaged, so
    duplicates and scrapes that are out of phase do no harm. A series that the incident or the
    baseline has (almost) no values of is left out: no data.
    """
    relative = parameters.relative_floor
    old, new = _clean(baseline), _clean(incident)
    step = max(_step(old), _step(new))
    before, during = _grid(old, step), _grid(new, step)
    length, steps = len(next(iter(before.values()), ())), len(next(iter(during.values()), ()))
    # Windows wrap around the end of the baseline, so that there is one for every start even where
    # the incident is as long as the baseline.
    stride = max(-(-length // MAXIMUM_WINDOWS), steps // OVERLAP, 1)
    places = (np.arange(0, length, stride)[:, None] + np.arange(steps)[None, :]) % length
    top: dict[str, float] = {}
    for (_, metric, _), (_, values) in [*old.items(), *new.items()]:
        top[metric] = max(top.get(metric, 0.0), float(np.max(np.abs(values))))
    found = {}
    for key in sorted(old.keys() & new.keys()):
        if len(old[key][1]) < MINIMUM_BASELINE:
            continue
        median = float(np.median(old[key][1]))
        # A failure metric is a share of the metric's ceiling: 1 or 100, as it is written.
        failures = family(key[1]) is Family.FAILURES
        ceiling = parameters.share_floor * top[key[1]] if failures else 0.0
        floor = max(relative * abs(median) if not ceiling else 0.0, ceiling)
        floor = floor or relative * float(np.max(np.abs(old[key][1]))) or 1e-9 * top[key[1]]
        found[key] = Track(key, before[key], during[key], median, floor or 1.0, before[key][places])
    return Panel(step, found)


def change(track: Track, affected: Rows, *, onset: bool, sign: int) -> Change | None:
    """How much worse the affected steps are than the reference, and than that is in health.

    The reference is the window's own other steps when the incident begins inside the window
    (``onset``; a slow drift since the baseline then does not count), and the baseline's median
    otherwise. None where there is no value in the affected steps.
    """
    value = _mean(track.incident[None, affected])[0]
    if np.isnan(value):
        return None
    quiet = _mean(track.incident[None, ~affected])[0] if onset else np.nan
    if np.isnan(quiet):
        reference = track.median
        healthy = sign * (_mean(track.windows[:, affected]) - track.median)
    else:
        reference = float(quiet)
        healthy = sign * (_mean(track.windows[:, affected]) - _mean(track.windows[:, ~affected]))
    limit = max(quantile(healthy), track.floor)
    rise = sign * (float(value) - reference)
    known = healthy[~np.isnan(healthy)]
    chance = float(np.mean(known >= rise)) if len(known) else 1.0
    return Change(
        track.key, sign, float(value), reference, rise, limit, chance, not np.isnan(quiet)
    )


def worst(track: Track, affected: Rows, *, onset: bool, sign: int = 0) -> Change | None:
    """The change in this direction; without one, in whichever bad direction is more severe."""
    ways = (sign,) if sign else signs(track.key[1])
    both = [change(track, affected, onset=onset, sign=way) for way in ways]
    known = [one for one in both if one is not None]
    return max(known, key=lambda one: one.severity, default=None)


def quantile(values: Array, share: float = LIMIT_QUANTILE) -> float:
    """The quantile over what is known; 0 for nothing."""
    known = values[np.isfinite(values)]
    return float(np.quantile(known, share)) if len(known) else 0.0


def _mean(values: Array) -> Array:
    """Mean of each row over what is known; NaN for none."""
    known = ~np.isnan(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _clean(series: Series) -> dict[Key, tuple[Array, Array]]:
    clean = {}
    for key, (times, values) in series.items():
        t = np.asarray(list(times), dtype=np.float64)
        v = np.asarray(list(values), dtype=np.float64)
        good = np.isfinite(t) & np.isfinite(v)
        order = np.argsort(t[good], kind="stable")
        if len(order):
            clean[key] = (t[good][order], v[good][order])
    return clean


def _step(series: Mapping[Key, tuple[Array, Array]]) -> float:
    """The typical distance between samples, in seconds; 0 when no series has two."""
    gaps = [np.diff(np.unique(times)) for times, _ in series.values()]
    medians = [float(np.median(gap)) for gap in gaps if len(gap)]
    return float(np.median(medians)) if medians else 0.0


def _grid(series: Mapping[Key, tuple[Array, Array]], step: float) -> dict[Key, Array]:
    """All series on the same steps. A step that no series has a value in is left out, so that a gap
    of a month costs nothing."""
    start = min((times[0] for times, _ in series.values()), default=0.0)
    cells = {
        key: np.rint((times - start) / (step or 1.0)).astype(np.int64)
        for key, (times, _) in series.items()
    }
    used = np.unique(np.concatenate(list(cells.values()))) if cells else np.array([], np.int64)
    grid = {}
    for key, (_, values) in series.items():
        place = np.searchsorted(used, cells[key])
        count = np.bincount(place, minlength=len(used))
        total = np.bincount(place, weights=values, minlength=len(used))
        grid[key] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return grid
