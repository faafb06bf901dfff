"""From measurements to the figures that are printed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bottleneck_operator.verify.judge import LOOKS
from bottleneck_operator.verify.measure import BIN_SECONDS, WARM_UP

from .workloads import Knobs

VERIFICATION_SECONDS = WARM_UP["BatchSize"] + LOOKS[0] * BIN_SECONDS
"""How long it takes at least to see that a setting harms: the warm-up and the first look."""

NEAR = 0.95
"""Below that share of the floor the operator has harmed the workload for a while."""


@dataclass(frozen=True, slots=True)
class Point:
    """One configuration and the figure that was measured with it."""

    knobs: Knobs
    value: float


@dataclass(frozen=True, slots=True)
class Result:
    """What is known of one workload at the end. ``floor``, ``ours`` and ``oracle`` in ``unit``;
    ``seconds`` from the first look to the end of the last action; ``actions`` are those taken, the
    undone ones included, ``steps`` what they were and became, ``diagnosis`` the
    last one. ``failure`` in place of all that."""

    name: str
    type: str
    unit: str
    lower_is_better: bool
    floor: float = 0.0
    ours: float = 0.0
    oracle: float = 0.0
    actions: int = 0
    seconds: float = 0.0
    below_floor_seconds: float = 0.0
    longest_below_seconds: float = 0.0
    our_knobs: Knobs = field(default_factory=dict)
    oracle_knobs: Knobs = field(default_factory=dict)
    steps: Sequence[str] = ()
    stopped: str = ""
    grid: Sequence[Point] = ()
    acknowledged: Sequence[float] = ()
    diagnosis: Mapping[str, str] = field(default_factory=dict)
    failure: str = ""

    @property
    def share(self) -> float:
        """How much of the oracle was reached: 1 is all of it. Of a latency it is oracle by ours."""
        better, worse = (
            (self.oracle, self.ours) if self.lower_is_better else (self.ours, self.oracle)
        )
        return better / worse if worse > 0 else 0.0


def oracle(points: Sequence[Point], lower_is_better: bool) -> Point:
    """The best point of the grid; of equal ones the first, which is nearest to the default."""
    return (min if lower_is_better else max)(points, key=lambda point: point.value)


def below_floor(bins: Sequence[float], floor: float, lower_is_better: bool, width: float) -> float:
    """Seconds in which the workload did worse than ``NEAR`` of the floor, from figures for bins of
    ``width`` seconds."""
    if lower_is_better:
        return width * sum(value > floor / NEAR for value in bins)
    return width * sum(value < floor * NEAR for value in bins)


def longest_below(
    bins: Sequence[float], floor: float, lower_is_better: bool, width: float
) -> float:
    """The longest of these stretches in seconds, as ``below_floor`` counts them: none may last
    longer than it takes to find out and to undo it."""
    longest = stretch = 0
    for value in bins:
        worse = value > floor / NEAR if lower_is_better else value < floor * NEAR
        stretch = stretch + 1 if worse else 0
        longest = max(longest, stretch)
    return width * longest


def document(results: Sequence[Result], overhead: float | None) -> dict[str, Any]:
    """What is written as JSON. ``overhead`` is the SDK's cost as a share of a step."""
    waits = [wait for result in results for wait in result.acknowledged]
    return {
        "workloads": [_entry(result) for result in results],
        "ackSeconds": {
            "p50": round(median(waits), 3) if waits else None,
            "max": round(max(waits), 3) if waits else None,
        },
        "sdkOverheadRatio": overhead,
        "verificationSeconds": VERIFICATION_SECONDS,
    }


def _entry(result: Result) -> dict[str, Any]:
    head: dict[str, Any] = {"name": result.name, "type": result.type, "unit": result.unit}
    if result.failure:
        return {**head, "failure": result.failure}
    return {
        **head,
        "floor": round(result.floor, 5),
        "ours": round(result.ours, 5),
        "oracle": round(result.oracle, 5),
        "oursOfOracle": round(result.share, 4),
        "actions": result.actions,
        "seconds": round(result.seconds, 1),
        "belowFloorSeconds": round(result.below_floor_seconds, 1),
        "belowFloorLongestSeconds": round(result.longest_below_seconds, 1),
        "ourKnobs": result.our_knobs,
        "oracleKnobs": result.oracle_knobs,
        "steps": list(result.steps),
        "stopped": result.stopped,
        "diagnosis": dict(result.diagnosis),
        "grid": [{"knobs": each.knobs, "value": round(each.value, 5)} for each in result.grid],
    }


_HEADS = (
    *("workload", "unit", "floor", "ours", "oracle", "ours/oracle", "actions", "s"),
    *("s < floor", "longest"),
)


def table(results: Sequence[Result]) -> str:
    """One line for each workload."""
    rows: list[tuple[str, ...]] = [_HEADS]
    for result in results:
        if result.failure:
            rows.append((result.name, result.unit, "failed", *[""] * (len(_HEADS) - 3)))
            continue
        rows.append(
            (
                result.name,
                result.unit,
                f"{result.floor:.4g}",
                f"{result.ours:.4g}",
                f"{result.oracle:.4g}",
                f"{result.share:.0%}",
                str(result.actions),
                f"{result.seconds:.0f}",
                f"{result.below_floor_seconds:.0f}",
                f"{result.longest_below_seconds:.0f}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = []
    for row in rows:
        cells = [
            text.ljust(width) if column < 2 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
