"""Rules that are compared with ours. They are models of published algorithms, written from their
documentation, not the programs themselves: those are run by the closed-loop benchmark."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from .world import Service


class Rule(Protocol):
    """Looks at a service every second, and scales it."""

    def look(self, service: Service) -> None:
        """One look, at ``service.now``."""


@dataclass(slots=True)
class Window:
    """Figures of the last seconds."""

    figures: deque[tuple[float, float]] = field(default_factory=deque)
    seconds: float = 60.0

    def add(self, now: float, value: float) -> None:
        """Takes one more."""
        self.figures.append((now, value))
        while self.figures[0][0] <= now - self.seconds:
            self.figures.popleft()

    def mean(self, now: float, seconds: float) -> float:
        """The mean over the last ``seconds``."""
        found = [value for at, value in self.figures if at > now - seconds]
        return sum(found) / max(1, len(found))


def arrived(service: Service, seconds: float) -> float:
    """Requests per second over the last ``seconds``."""
    count, index = 0, service.next
    while index > 0 and service.arrivals[index - 1] >= service.now - seconds:
        index -= 1
        count += 1
    return count / min(seconds, max(1.0, service.now))


@dataclass(slots=True)
class HpaLike:
    """The HorizontalPodAutoscaler's defaults on requests per second of each replica: a look every
    15 s, tolerance 10%, growth by at most 4 replicas or 100% a look, and for shrinking the highest
    recommendation of the last 300 s. KEDA's own part from one replica on is such an autoscaler."""

    utilization: float = 0.7
    past: deque[tuple[float, int]] = field(default_factory=deque)

    def look(self, service: Service) -> None:
        """One look; see ``Rule``."""
        if service.now % 15 >= 1:
            return
        present = len(service.replicas)
        each = arrived(service, 30) / present
        ratio = each / (self.utilization * service.model.capacity)
        wanted = present if abs(ratio - 1) <= 0.1 else math.ceil(present * ratio)
        self.past.append((service.now, wanted))
        while self.past[0][0] < service.now - 300:
            self.past.popleft()
        if wanted < present:
            wanted = min(present, max(value for _, value in self.past))
        service.scale(min(wanted, max(present + 4, present * 2)))


@dataclass(slots=True)
class KpaLike:
    """Knative's autoscaler on concurrency: a look every 2 s, stable window 60 s, panic window 6 s,
    panic at twice what is ready, no shrinking in panic, and at most by half at once."""

    utilization: float = 0.7
    window: Window = field(default_factory=Window)
    panic_since: float | None = None
    most: int = 0

    def look(self, service: Service) -> None:
        """One look; see ``Rule``."""
        now = service.now
        serving = sum(
            free > now
            for replica in service.replicas
            for free in replica.free
            if replica.ready <= now
        )
        self.window.add(now, serving + service.queued)
        if now % 2 >= 1:
            return
        ready, target = max(1, service.ready), self.utilization * service.model.places
        stable = math.ceil(self.window.mean(now, 60) / target)
        panic = math.ceil(self.window.mean(now, 6) / target)
        stable = max(stable, math.floor(ready / 2))
        if panic / ready >= 2:
            self.panic_since = now
        elif self.panic_since is not None and now - self.panic_since > 60:
            self.panic_since, self.most = None, 0
        wanted = stable
        if self.panic_since is not None:
            self.most = max(self.most, stable, panic)
            wanted = self.most
        service.scale(wanted)
