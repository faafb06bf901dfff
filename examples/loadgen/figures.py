"""Percentiles, and the lines that the load generator prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


def percentile(values: Sequence[float], percent: float) -> float:
    """Interpolated between the two nearest ranks, as numpy does. ``values`` may not be empty."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


@dataclass
class Figures:
    """What became of the requests that ended within a stretch of time."""

    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, seconds: float, error: str) -> None:
        """Counts one request; only answered ones have a latency."""
        if error:
            self.errors[error] += 1
        else:
            self.latencies.append(seconds)

    def summary(self, seconds: float) -> dict[str, Any]:
        """As it is printed; percentiles are absent where nothing was answered."""
        line: dict[str, Any] = {
            "answered": len(self.latencies),
            "errors": dict(self.errors),
            "rps": round(len(self.latencies) / seconds, 2),
        }
        if self.latencies:
            for percent in (50, 95, 99):
                line[f"p{percent}"] = round(percentile(self.latencies, percent), 4)
        return line
