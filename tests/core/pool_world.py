"""A namespace with workloads that share devices, a scheduler that has no more of them than there
are, and the loops of their policies; only the clock is the test's."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from bottleneck_operator.api.policy import BottleneckPolicy
from bottleneck_operator.controller import loop as loop_module
from bottleneck_operator.controller.loop import PolicyLoop
from bottleneck_operator.controller.services import Services
from bottleneck_operator.kube import KubeError, Resource
from bottleneck_operator.observe.history import History
from bottleneck_operator.report.events import Recorder

from .builders import NOW, policy, sample, server
from .loop_world import FakeStreams
from .objects import Object, at, deployment
from .objects import pod as pod_document

GPU = "example.com/device"
START_SECONDS = 2
"""How long a container takes to be ready once its pod has a node."""


@dataclass
class Workload:
    """A Deployment whose pods take ``devices`` each; ``latency`` is what its requests take with so
    many ready replicas, and so many requests a second come to all of them together."""

    name: str
    replicas: int
    latency: Callable[[int], float]
    rate: float = 12.0
    devices: int = 1
    pods: dict[str, int] = field(default_factory=dict)
    """By name, the second in which the pod got its node; -1 while no node takes it."""
    made: int = 0

    def ready(self, second: int) -> int:
        return sum(0 <= since <= second - START_SECONDS for since in self.pods.values())


class PoolWorld:
    """Turned second by second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, devices: int, *workloads: Workload) -> None:
        self.devices, self.second = devices, 0
        self.workloads = {each.name: each for each in workloads}
        self.policies: dict[str, BottleneckPolicy] = {}
        self.statuses: dict[str, Object] = {}
        self.reports: dict[str, Object] = {}
        self.budgets: list[Object] | KubeError = []
        self.asked: list[str] = []
        self.scaled: list[tuple[str, int]] = []
        self.writes: list[str] = []
        """Reports that were created and workloads that were scaled, in order."""
        self.events: list[tuple[str, str]] = []
        self.silent: set[str] = set()
        self._told: dict[str, list[float]] = {}
        monkeypatch.setattr(loop_module.time, "time", lambda: NOW + self.second)
        self.restart()

    # -- the operator ------------------------------------------------------------------------

    def restart(self) -> None:
        """A new process, which knows nothing but what is in the API."""
        streams: Any = FakeStreams()
        streams.histories = getattr(self, "streams", streams).histories
        self.streams = streams
        door: Any = self
        self.services = Services(door, Recorder(door, "test"), streams=streams)
        self.loops: dict[str, PolicyLoop] = {}
        for name in self.policies:
            self.loops[name] = PolicyLoop(self.services, f"ml/{name}")

    def policy(self, name: str, **spec: Any) -> None:
        document: Object = {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "mode": "Auto",
            "objectives": {"latency": {"target": "250ms"}},
            "actions": {"replicas": {"min": 1, "max": 8}},
            "capacity": {"pool": "gpus"},
            **spec,
        }
        self.policies[name] = policy(name=name, uid=f"uid-{name}", spec=document)
        self.loops[name] = PolicyLoop(self.services, f"ml/{name}")

    def delete(self, name: str) -> None:
        """The policy goes, and its reports with it."""
        asyncio.run(self.loops.pop(name).release(self._seen(name)))
        del self.policies[name]
        for report in [r for r in self.reports.values() if r["spec"]["policy"] == name]:
            del self.reports[report["metadata"]["name"]]
            self.services.reports.update(report, deleted=True)

    def _seen(self, name: str) -> BottleneckPolicy:
        return self.policies[name]

    def run(self, seconds: int, until: Callable[[], object] | None = None) -> bool:
        """Turns until something holds; whether it did within so many seconds."""
        for _ in range(seconds):
            self.tick()
            if until is not None and until():
                return True
        return until is None

    def tick(self) -> None:
        self.second += 1
        self._schedule()
        self._speak()

        names = sorted(self.loops)

        async def turn() -> None:
            loops = [self.loops[name].turn(self._seen(name), NOW + self.second) for name in names]
            await asyncio.gather(*loops)

        asyncio.run(turn())

    # -- the cluster -------------------------------------------------------------------------

    def _schedule(self) -> None:
        for workload in self.workloads.values():
            # A ReplicaSet takes those away first that have no node.
            while len(workload.pods) > workload.replicas:
                name = max(workload.pods, key=lambda n: (workload.pods[n] < 0, workload.pods[n], n))
                del workload.pods[name]
                self.services.pods.update(self._pod(workload, name, -1), deleted=True)
            while len(workload.pods) < workload.replicas:
                workload.pods[f"{workload.name}-{workload.made}"] = -1
                workload.made += 1
        used = sum(
            each.devices
            for each in self.workloads.values()
            for since in each.pods.values()
            if since >= 0
        )
        for workload in self.workloads.values():
            for name, since in workload.pods.items():
                if since < 0 and used + workload.devices <= self.devices:
                    workload.pods[name] = self.second
                    used += workload.devices
                self.services.pods.update(self._pod(workload, name, workload.pods[name]))

    def _pod(self, workload: Workload, name: str, since: int) -> Object:
        placed = since >= 0
        ready = placed and since <= self.second - START_SECONDS
        document = pod_document(name, created=float(since))
        document["metadata"]["labels"]["app"] = workload.name
        amount = {GPU: str(workload.devices)}
        resources = {"requests": amount, "limits": amount}
        document["spec"] = {"containers": [{"name": "main", "resources": resources}]}
        status = document["status"]
        status["conditions"] = [{"type": "Ready", "status": str(ready)}]
        if not placed:
            status["phase"] = "Pending"
            waited = {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": f"0/1 nodes are available: 1 Insufficient {GPU}.",
                "lastTransitionTime": at(self._waits_since(name)),
            }
            status["conditions"].append(waited)
        return document

    def _waits_since(self, name: str) -> float:
        return float(self._first.setdefault(name, self.second))

    @property
    def _first(self) -> dict[str, int]:
        if not hasattr(self, "_waiting"):
            self._waiting: dict[str, int] = {}
        return self._waiting

    def _speak(self) -> None:
        for workload in self.workloads.values():
            ready = workload.ready(self.second)
            for name, since in workload.pods.items():
                if since < 0 or since > self.second - START_SECONDS or name in self.silent:
                    continue
                told = self._told.setdefault(name, [])
                told += [workload.latency(ready)] * max(1, round(workload.rate / ready))
                count = len(told)
                speaks = server(
                    name,
                    told,
                    queue_seconds=sum(each - 0.05 for each in told),
                    service_seconds=0.05 * count,
                    in_flight=5,
                    queued=4,
                    concurrency=1,
                )
                line = sample(NOW + self.second, self.second, speaks, pod=name, uid=f"uid-{name}")
                self.streams.histories.setdefault(name, History()).add(NOW + self.second, line)

    # -- the API server ----------------------------------------------------------------------

    async def resource(self, api_version: str, kind: str) -> Resource:
        return Resource(api_version, kind.lower() + "s", True)

    async def get(self, path: str, **query: str) -> Object:
        parts = path.split("/")
        self.asked.append(parts[-1])
        await asyncio.sleep(0)  # others have their turn meanwhile, as with a real one
        if parts[-1] == "scale":
            found = self.workloads[parts[-2]]
            return {"metadata": {"resourceVersion": "1"}, "spec": {"replicas": found.replicas}}
        if parts[-2] == "deployments":
            return self._deployment(parts[-1])
        if parts[-1] == "bottleneckreports":
            return {"items": copy.deepcopy(list(self.reports.values()))}
        if parts[-1] == "poddisruptionbudgets":
            if isinstance(self.budgets, KubeError):
                raise self.budgets
            return {"items": self.budgets}
        return {"items": []}

    def _deployment(self, name: str) -> Object:
        if name not in self.workloads:
            raise KubeError(404, "not found")
        workload = self.workloads[name]
        found = deployment(workload.replicas, len(workload.pods), name=name, uid=f"uid-of-{name}")
        found["spec"]["selector"] = {"matchLabels": {"app": name}}
        found["status"]["readyReplicas"] = workload.ready(self.second)
        return found

    async def create(self, path: str, body: Object) -> Object:
        if path.endswith("/events"):
            self.events.append((body["reason"], body["message"]))
            return body
        found = copy.deepcopy(body)
        await asyncio.sleep(0)
        found["metadata"] |= {"resourceVersion": "1", "uid": body["metadata"]["name"]}
        self.reports[found["metadata"]["name"]] = found
        self.writes.append(found["metadata"]["name"])
        return copy.deepcopy(found)

    async def patch(self, path: str, body: Any, content_type: str = "") -> Object:
        parts = path.split("/")
        if "bottleneckpolicies" in parts:
            self.statuses[parts[-2]] = body[0]["value"]
            return {}
        if parts[-1] == "scale":
            self.workloads[parts[-2]].replicas = body["spec"]["replicas"]
            self.scaled.append((parts[-2], body["spec"]["replicas"]))
            self.writes.append(parts[-2])
            return {}
        found = self.reports[parts[-2]]
        found["status"] = body["status"]
        found["metadata"]["resourceVersion"] = str(int(found["metadata"]["resourceVersion"]) + 1)
        return copy.deepcopy(found)

    # -- what is asked of it -----------------------------------------------------------------

    def phase(self, name: str) -> str:
        return str(self.reports.get(name, {}).get("status", {}).get("phase", ""))

    def condition(self, name: str, kind: str) -> tuple[str, str, str]:
        for found in self.statuses.get(name, {}).get("conditions", []):
            if found["type"] == kind:
                return found["status"], found["reason"], found["message"]
        return "", "", ""
