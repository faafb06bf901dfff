"""Brings about the faults of a plan, and takes them away again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
from bottleneck_operator.kube import Kube, KubeError

from .clock import Clock
from .cluster import NAMESPACE, ControlPlane
from .kubelet import Kubelet
from .operators import Operator
from .plan import AT_A_WRITE, DEAFENING, Fault, Plan
from .proxy import Proxy
from .story import SILENT

DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
POLICIES = f"/apis/bottleneck.dev/v1alpha1/namespaces/{NAMESPACE}/bottleneckpolicies"

AWAY = (KubeError, aiohttp.ClientError, OSError, TimeoutError)
"""What a request to an API server may end with that is being restarted."""


async def insist(request: Callable[[], Awaitable[object]]) -> None:
    """Until the API server has taken it. Gives up after a minute."""
    for _ in range(300):
        try:
            await request()
        except KubeError as error:
            if error.not_found:
                return
        except AWAY:
            pass
        else:
            return
        await asyncio.sleep(0.2)
    raise TimeoutError("the API server takes nothing for a minute")


@dataclass
class Faults:
    """Of one round. ``done`` counts those that came about, by kind."""

    plan: Plan
    plane: ControlPlane
    kube: Kube
    clock: Clock
    proxy: Proxy
    operator: Operator
    kubelet: Kubelet
    done: Counter[str] = field(default_factory=Counter)
    silenced: Counter[str] = field(default_factory=Counter)
    calm: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def run(self) -> None:
        """All that have a time, to their end."""
        timed = [fault for fault in self.plan.faults if fault.kind not in AT_A_WRITE]
        async with asyncio.TaskGroup() as group:
            for fault in timed:
                group.create_task(self._at(fault))

    async def settle(self) -> None:
        """Nothing more strikes."""
        self.calm = True
        await asyncio.gather(*self._tasks)

    async def supervise(self) -> None:
        """Starts the operator again where it ended by itself, as the kubelet would. Until it is
        cancelled."""
        while True:
            await asyncio.sleep(0.3)
            if self.operator.pid:
                self.operator.ensure()

    async def strike(self, number: int) -> tuple[str, Callable[[], Awaitable[None]]] | None:
        """Asked by the proxy at the nth write of an action."""
        for fault in self.plan.faults:
            if fault.kind in AT_A_WRITE and fault.at == number and not self.calm:
                self.done[fault.kind] += 1

                async def act(fault: Fault = fault) -> None:
                    self._slay(fault)

                return fault.kind, act
        return None

    def _slay(self, fault: Fault) -> None:
        self.operator.kill()
        self._tasks.append(asyncio.create_task(self._revive(fault.seconds / 5)))

    async def _revive(self, seconds: float) -> None:
        await self._wait(seconds)
        self.operator.ensure()

    async def _wait(self, seconds: float) -> None:
        await asyncio.sleep(self.clock.real(seconds))

    async def _at(self, fault: Fault) -> None:
        await self._wait(fault.at)
        self.done[fault.kind] += 1
        if fault.kind.startswith("telemetry-"):
            await self._hostile(fault)
        else:
            # The name of a kind is the name of its method: "cut-apiserver" is _cut_apiserver.
            await getattr(self, "_" + fault.kind.replace("-", "_"))(fault)

    async def _kill(self, fault: Fault) -> None:
        self._slay(fault)

    async def _freeze(self, fault: Fault) -> None:
        pid = self.operator.pid
        self.operator.signal(signal.SIGSTOP)
        await self._wait(fault.seconds)
        if pid == self.operator.pid:
            self.operator.signal(signal.SIGCONT)

    async def _restart_apiserver(self, fault: Fault) -> None:
        await self.plane.restart_apiserver()

    async def _cut_apiserver(self, fault: Fault) -> None:
        self.proxy.cut = True
        self.proxy.drop_watches()
        await self._wait(fault.seconds)
        self.proxy.cut = False

    async def _delay_apiserver(self, fault: Fault) -> None:
        self.proxy.delay = self.clock.real(fault.seconds / 5)
        await self._wait(fault.seconds)
        self.proxy.delay = 0.0

    async def _disk_full(self, fault: Fault) -> None:
        pid = self.operator.pid
        self.operator.fill_disk(True)
        await self._wait(fault.seconds)
        if pid == self.operator.pid:
            self.operator.fill_disk(False)

    async def _skew_clock(self, fault: Fault) -> None:
        skew = self.operator.skew()
        skew.set(skew.get() + fault.amount)

    async def _drop_watches(self, fault: Fault) -> None:
        self.proxy.drop_watches()

    async def _expire_watches(self, fault: Fault) -> None:
        await self.proxy.expire_watches()

    async def _delete_target(self, fault: Fault) -> None:
        await insist(lambda: self.kube.request("DELETE", f"{DEPLOYMENTS}/{fault.workload}"))

    async def _delete_policy(self, fault: Fault) -> None:
        await insist(lambda: self.kube.request("DELETE", f"{POLICIES}/{fault.workload}"))

    async def _cut_sidecars(self, fault: Fault) -> None:
        async with self._deaf(fault) as mischief:
            mischief.cut = True
            for sidecar in self.kubelet.sidecars.values():
                if sidecar.mischief is mischief:
                    sidecar.cut()
            await self._wait(fault.seconds * 3)
            mischief.cut = _is_mute(self.plan, fault.workload)

    async def _delay_sidecars(self, fault: Fault) -> None:
        mischief = self.kubelet.mischief[fault.workload]
        mischief.delay = fault.seconds / 3
        await self._wait(fault.seconds)
        mischief.delay = 0.0

    async def _hostile(self, fault: Fault) -> None:
        async with self._deaf(fault) as mischief:
            others = [s for s in self.kubelet.sidecars.values() if s.mischief is not mischief]
            mischief.other = (others[0].pod, others[0].uid) if others else ("nobody", "nobody")
            mischief.hostile = fault.kind.removeprefix("telemetry-")
            await self._wait(fault.seconds * 3)
            mischief.hostile = ""

    @contextlib.asynccontextmanager
    async def _deaf(self, fault: Fault):  # type: ignore[no-untyped-def]
        """Writes into the API, and so into the audit log, from when till when nothing that could be
        used is heard of a workload."""
        deaf = fault.kind in DEAFENING and not _is_mute(self.plan, fault.workload)
        if deaf:
            self.silenced[fault.workload] += 1
            await self._mark(fault.workload)
        yield self.kubelet.mischief[fault.workload]
        if deaf:
            self.silenced[fault.workload] -= 1
            await self._mark(fault.workload)

    async def _mark(self, workload: str) -> None:
        value = "true" if self.silenced[workload] else "false"
        body = {"metadata": {"annotations": {SILENT: value}}}
        await insist(lambda: self.kube.patch(f"{DEPLOYMENTS}/{workload}", body))


def _is_mute(plan: Plan, workload: str) -> bool:
    return any(w.name == workload and w.behaviour == "mute" for w in plan.workloads)
