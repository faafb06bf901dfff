"""When in a recording the workload became slower, or began to fail. Pure.

A recording of an incident often begins before it. Judged as a whole it would show a mixture of two
workloads; so it is cut at the moment that parts it best, if it was clearly better before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from bottleneck_sidecar.wire import InferenceServer, TrainingRank

from .baseline import DEGRADED
from .recording_format import Told

BIN_SECONDS = 5.0
"""Width of the bins in which the pace is counted."""

LEAST_BINS = 3
"""Least bins on each side: less may be a hiccup."""

FAILING = 0.05
"""By how much the share of failed requests must rise."""

CERTAIN = 5.0
"""Standard errors that the two sides must lie apart: the best of all splits is looked at, so three
would be found in noise. In noise of 20% from bin to bin this finds a change in 3% of cases."""

Process = TrainingRank | InferenceServer


def onset(told: Sequence[Told], start: float) -> float | None:
    """The moment, on the clock of ``received``; None where the workload did not become slower.
    ``start`` is when to begin to look."""
    bins = _counted(told, start)
    pace = [steps / BIN_SECONDS for steps, _, _, _ in bins]
    latency = [seconds / max(1.0, requests) for _, requests, seconds, _ in bins]
    errors = [failed / max(1.0, requests) for _, requests, _, failed in bins]
    if any(pace):
        found = _split([-each for each in pace])
        slower = found is not None and -found[1] >= DEGRADED * -found[2]
    else:
        found = _split(latency)
        slower = found is not None and found[2] >= DEGRADED * found[1]
        if not slower:
            found = _split(errors)
            slower = found is not None and found[2] - found[1] >= FAILING
    return start + found[0] * BIN_SECONDS if found is not None and slower else None


def _counted(told: Sequence[Told], start: float) -> list[list[float]]:
    """Of each whole bin: steps ended, requests answered, their seconds, and those that failed."""
    count = int((told[-1].received - start) / BIN_SECONDS)
    bins = [[0.0, 0.0, 0.0, 0.0] for _ in range(count)]
    before: dict[str, Process] = {}
    for line in told:
        assert line.sample is not None
        index = int((line.received - start) // BIN_SECONDS)
        processes: list[Process] = [*line.sample.training, *line.sample.inference]
        for process in processes:
            old = before.get(process.epoch)
            before[process.epoch] = process
            grown = None if old is None else _grown(old, process)
            if grown is not None and 0 <= index < count:
                bins[index] = [a + b for a, b in zip(bins[index], grown, strict=True)]
    return bins


def _grown(old: Process, new: Process) -> tuple[float, float, float, float] | None:
    if isinstance(new, TrainingRank) and isinstance(old, TrainingRank):
        found = (float(new.steps - old.steps), 0.0, 0.0, 0.0)
    elif isinstance(new, InferenceServer) and isinstance(old, InferenceServer):
        found = (
            0.0,
            float(new.requests - old.requests),
            new.latency_seconds - old.latency_seconds,
            float(new.errors - old.errors),
        )
    else:
        return None
    return found if min(found) >= 0 else None


def _split(values: Sequence[float]) -> tuple[int, float, float] | None:
    """Where the figures part best into lower ones and higher ones after them: the index, and the
    means of the two sides. None where they lie no further apart than chance puts them."""
    best: tuple[float, int, float, float] | None = None
    for index in range(LEAST_BINS, len(values) - LEAST_BINS + 1):
        left, right = values[:index], values[index:]
        low, high = sum(left) / len(left), sum(right) / len(right)
        # What is explained by parting here: the squares between the two sides.
        weight = (high - low) ** 2 * len(left) * len(right)
        if high > low and (best is None or weight > best[0]):
            best = weight, index, low, high
    if best is None:
        return None
    _, index, low, high = best
    rest = [v - (low if i < index else high) for i, v in enumerate(values)]
    within = sum(each**2 for each in rest)
    # Neighbouring bins are alike, so there are fewer figures than bins.
    alike = sum(a * b for a, b in pairwise(rest)) / within if within else 0.0
    alike = min(0.9, max(0.0, alike))
    variance = within / max(1, len(values) - 2) * (1 + alike) / (1 - alike)
    error = math.sqrt(variance * (1 / index + 1 / (len(values) - index)))
    return (index, low, high) if high - low >= CERTAIN * error else None
