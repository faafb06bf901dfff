"""Growing with the load: at once in a burst, and before the objective is missed. Pure.

A queue that is full stays full: what arrives while new replicas start must be worked off, too. So
growth asks for what the load *and* its backlog will need when the replicas are there, and asks the
same again while it waits for them: pods on their way are not ordered twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from ...api.report import BottleneckReport
from ...observe.trail import Trail
from .forecast import BACKTEST_SECONDS, FURTHEST, STEP_SECONDS, forecast, steps_of
from .load import RATE, STEADY_SECONDS, Load
from .queueing import needed
from .replay import standing

PANIC = 2.0
"""A load that needs so many times what is there is a burst: it is followed at once and whole, on
the shortest window (the threshold of Knative's autoscaler)."""

NOVEL = 1.2
"""A load so many times the highest of the last minutes has not been seen before: it is thought to
stay. One that has been seen is thought to pass as it did then; ``standing`` says what it needs."""

START_SECONDS = 30.0
"""How long a replica takes to get ready, until it has been measured."""

STARTS = 5
"""How many of the newest starts are looked at."""

DRAIN_SECONDS = 30.0
"""In what time a backlog is to be worked off once the replicas are there."""


@dataclass(frozen=True, slots=True)
class There:
    """The replicas: how many are wanted, how many of them are ready, how long one takes to get
    ready, and in how many seconds those on their way will be (all in seconds)."""

    replicas: int
    ready: int
    start: float = START_SECONDS
    due: float = 0.0


@dataclass(frozen=True, slots=True)
class Growth:
    """How many replicas the load needs, and why in words for people. ``panic`` tells a burst."""

    replicas: int
    reason: str
    panic: bool = False


def there_of(
    replicas: int, ready: int | None, reports: Iterable[BottleneckReport], now: float
) -> There:
    """The replicas, with how long they took to get ready before; ``reports`` are oldest first."""
    took: list[float] = []
    applied: float | None = None
    for report in reports:
        action, status = report.spec.action, report.status
        change = action.replicas if action else None
        if change is None or status.applied_at is None or change.desired <= change.replaces:
            continue
        begun = status.applied_at.timestamp()
        if status.acknowledged_at is not None:
            took.append(max(1.0, status.acknowledged_at.timestamp() - begun))
        if change.desired == replicas:
            applied = begun
    start = median(took[-STARTS:]) if took else START_SECONDS
    running = replicas if ready is None else ready
    if running >= replicas:
        return There(replicas, running, start)
    # Who is late is thought to come any moment: nothing is ordered a second time.
    elapsed = start if applied is None else now - applied
    return There(replicas, running, start, due=max(0.0, start - elapsed))


def carrying(rate: float, load: Load, there: There, wait: float) -> int:
    """The replicas that carry ``rate`` and work off in ``DRAIN_SECONDS`` what will be waiting in
    ``wait`` seconds, when more of them are ready."""
    steady = needed(rate, load.service, load.goal)
    surplus = rate - there.ready * load.service.capacity
    waiting = max(0.0, load.backlog + surplus * wait)
    draining = rate + waiting / DRAIN_SECONDS
    return max(steady, math.ceil(draining / load.service.capacity - 1e-9))


def growth(
    load: Load, trail: Trail, there: There, seconds: float, now: float, breached: bool = False
) -> Growth:
    """What the load needs, be it less than there is, by the load of the last ``seconds``. What is
    seen now counts where it is new, and a burst or a breach; else only what has lasted, what bursts
    of that time needed, and what is forecast: no accident of ten seconds orders a replica."""
    pending = there.ready < there.replicas
    wait = there.due if pending else there.start
    past = trail.series(RATE, seconds, now)
    at_once = carrying(load.rate, load, there, wait)
    known = max((slot.mean for slot in past if slot.begin < now - STEADY_SECONDS), default=0.0)
    if load.rate > known * NOVEL and (breached or at_once >= PANIC * max(1, there.ready)):
        return Growth(at_once, _told(load.rate, "is", load, there), panic=True)
    found = Growth(
        carrying(load.steady, load, there, wait), _told(load.steady, "has been", load, there)
    )
    # What is played again can need no more than the highest rate for good: mostly it needs no play.
    highest = max([load.rate, *(slot.mean for slot in past)])
    play = needed(highest, load.service, load.goal) > max(found.replicas, there.replicas)
    stood = standing(past, load.service, load.goal) if play else 0
    if stood > found.replicas:
        reason = f"bursts as those of the last {seconds / 60:.0f} minutes need {stood} replicas"
        found = Growth(stood, f"{reason}, and {there.replicas} are there")
    believed = needed(FURTHEST * load.rate, load.service, load.goal)
    if found.replicas > there.replicas or believed <= there.replicas:
        return found
    if ahead := expected(load, trail, there, now):
        need = needed(ahead, load.service, load.goal)
        if need > found.replicas:
            return Growth(need, _told(ahead, "is predicted to be", load, there))
    return found


def expected(load: Load, trail: Trail, there: There, now: float) -> float | None:
    """The load when a replica ordered now is ready; None where it cannot be told better than by
    what it is now."""
    steps = steps_of(trail.series(RATE, BACKTEST_SECONDS, now))
    if steps is None:
        return None
    told = forecast(steps, max(1, math.ceil(there.start / STEP_SECONDS)))
    return told.value if told is not None and told.better else None


def _told(rate: float, tense: str, load: Load, there: There) -> str:
    waiting = f" and {load.backlog:.0f} requests wait" if load.backlog >= 1 else ""
    return f"the load {tense} {rate:.3g} requests/s{waiting}, with {there.replicas} replicas"
