"""What the remedies share."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...api.conditions import Reason
from ...api.meta import Setting
from ...api.policy import PolicySpec
from ...api.report import Action, Cause, KnobsChange
from ...observe.observation import Observation
from ..decision import Facts, Plan, Refusal

Remedy = Callable[[Cause, Observation, PolicySpec, Facts], Action | Refusal]

Saving = Callable[[Observation, PolicySpec, Facts, float], Plan | None]
"""What could be given back now (seconds since the Unix epoch), or None. The plan's action has the
aim Save, the cause ``SURPLUS``, and its symptom says what is too much."""

SURPLUS = "surplus"

MICRO = "batch.micro"
ACCUMULATION = "batch.accumulation"

MAX_ACCUMULATION = 4096
MEMORY_SHARE = 0.90
"""Share of a GPU's memory that a larger micro-batch may be predicted to take."""

WORTH = 1.05
"""A change must be predicted to return at least 5% to be made."""


def not_allowed(name: str, example: str) -> Refusal:
    """The policy leaves this action out."""
    return Refusal(
        Reason.ACTION_NOT_ALLOWED,
        f"the policy does not allow changing {name}; to allow it write {example}",
    )


def not_settable(what: str, how: str) -> Refusal:
    """The running process cannot change it."""
    return Refusal(
        Reason.KNOB_NOT_SETTABLE, f"the process does not let {what} be changed while it runs; {how}"
    )


def knob(observation: Observation, name: str) -> int | None:
    """A whole number that every rank has in force, None where they differ or do not say."""
    value = _agreed(observation, name)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def word(observation: Observation, name: str) -> str | None:
    """A word that every rank has in force, None where they differ or do not say."""
    value = _agreed(observation, name)
    return value if isinstance(value, str) else None


def _agreed(observation: Observation, name: str) -> float | str | bool | None:
    values = {rank.knobs.get(name) for rank in observation.ranks}
    return values.pop() if len(values) == 1 else None


def knobs_change(
    facts: Facts, current: Mapping[str, Setting], desired: Mapping[str, Setting]
) -> KnobsChange:
    """The next generation: all knobs in force, with ``desired`` in place of ``current``."""
    return KnobsChange(
        generation=facts.generation + 1,
        desired={**facts.knobs, **desired},
        replaces={**current, **facts.knobs},
    )


def listed(current: Mapping[str, Setting], desired: Mapping[str, Setting]) -> str:
    """``batch.micro 8 → 32, batch.accumulation 4 → 1``, what stays the same left out."""
    changes = [
        f"{name} {current[name]} → {value}"
        for name, value in desired.items()
        if current[name] != value
    ]
    return ", ".join(changes)
