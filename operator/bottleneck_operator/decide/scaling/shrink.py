"""Giving replicas back: only what the survivors can do without, for long and for certain. Pure."""

from __future__ import annotations

import math

from ...observe.trail import Trail
from .growth import There, expected
from .load import RATE, Load
from .queueing import needed
from .replay import standing

HEADROOM = 1.1
"""The survivors must carry a tenth more than the highest load of the whole window: the gap between
what makes it grow and what lets it shrink, without which it would swing."""

MOST_AT_ONCE = 0.5
"""At most half of the replicas go at once: a wrong figure must not take a workload down, and
halving is fast enough (from 64 to 1 in six steps)."""


def fewer(load: Load, trail: Trail, there: There, seconds: float, now: float) -> int | None:
    """The replicas that are enough, where they are fewer than there are; None where nothing can be
    given back, or where the load of the last ``seconds`` was not seen without a gap.

    All that is too much goes in one step, not one by one: each step is a change of its own that
    somebody has to verify, and the window has waited long enough already."""
    if there.ready != there.replicas or load.backlog >= 1:
        return None
    window = trail.over(RATE, seconds, now)
    if window is None:
        return None
    if needed(load.rate * HEADROOM, load.service, load.goal) >= there.replicas:
        return None
    ahead = expected(load, trail, there, now)
    highest = max(load.rate, ahead or 0.0)
    enough = max(
        needed(highest * HEADROOM, load.service, load.goal),
        standing(trail.series(RATE, seconds, now), load.service, load.goal, HEADROOM),
    )
    survivors = max(enough, math.ceil(there.replicas * (1 - MOST_AT_ONCE)), 1)
    return survivors if survivors < there.replicas else None
