"""An API server with resource versions, controllers that follow at once, and operator processes
that die at a write, before or after it was carried out, or send it long after."""

from __future__ import annotations

import asyncio
import copy
import json
import types
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from bottleneck_operator.api.policy import BottleneckPolicy
from bottleneck_operator.api.report import BottleneckReport, Phase, Verdict
from bottleneck_operator.controller import actions as actions_module
from bottleneck_operator.controller.actions import Actions
from bottleneck_operator.controller.gather import Gatherer
from bottleneck_operator.controller.judging import Judging
from bottleneck_operator.controller.services import Services
from bottleneck_operator.kube import JSON_PATCH, STRATEGIC_MERGE_PATCH, KubeError, Resource
from bottleneck_operator.report import reports
from bottleneck_operator.report.events import Recorder

from .builders import NOW, observation, talking
from .loop_world import FakeStreams, merge
from .objects import Object, pod
from .scaled import batch_job

KNOBS = "bottleneck.dev/knobs"
PODS = "/api/v1/namespaces/ml/pods"
REPORTS = "/apis/bottleneck.dev/v1alpha1/namespaces/ml/bottleneckreports"
TURNS = 12
"""More than any action here needs."""


class Death(BaseException):
    """The process ends here."""


@dataclass
class Store:
    """The API server. ``effects`` is every change of anything but a report, in order."""

    objects: dict[str, Object]
    version: int = 100
    effects: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for found in self.objects.values():
            found["metadata"]["resourceVersion"] = str(self.version)

    def read(self, path: str) -> Object:
        if path in self.objects:
            return copy.deepcopy(self.objects[path])
        if path.endswith("/scale"):
            owner = self.objects[path.removesuffix("/scale")]
            version = owner["metadata"]["resourceVersion"]
            replicas = owner["spec"]["replicas"]
            return {"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}}
        under = [found for at, found in self.objects.items() if at.rpartition("/")[0] == path]
        if not under and "/" in path.removeprefix("/apis/").partition("/namespaces/ml/")[2]:
            raise KubeError(404, "not found")
        return {"items": copy.deepcopy(under)}

    def write(self, path: str, body: Any, content_type: str) -> Object:
        owner = path
        for subresource in ("/scale", "/resize", "/status"):
            owner = owner.removesuffix(subresource)
        found = self.objects[owner]
        changed = copy.deepcopy(found)
        if content_type == JSON_PATCH:
            for step in body:
                inner: Any = changed
                *way, last = step["path"].strip("/").split("/")
                for name in way:
                    inner = inner[name]
                inner[last] = step["value"]
        elif content_type == STRATEGIC_MERGE_PATCH:
            merge(changed, copy.deepcopy(body))
        else:
            _merge_plainly(changed, copy.deepcopy(body))
        for name in ("uid", "resourceVersion"):
            if changed["metadata"].get(name) != found["metadata"].get(name):
                raise KubeError(409, f"{name} is another one")
        if changed != found:
            if not path.startswith(REPORTS):
                self.effects.append(f"{owner.rpartition('/')[2]}: {_shown(changed)}")
            self._store(owner, changed)
            self._follow()
        return copy.deepcopy(self.objects[owner])

    def _store(self, path: str, changed: Object) -> None:
        self.version += 1
        changed["metadata"]["resourceVersion"] = str(self.version)
        self.objects[path] = changed

    def _follow(self) -> None:
        """What controllers and kubelets do."""
        for path, found in list(self.objects.items()):
            changed = copy.deepcopy(found)
            if path.startswith(PODS):
                (container,) = changed["spec"]["containers"]
                changed["status"]["containerStatuses"][0]["resources"] = container["resources"]
            elif "/deployments/" in path:
                self._roll_out(changed)
            elif "/jobs/" in path:
                changed["status"]["active"] = changed["spec"]["parallelism"]
            if changed != found:
                self._store(path, changed)

    def _roll_out(self, target: Object) -> None:
        spec = target["spec"]
        image = spec["template"]["spec"]["containers"][0]["image"]
        held = spec.get("minReadySeconds", 0) > 3600
        pods = {at: found for at, found in self.objects.items() if at.startswith(PODS)}
        images = {at: found["spec"]["containers"][0]["image"] for at, found in pods.items()}
        stale = [at for at, each in images.items() if each != image]
        if held and stale:
            if len(stale) == len(images):
                self._start("ranker-canary", image)
        else:
            for at in stale:
                del self.objects[at]
                if len(images) <= spec["replicas"]:
                    self._start(f"{at.rpartition('/')[2]}-again", image)
        count = spec["replicas"]
        target["status"] = {
            "replicas": count,
            "readyReplicas": count,
            "updatedReplicas": count,
            "observedGeneration": target["metadata"]["generation"],
        }

    def _start(self, name: str, image: str) -> None:
        made = pod_of(name, image)
        self._store(f"{PODS}/{name}", made)

    def state(self) -> Object:
        """All that matters of what there is: desired state, and how far the reports got."""
        return {path: _shown(found) for path, found in self.objects.items()}


def _merge_plainly(document: Object, patch: Object) -> None:
    """A JSON merge patch: lists are replaced."""
    for key, value in patch.items():
        if value is None:
            document.pop(key, None)
        elif isinstance(value, dict) and isinstance(document.get(key), dict):
            _merge_plainly(document[key], value)
        else:
            document[key] = value


def pod_of(name: str, image: str = "registry.example/ranker:v2") -> Object:
    found = pod(name)
    sizes = {
        "requests": {"cpu": "100m"},
        "limits": {"cpu": "500m", "memory": "1Gi"},
    }
    found["spec"] = {"containers": [{"name": "main", "image": image, "resources": sizes}]}
    found["status"]["containerStatuses"][0]["resources"] = sizes
    return found


def job_of() -> Object:
    made = batch_job()
    made["spec"]["selector"] = {"matchLabels": {"app": "ranker"}}
    return made


def _shown(found: Object) -> str:
    status = found.get("status", {})
    parts: Object = {"spec": found["spec"]}
    parts["knobs"] = found["metadata"].get("annotations", {}).get(KNOBS)
    if "phase" in status and "timeline" in status:
        parts = {"phase": status["phase"], "told": [e["what"] for e in status["timeline"]]}
    return json.dumps(parts, sort_keys=True)


@dataclass
class Door:
    """One process's way to the API server; it ends at its nth write."""

    store: Store
    dies_at: int = 0
    carried_out: bool = False
    writes: int = 0
    held: tuple[str, Any, str] | None = None
    """The write that it died at."""

    async def resource(self, api_version: str, kind: str) -> Resource | None:
        if api_version.startswith(("keda", "autoscaling.k8s")):
            return None
        return Resource(api_version, kind.lower() + "s", kind != "Job")

    async def get(self, path: str, **_: str) -> Object:
        return self.store.read(path)

    async def create(self, path: str, body: Object) -> Object:
        assert path.endswith("/events")
        return body

    async def patch(self, path: str, body: Any, content_type: str = "") -> Object:
        self.writes += 1
        dies = self.writes == self.dies_at
        if dies:
            self.held = (path, copy.deepcopy(body), content_type)
            if not self.carried_out:
                raise Death
        answer = self.store.write(path, body, content_type)
        if dies:
            raise Death
        return answer


@dataclass
class World:
    """A workload, a policy, and a report that was just recorded."""

    store: Store
    policy: BottleneckPolicy
    verdict: Verdict
    now: float = NOW

    def live(self, door: Door) -> bool:
        """A process's life; whether it saw the action's end."""
        anything: Any = door
        streams: Any = FakeStreams()
        services = Services(anything, Recorder(anything, "test"), streams=streams)
        gatherer = Gatherer(services, "ml/p", asyncio.Event())
        actions = Actions(services, gatherer)

        async def turns() -> bool:
            await reports.load(anything, self.policy, services.reports)
            for _ in range(TURNS):
                for path, found in self.store.objects.items():
                    if path.startswith(PODS):
                        services.pods.update(copy.deepcopy(found))
                self.now += 1
                await gatherer.read_target(self.policy, self.now, True)
                running = gatherer.running(self.policy)
                ranks = [
                    talking(_generation(each.knobs), pod=each.name)
                    for each in running
                    if each.knobs
                ]
                seen = observation(ranks=ranks, expected=len(running), streaming=len(running))
                await actions.step_all(self.policy, seen, {}, running, self.now)
                if self.report.status.phase in (Phase.KEPT, Phase.REVERTED, Phase.ABANDONED):
                    return True
            return False

        try:
            return asyncio.run(turns())
        except Death:
            return False

    @property
    def report(self) -> BottleneckReport:
        return BottleneckReport.model_validate(self.store.objects[f"{REPORTS}/p-1"])

    def judged(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The figures are not the point here: the verdict is this one, as soon as one is asked."""
        monkeypatch.setattr(actions_module, "time", types.SimpleNamespace(time=lambda: self.now))
        known = Actions._progress

        def progress(actions: Actions, policy: Any, report: Any, *rest: Any) -> Any:
            return replace(known(actions, policy, report, *rest), verdict=self.verdict)

        monkeypatch.setattr(Actions, "_progress", progress)
        monkeypatch.setattr(Judging, "verdict", lambda *_: self.verdict)


def _generation(text: str) -> int:
    return int(json.loads(text)["generation"])
