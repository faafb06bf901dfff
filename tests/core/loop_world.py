"""One policy's loop over an API server and telemetry that only the test knows."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any

from bottleneck_operator.api.conditions import Condition
from bottleneck_operator.api.policy import BottleneckPolicy
from bottleneck_operator.api.report import BottleneckReport
from bottleneck_operator.controller.loop import PolicyLoop
from bottleneck_operator.controller.services import Services
from bottleneck_operator.kube import KubeError, Resource
from bottleneck_operator.observe.history import History
from bottleneck_operator.observe.pods import Pod
from bottleneck_operator.report.events import Recorder

from .builders import NOW, policy
from .objects import Object


class FakeStreams:
    """Telemetry as it is put in here, by pod name; any other pod is silent."""

    def __init__(self) -> None:
        self.histories: dict[str, History] = {}

    def follow(self, policy: str, pods: list[Pod], wake: Callable[[], None]) -> dict[str, History]:
        return {pod.name: self.histories.get(pod.name, History()) for pod in pods}

    def unfollow(self, policy: str) -> None:
        pass


class FakeApi:
    """Answers GET from a dictionary of paths, and keeps what is written. An answer that is an
    exception is raised, a callable is called."""

    def __init__(self, target: Object, **lists: Any) -> None:
        self.target, self.lists = target, lists
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.status: Object = {}
        self.events: list[Object] = []
        self.reports: dict[str, Object] = {}
        self.missing = ""
        self.refuses: KubeError | None = None
        """The answer to every write to a pod, the target or an autoscaler."""
        self.writes: list[Any] = []
        """What was written to the target or to an autoscaler."""

    async def resource(self, api_version: str, kind: str) -> Resource:
        return Resource(api_version, kind.lower() + "s", kind != "Job")

    async def get(self, path: str, **query: str) -> Object:
        last = path.rpartition("/")[2]
        self.asked.append((last, query))
        if last == "scale":
            wanted = self.target["spec"]["replicas"]
            return {"metadata": {"resourceVersion": "1"}, "spec": {"replicas": wanted}}
        if last == self.missing:
            raise KubeError(404, "not found")
        if last == self.target["metadata"]["name"]:
            return copy.deepcopy(self.target)
        found = self.lists.get(last, [])
        if isinstance(found, dict):
            return copy.deepcopy(found)
        if isinstance(found, Exception):
            raise found
        return {"items": await found() if callable(found) else found}

    async def create(self, path: str, body: Object) -> Object:
        if path.endswith("/bottleneckreports"):
            body["metadata"] |= {"uid": f"uid-{body['metadata']['name']}", "resourceVersion": "1"}
            self.reports[body["metadata"]["name"]] = body
            return copy.deepcopy(body)
        assert path.endswith("/events")
        self.events.append(body)
        return body

    async def patch(self, path: str, body: Any, content_type: str = "") -> Object:
        if "bottleneckpolicies" in path:
            self.status = body[0]["value"]
            return {}
        owned = path.endswith("/" + self.target["metadata"]["name"])
        if owned or "/pods/" in path or "/horizontalpodautoscalers/" in path:
            if self.refuses is not None:
                raise self.refuses
            if "/pods/" not in path:
                self.writes.append(body)
            if owned and isinstance(body, dict):
                merge(self.target, body)
                return copy.deepcopy(self.target)
            return {}
        if path.endswith("/scale"):
            self.target["spec"]["replicas"] = body["spec"]["replicas"]
            return {}
        name = path.split("/")[-2]
        found = self.reports[name]
        found["status"] = body["status"]
        version = int(found["metadata"]["resourceVersion"]) + 1
        found["metadata"]["resourceVersion"] = str(version)
        return copy.deepcopy(found)

    def names(self) -> list[str]:
        """What was asked for, in order."""
        return [name for name, _ in self.asked]


def merge(document: Object, patch: Object) -> None:
    """A strategic merge patch, as far as workloads need one: lists are of things with names."""
    for key, value in patch.items():
        if value is None:
            document.pop(key, None)
        elif isinstance(value, dict):
            merge(document.setdefault(key, {}), value)
        elif isinstance(value, list):
            for item in value:
                merge(next(old for old in document[key] if old["name"] == item["name"]), item)
        else:
            document[key] = value


class World:
    """One loop, turned by hand."""

    def __init__(self, target: Object, policy: BottleneckPolicy | None = None, **lists: Any):
        self.api = FakeApi(target, **lists)
        ref = {key: target[key] for key in ("apiVersion", "kind")}
        self.policy = policy or looked_after({**ref, "name": target["metadata"]["name"]})
        self.streams = FakeStreams()
        door: Any = self.api
        streams: Any = self.streams
        self.services = Services(door, Recorder(door, "test"), streams=streams)
        self.loop = PolicyLoop(self.services, "ml/p")

    def pods(self, *documents: Object) -> None:
        for document in documents:
            self.services.pods.update(document)

    def report(self, document: BottleneckReport) -> None:
        found: Object = document.dump()
        found["spec"]["target"] = self.policy.spec.target_ref.dump()
        found["metadata"]["resourceVersion"] = "1"
        self.api.reports[document.metadata.name] = found
        self.services.reports.update(copy.deepcopy(found))

    def turn(self, *seconds: float) -> None:
        """A turn at each of these moments after ``NOW``."""

        async def live() -> None:
            for second in seconds:
                await self.loop.turn(self.policy, NOW + second)

        asyncio.run(live())

    def condition(self, kind: Condition) -> tuple[str, str, str]:
        for found in self.api.status["conditions"]:
            if found["type"] == kind:
                return found["status"], found["reason"], found["message"]
        return "", "", ""


def looked_after(ref: Object, mode: str = "Auto") -> BottleneckPolicy:
    objectives: Object = (
        {"dataWait": {"max": "20%"}} if ref["kind"] == "Job" else {"latency": {"target": "250ms"}}
    )
    actions: Object = {"dataLoader": {"maxWorkers": 4}} if ref["kind"] == "Job" else {}
    spec = {"targetRef": ref, "mode": mode, "objectives": objectives, "actions": actions}
    return policy(spec=spec)
