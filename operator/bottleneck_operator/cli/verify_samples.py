"""Samples of ``kubectl bottleneck verify``: from a file to bins of each replica."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from ..verify.rule import HISTORY, LOOKS
from .diagnose_graph import InputError, number, read_rows

COLUMNS = ("timestamp", "replica", "treated", "value")
FLAGS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


@dataclass(slots=True)
class Samples:
    """Of one replica, as they stand in the file; missing values are left out."""

    treated: bool = False
    times: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    seen: list[float] = field(default_factory=list)
    """Moments with and without a value."""


def read_moment(text: str) -> float | None:
    """Seconds since the Unix epoch; None where the text is no time."""
    try:
        seconds = float(text)
        return seconds if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text.strip())
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.timestamp()
    except (ValueError, OverflowError):
        return None


def read_samples(path: str) -> dict[str, Samples]:
    """By replica. Raises InputError."""
    found: dict[str, Samples] = {}
    for line, (timestamp, replica, treated, value) in read_rows(path, COLUMNS):
        moment = read_moment(timestamp)
        if moment is None:
            raise InputError(
                f"{path}, line {line}: timestamp {timestamp.strip()[:40] or '(empty)'} is no time;"
                " write seconds, as 1772366400, or ISO 8601, as 2026-03-01T12:00:00Z"
            )
        flag = FLAGS.get(treated.strip().lower())
        if flag is None:
            raise InputError(
                f"{path}, line {line}: treated {treated.strip()[:40] or '(empty)'} is neither 0"
                " nor 1; write 1 where the action changed the replica, 0 where it did not"
            )
        name = replica.strip()
        if not name:
            raise InputError(f"{path}, line {line}: name a replica, as ranker-0")
        samples = found.setdefault(name, Samples())
        samples.treated |= flag  # 0 before and 1 after the action says the same
        samples.seen.append(moment)
        figure = number(path, line, "value", value)
        if math.isfinite(figure):
            samples.times.append(moment)
            samples.values.append(figure)
    if not found:
        raise InputError(f"{path} has a header and no rows: nothing can be judged")
    if not any(samples.treated for samples in found.values()):
        raise InputError(
            f"{path} has no replica with treated 1; write 1 for those that the action changed"
        )
    return found


def panel(
    found: dict[str, Samples], acted_at: float, warm_up: float
) -> tuple[np.ndarray, np.ndarray, int]:
    """A row for each bin, a column for each replica; which columns are treated; and the first row
    after the action and its warm-up. A sample at ``acted_at`` is one of after."""
    steps = np.concatenate([np.diff(np.unique(each.seen)) for each in found.values()])
    width = float(np.median(steps)) if len(steps) else 1.0
    treated = np.array([each.treated for each in found.values()])
    sums = np.zeros((HISTORY + LOOKS[-1], len(found)))
    counts = np.zeros_like(sums)
    for place, each in enumerate(found.values()):
        times, values = np.array(each.times), np.array(each.values)
        later = times >= acted_at
        keep = ~later | (times >= acted_at + warm_up)
        since = times - acted_at - np.where(later, warm_up, 0.0)
        # A thousandth of a bin: a time that came through floating point is not cut off by it.
        bins = np.floor(since / width + 1e-3)
        bins = np.where(later, bins, np.minimum(bins, -1)) + HISTORY
        keep &= (bins >= 0) & (bins < len(sums))
        rows = bins[keep].astype(int)
        np.add.at(sums[:, place], rows, values[keep])
        np.add.at(counts[:, place], rows, 1)
    means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    there = np.flatnonzero((counts[:, treated] > 0).any(axis=1))
    if not len(there):
        return means[HISTORY:HISTORY], treated, 0
    first, last = min(int(there[0]), HISTORY), max(int(there[-1]) + 1, HISTORY)
    return means[first:last], treated, HISTORY - first
