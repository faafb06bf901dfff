"""How the made-up workloads answer what is done to them: counters of processes that never ran."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from bottleneck_sidecar.wire import (
    LATENCY_BOUNDS_SECONDS,
    Acknowledgement,
    Container,
    InferenceServer,
    TrainingRank,
)

WORKERS = {"helps": 0.002, "nothing": 0.08, "hurts": 0.3, "refuses": 0.08, "mute": 0.08}
"""Seconds that a step of 20 ms waits for its input with workers; without it is 80 ms."""

WAITS = {
    "helps": (0.4, 0.005),
    "nothing": (0.4, 0.4),
    "hurts": (0.4, 0.9),
    "surplus": (0.002, 0.002),
    "tight": (0.4, 0.002),
    "mute": (0.002, 0.002),
}
"""Seconds that a request waits at a replica that is alone, and at one of several."""

RATES = {"surplus": 3.0, "tight": 3.0, "mute": 3.0}
"""Requests a second to the whole workload; ten for the others."""

REPLICAS = {"surplus": 3, "tight": 3, "mute": 3}
"""Replicas to begin with; one for the others."""

SETTINGS = {"dataLoader.workers": 0, "dataLoader.prefetch": 2}


@dataclass
class Trainer:
    """A training process of one pod."""

    behaviour: str
    rng: random.Random
    epoch: str
    knobs: dict[str, float | str | bool] = field(default_factory=lambda: dict(SETTINGS))
    acknowledgement: Acknowledgement | None = None
    steps: float = 0.0
    data: float = 0.0
    forward: float = 0.0

    def wish(self, document: dict) -> None:
        """Takes a knobs file, or refuses it."""
        generation = document["generation"]
        if self.behaviour == "refuses":
            self.acknowledgement = Acknowledgement(generation, "Refused", 1, "it will not do")
            return
        for group, values in document.items():
            if isinstance(values, dict):
                self.knobs |= {f"{group}.{name}": value for name, value in values.items()}
        self.acknowledgement = Acknowledgement(generation, "Applied", int(self.steps))

    def advance(self, seconds: float, now: float, replicas: int) -> dict:
        """Its counters after so many more seconds, as keywords of a sample."""
        wait = WORKERS[self.behaviour] if self.knobs["dataLoader.workers"] else 0.08
        wait *= self.rng.uniform(0.97, 1.03)
        steps = seconds / (wait + 0.02)
        self.steps += steps
        self.data += steps * wait
        self.forward += steps * 0.02
        rank = TrainingRank(
            epoch=self.epoch,
            rank=0,
            world_size=1,
            steps=int(self.steps),
            samples=int(self.steps) * 32,
            step_seconds=self.data + self.forward,
            seconds={"data": self.data, "forward": self.forward},
            last_step_at=now,
            knobs=dict(self.knobs),
            settable=list(SETTINGS),
            acknowledgement=self.acknowledgement,
        )
        container = Container(
            cpu_seconds=self.forward, cpu_limit_cores=4.0, cpus=4, epoch=self.epoch
        )
        return {"training": [rank], "inference": [], "container": container}


@dataclass
class Server:
    """A serving process of one pod; the load is shared among the replicas."""

    behaviour: str
    rng: random.Random
    epoch: str
    owed: float = 0.0
    requests: int = 0
    waited: float = 0.0
    served: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_SECONDS) + 1))

    def wish(self, document: dict) -> None:
        """It has no knobs."""

    def advance(self, seconds: float, now: float, replicas: int) -> dict:
        """Its counters after so many more seconds, as keywords of a sample."""
        rate = RATES.get(self.behaviour, 10.0) / max(1, replicas)
        wait = WAITS[self.behaviour][replicas > 1] * self.rng.uniform(0.97, 1.03)
        service = 0.05
        self.owed += rate * seconds
        came = int(self.owed)
        self.owed -= came
        self.requests += came
        self.waited += came * wait
        self.served += came * service
        took = wait + service
        slot = next(i for i, bound in enumerate(LATENCY_BOUNDS_SECONDS) if bound >= took)
        self.buckets[slot] += came
        busy = wait > service
        server = InferenceServer(
            epoch=self.epoch,
            worker=0,
            requests=self.requests,
            errors=0,
            arrivals=self.requests,
            latency_buckets=list(self.buckets),
            latency_seconds=self.waited + self.served,
            queue_seconds=self.waited,
            service_seconds=self.served,
            in_flight=5 if busy else 0,
            queued=4 if busy else 0,
            concurrency=1,
        )
        container = Container(
            cpu_seconds=self.served, cpu_limit_cores=4.0, cpus=4, epoch=self.epoch
        )
        return {"training": [], "inference": [server], "container": container}
