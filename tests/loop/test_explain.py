"""What people ask a cluster: explain and record, through the real API server's pod proxy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Operator, World, until

pytestmark = pytest.mark.cluster


def test_a_workload_is_explained_recorded_and_diagnosed_elsewhere(
    world: World, operator: Operator, tmp_path: Path
) -> None:
    world.job("trainer")
    world.policy("trainer", mode="Recommend")
    report = until("a recommendation", lambda: world.reports("Recommended"))[0]
    name, space = report["metadata"]["name"], ("-n", world.namespace)

    text = world.cluster.run("kubectl-bottleneck", "explain", "trainer", *space)
    assert "loader-without-workers" in text
    assert f"kubectl bottleneck approve {name} -n {world.namespace}" in text
    assert "AwaitingApproval" in text

    shown = world.cluster.run("kubectl-bottleneck", "explain", "--report", name, *space)
    assert "loader-without-workers" in shown
    assert "Fishbone" in shown

    (pod,) = world.pods()
    file = str(tmp_path / "incident.jsonl")
    world.cluster.run("kubectl-bottleneck", "record", pod, *space, "--seconds", "12", "-o", file)
    found = world.cluster.run("kubectl-bottleneck", "diagnose", file, "-o", "json")
    document = json.loads(found)
    assert document["causes"][0]["id"] == "loader-without-workers"
    assert document["symptom"]["objective"] == "DataWait", "the policy was recorded along"

    refused = world.cluster.run("kubectl-bottleneck", "explain", "trainr", *space, check=False)
    assert "did you mean trainer?" in refused


def test_a_missing_verb_is_named(world: World, crds: None) -> None:
    world.job("trainer")
    world.policy("trainer", mode="Observe")
    until("it runs", lambda: world.get("pod", world.pods()[0])["status"]["phase"] == "Running")
    # A person who may look at everything here but may not go through the pod proxy.
    world.kubectl("create", "serviceaccount", "viewer")
    own = "bottleneckpolicies.bottleneck.dev,bottleneckreports.bottleneck.dev"
    for role, resources in (("viewer", "pods,jobs.batch"), ("policies", own)):
        world.kubectl("create", "role", role, "--verb=get,list", f"--resource={resources}")
    for role in ("viewer", "policies"):
        account = f"--serviceaccount={world.namespace}:viewer"
        world.kubectl("create", "rolebinding", role, f"--role={role}", account)
    token = world.kubectl("create", "token", "viewer").strip()
    config = world.cluster.kubectl("config", "view", "--raw", "-o", "json")
    document = json.loads(config)
    for user in document["users"]:
        user["user"] = {"token": token}
    limited = Path(world.cluster.kubeconfig).with_name(f"viewer-{world.namespace}")
    limited.write_text(json.dumps(document))
    try:
        said = world.cluster.run(
            *("env", f"KUBECONFIG={limited}", "kubectl-bottleneck", "explain", "trainer"),
            *("-n", world.namespace, "--seconds", "3"),
            check=False,
        )
    finally:
        limited.unlink()
    assert f"it needs the verb get on pods/proxy in namespace {world.namespace}" in said
