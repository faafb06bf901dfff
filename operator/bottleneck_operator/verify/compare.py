"""Changed replicas against untouched ones, before against after an action. Pure.

Everything is done with logarithms of each replica's figures over its own usual level, so that a
faster machine weighs no more than a slow one. In each bin the untouched replicas' weighted mean is
taken off that of the changed ones: load and the time of day cancel. Replicas count by how quiet
they are. Without untouched replicas the changed ones are compared with their own past alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .shift import Shift, location, shift

FLOOR = 1 / 30
"""A figure of zero, or below, counts as this share of the replica's usual level."""

FEWEST = 3
"""Figures that a replica, or a window, needs at least."""

TRIGGER = 15
"""Bins just before the action that are not what is usual, since it was taken for the sake of some
of them: at most so many, as many as after the action, and a third of all before."""

STEP = 4
"""Bins on each side of the action by whose medians it is seen whether it moved there and then."""

PRIOR = 6.0
"""What the error that the series itself tells weighs, in untouched replicas, beside the one that
the untouched replicas show."""

LEAST_ERROR = 0.6
"""The untouched replicas can lower the variance to this share of what the series tells."""

OUTLIER = 6.0
"""Errors beyond which an untouched replica counts no more: one that broke should not hide all."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What moved, as logarithms: the shift against the history, and what has to agree with it."""

    shift: Shift
    halves: tuple[float, float]
    """The shift of the first and of the second half of the bins after the action."""
    recent: float
    """Against the bins just before the action, which the history leaves out."""
    step: float
    """Of the bins on both sides of the action."""
    delta: float
    """Cliff's delta: how much more often a figure after is above one before than below it."""
    bins: tuple[int, int]
    control: bool


def compare(values: np.ndarray, treated: np.ndarray, split: int) -> Compared | None:
    """``values`` has a row for each bin and a column for each replica, NaN where there is none;
    ``treated`` tells the changed columns, and row ``split`` is the first one after the action. None
    where the changed replicas have no figures above zero before it, or too few."""
    before, after = split, len(values) - split
    trigger = min(max(before // 3, min(3, before - FEWEST)), after, TRIGGER)
    history = before - max(0, trigger)
    if history < FEWEST or after < FEWEST:
        return None
    levels = _levels(values, history, split)
    known = np.isfinite(levels[:history]).sum(axis=0) >= FEWEST
    known &= np.isfinite(levels[split:]).sum(axis=0) >= max(FEWEST, after // 3)
    ours, others = levels[:, known & treated], levels[:, known & ~treated]
    if not ours.shape[1]:
        return None
    apart = _mean(ours, _weights(ours, history))
    weights = _weights(others, history)
    control = others.shape[1] > 0
    if control:
        apart = apart - _mean(others, weights)
    there = np.isfinite(apart)
    counts = int(there[:split].sum()), int(there[split:].sum())
    if there[:history].sum() < FEWEST or counts[1] < FEWEST:
        return None
    old, new, gap = apart[:history], apart[split:], split - history
    base, half = location(old), after // 2
    near = apart[history:split] if there[history:split].any() else old
    return Compared(
        _beside(shift(old, new, gap), others, weights, history, split),
        (location(new[:half]) - base, location(new[half:]) - base),
        location(new) - location(near),
        _median(new[:STEP]) - _median(apart[max(0, split - STEP) : split]),
        float(np.sign(new[there[split:], None] - old[there[:history]]).mean()),
        counts,
        control,
    )


def _levels(values: np.ndarray, history: int, split: int) -> np.ndarray:
    """Logarithms over each replica's median in the history."""
    with np.errstate(invalid="ignore"):
        above = np.where(np.isfinite(values) & (values > 0), values, np.nan)
    usual = np.full(values.shape[1], np.nan)
    for place in range(values.shape[1]):
        some = above[:history, place]
        if not np.isfinite(some).any():  # zero all along: what came since is no change of a level
            continue
        usual[place] = np.nanmedian(some)
    with np.errstate(invalid="ignore"):
        logs = np.log(np.maximum(np.where(np.isfinite(values), values, np.nan) / usual, FLOOR))
    there = np.isfinite(logs[:history]).any(axis=0)
    logs[:, there] -= np.nanmedian(logs[:history, there], axis=0)
    return np.asarray(logs)


def _weights(levels: np.ndarray, history: int) -> np.ndarray:
    """Of each replica: the quiet ones count more, but none alone."""
    if not levels.shape[1]:
        return np.ones(0)
    noise = np.array([location(np.abs(column[:history])) for column in levels.T]) + 1e-9
    return np.asarray(1 / (noise**2 + np.median(noise) ** 2 / 4))


def _mean(levels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of each bin, over the replicas that have a figure; NaN where none has."""
    there = np.isfinite(levels)
    total = there @ weights
    sums = np.where(there, levels, 0.0) @ weights
    result = np.full(len(levels), np.nan)
    np.divide(sums, total, out=result, where=total > 0)
    return result


def _median(values: np.ndarray) -> float:
    some = values[np.isfinite(values)]
    return float(np.median(some)) if len(some) else float("nan")


def _beside(
    found: Shift, others: np.ndarray, weights: np.ndarray, history: int, split: int
) -> Shift:
    """The shift with the error that the untouched replicas show over the same bins: each is judged
    against the rest of them, in units of its own error, as if it had been changed."""
    count = others.shape[1]
    if count < 3 or found.error == 0:
        return found
    squares = 0.0
    for place in range(count):
        rest = np.arange(count) != place
        apart = others[:, place] - _mean(others[:, rest], weights[rest])
        old, new = apart[:history], apart[split:]
        if min(np.isfinite(old).sum(), np.isfinite(new).sum()) < FEWEST:
            continue
        placebo = shift(old, new, split - history)
        if placebo.error > 0:
            squares += min(abs(placebo.size) / placebo.error, OUTLIER) ** 2
    scale = max(LEAST_ERROR, (PRIOR + squares) / (PRIOR + count))
    return replace(found, error=found.error * float(np.sqrt(scale)), freedom=found.freedom + count)
