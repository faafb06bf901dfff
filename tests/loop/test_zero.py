"""Scale to zero and back on a real node: the example server, its gate, and one client who comes
while nothing runs."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest
import yaml
from bottleneck_operator.inject.pod import inject

from .conftest import ROOT, SETTINGS, Operator, World, until

pytestmark = pytest.mark.cluster

EXAMPLES = ROOT / "examples" / "inference"


def apply(world: World, name: str, injected: bool) -> None:
    """An example's manifests, with the sidecar that the webhook would add."""
    for document in yaml.safe_load_all((EXAMPLES / name).read_text()):
        if injected and document["kind"] == "Deployment":
            document["spec"]["template"] = inject(document["spec"]["template"], SETTINGS)
        world.apply(document)


def servers(world: World) -> list[Any]:
    """Pods of the server, those that end included."""
    return [
        pod
        for pod in world.list("pods")
        if pod["metadata"]["labels"]["app.kubernetes.io/name"] == "characters"
    ]


def replicas(world: World) -> int:
    return int(world.get("deploy", "characters")["spec"]["replicas"])


def ask(world: World) -> str:
    """The text that a client gets who asks the gate."""
    address = world.get("service", "characters-gate")["spec"]["clusterIP"]
    url = f"http://{address}:8000/generate?context=8&tokens=4"
    with urllib.request.urlopen(url, timeout=120) as answer:
        assert answer.status == 200
        return str(json.loads(answer.read())["text"])


def test_an_idle_server_sleeps_and_the_first_request_wakes_it(
    world: World, operator: Operator
) -> None:
    apply(world, "deployment.yaml", True)
    apply(world, "gate.yaml", False)
    assert ask(world), "the gate holds the first request until the first replica is there"
    world.policy(
        "characters",
        "Deployment",
        actions={"replicas": {"min": 0, "max": 2, "idle": "10s"}},
        limits={"cooldown": "1s"},
    )
    until("it is scaled to zero", lambda: replicas(world) == 0, 120)
    until("nothing runs", lambda: not servers(world), 60)
    until(
        "that is said to be no trouble",
        lambda: world.condition("characters", "TelemetryAvailable") == ("False", "ScaledToZero"),
    )
    assert world.condition("characters", "Limited") == ("False", "NotLimited")
    (sleep,) = world.reports("Kept")
    assert sleep["spec"]["action"]["aim"] == "Save"

    assert ask(world)
    assert replicas(world) == 1
    until("the waking is kept", lambda: len(world.reports("Kept")) == 2)
    waking = world.reports("Kept")[1]
    assert waking["spec"]["action"]["aim"] == "Wake"
    assert "wait at the gate" in waking["spec"]["symptom"]["text"]


def test_without_a_gate_it_is_said_what_to_write(world: World, operator: Operator) -> None:
    world.deployment("server", "server", "quick")
    world.policy("server", "Deployment", actions={"replicas": {"min": 0, "max": 2, "idle": "10s"}})
    until("it is said", lambda: world.condition("server", "Limited") == ("True", "NoGate"), 120)
    assert "bottleneck.dev/gate-for: server" in world.message("server", "Limited")
    assert world.get("deploy", "server")["spec"]["replicas"] == 1
