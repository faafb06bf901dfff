"""The loop's wires, end to end: real API server, real kubelet, real pods, stand-in workloads."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Operator, World, until

pytestmark = pytest.mark.cluster


def test_a_starved_trainer_gets_workers_and_the_fix_is_kept(
    world: World, operator: Operator
) -> None:
    world.job("trainer")
    world.policy("trainer")
    report = until("a report is kept", lambda: world.reports("Kept"), 120)[0]

    assert report["spec"]["causes"][0]["id"] == "loader-without-workers"
    assert report["spec"]["action"]["knobs"]["desired"]["dataLoader.workers"] >= 1
    assert report["status"]["verdict"]["result"] == "Improved"
    assert report["status"]["verdict"]["after"] > 1.5 * report["status"]["verdict"]["before"]
    (pod,) = world.pods()
    assert world.knobs(pod)["generation"] == 1
    until("the objective is met", lambda: world.condition("trainer", "Bottlenecked")[0] == "False")
    assert world.condition("trainer", "Ready") == ("True", "Accepted")
    assert world.condition("trainer", "TelemetryAvailable") == ("True", "Streaming")
    wanted = {"BottleneckFound", "ActionPlanned", "ActionApplied", "ActionAcknowledged"}
    assert wanted | {"ActionKept"} <= world.events("trainer")
    shown = world.kubectl("get", "bnp", "trainer")
    assert "Improved" in shown
    assert "dataLoader.workers 0 → " in shown
    port = operator.metrics_port
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    assert 'bottleneck_verdicts_total{type="DataLoader",verdict="Improved"} 1.0' in text


def test_a_fix_that_made_things_worse_is_reverted_and_not_tried_again(
    world: World, operator: Operator
) -> None:
    world.job("trainer", "harmful")
    world.policy("trainer", limits={"cooldown": "1s"})
    report = until("a report is reverted", lambda: world.reports("Reverted"), 120)[0]

    assert report["status"]["verdict"]["result"] == "Worse"
    (pod,) = world.pods()
    knobs = world.knobs(pod)
    assert knobs["generation"] == 2
    assert knobs["dataLoader"] == {"workers": 0, "prefetch": 2}
    until(
        "it says that it will not try again",
        lambda: world.condition("trainer", "Limited") == ("True", "Quarantined"),
    )
    assert len(world.reports()) == 1


@pytest.mark.alone
def test_tiny_batches_are_put_together_at_the_same_global_batch(
    world: World, operator: Operator
) -> None:
    # Without CPUs of its own it would be the node that limits it, on a machine that is busy.
    world.deployment("trainer", "tiny", resources={"requests": {"cpu": "1"}})
    world.policy(
        "trainer",
        "Deployment",
        objectives={"goodput": {"min": "1000"}},
        actions={"batchSize": {"max": 32}},
        limits={"disruption": "HotOnly"},
    )
    report = until("a report is kept", lambda: world.reports("Kept"), 120)[0]

    assert report["spec"]["causes"][0]["id"] == "host-bound"
    change = report["spec"]["action"]["knobs"]
    assert change["replaces"] == {"batch.micro": 2, "batch.accumulation": 16}
    desired = change["desired"]
    assert desired["batch.micro"] > 2
    assert desired["batch.micro"] * desired["batch.accumulation"] == 32
    assert report["status"]["verdict"]["result"] == "Improved"
    (pod,) = world.pods()
    assert world.knobs(pod)["batch"] == {
        "micro": desired["batch.micro"],
        "accumulation": desired["batch.accumulation"],
    }


def test_more_replicas_that_do_not_help_are_taken_back(
    world: World, operator: Operator, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)  # the pods are another user
    world.deployment("server", "replica", "helpless", shared=tmp_path)
    # One step at most: growth that follows the load would take a second before the first is judged.
    world.policy("server", "Deployment", actions={"replicas": {"max": 2}})
    until("it is scaled", lambda: world.get("deploy", "server")["spec"]["replicas"] == 2, 120)
    report = until("a report is reverted", lambda: world.reports("Reverted"), 300)[0]

    assert report["spec"]["action"]["replicas"] == {"desired": 2, "replaces": 1}
    assert report["status"]["verdict"]["result"] == "NoEffect"
    assert world.get("deploy", "server")["spec"]["replicas"] == 1


def test_a_recommendation_waits_for_its_approval(world: World, operator: Operator) -> None:
    world.job("trainer")
    world.policy("trainer", mode="Recommend")
    report = until("a recommendation", lambda: world.reports("Recommended"))[0]
    name = report["metadata"]["name"]
    until(
        "the policy says what it waits for",
        lambda: world.condition("trainer", "Limited") == ("True", "AwaitingApproval"),
    )
    (pod,) = world.pods()
    assert world.knobs(pod) == {}

    command = ("kubectl-bottleneck", "approve", name, "-n", world.namespace, "-o", "json")
    assert json.loads(world.cluster.run(*command))["report"] == name
    until("the approved report is kept", lambda: world.reports("Kept"), 120)
    assert world.knobs(pod)["generation"] == 1
    assert len(world.reports()) == 1
    refused = world.cluster.run(*command, check=False)
    assert "not Recommended" in refused


def test_observing_changes_nothing(world: World, operator: Operator) -> None:
    world.job("trainer")
    world.policy("trainer", mode="Observe")
    until(
        "the bottleneck is named",
        lambda: world.condition("trainer", "Limited") == ("True", "ObserveOnly"),
    )
    status = world.get("bnp", "trainer")["status"]
    assert status["bottleneck"]["id"] == "loader-without-workers"
    assert world.reports() == []
    assert world.knobs(world.pods()[0]) == {}


def test_an_hpa_that_owns_the_replicas_is_respected(world: World, operator: Operator) -> None:
    world.deployment("server")
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "server"}
    world.apply(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "server-hpa"},
            "spec": {"scaleTargetRef": target, "maxReplicas": 4},
        }
    )
    world.policy("server", "Deployment")
    until(
        "it says who owns the replicas",
        lambda: world.condition("server", "Limited") == ("True", "ReplicasOwnedByHPA"),
    )
    assert world.reports() == []


def test_replicas_that_come_from_a_repository_are_left_to_it(
    world: World, operator: Operator
) -> None:
    """Nobody has Argo CD here: what it would write, under its name, by the API server's own rules
    for who owns a field."""
    world.deployment("server")
    world.kubectl(
        *("apply", "--server-side", "--force-conflicts", "--field-manager=argocd-controller"),
        *("-f", "-"),
        input=json.dumps(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "server"},
                "spec": {"replicas": 1},
            }
        ),
    )
    world.policy("server", "Deployment")
    until(
        "it says who owns the replicas",
        lambda: world.condition("server", "Limited") == ("True", "ReplicasOwnedByGitOps"),
    )
    assert world.reports() == []


def test_a_missing_target_is_a_condition_and_heals(world: World, operator: Operator) -> None:
    world.policy("trainer", mode="Observe")
    until(
        "the missing target is named",
        lambda: world.condition("trainer", "Ready") == ("False", "TargetNotFound"),
    )
    world.job("trainer")
    until(
        "the policy is ready", lambda: world.condition("trainer", "Ready") == ("True", "Accepted")
    )


def test_of_two_policies_on_one_target_the_older_acts(world: World, operator: Operator) -> None:
    world.job("trainer")
    world.policy("first", target="trainer", mode="Observe")
    until("the first is ready", lambda: world.condition("first", "Ready")[0] == "True")
    world.policy("second", target="trainer")
    until(
        "the second is refused",
        lambda: world.condition("second", "Ready") == ("False", "TargetClaimed"),
    )
    world.kubectl("delete", "bnp", "first", "--timeout=30s")
    until("the second takes over", lambda: world.condition("second", "Ready")[0] == "True")


def test_without_a_sidecar_nothing_is_done_and_it_says_so(world: World, operator: Operator) -> None:
    world.job("trainer", sidecar=False)
    world.policy("trainer")
    until(
        "telemetry is missing",
        lambda: world.condition("trainer", "TelemetryAvailable") == ("False", "NotInjected"),
    )
    assert world.condition("trainer", "Bottlenecked") == ("Unknown", "Unknown")
    assert world.reports() == []


def test_a_silent_sidecar_makes_everything_unknown_until_it_speaks_again(
    world: World, operator: Operator, agents: Callable[[], list[int]]
) -> None:
    world.job("trainer")
    world.policy("trainer", mode="Observe")
    until("a diagnosis", lambda: world.condition("trainer", "Bottlenecked")[0] == "True")
    (agent,) = agents()
    os.kill(agent, signal.SIGSTOP)
    try:
        until(
            "telemetry counts as missing",
            lambda: world.condition("trainer", "TelemetryAvailable") == ("False", "NoData"),
        )
        assert world.condition("trainer", "Bottlenecked") == ("Unknown", "Unknown")
        world.policy("trainer")  # even in mode Auto nothing is done without data
        generation = world.get("bnp", "trainer")["metadata"]["generation"]
        until(
            "the new mode is seen",
            lambda: world.get("bnp", "trainer")["status"]["observedGeneration"] == generation,
        )
        assert world.reports() == []
    finally:
        os.kill(agent, signal.SIGCONT)
    until("it recovers", lambda: world.reports("Kept"), 120)


def test_a_killed_sidecar_comes_back_by_itself(
    world: World, operator: Operator, agents: Callable[[], list[int]]
) -> None:
    world.job("trainer")
    world.policy("trainer", mode="Observe")
    until("a diagnosis", lambda: world.condition("trainer", "Bottlenecked")[0] == "True")
    (agent,) = agents()
    os.kill(agent, signal.SIGKILL)
    until("the kubelet started another", lambda: set(agents()) - {agent})
    until(
        "its telemetry is back",
        lambda: world.condition("trainer", "TelemetryAvailable") == ("True", "Streaming"),
    )
    (pod,) = world.list("pods")
    (main,) = pod["status"]["containerStatuses"]
    assert main["restartCount"] == 0


def test_garbage_in_the_knobs_is_refused_and_training_goes_on(world: World) -> None:
    world.job("trainer")
    pod = until("a running pod", lambda: _running(world))
    until("steps are counted", lambda: _trained(world, pod)["steps"] > 0)
    world.kubectl("annotate", "pod", pod, "bottleneck.dev/knobs={workers: many")

    def refused() -> dict[str, object]:
        rank = _trained(world, pod)
        found = rank.get("acknowledgement") or {}
        return rank if found.get("result") == "Refused" else {}

    rank = until("the refusal", refused)
    assert '"generation"' in rank["acknowledgement"]["message"]
    until("training goes on", lambda: _trained(world, pod)["steps"] > rank["steps"])


def _running(world: World) -> str:
    for pod in world.list("pods"):
        statuses = pod["status"].get("containerStatuses", [])
        if statuses and all("running" in status["state"] for status in statuses):
            return str(pod["metadata"]["name"])
    return ""


def _trained(world: World, pod: str) -> dict[str, object]:
    """What the trainer of a pod says of itself, from the first line of its agent's stream."""
    ip = world.get("pod", pod)["status"]["podIP"]
    with urllib.request.urlopen(f"http://{ip}:9709/v1/stream?interval=1", timeout=10) as stream:
        training = json.loads(stream.readline()).get("training")
    return training[0] if training else {"steps": 0}


def test_deleting_the_policy_undoes_what_was_not_judged_yet(
    world: World, operator: Operator
) -> None:
    world.job("trainer")
    world.policy("trainer")
    until("an action is applied", lambda: world.reports("Applied", "Verifying"))
    world.kubectl("delete", "bnp", "trainer", "--timeout=60s")
    (pod,) = world.pods()
    assert world.knobs(pod)["dataLoader"] == {"workers": 0, "prefetch": 2}
