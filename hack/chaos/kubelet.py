"""Takes the place of controllers, scheduler and kubelet: pods come, run and go as Deployments say.

It looks at the API ten times a second instead of watching, so that it outlives whatever is done to
the API server without a thought.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from bottleneck_operator.kube import Kube, KubeError

from .clock import Clock
from .models import Server, Trainer
from .plan import Workload
from .sidecars import Mischief, Sidecar

KNOBS = "bottleneck.dev/knobs"
LABELS = {"bottleneck.dev/injected": "true"}
Object = dict[str, Any]


@dataclass
class Kubelet:
    """Of one round. ``octet`` is the second one of its pods' addresses, 127.octet.x.y."""

    kube: Kube
    namespace: str
    clock: Clock
    octet: int
    seed: str
    workloads: tuple[Workload, ...]
    mischief: dict[str, Mischief] = field(init=False)
    sidecars: dict[str, Sidecar] = field(default_factory=dict)
    """By pod name."""
    _number: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.mischief = {each.name: Mischief() for each in self.workloads}

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            # While the API server is away, nothing changes.
            with contextlib.suppress(KubeError, aiohttp.ClientError, OSError, TimeoutError):
                await self.sync()
            await asyncio.sleep(0.1)

    async def sync(self) -> None:
        """Brings pods in line with Deployments, once."""
        pods = (await self.kube.get(f"/api/v1/namespaces/{self.namespace}/pods"))["items"]
        path = f"/apis/apps/v1/namespaces/{self.namespace}/deployments"
        wanted = {item["metadata"]["name"]: item for item in (await self.kube.get(path))["items"]}
        for workload in self.workloads:
            own = [pod for pod in pods if pod["metadata"]["labels"].get("app") == workload.name]
            for pod in own:
                self._annotate(pod)
            target = wanted.get(workload.name)
            await self._scale(workload, target["spec"]["replicas"] if target else 0, own)
            if target is not None:
                await self._tell(target)

    def stop(self) -> None:
        """Ends every sidecar."""
        for sidecar in self.sidecars.values():
            sidecar.stop()
        self.sidecars.clear()

    def _annotate(self, pod: Object) -> None:
        sidecar = self.sidecars.get(pod["metadata"]["name"])
        if sidecar is not None:
            sidecar.annotate(pod["metadata"].get("annotations", {}).get(KNOBS, ""))

    async def _scale(self, workload: Workload, replicas: int, own: list[Object]) -> None:
        self.mischief[workload.name].replicas = max(1, replicas)
        # One without an address was begun when the API server went away.
        half = [pod for pod in own if not pod["status"].get("podIP")]
        own = [pod for pod in own if pod not in half]
        for pod in (*half, *own[replicas:]):
            name = pod["metadata"]["name"]
            await self.kube.request("DELETE", f"/api/v1/namespaces/{self.namespace}/pods/{name}")
            if (sidecar := self.sidecars.pop(name, None)) is not None:
                sidecar.stop()
        for _ in range(replicas - len(own)):
            await self._add(workload)

    async def _add(self, workload: Workload) -> None:
        number = next(self._number)
        name = f"{workload.name}-{number:04}"
        address = f"127.{self.octet}.{number // 250}.{number % 250 + 1}"
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        container = {
            "name": "main",
            "image": "none",
            "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "4"}},
        }
        labels = {**LABELS, "app": workload.name}
        spec = {"containers": [container], "automountServiceAccountToken": False}
        body = {"metadata": {"name": name, "labels": labels}, "spec": spec}
        made = await self.kube.create(path, {"apiVersion": "v1", "kind": "Pod", **body})
        uid = made["metadata"]["uid"]
        rng = random.Random(f"{self.seed}/{name}")  # noqa: S311  a seeded figure is no secret
        kind = Trainer if workload.role == "trainer" else Server
        self.sidecars[name] = sidecar = Sidecar(
            name,
            self.namespace,
            uid,
            address,
            kind(workload.behaviour, rng, f"{name}-1"),
            self.clock,
            self.mischief[workload.name],
        )
        await sidecar.start()
        ready = [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady")]
        state = {"running": {"startedAt": made["metadata"]["creationTimestamp"]}}
        main = {"name": "main", "ready": True, "restartCount": 0, "state": state, "image": "none"}
        main |= {"imageID": "", "resources": container["resources"]}
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        status |= {"conditions": ready, "containerStatuses": [main]}
        await self.kube.patch(f"{path}/{name}/status", {"status": status})

    async def _tell(self, target: Object) -> None:
        count, generation = target["spec"]["replicas"], target["metadata"]["generation"]
        names = ("replicas", "readyReplicas", "updatedReplicas", "availableReplicas")
        status = {**dict.fromkeys(names, count), "observedGeneration": generation}
        if any(target.get("status", {}).get(key) != value for key, value in status.items()):
            name = target["metadata"]["name"]
            path = f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{name}/status"
            await self.kube.patch(path, {"status": status})
