"""One round: a fresh world, an operator, faults, time to settle, and the checker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bottleneck_operator.kube import Kube

from .audit import Log, changes
from .check import Violation, check
from .clock import Clock
from .cluster import NAMESPACE, ControlPlane
from .faults import AWAY, DEPLOYMENTS, POLICIES, Faults, insist
from .kubelet import Kubelet
from .models import REPLICAS
from .models import SETTINGS as BEGINNING
from .operators import Nursery, Operator
from .plan import Plan, Workload, plan_of
from .proxy import Proxy
from .story import OPEN, SETTINGS, SILENT

REPORTS = f"/apis/bottleneck.dev/v1alpha1/namespaces/{NAMESPACE}/bottleneckreports"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"

FACTOR = 10.0
"""How much faster than the world's the clock of the operator runs."""

QUIET_SECONDS = 8.0
"""How long nothing may be open for the world to count as settled."""

Object = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What a round came to."""

    number: int
    plan: Plan
    faults: Counter[str]
    violations: list[Violation]
    reports: Counter[str]
    """How many ended in each phase."""
    seconds: float
    """On the world's clock."""
    waits: dict[str, float]
    """Seconds that its parts took."""


@dataclass
class World:
    """What the rounds of a run share."""

    plane: ControlPlane
    kube: Kube
    nursery: Nursery
    octet: int
    folder: Path

    async def round(
        self, seed: int, number: int, plan: Plan | None = None, without: str = ""
    ) -> Outcome:
        """Plays one round. ``without``: a safeguard that is switched off in the operator."""
        plan = plan or plan_of(seed, number)
        began = time.time()
        clock = Clock(began, FACTOR)
        log = Log(self.plane.audit)
        proxy = Proxy(self.plane.server, self.plane.pki, NAMESPACE)
        operator = Operator(self.nursery, clock, self.folder / f"round-{number}.log", without)
        operator.log.unlink(missing_ok=True)
        operator.skew().set(0.0)
        seeds = f"{seed}/{number}"
        kubelet = Kubelet(self.kube, NAMESPACE, clock, self.octet, seeds, plan.workloads)
        faults = Faults(plan, self.plane, self.kube, clock, proxy, operator, kubelet)
        proxy.strike = faults.strike
        waits: dict[str, float] = {}
        helpers: list[asyncio.Task[None]] = []
        try:
            await proxy.start()
            write_kubeconfig(self.nursery.kubeconfig, proxy.port)
            await self._prepare(plan, kubelet)
            operator.start()
            helpers = [asyncio.create_task(kubelet.run()), asyncio.create_task(faults.supervise())]
            waits["prepared"] = time.time() - began
            await asyncio.gather(faults.run(), asyncio.sleep(clock.real(plan.strikes)))
            await faults.settle()
            waits["struck"] = time.time() - began
            settled = await self._settle(plan, clock)
            waits["settled"] = time.time() - began
            left, ended = await self._take_away(plan, clock)
            waits["gone"] = time.time() - began
            await stop(helpers)
            operator.kill()
            await proxy.stop()
            found = changes(log.fresh(), NAMESPACE)
            violations = check(found, settled, left, ended, FACTOR)
            phases = Counter(r.get("status", {}).get("phase", "Planned") for r in settled)
        finally:
            await stop(helpers)
            operator.kill()
            kubelet.stop()
            await proxy.stop()
            log.close()
            await self._clear()
        if violations:
            record = operator.log.with_suffix(".json")
            record.write_text(json.dumps([change.__dict__ for change in found], indent=1))
        else:
            operator.log.unlink(missing_ok=True)
        seconds = time.time() - began
        return Outcome(number, plan, faults.done, violations, phases, seconds, waits)

    async def _prepare(self, plan: Plan, kubelet: Kubelet) -> None:
        for workload in plan.workloads:
            if workload.behaviour == "mute":
                kubelet.mischief[workload.name].cut = True
            await self.kube.create(DEPLOYMENTS, deployment(workload))
        await kubelet.sync()
        for workload in plan.workloads:
            await self.kube.create(POLICIES, policy(workload))

    async def _settle(self, plan: Plan, clock: Clock) -> list[Object]:
        """Reports once nothing is open for a while, or those that there are at the deadline."""
        found: list[Object] = []
        quiet = None
        deadline = time.time() + clock.real(plan.settles)
        while time.time() < deadline:
            with contextlib.suppress(*AWAY):
                found = (await self.kube.get(REPORTS))["items"]
                alive = await self._policies()
                busy = any(
                    r.get("status", {}).get("phase", "Planned") in OPEN
                    and alive.get(r["spec"]["policy"], False)
                    for r in found
                )
                going = not all(alive.values())
                waits = busy or going or len(found) < plan.reports
                quiet = None if waits else quiet or time.time()
                if quiet and time.time() - quiet > clock.real(QUIET_SECONDS):
                    break
            await asyncio.sleep(0.1)
        return found

    async def _policies(self) -> dict[str, bool]:
        """Those that are there, and whether they stay."""
        items = (await self.kube.get(POLICIES))["items"]
        return {i["metadata"]["name"]: "deletionTimestamp" not in i["metadata"] for i in items}

    async def _take_away(self, plan: Plan, clock: Clock) -> tuple[list[Object], int]:
        """Deletes the policies while the operator lives; gives those that do not go, and the
        resource version at which it began."""
        ended = int((await self.kube.get(POLICIES))["metadata"]["resourceVersion"])
        for name in await self._policies():
            await insist(lambda name=name: self.kube.request("DELETE", f"{POLICIES}/{name}"))
        deadline = time.time() + clock.real(plan.goes)
        while time.time() < deadline and await _insisted(self._policies):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        return (await self.kube.get(POLICIES))["items"], ended

    async def _clear(self) -> None:
        """Nothing of this round is there for the next."""
        free = {"metadata": {"finalizers": []}}
        for name in await _insisted(self._policies):
            await insist(lambda name=name: self.kube.patch(f"{POLICIES}/{name}", free))
            await insist(lambda name=name: self.kube.request("DELETE", f"{POLICIES}/{name}"))
        for path in (REPORTS, DEPLOYMENTS, PODS):
            await insist(lambda path=path: self.kube.request("DELETE", path))


async def stop(tasks: list[asyncio.Task[None]]) -> None:
    """Cancels them and waits for their end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _insisted(request: Callable[[], Awaitable[Any]]) -> Any:
    found: list[Any] = []

    async def asked() -> None:
        found.append(await request())

    await insist(asked)
    return found[-1] if found else {}


def write_kubeconfig(path: Path, port: int) -> None:
    """The one that leads through the proxy."""
    cluster = {"name": "chaos", "cluster": {"server": f"http://127.0.0.1:{port}"}}
    context = {"name": "chaos", "context": {"cluster": "chaos", "user": "chaos"}}
    user = {"name": "chaos", "user": {"token": "none"}}
    document = {"apiVersion": "v1", "kind": "Config", "current-context": "chaos"}
    lists = {"clusters": [cluster], "contexts": [context], "users": [user]}
    path.write_text(json.dumps(document | lists))


def deployment(workload: Workload) -> Object:
    """A Deployment that nobody but the runner's kubelet looks after."""
    labels = {"app": workload.name}
    container = {"name": "main", "image": "none"}
    marks = {SILENT: "true"} if workload.behaviour == "mute" else {}
    if workload.role == "trainer":
        marks[SETTINGS] = json.dumps(BEGINNING)
    replicas = REPLICAS.get(workload.behaviour, 1) if workload.role == "server" else 1
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
    }
    metadata = {"name": workload.name, "annotations": marks}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def policy(workload: Workload) -> Object:
    """A policy of the same name, in mode Auto."""
    if workload.role == "server":
        objectives: Object = {"latency": {"target": "250ms"}}
        actions: Object = {"replicas": {"min": 1, "max": 3, "stabilization": "20s"}}
    else:
        objectives = {"dataWait": {"max": "20%"}}
        actions = {"dataLoader": {"maxWorkers": 2}}
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload.name}
    limits = {"cooldown": "10s", "actionsPerHour": 2}
    spec = {"mode": "Auto", "targetRef": ref, "objectives": objectives, "actions": actions}
    return {
        "apiVersion": "bottleneck.dev/v1alpha1",
        "kind": "BottleneckPolicy",
        "metadata": {"name": workload.name},
        "spec": spec | {"limits": limits},
    }
