"""Servers behind one loop: pods that do what they are told, one second at a time."""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from bottleneck_operator.api.report import Action, BottleneckReport, ContainerResources, KnobsChange
from bottleneck_operator.controller import actions
from bottleneck_operator.controller.loop import PolicyLoop
from bottleneck_operator.kube import KubeError
from bottleneck_operator.observe.history import History
from bottleneck_sidecar.wire import Acknowledgement

from .builders import LARGE, NOW, SERVING, SMALL, buckets, moment, policy, report, sample
from .loop_world import FakeApi, World
from .objects import Object, at, deployment
from .objects import pod as pod_document
from .telemetry import model_server

SIZE = "batch.maxSize"
BEFORE = -40
"""Second from which the fleet speaks."""


class Death(BaseException):
    """The operator's process ends here."""


@dataclass
class Replica:
    """One pod with one server in it."""

    name: str
    number: int
    born: float = -3600
    annotation: str = ""
    size: ContainerResources = SMALL
    requests: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * len(buckets([])))
    written: list[str] = field(default_factory=list)
    """What was written to it, in order."""

    @property
    def uid(self) -> str:
        return f"uid-{self.name}-{self.number}"

    @property
    def generation(self) -> int:
        return json.loads(self.annotation)["generation"] if self.annotation else 0

    @property
    def batch(self) -> int:
        """The knob in force."""
        return json.loads(self.annotation)["batch"]["maxSize"] if self.annotation else 1

    def serve(self, rate: int, latency: float) -> None:
        self.requests += rate
        for place, count in enumerate(buckets([latency])):
            self.counts[place] += rate * count

    def told(self) -> Any:
        acknowledgement = Acknowledgement(self.generation, "Applied") if self.generation else None
        return model_server(
            1.0,
            number=self.number,
            requests=self.requests,
            arrivals=self.requests,
            latency_buckets=list(self.counts),
            knobs={SIZE: self.batch},
            acknowledgement=acknowledgement,
        )

    def document(self) -> Object:
        found = pod_document(self.name, created=self.born)
        found["metadata"] |= {"uid": self.uid, "annotations": {}}
        if self.annotation:
            found["metadata"]["annotations"] = {"bottleneck.dev/knobs": self.annotation}
        size = _document(self.size)
        found["spec"] = {"containers": [{"name": "main", "image": "i", "resources": size}]}
        found["status"]["containerStatuses"][0]["resources"] = size
        found["status"]["startTime"] = at(self.born)
        return found


Latency = Callable[[Replica, float], float]


class Fleet:
    """A Deployment of servers with an action that is planned. ``latency`` says how fast a replica
    answers at a second after ``NOW``. The operator dies at its nth write to a report or a pod, and
    is started again without its memory."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        latency: Latency,
        replicas: int = 4,
        action: Action | None = None,
        rate: Callable[[float], int] = lambda second: 20,
        dies_at: int = 0,
        dies_before: bool = False,
        **spec: Any,
    ) -> None:
        self.latency, self.rate = latency, rate
        self.dies_at, self.dies_before, self.writes = dies_at, dies_before, 0
        self.second = float(BEFORE)
        self.replicas = [Replica(f"ranker-{n}", n) for n in range(replicas)]
        self.made = replicas
        self.at_work: list[tuple[float, list[str]]] = []
        """At each second the names of the replicas that were changed."""
        self.later: list[set[str]] = []
        """What a later pod would have got: knobs and sizes in the status of the policy."""
        wanted = {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "ranker"},
            **SERVING,
            "actions": {"batchSize": {"max": 64}},
            "limits": {"cooldown": "1h"},
        }
        self.world = World(deployment(replicas, replicas), policy(spec={**wanted, **spec}))
        clock = types.SimpleNamespace(time=lambda: NOW + self.second)
        monkeypatch.setattr(actions, "time", clock)
        self._wire(monkeypatch)
        while self.second < 0:
            self._serve()
        planned = report(action or batches())
        metric = planned.spec.metric.model_copy(
            update={"name": "latency p95", "unit": "s", "lower_is_better": True}
        )
        changes = {
            "metric": metric,
            "before": [0.4] * 10,
            "decided_at": moment(-1),
            "load": float(replicas * rate(-1)),
        }
        spec_ = planned.spec.model_copy(update=changes)
        self.world.report(planned.model_copy(update={"spec": spec_}))

    # -- the cluster -------------------------------------------------------------------------------

    def _wire(self, monkeypatch: pytest.MonkeyPatch) -> None:
        patch = FakeApi.patch

        async def mortal(api: FakeApi, path: str, body: Any, content_type: str = "") -> Object:
            if "bottleneckpolicies" in path:
                return await patch(api, path, body, content_type)
            self.writes += 1
            if self.writes == self.dies_at and self.dies_before:
                raise Death
            answer: Object = {}
            if "/pods/" in path:
                self._change(path, body)
            else:
                answer = await patch(api, path, body, content_type)
            if self.writes == self.dies_at:
                raise Death
            return answer

        monkeypatch.setattr(FakeApi, "patch", mortal)

    def _change(self, path: str, body: Object) -> None:
        name = path.split("/pods/")[1].split("/")[0]
        found = next((each for each in self.replicas if each.name == name), None)
        if found is None:
            raise KubeError(404, "not found")
        if found.uid != body["metadata"]["uid"]:
            raise KubeError(409, "another pod of that name")
        if path.endswith("/resize"):
            (container,) = body["spec"]["containers"]
            size = container["resources"]
            found.size = ContainerResources(
                cpu_request=size["requests"]["cpu"],
                cpu_limit=size["limits"]["cpu"],
                memory_limit=size["limits"]["memory"],
            )
            found.written.append(str(found.size.cpu_limit))
        else:
            found.annotation = body["metadata"]["annotations"]["bottleneck.dev/knobs"]
            found.written.append(found.annotation)
        self.world.services.pods.update(found.document())

    def lose(self, name: str, reborn: str = "") -> None:
        """A pod goes, and another one comes in its place, as its template says."""
        gone = next(each for each in self.replicas if each.name == name)
        self.replicas.remove(gone)
        self.world.services.pods.update(gone.document(), deleted=True)
        self.world.streams.histories.pop(name, None)
        new = Replica(reborn or f"ranker-{self.made}", self.made, born=self.second)
        self.made += 1
        self.replicas.append(new)

    # -- time --------------------------------------------------------------------------------------

    def _serve(self) -> None:
        self.second += 1
        for each in self.replicas:
            each.serve(self.rate(self.second), self.latency(each, self.second))
            kept = self.world.streams.histories.setdefault(each.name, History())
            line = sample(
                NOW + self.second,
                int(self.second - BEFORE),
                each.told(),
                pod=each.name,
                uid=each.uid,
            )
            kept.add(NOW + self.second, line)
            self.world.services.pods.update(each.document())

    def live(
        self, seconds: int = 110, events: dict[int, Callable[[Fleet], None]] | None = None
    ) -> BottleneckReport:
        """So many seconds, fewer where the report is closed before; ``events`` happen at a second.
        Turns are in the first few seconds and in every third: in between only figures come."""
        closed = 0
        for _ in range(seconds):
            if (event := (events or {}).get(int(self.second))) is not None:
                event(self)
            self._serve()
            if self.second > 4 and self.second % 3:
                continue
            try:
                self.world.turn(self.second)
            except Death:
                self.restart()
            self.at_work.append((self.second, self.changed))
            status = self.world.api.status
            knobs = (status.get("knobs") or {}).get("desired", {})
            sizes = {size["container"] for size in status.get("sizes", [])}
            self.later.append({f"{name}={value}" for name, value in knobs.items()} | sizes)
            closed += self.found.status.closed_at is not None
            if closed > 1:
                break
        return self.found

    def restart(self) -> None:
        """A new process: what the API server has is all that it knows."""
        for stored in self.world.api.reports.values():
            self.world.services.reports.update(stored)
        self.world.loop = PolicyLoop(self.world.services, "ml/p")
        self.world.streams.histories.clear()

    @property
    def found(self) -> BottleneckReport:
        return BottleneckReport.model_validate(self.world.api.reports["p-1"])

    @property
    def changed(self) -> list[str]:
        """Names of the replicas that are not as they were found."""
        return [each.name for each in self.replicas if each.batch != 1 or each.size != SMALL]

    @property
    def most(self) -> int:
        """Most replicas that were changed at a time."""
        return max(len(names) for _, names in self.at_work)


def batches(generation: int = 1) -> Action:
    """Larger batches in a server."""
    return Action(
        type="BatchSize",
        summary=f"{SIZE} 1 → 8",
        cause="queueing",
        knobs=KnobsChange(generation=generation, desired={SIZE: 8}, replaces={SIZE: 1}),
    )


def noisy(second: float, number: int) -> float:
    """The same little noise in every run, another one for each replica."""
    return 1 + 0.04 * (((int(second) * 7919 + number * 104729) % 101) / 100 - 0.5)


def changed_by(factor: float, base: float = 0.4) -> Latency:
    """Replicas that answer so many times slower once they were changed."""

    def latency(replica: Replica, second: float) -> float:
        acted = replica.batch != 1 or replica.size == LARGE
        return base * (factor if acted else 1.0) * noisy(second, replica.number)

    return latency


def _document(size: ContainerResources) -> Object:
    sizes: Iterable[tuple[str, str, str | None]] = (
        ("requests", "cpu", size.cpu_request),
        ("limits", "cpu", size.cpu_limit),
        ("limits", "memory", size.memory_limit),
    )
    found: Object = {"requests": {}, "limits": {}}
    for kind, name, amount in sizes:
        if amount is not None:
            found[kind][name] = amount
    return found
