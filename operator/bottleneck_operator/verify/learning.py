"""Whether learning suffers from what was changed: losses and gradients before against after. Pure.

A model that was spoilt does not mend when the change is undone, so nothing waits for statistics
here: what is sure within a few figures breaks the guardrail at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from bottleneck_sidecar.wire import TrainingRank
from scipy import stats

from ..observe.history import History

BEFORE_SECONDS = 60.0
"""How far back losses and gradient norms are compared with."""

LOSS_RISE = 0.20
"""Share of its median before by which a loss has to be higher. Ours, to start from: a loss that
comes down slowly is nowhere near, one that diverges passes it within some steps."""

NORM_TIMES = 10.0
"""A gradient norm that explodes grows by orders of magnitude; a spike that clipping is made for
seldom grows by one. Ours, to start from."""

SPREADS = 6.0
"""So many standard deviations (robust ones) beyond the median is no scatter between steps."""

FEWEST_BEFORE, IN_A_ROW = 5, 3
"""Figures to compare with, and the newest ones that all have to be beyond: one hard batch is none
of the change's doing."""

ALPHA = 0.01
"""Where losses were not finite before either, chance (Fisher's exact test) must explain less."""

SKIPPED_SHARE, SKIPPED_OF = 0.5, 20
"""fp16 leaves out some steps until it has found its scale, then one in hundreds. More than this
share of at least so many steps is no training."""


@dataclass(slots=True)
class Track:
    """What one rank told: when the change was in force, last, and its figures on either side."""

    at: TrainingRank | None = None
    newest: TrainingRank | None = None
    losses: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    norms: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))


def suffering(histories: Iterable[History], since: float) -> str:
    """How learning suffers since ``since`` (the operator's clock), in words; empty where it does
    not, or where it is not known how it went before."""
    tracks = [track for track in _tracks(histories, since) if track.at and track.newest]
    for track in tracks:
        if word := _not_finite(track) or _skipped(track):
            return word
    # Ranks have batches of their own: what only one of them sees is its data.
    for name, figures, rise in (
        ("loss", [track.losses for track in tracks], LOSS_RISE),
        ("gradient norm", [track.norms for track in tracks], NORM_TIMES - 1),
    ):
        risen = [(old, new) for old, new in figures if _risen(old, new, rise)]
        if risen and 2 * len(risen) >= len(tracks):
            old, new = risen[0]
            return f"the {name} rose from {median(old):.3g} to {median(new[-IN_A_ROW:]):.3g}"
    return ""


def _tracks(histories: Iterable[History], since: float) -> Iterable[Track]:
    tracks: dict[str, Track] = {}
    for history in histories:
        for received, sample in history.samples:
            if received < since - BEFORE_SECONDS:
                continue
            for rank in sample.training:
                track = tracks.setdefault(rank.epoch, Track())
                if track.newest is not None and rank.steps > track.newest.steps:
                    _compare(track, track.newest, rank, received > since)
                track.newest = rank
                if received <= since:
                    track.at = rank
    return tracks.values()


def _compare(track: Track, old: TrainingRank, new: TrainingRank, after: bool) -> None:
    """The figures of the steps between two words of a rank."""
    if None not in (old.losses, new.losses, old.loss_sum, new.loss_sum):
        finite = [(each.losses or 0) - (each.nonfinite_losses or 0) for each in (old, new)]
        if finite[1] > finite[0]:
            grown = (new.loss_sum or 0.0) - (old.loss_sum or 0.0)
            track.losses[after].append(grown / (finite[1] - finite[0]))
    if new.gradient_norm is not None:
        track.norms[after].append(new.gradient_norm)


def _not_finite(track: Track) -> str:
    """Losses that were no number, more often than in the life of the process before; where they
    were finite, gradients."""
    old, new = track.at, track.newest
    assert old is not None
    assert new is not None
    for name, whole, part in (
        ("loss", "losses", "nonfinite_losses"),
        ("gradient", "steps", "nonfinite_gradient_norms"),
    ):
        seen = [getattr(each, count) for each in (old, new) for count in (whole, part)]
        if None in seen:
            continue
        before, before_bad, total, total_bad = seen
        after, bad = total - before, total_bad - before_bad
        if before <= 0 or not 0 < bad <= after:
            continue
        table = [[bad, after - bad], [before_bad, before - before_bad]]
        chance = stats.fisher_exact(table, alternative="greater").pvalue if before_bad else 0.0
        if chance < ALPHA:
            return (
                f"the {name} of rank {new.rank} was not finite {bad} times of {after}, and before"
                f" {before_bad} times of {before}"
            )
    return ""


def _skipped(track: Track) -> str:
    old, new = track.at, track.newest
    assert old is not None
    assert new is not None
    if old.skipped_steps is None or new.skipped_steps is None:
        return ""
    steps, skipped = new.steps - old.steps, new.skipped_steps - old.skipped_steps
    if steps < SKIPPED_OF or skipped <= SKIPPED_SHARE * steps:
        return ""
    return f"fp16 left out {skipped} of {steps} steps of rank {new.rank}"


def _risen(before: Sequence[float], after: Sequence[float], share: float) -> bool:
    if len(before) < FEWEST_BEFORE or len(after) < IN_A_ROW:
        return False
    centre = median(before)
    spread = 1.4826 * median(abs(figure - centre) for figure in before)
    limit = centre + max(share * abs(centre), SPREADS * spread)
    return min(after[-IN_A_ROW:]) > limit
