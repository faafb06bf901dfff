"""How many replicas would have carried the load of the last minutes: it is played through a queue
again. Pure.

Means hide bursts, and peaks exaggerate them: a burst that is over before a replica has started
cannot be followed, only stood. Played again as a fluid through so many replicas, the load itself
tells how many requests would have come too late (Newell, Applications of Queueing Theory, 1982).
"""

from __future__ import annotations

from collections.abc import Sequence

from ...observe.trail import GAP_SLOTS, SLOT_SECONDS, Slot
from .queueing import Goal, Service, needed


def late(
    slots: Sequence[Slot], service: Service, goal: Goal, replicas: int, times: float = 1.0
) -> float:
    """The share of the requests of these slots, at ``times`` their rate, that would have waited
    longer than the goal leaves, with so many replicas all the time."""
    capacity = replicas * service.capacity
    patience = max(0.0, (goal.seconds or 0.0) - max(goal.base, service.seconds))
    waiting = total = over = 0.0
    last: float | None = None
    for slot in slots:
        # A turn that was late is no pause; a gap is, and what waited then is not known.
        passed = SLOT_SECONDS if last is None else slot.begin - last
        if passed > (GAP_SLOTS + 1) * SLOT_SECONDS:
            waiting, passed = 0.0, SLOT_SECONDS
        last = slot.begin
        arrived = slot.mean * times * passed
        total += arrived
        before, waiting = waiting, max(0.0, waiting + arrived - capacity * passed)
        if (before + waiting) / 2 > patience * capacity:
            over += arrived
    return over / total if total > 0 else 0.0


def standing(slots: Sequence[Slot], service: Service, goal: Goal, times: float = 1.0) -> int:
    """The fewest replicas with which the goal's percentile of the requests of these slots, at
    ``times`` their rate, would have been in time; at least those that their mean needs."""
    if not slots:
        return 1
    mean = sum(slot.total for slot in slots) / sum(slot.count for slot in slots)
    low = needed(mean * times, service, goal)
    high = max(low, needed(max(slot.mean for slot in slots) * times, service, goal))
    allowed = 1 - goal.percentile / 100
    while low < high:
        middle = (low + high) // 2
        if late(slots, service, goal, middle, times) <= allowed:
            high = middle
        else:
            low = middle + 1
    return low
