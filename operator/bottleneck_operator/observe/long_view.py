"""What one pod's ranks did over more than a window: what is rare, and what is usual. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bottleneck_sidecar.wire import TrainingRank

from .history import History

LONG_WINDOW_SECONDS = 120.0
"""Window for what is rare: one of ten seconds has no checkpoint in it, or nothing else."""

MIN_STEPS = 3
"""Least steps that say how long one takes."""


@dataclass(frozen=True, slots=True)
class Rare:
    """Seconds that ranks spent in steps, checkpoints and evaluations within ``span`` seconds."""

    span: float
    steps: float
    checkpoints: float
    evaluations: float


@dataclass(frozen=True, slots=True)
class LongView:
    """``kept`` is how far back the history goes, in seconds; ``usual`` the seconds of a step of
    each rank that has ended some; ``rare`` is None where a rank does not measure it."""

    kept: float
    restarts: int
    usual: tuple[float, ...]
    rare: Rare | None


def long_view(
    history: History, ranks: Sequence[TrainingRank], now: float, cut: float | None
) -> LongView:
    """Of the ranks of the newest sample. What is rare is not looked for before ``cut``."""
    usual = [seconds for rank in ranks if (seconds := _usual(history, rank.epoch)) is not None]
    start = max(now - LONG_WINDOW_SECONDS, -math.inf if cut is None else cut)
    return LongView(
        kept=now - history.samples[0][0],
        restarts=len(history.restarted),
        usual=tuple(usual),
        rare=_rare(history, ranks, start),
    )


def _usual(history: History, epoch: str) -> float | None:
    """Seconds of a step of one rank, up to the last one that ended: what came after it is the
    silence that this is held against."""
    at_last = history.progress.get(epoch)
    if at_last is None:
        return None
    for rank in history.samples[0][1].training:
        steps = at_last.steps - rank.steps
        spent = at_last.step_seconds - rank.step_seconds
        if rank.epoch == epoch and steps >= MIN_STEPS and spent >= 0:
            return spent / steps
    # Silent for as long as is kept, or younger than that: over its whole life.
    return at_last.step_seconds / at_last.steps if at_last.steps >= MIN_STEPS else None


def _rare(history: History, ranks: Sequence[TrainingRank], start: float) -> Rare | None:
    newest = history.samples[-1][1].time
    span = steps = checkpoints = evaluations = 0.0
    for rank in ranks:
        found = history.rank_at(start, rank.epoch)
        grown = None if found is None else _grown(found[1], rank)
        if found is None or grown is None:
            return None
        span = max(span, newest - found[0])
        steps += grown[0]
        checkpoints += grown[1]
        evaluations += grown[2]
    return Rare(span, steps, checkpoints, evaluations)


def _grown(before: TrainingRank, after: TrainingRank) -> tuple[float, float, float] | None:
    """Growth of the seconds in steps, checkpoints and evaluations; None where one is not measured
    or went back."""
    if before.checkpoint_seconds is None or after.checkpoint_seconds is None:
        return None
    if before.evaluation_seconds is None or after.evaluation_seconds is None:
        return None
    grown = (
        after.step_seconds - before.step_seconds,
        after.checkpoint_seconds - before.checkpoint_seconds,
        after.evaluation_seconds - before.evaluation_seconds,
    )
    return grown if min(grown) >= 0 else None
