"""A trade of devices between two policies, on a real scheduler and a real kubelet. An extended
resource that the node claims to have stands in for GPUs: the scheduler counts it as it counts
them, and nobody looks behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .conftest import Operator, World, until

pytestmark = pytest.mark.cluster

DEVICE = "example.com/device"
DEVICES = 3
RESOURCES = {"requests": {"cpu": "10m", DEVICE: "1"}, "limits": {DEVICE: "1"}}


@pytest.fixture(autouse=True)
def devices(world: World) -> Iterator[None]:
    """Three devices, on the only node."""
    (node,) = json.loads(world.cluster.kubectl("get", "nodes", "-o", "json"))["items"]
    name = node["metadata"]["name"]

    def patch(value: str | None) -> None:
        body = {"status": {kind: {DEVICE: value} for kind in ("capacity", "allocatable")}}
        text = json.dumps(body)
        world.cluster.kubectl("patch", "node", name, "--subresource=status", "-p", text)

    patch(str(DEVICES))
    until("the node has devices", lambda: _devices(world) == str(DEVICES))
    yield
    patch(None)


def _devices(world: World) -> str:
    (node,) = json.loads(world.cluster.kubectl("get", "nodes", "-o", "json"))["items"]
    return str(node["status"]["allocatable"].get(DEVICE, ""))


def serve(world: World, folder: Path, ranker: int, behaviour: str = "roomy") -> None:
    """An indexer that has two devices, and a ranker that could do with a second one."""
    for name, how, replicas in (("indexer", behaviour, 2), ("ranker", "crowded", ranker)):
        shared = folder / name
        shared.mkdir()
        shared.chmod(0o777)  # the pods are another user
        world.deployment(
            name, "replica", how, resources=RESOURCES, replicas=replicas, shared=shared
        )
        # One after the other: the indexer has its devices before the ranker asks for any.
        runs = {"indexer": 2, "ranker": 1}[name]
        until(f"{name} runs", partial(has_ready, world, name, runs))


def has_ready(world: World, name: str, replicas: int) -> bool:
    return ready(world, name) == replicas


def ready(world: World, name: str) -> int:
    return int(world.get("deploy", name).get("status", {}).get("readyReplicas", 0))


def policies(world: World, **spec: Any) -> None:
    limits = {"limits": {"cooldown": "1s"}} | spec
    world.policy("indexer", "Deployment", capacity={"pool": "devices"}, **limits)
    pool = {"pool": "devices", "priority": 100}
    world.policy("ranker", "Deployment", capacity=pool, **limits)


def phases(world: World) -> dict[str, str]:
    return {r["metadata"]["name"]: r["status"].get("phase", "") for r in world.reports()}


def test_a_breached_policy_gets_the_device_of_an_idle_one(
    world: World, operator: Operator, tmp_path: Path
) -> None:
    serve(world, tmp_path, ranker=1)
    policies(world)
    gift = until("the indexer gives", lambda: world.get("bnr", "indexer-1"), 120)
    assert gift["spec"]["trade"]["report"] == "ranker-1"
    assert gift["spec"]["trade"]["resource"] == DEVICE
    until(
        "the giver says so",
        lambda: world.condition("indexer", "Progressing") == ("True", "GivesToPool"),
    )
    message = world.message("indexer", "Progressing")
    assert f"gives 1 of 2 replicas (1 {DEVICE}) to ranker, whose Latency is" in message
    until(
        "the taker says so",
        lambda: world.condition("ranker", "Progressing") == ("True", "TakesFromPool"),
    )
    assert "indexer gives 1 of 2 replicas" in world.message("ranker", "Progressing")
    until("the ranker has its second device", lambda: ready(world, "ranker") == 2)

    # Whoever goes on finds all that it needs in the two reports.
    operator.kill()
    operator.start()
    kept = {"ranker-1": "Kept", "indexer-1": "Kept"}
    until("both are kept", lambda: phases(world) == kept, 180)
    assert world.get("bnr", "ranker-1")["status"]["verdict"]["result"] == "Improved"
    assert (ready(world, "indexer"), ready(world, "ranker")) == (1, 2)
    until("the objective is met", lambda: world.condition("ranker", "Bottlenecked")[0] == "False")


def test_what_the_giver_needs_is_given_back(
    world: World, operator: Operator, tmp_path: Path
) -> None:
    """Its replicas wait already when the policies are made; one of the indexer's cannot bear its
    load alone, which no model could know."""
    serve(world, tmp_path, ranker=2, behaviour="brittle")
    policies(world)
    answer = until("the ranker answers", lambda: world.get("bnr", "ranker-1"), 120)
    assert answer["spec"]["trade"]["role"] == "Takes"
    assert answer["spec"]["trade"]["report"] == "indexer-1"
    until("the ranker has its second device", lambda: ready(world, "ranker") == 2)
    until("the giver has it back", lambda: phases(world).get("indexer-1") == "Reverted", 180)
    assert world.get("bnr", "indexer-1")["status"]["verdict"]["result"] == "Worse"
    until("so has the taker given it", lambda: phases(world).get("ranker-1") == "Reverted")
    assert world.get("deploy", "indexer")["spec"]["replicas"] == 2


def test_a_budget_keeps_devices_where_they_are(
    world: World, operator: Operator, tmp_path: Path
) -> None:
    serve(world, tmp_path, ranker=1)
    budget = {"minAvailable": 2, "selector": {"matchLabels": {"app": "indexer"}}}
    world.apply(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "indexer"},
            "spec": budget,
        }
    )
    policies(world)
    until(
        "it says that nobody gives",
        lambda: world.condition("ranker", "Limited") == ("True", "CapacityExhausted"),
        120,
    )
    message = world.message("ranker", "Limited")
    assert "its PodDisruptionBudget allows 0 of 1 pods to go" in message
    assert f"Insufficient {DEVICE}" in message
    assert "indexer-1" not in phases(world)
