"""CPU in place, on a real kubelet: a container that is really throttled gets more without a
restart."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bottleneck_operator.api import units

from .conftest import Operator, World, until

pytestmark = pytest.mark.cluster

THROTTLED = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "200m"}}


def busy(world: World, resources: dict[str, Any], most: str) -> None:
    """A Deployment that takes all the CPU it gets, and a policy that wants more of it."""
    world.deployment("trainer", "busy", resources=resources)
    watch(world, most)


def watch(world: World, most: str) -> None:
    world.policy(
        "trainer",
        "Deployment",
        objectives={"goodput": {"min": "1000000"}},
        actions={"resources": {"container": "main", "cpu": {"max": most}}},
        limits={"cooldown": "1s"},
    )


def size(world: World, *path: str) -> Any:
    (name,) = world.pods()
    found: Any = world.get("pod", name)
    for each in path:
        found = found[int(each)] if each.isdigit() else found[each]
    return found


@pytest.mark.alone
def test_a_throttled_container_gets_more_cpu_without_a_restart(
    world: World, operator: Operator
) -> None:
    busy(world, THROTTLED, "800m")
    report = until("a report is kept", lambda: world.reports("Kept"), 120)[0]

    assert report["spec"]["causes"][0]["id"] == "cpu-throttled"
    assert report["spec"]["action"]["resources"]["replaces"]["cpuLimit"] == "200m"
    given_first = report["spec"]["action"]["resources"]["desired"]["cpuLimit"]
    assert units.quantity("200m") < units.quantity(given_first) <= units.quantity("800m")
    assert report["status"]["verdict"]["result"] == "Improved"
    assert report["status"]["verdict"]["after"] > 1.1 * report["status"]["verdict"]["before"]
    # How much of its time it is throttled depends on who else is on the node: it may take a second
    # step to the policy's maximum.
    until(
        "it has the maximum",
        lambda: size(world, "spec", "containers", "0", "resources", "limits", "cpu") == "800m",
        120,
    )
    given = size(world, "spec", "containers", "0", "resources")
    assert given["limits"]["cpu"] == "800m"
    assert given["requests"] == THROTTLED["requests"], "what it asks of the scheduler stays"
    assert size(world, "status", "containerStatuses", "0", "restartCount") == 0
    until(
        "the maximum is said",
        lambda: world.condition("trainer", "Limited") == ("True", "AtMaximum"),
    )

    # A pod that comes later begins with what the template says.
    (before,) = world.pods()
    world.kubectl("delete", "pod", before, "--wait=false")
    until("another pod runs", lambda: before not in world.pods() and world.pods())
    until(
        "it is resized too",
        lambda: size(world, "spec", "containers", "0", "resources", "limits", "cpu") == "800m",
    )


def fill_the_node(world: World, leave: float) -> None:
    """A pod that sleeps and asks for all CPUs that are free but for ``leave`` cores."""
    (node,) = json.loads(world.cluster.kubectl("get", "nodes", "-o", "json"))["items"]
    taken = 0.0
    for pod in json.loads(world.cluster.kubectl("get", "pods", "-A", "-o", "json"))["items"]:
        if pod["status"].get("phase") in ("Pending", "Running"):
            for container in pod["spec"]["containers"] + pod["spec"].get("initContainers", []):
                asked = container.get("resources", {}).get("requests", {})
                taken += units.quantity(asked.get("cpu", "0"))
    free = units.quantity(node["status"]["allocatable"]["cpu"]) - taken - leave
    container = {
        "name": "main",
        "image": "bottleneck/sidecar:dev",
        "command": ["/opt/bottleneck/bin/python", "-c", "import time; time.sleep(3600)"],
        "resources": {"requests": {"cpu": units.cores(free)}},
    }
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    world.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "filler"}, "spec": spec})
    world.kubectl("wait", "pod/filler", "--for=condition=Ready", "--timeout=60s")


def test_a_size_that_the_node_cannot_give_is_taken_back(world: World, operator: Operator) -> None:
    guaranteed = {"cpu": "300m", "memory": "64Mi"}
    world.deployment("trainer", "busy", resources={"requests": guaranteed, "limits": guaranteed})
    world.kubectl("rollout", "status", "deploy/trainer", "--timeout=60s")
    (trainer,) = world.pods()
    fill_the_node(world, leave=0.05)
    watch(world, "64")
    report = until("a report is reverted", lambda: world.reports("Reverted"), 180)[0]

    change = report["spec"]["action"]["resources"]
    assert change["desired"]["cpuRequest"] == change["desired"]["cpuLimit"], "still guaranteed"
    messages = [entry["message"] for entry in report["status"]["timeline"]]
    assert any(f"{trainer} was not resized in 60s" in message for message in messages), messages
    found = world.get("pod", trainer)["spec"]["containers"][0]["resources"]
    assert found == {"requests": guaranteed, "limits": guaranteed}
    until(
        "it says that it will not try again",
        lambda: world.condition("trainer", "Limited") == ("True", "Quarantined"),
    )


VPA = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "verticalpodautoscalers.autoscaling.k8s.io",
        # The group is protected; the API server wants to be told that this is not the real one.
        "annotations": {"api-approved.kubernetes.io": "unapproved, a stand-in for a test"},
    },
    "spec": {
        "group": "autoscaling.k8s.io",
        "scope": "Namespaced",
        "names": {"kind": "VerticalPodAutoscaler", "plural": "verticalpodautoscalers"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": True,
                    }
                },
            }
        ],
    },
}


def test_resources_that_a_vertical_autoscaler_sets_are_left_to_it(
    world: World, operator: Operator
) -> None:
    """Its controller is not to be had here: a CustomResourceDefinition of the same shape stands in
    for it."""
    try:
        world.apply(VPA)
        crd = "crd/" + VPA["metadata"]["name"]  # type: ignore[index]
        world.kubectl("wait", crd, "--for=condition=Established", "--timeout=30s")
        world.apply(
            {
                "apiVersion": "autoscaling.k8s.io/v1",
                "kind": "VerticalPodAutoscaler",
                "metadata": {"name": "vertical"},
                "spec": {
                    "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "trainer"}
                },
            }
        )
        busy(world, THROTTLED, "800m")
        until(
            "it says who owns the resources",
            lambda: world.condition("trainer", "Limited") == ("True", "ResourcesOwnedByVPA"),
        )
        assert world.reports() == []
    finally:
        world.kubectl("delete", "crd", VPA["metadata"]["name"], "--ignore-not-found")  # type: ignore[index]


def test_a_webhook_that_refuses_is_heard_and_nothing_is_left_half_done(
    world: World, operator: Operator
) -> None:
    """The API server's own admission: a policy that forbids such a size, as platform teams write
    them."""
    rule = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": world.namespace},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["UPDATE"],
                        "resources": ["pods/resize"],
                    }
                ],
            },
            "validations": [{"expression": "false", "message": "ask the platform team first"}],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": world.namespace},
        "spec": {
            "policyName": world.namespace,
            "validationActions": ["Deny"],
            "matchResources": {
                "namespaceSelector": {
                    "matchLabels": {"kubernetes.io/metadata.name": world.namespace}
                }
            },
        },
    }
    try:
        world.apply(rule)
        world.apply(binding)
        busy(world, THROTTLED, "800m")
        report = until("a report is reverted", lambda: world.reports("Reverted"), 120)[0]
        messages = [entry["message"] for entry in report["status"]["timeline"]]
        assert any("ask the platform team first" in message for message in messages)
        assert size(world, "spec", "containers", "0", "resources", "limits", "cpu") == "200m"
    finally:
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            world.kubectl("delete", kind, world.namespace, "--ignore-not-found")
