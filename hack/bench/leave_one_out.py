"""The figures with numbers that never saw the incident which they are measured on.

The grid: the present parameters, and every set in which one or two groups of them are changed to
one of two alternatives. For each incident, the set is taken that does best *without* it:

1. AC@1 on the other incidents,
2. then AC@3 on them,
3. then silence on the healthy windows of the other scenarios,
4. then the one nearest to the present parameters: fewest groups changed, then the first in CHOICES.

The incident, and the healthy windows of its own scenario, are then scored with that set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

from bottleneck_operator.diagnose.parameters import DEFAULT, Parameters

from .ranks import within

PRESENT = "the present parameters"
CHOICES: tuple[tuple[dict[str, float], ...], ...] = (
    ({}, {"certain": 0.98}, {"certain": 0.95}),
    (
        {},
        {"corroboration": 1.0, "confirmed": 0.9},
        {"corroboration": 2.0, "confirmed": 0.99},
    ),
    (
        {},
        {"relative_floor": 0.02, "share_floor": 0.002},
        {"relative_floor": 0.1, "share_floor": 0.01},
    ),
    ({}, {"calls_slack": 1.0, "unknown_calls": 1.0}, {"calls_slack": 4.0, "unknown_calls": 10.0}),
    (
        {},
        {"kept": 0.9, "handed": 0.05, "rarity": 0.05},
        {"kept": 0.4, "handed": 0.4, "rarity": 0.2},
    ),
)
MOST_CHANGED = 2


class Label(NamedTuple):
    """Which incident."""

    scenario: str
    symptom: str
    name: str


@dataclass(frozen=True)
class Trial:
    """What one set of parameters makes of everything."""

    name: str
    ranks: Mapping[Label, int | None]
    silent: Mapping[str, float]
    """The share of healthy windows without blame, 0 to 1, by scenario."""


def grid() -> dict[str, Parameters]:
    """The sets by name, the nearest to the present parameters first."""
    picks = sorted(product(*CHOICES), key=lambda pick: sum(map(bool, pick)))
    sets: dict[str, Parameters] = {}
    for pick in picks:
        if sum(map(bool, pick)) <= MOST_CHANGED:
            changes = {key: value for group in pick for key, value in group.items()}
            name = " ".join(f"{key}={value:g}" for key, value in changes.items())
            sets[name or PRESENT] = replace(DEFAULT, **changes)
    return sets


def choose(trials: Sequence[Trial], left_out: Collection[Label]) -> Trial:
    """The best set by what is not left out. Of equals the first, hence the nearest."""
    scenarios = {label.scenario for label in left_out}

    def merit(trial: Trial) -> tuple[float, float, float]:
        ranks = [rank for label, rank in trial.ranks.items() if label not in left_out]
        quiet = [share for name, share in trial.silent.items() if name not in scenarios]
        return within(ranks, 1), within(ranks, 3), _mean(quiet)

    return max(trials, key=merit)


def itself(one: Label, other: Label) -> bool:
    """Leaves out the incident alone."""
    return one == other


def its_like(one: Label, other: Label) -> bool:
    """Leaves out all incidents of its scenario and symptom: the same fault is injected twice."""
    return one[:2] == other[:2]


FOLDS: Mapping[str, Callable[[Label, Label], bool]] = {
    "the incident": itself,
    "all of its scenario and symptom": its_like,
}


def leave_out(trials: Sequence[Trial], alike: Callable[[Label, Label], bool]) -> dict[str, Any]:
    """Every incident scored by the set that was chosen without it and what is ``alike``."""
    labels = list(trials[0].ranks)
    chosen = {
        one: choose(trials, [other for other in labels if alike(one, other)]) for one in labels
    }
    ranks = [trial.ranks[label] for label, trial in chosen.items()]
    return {
        "AC@1": within(ranks, 1),
        "AC@3": within(ranks, 3),
        "silent": round(_mean([trial.silent[one.scenario] for one, trial in chosen.items()]), 3),
        "chosen": dict(Counter(trial.name for trial in chosen.values()).most_common()),
    }


def report(trials: Sequence[Trial]) -> dict[str, Any]:
    """The figures of every fold, and how far the sets are apart without any choice."""
    return {
        "sets": len(trials),
        "leftOut": {name: leave_out(trials, alike) for name, alike in FOLDS.items()},
        "trials": [
            {
                "parameters": trial.name,
                "AC@1": within(trial.ranks.values(), 1),
                "AC@3": within(trial.ranks.values(), 3),
                "silent": round(_mean(list(trial.silent.values())), 3),
            }
            for trial in trials
        ],
    }


def text(document: Mapping[str, Any]) -> str:
    """For people."""
    lines = [f"{'left out':34} AC@1  AC@3  silent"]
    for name, one in document["leftOut"].items():
        lines.append(f"{name:34} {one['AC@1']:4.2f}  {one['AC@3']:4.2f}  {one['silent']:6.2f}")
        lines += [f"  chosen {times:3}×: {chosen}" for chosen, times in one["chosen"].items()]
    lines.append(f"\nall {document['sets']} sets, on everything:")
    for key in ("AC@1", "AC@3", "silent"):
        values = sorted(trial[key] for trial in document["trials"])
        lines.append(
            f"  {key:6} worst {values[0]:4.2f}, median {values[len(values) // 2]:4.2f},"
            f" best {values[-1]:4.2f}"
        )
    return "\n".join(lines)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
