"""Whose replicas the operator sets, and who else owns them, on a real API server.

Jobs and HorizontalPodAutoscalers are real, with their real controllers. The kinds of Kubeflow, Ray,
KEDA and LeaderWorkerSet are stand-ins (``stand_ins.py``), and what their controllers would do to
pods, the tests do.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from bottleneck_operator.act.hpa import set_bounds
from bottleneck_operator.act.replicas import SupersededError, set_replicas
from bottleneck_operator.api.meta import TargetRef
from bottleneck_operator.api.report import HpaBounds
from bottleneck_operator.kube import Kube, KubeError
from bottleneck_operator.observe.cluster import read_target
from bottleneck_operator.observe.scale import value_at

from .conftest import SETTINGS, Object, Operator, World, _pod, inject, until
from .stand_ins import STAND_INS

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", autouse=True)
def stand_ins(cluster: Any) -> Iterator[None]:
    """The CRDs, as long as this module runs: an operator looks for ScaledObjects where there are
    any."""
    text = yaml.safe_dump_all(STAND_INS)
    cluster.kubectl("apply", "-f", "-", input=text)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", "-", input=text)
    yield
    cluster.kubectl("delete", "--timeout=60s", "-f", "-", input=text, check=False)


def made(world: World, version: str, kind: str, spec: Object, status: Object | None = None) -> None:
    """An object named ``work``."""
    metadata = {"name": "work"}
    world.apply({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})
    if status is not None:
        patch = json.dumps({"status": status})
        place = ("--subresource=status", "--type=merge")
        world.kubectl("patch", kind.lower(), "work", *place, "-p", patch)


def rank_pod(rank: int, world_size: int) -> Object:
    """The pod of a rank that only computes."""
    pod = _pod([], False)
    script = (Path(__file__).parent / "stand_in_rank.py").read_text()
    python = "/opt/bottleneck/bin/python"
    command = [python, "-c", script, str(rank), str(world_size)]
    pod["spec"]["containers"][0]["command"] = command
    return inject(pod, SETTINGS)


def target(version: str, kind: str) -> Object:
    return {"apiVersion": version, "kind": kind, "name": "work"}


def limited(world: World, reason: str, *words: str) -> None:
    """Waits until the policy says why nothing is done."""
    until(
        f"it says {reason}",
        lambda: (
            world.condition("work", "Limited") == ("True", reason)
            and all(word in world.message("work", "Limited") for word in words)
        ),
    )


# -- writing ---------------------------------------------------------------------------------------

GROUPS = [{"groupName": name, "replicas": 2, "maxReplicas": 5} for name in ("cpu", "gpu")]
ELASTIC = {"minReplicas": 1, "maxReplicas": 4}
JOB: Object = {
    "suspend": False,
    "template": {
        "spec": {
            "restartPolicy": "Never",
            "nodeSelector": {"nobody": "has-this"},
            "containers": [{"name": "main", "image": "none"}],
        }
    },
}
KINDS = {
    "Job": ("batch/v1", "Job", JOB | {"parallelism": 2}),
    "PyTorchJob": (
        "kubeflow.org/v1",
        "PyTorchJob",
        {"elasticPolicy": ELASTIC, "pytorchReplicaSpecs": {"Worker": {"replicas": 2}}},
    ),
    "RayCluster": ("ray.io/v1", "RayCluster", {"workerGroupSpecs": GROUPS}),
}


def live(world: World, work: Callable[[Kube], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with await Kube.connect(str(world.cluster.kubeconfig)) as kube:
            return await work(kube)

    return asyncio.run(run())


async def again_on_conflict(write: Callable[..., Awaitable[None]], *arguments: Any) -> None:
    """As the loop does, whose next turn tries again: real controllers write the same objects."""
    for _ in range(20):
        try:
            await write(*arguments)
        except KubeError as error:
            if not error.conflict:
                raise
        else:
            return
    pytest.fail("in conflict all the time")


@pytest.mark.parametrize("name", KINDS)
def test_a_number_is_written_by_path_and_others_are_never_overwritten(
    world: World, name: str
) -> None:
    version, kind, spec = KINDS[name]
    made(world, version, kind, spec)
    ref = TargetRef.model_validate(target(version, kind))

    async def work(kube: Kube) -> None:
        found = await read_target(kube, world.namespace, ref, "gpu")
        assert found.replicas == 2
        await again_on_conflict(set_replicas, kube, world.namespace, found, 2, 3)
        await again_on_conflict(set_replicas, kube, world.namespace, found, 2, 3)
        again = await read_target(kube, world.namespace, ref, "gpu")
        assert again.replicas == 3
        with pytest.raises(SupersededError):
            await set_replicas(kube, world.namespace, found, 4, 5)

        # Somebody writes between reading and writing.
        get = kube.get

        async def slowly(path: str, **query: str) -> Object:
            document = await get(path, **query)
            world.kubectl("annotate", "--overwrite", kind.lower(), "work", "people=wrote")
            return document

        kube.get = slowly  # type: ignore[method-assign]
        with pytest.raises(KubeError) as error:
            await set_replicas(kube, world.namespace, found, 3, 2)
        assert error.value.conflict, error.value

    live(world, work)
    after = world.get(kind.lower(), "work")
    assert after["metadata"]["annotations"]["people"] == "wrote"
    if kind == "RayCluster":
        assert [group["replicas"] for group in after["spec"]["workerGroupSpecs"]] == [2, 3]
    if kind == "Job":
        assert value_at(after, ("spec", "parallelism")) == 3


def test_a_leader_worker_set_is_scaled_through_its_scale_subresource(world: World) -> None:
    version = "leaderworkerset.x-k8s.io/v1"
    selector = "leaderworkerset.sigs.k8s.io/name=work,leaderworkerset.sigs.k8s.io/worker-index=0"
    status = {"replicas": 1, "readyReplicas": 1, "hpaPodSelector": selector}
    made(world, version, "LeaderWorkerSet", {"replicas": 1}, status)
    ref = TargetRef.model_validate(target(version, "LeaderWorkerSet"))

    async def work(kube: Kube) -> None:
        found = await read_target(kube, world.namespace, ref)
        assert (found.replicas, found.ready) == (1, 1)
        assert found.selector["matchLabels"]["leaderworkerset.sigs.k8s.io/worker-index"] == "0"
        await set_replicas(kube, world.namespace, found, 1, 3)

    live(world, work)
    assert world.get("leaderworkerset", "work")["spec"]["replicas"] == 3


def test_bounds_of_an_autoscaler_are_written_unless_somebody_else_did(world: World) -> None:
    autoscaler(world)

    async def work(kube: Kube) -> None:
        old, new = HpaBounds(min=1, max=1), HpaBounds(min=2, max=2)
        for _ in range(2):
            await again_on_conflict(set_bounds, kube, world.namespace, "work", old, new)
        with pytest.raises(SupersededError):
            await set_bounds(kube, world.namespace, "work", old, HpaBounds(min=3, max=3))

    live(world, work)
    spec = world.get("hpa", "work")["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 2)


def autoscaler(world: World, most: int = 1) -> None:
    """A real autoscaler; without a metrics server it does no more than keep its bounds."""
    scaled = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "work"}
    made(
        world,
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        {"scaleTargetRef": scaled, "maxReplicas": most},
    )


# -- the whole loop --------------------------------------------------------------------------------


def test_a_job_gets_more_pods_and_keeps_them(world: World, operator: Operator) -> None:
    pod = rank_pod(0, 1)
    pod["spec"]["restartPolicy"] = "Never"
    # Left out, it would be a Job of one completion, for which more pods have nothing to do.
    made(world, "batch/v1", "Job", {"backoffLimit": 0, "parallelism": 1, "template": pod})
    wanted = {"goodput": {"min": "500"}}
    world.policy("work", objectives=wanted, actions={"replicas": {"max": 2}})
    report = until("a report is kept", lambda: world.reports("Kept"), 150)[0]

    assert report["spec"]["causes"][0]["id"] == "compute-bound"
    assert report["spec"]["action"]["replicas"] == {"desired": 2, "replaces": 1}
    assert report["status"]["verdict"]["result"] == "Improved"
    assert world.get("job", "work")["spec"]["parallelism"] == 2
    assert len(world.pods()) == 2


def test_an_elastic_job_is_judged_once_its_ranks_have_found_each_other(
    world: World, operator: Operator
) -> None:
    labels = {
        "training.kubeflow.org/job-name": "work",
        "training.kubeflow.org/replica-type": "worker",
    }

    def worker(name: str, rank: int, world_size: int) -> None:
        pod = rank_pod(rank, world_size)
        pod["metadata"] |= {"name": name, "labels": pod["metadata"]["labels"] | labels}
        world.apply({"apiVersion": "v1", "kind": "Pod"} | pod)

    version = "kubeflow.org/v1"
    spec = {"elasticPolicy": ELASTIC, "pytorchReplicaSpecs": {"Worker": {"replicas": 1}}}
    made(world, version, "PyTorchJob", spec)
    worker("work-worker-0", 0, 1)
    world.policy(
        "work",
        targetRef=target(version, "PyTorchJob"),
        objectives={"goodput": {"min": "500"}},
        actions={"replicas": {"max": 2}},
    )

    def wanted() -> bool:
        found = world.get("pytorchjob", "work")["spec"]["pytorchReplicaSpecs"]
        return bool(found["Worker"]["replicas"] == 2)

    until("a second worker is wanted", wanted)
    worker("work-worker-1", 1, 2)
    until("both workers are ready", lambda: ready(world) == 2)
    until(
        "the ranks are waited for",
        lambda: world.condition("work", "Progressing")[1] == "AwaitingReplicas",
    )
    assert world.reports("Applied"), "the first rank is still in a group of its own"

    # torchrun starts the first rank again, in the new group.
    world.kubectl("delete", "pod", "work-worker-0")
    worker("work-worker-0", 0, 2)
    until("it is judged from now on", lambda: world.reports("Verifying", "Kept"))


def ready(world: World) -> int:
    conditions = [
        condition
        for pod in world.list("pods")
        for condition in pod["status"].get("conditions", [])
        if condition["type"] == "Ready" and condition["status"] == "True"
    ]
    return len(conditions)


def test_a_ray_service_is_scaled_on_its_cluster_and_set_back(
    world: World, operator: Operator
) -> None:
    version = "ray.io/v1"
    groups = [{"groupName": "gpu", "replicas": 1, "minReplicas": 1, "maxReplicas": 2}]
    made(world, version, "RayCluster", {"workerGroupSpecs": groups})
    made(
        world,
        version,
        "RayService",
        {"rayClusterConfig": {"workerGroupSpecs": groups}},
        {"activeServiceStatus": {"rayClusterName": "work"}},
    )
    pod = inject(_pod(["server", "queueing"], False), SETTINGS)
    pod["metadata"]["labels"] |= {"ray.io/cluster": "work", "ray.io/group": "gpu"}
    labels = {"ray.io/cluster": "work"}
    made(
        world,
        "apps/v1",
        "Deployment",
        {"replicas": 1, "selector": {"matchLabels": labels}, "template": pod},
    )
    world.policy("work", "Deployment", targetRef=target(version, "RayService"))

    def replicas() -> int:
        found = world.get("raycluster", "work")["spec"]["workerGroupSpecs"][0]
        return int(found["replicas"])

    until("its cluster is scaled, no further than its own maximum", lambda: replicas() == 2)
    world.kubectl("delete", "bnp", "work", "--timeout=60s")  # undoes what was not judged yet
    assert replicas() == 1
    service = world.get("rayservice", "work")["spec"]["rayClusterConfig"]
    assert service["workerGroupSpecs"] == groups, "what is written there, only an upgrade reads"


def test_bounds_of_a_real_autoscaler_are_adjusted_and_undone(
    world: World, operator: Operator
) -> None:
    world.deployment("work")
    autoscaler(world)
    world.policy("work", "Deployment")
    limited(world, "ReplicasOwnedByHPA", "HorizontalPodAutoscaler work", "hpa: AdjustBounds")
    assert world.reports() == []

    actions = {"replicas": {"max": 2, "hpa": "AdjustBounds"}}
    world.policy("work", "Deployment", actions=actions)
    until(
        "the autoscaler has scaled",
        lambda: world.get("deploy", "work")["status"].get("readyReplicas") == 2,
    )
    spec = world.get("hpa", "work")["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 2)
    (report,) = world.reports()
    assert report["spec"]["action"]["hpa"] == {
        "name": "work",
        "desired": {"min": 2, "max": 2},
        "replaces": {"min": 1, "max": 1},
    }
    world.kubectl("delete", "bnp", "work", "--timeout=60s")  # undoes what was not judged yet
    spec = world.get("hpa", "work")["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 1)
    until(
        "the autoscaler keeps its own bounds again",
        lambda: world.get("deploy", "work")["spec"]["replicas"] == 1,
    )


def test_a_scaled_object_is_named_in_place_of_its_autoscaler(
    world: World, operator: Operator
) -> None:
    world.deployment("work")
    made(world, "keda.sh/v1alpha1", "ScaledObject", {"scaleTargetRef": {"name": "work"}})
    world.policy("work", "Deployment")
    limited(world, "ReplicasOwnedByKEDA", "ScaledObject work owns the replicas")
    assert world.reports() == []


def test_what_kueue_admitted_is_not_grown(world: World, operator: Operator) -> None:
    pod = rank_pod(0, 1)
    pod["spec"]["restartPolicy"] = "Never"
    metadata = {"name": "work", "labels": {"kueue.x-k8s.io/queue-name": "team-a"}}
    spec = {"backoffLimit": 0, "parallelism": 1, "template": pod}
    world.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})
    wanted = {"goodput": {"min": "500"}}
    world.policy("work", objectives=wanted, actions={"replicas": {"max": 2}})
    limited(world, "ReplicasOwnedByKueue", "through queue team-a")
    assert world.get("job", "work")["spec"]["parallelism"] == 1


def train_job(world: World, nodes: str) -> None:
    """A TrainJob of one node with its pod, and a policy that wants more of it."""
    version = "trainer.kubeflow.org/v1alpha1"
    trainer = {"command": ["torchrun", f"--nnodes={nodes}", "train.py"], "numNodes": 1}
    made(world, version, "TrainJob", {"trainer": trainer})
    pod = rank_pod(0, 1)
    labels = {
        "jobset.sigs.k8s.io/jobset-name": "work",
        "jobset.sigs.k8s.io/replicatedjob-name": "node",
    }
    pod["metadata"] |= {"name": "work-node-0-0", "labels": pod["metadata"]["labels"] | labels}
    world.apply({"apiVersion": "v1", "kind": "Pod"} | pod)
    world.policy(
        "work",
        targetRef=target(version, "TrainJob"),
        objectives={"goodput": {"min": "500"}},
        actions={"replicas": {"max": 2}},
    )


def test_a_fixed_world_size_is_never_changed(world: World, operator: Operator) -> None:
    train_job(world, "1")
    limited(world, "ReplicasFixed", "its world size is fixed", "--nnodes=MIN:MAX")
    assert world.reports() == []


def test_what_the_api_server_refuses_is_said_and_left_as_it_was(
    world: World, operator: Operator
) -> None:
    train_job(world, "1:4")
    report = until("a report is reverted", lambda: world.reports("Reverted"))[0]
    said = " ".join(entry["message"] for entry in report["status"]["timeline"])
    assert "field is immutable" in said
    assert "ActionRefused" in world.events("work")
    assert world.get("trainjob", "work")["spec"]["trainer"]["numNodes"] == 1
    limited(world, "Quarantined")
    assert len(world.reports()) == 1
