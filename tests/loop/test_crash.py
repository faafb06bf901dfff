"""No action is lost or done twice, wherever the operator dies."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from dataclasses import dataclass
from typing import Any

import pytest
from bottleneck_operator.api.policy import BottleneckPolicy
from bottleneck_operator.controller.loop import PolicyLoop
from bottleneck_operator.controller.services import Services
from bottleneck_operator.kube import Kube, Object
from bottleneck_operator.report.events import Recorder

from .conftest import LOCALCLUSTER, Operator, World, until

pytestmark = pytest.mark.cluster


class Death(BaseException):
    """The process dies here: nothing after it runs, nothing in memory survives."""


@dataclass
class Mortal:
    """The door to the API server of a process that dies at its nth write, before or after the
    server has carried it out."""

    kube: Kube
    dies_at: int
    before: bool
    writes: int = 0

    async def request(self, method: str, *arguments: Any, **options: Any) -> Object:
        if method == "GET":
            return await self.kube.request(method, *arguments, **options)
        if "/events" not in arguments[0]:
            self.writes += 1
            if self.writes == self.dies_at and self.before:
                raise Death
        answer = await self.kube.request(method, *arguments, **options)
        if self.writes == self.dies_at and "/events" not in arguments[0]:
            raise Death
        return answer

    get = Kube.get
    create = Kube.create
    patch = Kube.patch
    delete = Kube.delete

    async def resource(self, api_version: str, kind: str) -> Any:
        return await self.kube.resource(api_version, kind)


async def _live(world: World, kube: Any, until_phase: tuple[str, ...], seconds: float) -> None:
    """One life of an operator process for one policy: its loop, fed by polling instead of kopf's
    watches, until a report reaches one of the phases."""
    services = Services(kube=kube, recorder=Recorder(kube, "test"))
    loop = PolicyLoop(services, key=f"{world.namespace}/trainer")
    deadline = time.monotonic() + seconds
    plain = kube.kube if isinstance(kube, Mortal) else kube
    root = f"/apis/bottleneck.dev/v1alpha1/namespaces/{world.namespace}"
    try:
        while time.monotonic() < deadline:
            pods = await plain.get(f"/api/v1/namespaces/{world.namespace}/pods")
            for pod in pods["items"]:
                services.pods.update(pod)
            policy = await plain.get(f"{root}/bottleneckpolicies/trainer")
            await loop.turn(BottleneckPolicy.model_validate(policy), time.time())
            listed = await plain.get(f"{root}/bottleneckreports")
            phases = [r.get("status", {}).get("phase") for r in listed["items"]]
            if any(phase in until_phase for phase in phases):
                return
            await asyncio.sleep(0.1)
        pytest.fail(f"no report became one of {until_phase}")
    finally:
        await services.streams.close()


@pytest.mark.parametrize(
    ("behaviour", "before"),
    [("starved", True), ("harmful", False)],
    ids=["kept, dying before a write", "reverted, dying after a write"],
)
def test_death_at_any_write_neither_loses_nor_repeats_the_action(
    world: World, behaviour: str, before: bool
) -> None:
    """Each life dies one write later than the one before it did anything new; the last one, which
    cannot die, finishes. Every write of the whole action is thus a place of death."""
    world.job("trainer", behaviour)
    world.policy("trainer", limits={"cooldown": "300s"})
    until("a running pod", lambda: world.pods())

    async def lives() -> int:
        deaths = 0
        async with await Kube.connect(str(world.cluster.kubeconfig)) as kube:
            for _ in range(14):
                # A life's first write is the status of the policy; death at the second or third
                # lets each life do at most one or two new things.
                mortal = Mortal(kube, dies_at=2 + deaths % 2, before=before)
                try:
                    await _live(world, mortal, ("Kept", "Reverted"), 60)
                except Death:
                    deaths += 1
                else:
                    return deaths
            await _live(world, kube, ("Kept", "Reverted"), 60)
        return deaths

    deaths = asyncio.run(lives())
    assert deaths >= 4
    (report,) = world.reports()
    (pod,) = world.pods()
    applied = [e for e in report["status"]["timeline"] if e["what"] == "ActionApplied"]
    assert len(applied) == 1
    if behaviour == "starved":
        assert report["status"]["phase"] == "Kept"
        assert world.knobs(pod)["generation"] == 1
    else:
        assert report["status"]["phase"] == "Reverted"
        assert world.knobs(pod) == {"generation": 2, "dataLoader": {"prefetch": 2, "workers": 0}}


def test_an_operator_killed_in_the_middle_of_an_action_is_followed_by_one_that_finishes_it(
    world: World, operator: Operator
) -> None:
    world.job("trainer")
    world.policy("trainer")
    until("an intent is recorded", lambda: world.reports())
    operator.kill(signal.SIGKILL)
    operator.start()
    until("the action is kept", lambda: world.reports("Kept"), 120)
    assert len(world.reports()) == 1
    (pod,) = world.pods()
    assert world.knobs(pod)["generation"] == 1


def test_the_operator_carries_on_after_a_restart_of_the_api_server(
    world: World, operator: Operator
) -> None:
    world.job("trainer")
    world.policy("trainer")
    until("an action is applied", lambda: world.reports("Applied", "Verifying"))
    command = [*LOCALCLUSTER, "restart", "--name", world.cluster.name, "kube-apiserver"]
    world.cluster.run(*command)
    until("the action is kept", lambda: world.reports("Kept"), 120)
    # New objects reach it as well: its watches are back.
    world.policy("other", target="nobody")
    until(
        "a new policy is seen",
        lambda: world.condition("other", "Ready") == ("False", "TargetNotFound"),
        120,
    )
    assert operator.process is not None
    assert operator.process.poll() is None
    assert json.loads(world.kubectl("get", "bnr", "-o", "json"))["items"]
