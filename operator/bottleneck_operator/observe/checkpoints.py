"""When training last wrote a checkpoint. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from .history import History


def since_checkpoint(histories: Iterable[History], now: float) -> float | None:
    """Seconds since a rank last ended a checkpoint; None where none was seen, or one is being
    written. ``now`` in seconds since the Unix epoch."""
    newest: float | None = None
    for history in histories:
        spent: dict[str, float] = {}
        for received, sample in history.samples:
            for rank in sample.training:
                seconds = rank.checkpoint_seconds
                if seconds is None:
                    continue
                before = spent.get(rank.epoch)
                if before is not None and seconds > before:
                    newest = received if newest is None else max(newest, received)
                spent[rank.epoch] = seconds
        last = history.last
        if last is not None and any(rank.phase == "checkpoint" for rank in last[1].training):
            return None
    return None if newest is None else now - newest
