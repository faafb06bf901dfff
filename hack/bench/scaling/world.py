"""A service of replicas with places, cold starts and a queue; pure, seeded, second by second.

It is a model, and says so: requests come when the trace says, each takes a time drawn from a gamma
distribution, places are given first come, first served. With ``routing`` "central" one queue feeds
all replicas; with "random" each replica has its own, as behind a Kubernetes Service.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Model:
    """Seconds of service on average and their squared coefficient of variation, places of a
    replica, the latency objective in seconds, bounds of the replicas and of a cold start in
    seconds."""

    seconds: float = 0.6
    scatter: float = 0.5
    places: int = 4
    target: float = 2.0
    percentile: int = 95
    start: tuple[float, float] = (20.0, 60.0)
    least: int = 1
    most: int = 40
    routing: str = "central"

    @property
    def capacity(self) -> float:
        """Requests per second of one busy replica."""
        return self.places / self.seconds


@dataclass(slots=True)
class Done:
    """One answered request: moments in seconds."""

    arrived: float
    begun: float
    ended: float


@dataclass(slots=True)
class Replica:
    """One replica: ready from ``ready``, each place free from a moment on."""

    ready: float
    free: list[float]
    queue: deque[float] = field(default_factory=deque)


@dataclass(slots=True)
class Service:
    """The service at ``now``. ``arrivals`` are moments in seconds, in order."""

    model: Model
    arrivals: Sequence[float]
    replicas: list[Replica] = field(default_factory=list)
    now: float = 0.0
    done: list[Done] = field(default_factory=list)
    queue: deque[float] = field(default_factory=deque)
    changes: list[tuple[float, int]] = field(default_factory=list)
    used: float = 0.0
    """Replica-seconds, those that start included."""
    backlog: list[float] = field(default_factory=list)
    """How many requests waited, second by second."""
    next: int = 0
    rng: random.Random = field(default_factory=lambda: random.Random(1))

    @classmethod
    def begin(cls, model: Model, arrivals: Sequence[float], seed: int = 1) -> Service:
        """A service with the least replicas, which are ready."""
        found = cls(model, arrivals, rng=random.Random(seed))
        found.replicas = [Replica(0.0, [0.0] * model.places) for _ in range(model.least)]
        return found

    @property
    def ready(self) -> int:
        """Replicas that serve."""
        return sum(replica.ready <= self.now for replica in self.replicas)

    def scale(self, wanted: int) -> None:
        """Sets the number of replicas, within the bounds; who goes ends what it has begun, and the
        youngest go first, as with a Deployment."""
        wanted = max(self.model.least, min(self.model.most, wanted))
        if wanted == len(self.replicas):
            return
        self.changes.append((self.now, wanted - len(self.replicas)))
        while len(self.replicas) > wanted:
            gone = max(self.replicas, key=lambda replica: replica.ready)
            self.replicas.remove(gone)
            for arrived in gone.queue:
                self._enqueue(arrived)
        while len(self.replicas) < wanted:
            ready = self.now + self.rng.uniform(*self.model.start)
            self.replicas.append(Replica(ready, [ready] * self.model.places))

    def step(self, seconds: float = 1.0) -> None:
        """Lets time pass."""
        end = self.now + seconds
        while self.next < len(self.arrivals) and self.arrivals[self.next] < end:
            self._enqueue(self.arrivals[self.next])
            self.next += 1
        if self.model.routing == "central":
            places = [
                (free, number, place)
                for number, replica in enumerate(self.replicas)
                if replica.ready < end
                for place, free in enumerate(replica.free)
            ]
            self._serve(self.queue, places, end)
        else:
            for number, replica in enumerate(self.replicas):
                if replica.ready < end:
                    places = [(free, number, place) for place, free in enumerate(replica.free)]
                    self._serve(replica.queue, places, end)
        self.now = end
        self.used += seconds * len(self.replicas)
        self.backlog.append(self.queued)

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return len(self.queue) + sum(len(replica.queue) for replica in self.replicas)

    def _enqueue(self, arrived: float) -> None:
        if self.model.routing == "central":
            self.queue.append(arrived)
            return
        ready = [each for each in self.replicas if each.ready <= max(self.now, arrived)]
        self.rng.choice(ready or self.replicas).queue.append(arrived)

    def _serve(self, queue: deque[float], places: list[tuple[float, int, int]], end: float) -> None:
        heapq.heapify(places)
        shape = 1 / self.model.scatter
        while queue and places and places[0][0] < end:
            free, number, place = places[0]
            arrived = queue.popleft()
            begun = max(arrived, free)
            ended = begun + self.rng.gammavariate(shape, self.model.seconds / shape)
            self.replicas[number].free[place] = ended
            heapq.heapreplace(places, (ended, number, place))
            self.done.append(Done(arrived, begun, ended))

    # -- what came of it ---------------------------------------------------------------------------

    @property
    def over(self) -> float:
        """The share of requests that took longer than the target; what still waits counts."""
        late = sum(each.ended - each.arrived > self.model.target for each in self.done)
        waiting = self.queued
        return (late + waiting) / max(1, len(self.done) + waiting)

    @property
    def turns(self) -> int:
        """How often growing turned into shrinking or the other way round."""
        signs = [change > 0 for _, change in self.changes]
        return sum(one != other for one, other in pairwise(signs))


# -- loads -----------------------------------------------------------------------------------------


def poisson(rates: Sequence[float], seed: int) -> list[float]:
    """Arrivals with these rates per second, one for each second."""
    rng = random.Random(seed)
    found: list[float] = []
    for second, rate in enumerate(rates):
        moment = 0.0
        while rate > 0:
            moment += rng.expovariate(rate)
            if moment >= 1:
                break
            found.append(second + moment)
    return found
