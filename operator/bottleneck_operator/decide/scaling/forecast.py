"""The load of the next minute, where the last half hour proves that it can be told. Pure.

Holt's linear smoothing with a damped trend (Gardner and McKenzie 1985): hard to beat by anything of
its size in forecasting competitions, and a damped trend does not run away. It is believed only
where it would have been better than "as it is now" (persistence) on this very load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...observe.trail import Slot

STEP_SECONDS = 10.0
"""Width of a step: the window of the rate, so that neighbours are figures of their own."""

BACKTEST_SECONDS = 1800.0

LEAST_TESTS = 30
"""Fewest forecasts that must have come true or not: five minutes of them."""

BETTER = 0.95
"""Its mean absolute error must be at most this share of persistence's."""

WARM_STEPS = 6
"""Steps that it learns from before it is held to account."""

FURTHEST = 2.0
"""Most times the present load that is believed."""

LEVEL, TREND, DAMPING = 0.5, 0.2, 0.9
"""Smoothing of the level and of the trend, and how much of the trend is left a step later. Fixed: a
choice for each load by its own half hour was no better on synthetic loads."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """The load ahead, with its error and that of persistence, measured on the trail itself: mean
    absolute errors in the load's unit over ``tests`` forecasts."""

    value: float
    error: float
    persistence: float
    tests: int

    @property
    def better(self) -> bool:
        """Whether it may be used."""
        return self.tests >= LEAST_TESTS and self.error < BETTER * self.persistence


def steps_of(slots: Sequence[Slot]) -> list[float] | None:
    """The slots as means over equal steps, oldest first, from after the last gap; None without
    any. A step without figures ends what can be learnt from: nothing is filled in."""
    steps: list[float] = []
    last: int | None = None
    total, count = 0.0, 0
    for slot in slots:
        number = int(slot.begin // STEP_SECONDS)
        if last is not None and number != last:
            steps.append(total / count)
            total, count = 0.0, 0
            if number > last + 2:
                steps = []
            elif number == last + 2:
                # One late turn is no gap: the step in between is taken for like its neighbour.
                steps.append(steps[-1])
        last = number
        total, count = total + slot.total, count + slot.count
    if count:
        steps.append(total / count)
    return steps or None


def forecast(steps: Sequence[float], ahead: int) -> Forecast | None:
    """The load ``ahead`` steps after the last one; None where there are too few to begin with."""
    if len(steps) <= WARM_STEPS or ahead < 1:
        return None
    reach = sum(DAMPING**step for step in range(1, ahead + 1))
    level, trend = steps[0], 0.0
    told: list[float] = []
    for value in steps[1:]:
        told.append(max(0.0, level + reach * trend))
        before = level
        level = LEVEL * value + (1 - LEVEL) * (level + DAMPING * trend)
        trend = TREND * (level - before) + (1 - TREND) * DAMPING * trend
    error = persistence = 0.0
    tests = 0
    # ``told[i]`` was told when ``steps[i]`` was the last one.
    for index in range(WARM_STEPS, len(steps) - ahead):
        truth = steps[index + ahead]
        error += abs(told[index] - truth)
        persistence += abs(steps[index] - truth)
        tests += 1
    value = min(max(0.0, level + reach * trend), FURTHEST * steps[-1])
    return Forecast(value, error / max(1, tests), persistence / max(1, tests), tests)
