"""How many replicas carry a load, by queueing theory. Pure.

Each replica is a queue of its own, since what stands before them seldom knows which one is free:
requests arrive as a Poisson stream that is split evenly, and are served in several places at once.
The wait is that of M/M/k (Erlang 1917), stretched by how much more or less variable arrivals and
service are than in that model (the approximation of Allen and Cunneen; Bolch et al., Queueing
Networks and Markov Chains, 2006).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LEAST_OCCUPANCY = 0.6
"""No more replicas are asked for than make servers this busy. In an M/M/1 queue the mean wait is
then 1.5 service times; where that is too much for the objective, the service itself is too slow for
it, and more replicas are a dear way to hide that."""

MOST_OCCUPANCY = 0.85
"""No server is planned to be busier, however patient the objective: figures of ten seconds are off
by a tenth, and at 0.95 that tenth is the whole capacity."""

MOST_PLACES = 512
"""More places than this in one replica make no difference to how long one waits."""


@dataclass(frozen=True, slots=True)
class Service:
    """How one replica serves: a request takes ``seconds``, ``places`` are served at once, and waits
    are ``variability`` times those of M/M/k (1 where it was not measured)."""

    seconds: float
    places: int = 1
    variability: float = 1.0

    @property
    def capacity(self) -> float:
        """Requests per second that keep one replica busy all the time."""
        return self.places / self.seconds


@dataclass(frozen=True, slots=True)
class Goal:
    """The latency objective: at most ``seconds`` for ``percentile`` of the requests; ``seconds`` is
    None where latency has none. ``base`` is what the percentile is while nobody waits."""

    percentile: float = 95.0
    seconds: float | None = None
    base: float = 0.0


def erlang_c(places: int, load: float) -> float:
    """The probability of having to wait in M/M/``places``; ``load`` in Erlang (arrival rate times
    service time). 1 where the load is more than can be served."""
    if load >= places:
        return 1.0
    if load <= 0:
        return 0.0
    blocking = 1.0  # Erlang B by its recursion, which does not overflow
    for place in range(1, places + 1):
        blocking = load * blocking / (place + load * blocking)
    return blocking / (1 - load / places * (1 - blocking))


def wait(rate: float, service: Service, replicas: int, percentile: float) -> tuple[float, float]:
    """The mean and the percentile of the wait in seconds at ``rate`` requests per second over all
    replicas; infinite where they do not carry the load."""
    places = min(service.places, MOST_PLACES)
    load = rate / max(1, replicas) / service.capacity * places
    if replicas < 1 or load >= places:
        return (math.inf, math.inf) if rate > 0 else (0.0, 0.0)
    # Who waits at all waits for an exponential time of this mean.
    seconds = service.seconds * places / service.places
    each = seconds * service.variability / (places - load)
    waits = erlang_c(places, load)
    return waits * each, max(0.0, math.log(max(waits, 1e-12) / (1 - percentile / 100))) * each


def latency(rate: float, service: Service, goal: Goal, replicas: int) -> float:
    """The goal's percentile of the latency in seconds with that many replicas. Service and wait are
    seldom long at once: their means add up, and what the percentiles are above those adds up as the
    sides of a right angle do."""
    middle, extreme = wait(rate, service, replicas, goal.percentile)
    if math.isinf(extreme):
        return extreme
    tail = max(0.0, goal.base - service.seconds)
    return service.seconds + middle + math.hypot(tail, max(0.0, extreme - middle))


def needed(rate: float, service: Service, goal: Goal) -> int:
    """The fewest replicas with which the goal is met at ``rate`` requests per second, at least one;
    what is asked for stays between the two occupancies. More load, a stricter goal or more
    variability never need fewer."""
    busy = rate / service.capacity
    low = max(1, math.ceil(busy / MOST_OCCUPANCY - 1e-9))
    high = max(1, math.ceil(busy / LEAST_OCCUPANCY - 1e-9))
    if goal.seconds is None:
        return high
    while low < high:
        middle = (low + high) // 2
        if latency(rate, service, goal, middle) <= goal.seconds:
            high = middle
        else:
            low = middle + 1
    return low


@dataclass(frozen=True, slots=True)
class Margin:
    """What the latency percentile in seconds would be with one replica fewer, with those that there
    are, and with one more; infinite where they do not carry the load."""

    fewer: float
    present: float
    more: float

    @property
    def gain(self) -> float:
        """Seconds that one more replica takes off the percentile; 0 where both are infinite."""
        return 0.0 if math.isinf(self.more) else self.present - self.more

    @property
    def loss(self) -> float:
        """Seconds that one fewer puts onto it."""
        return 0.0 if math.isinf(self.present) else self.fewer - self.present


def margin(rate: float, service: Service, goal: Goal, replicas: int) -> Margin:
    """The marginal benefit of a replica: what pools weigh workloads against each other with. Ask
    for ``Service`` and ``Goal`` from ``load.load_of``; ``replicas`` is what there is now."""
    return Margin(*(latency(rate, service, goal, replicas + step) for step in (-1, 0, 1)))
