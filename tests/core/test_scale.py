"""Where the number of replicas of each kind is, within what it may change, and why it may not."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from bottleneck_operator.act.replicas import SupersededError, set_replicas
from bottleneck_operator.api.meta import TargetRef
from bottleneck_operator.kube import KubeError, Resource
from bottleneck_operator.observe.cluster import Target, read_target
from bottleneck_operator.observe.scale import KINDS, pointer, scale_of, value_at
from hypothesis import given
from hypothesis import strategies as st

from .builders import CASES
from .objects import Object, managed
from .scaled import batch_job, pytorch_job, ray_cluster, ray_service, train_job, worker_group

DONE = {"conditions": [{"type": "Complete", "status": "True"}]}
SUCCEEDED = {"conditions": [{"type": "Succeeded", "status": "True"}]}
RUNNING = {"conditions": [{"type": "Running", "status": "True"}]}
TWO = (worker_group("cpu"), worker_group("gpu", replicas=3))

WORKERS = {
    "training.kubeflow.org/job-name": "work",
    "training.kubeflow.org/replica-type": "worker",
}
NODES = {
    "jobset.sigs.k8s.io/jobset-name": "work",
    "jobset.sigs.k8s.io/replicatedjob-name": "node",
}
JOB_PODS = {"batch.kubernetes.io/controller-uid": "uid-work"}


@pytest.mark.parametrize(
    ("document", "group", "path", "replicas", "bounds", "labels"),
    [
        (batch_job(), "", "/spec/parallelism", 2, (0, 10_000), JOB_PODS),
        (batch_job(parallelism=None, completions=1), "", "/spec/parallelism", 1, (0, 1), JOB_PODS),
        (
            batch_job({"succeeded": 3}, completions=10),
            "",
            "/spec/parallelism",
            2,
            (0, 7),
            JOB_PODS,
        ),
        (
            batch_job(completions=10, completionMode="Indexed"),
            "",
            "/spec/parallelism",
            2,
            (0, 10),
            JOB_PODS,
        ),
        (pytorch_job(), "", "/spec/pytorchReplicaSpecs/Worker/replicas", 2, (1, 4), WORKERS),
        (
            pytorch_job(RUNNING, elasticPolicy={"rdzvBackend": "c10d"}),
            "",
            "/spec/pytorchReplicaSpecs/Worker/replicas",
            2,
            (1, 10_000),
            WORKERS,
        ),
        (train_job(), "", "/spec/trainer/numNodes", 2, (1, 4), NODES),
        (
            train_job(command=None, args=["torchrun", "--nnodes", "2:8", "train.py"]),
            "",
            "/spec/trainer/numNodes",
            2,
            (2, 8),
            NODES,
        ),
        (
            ray_cluster(),
            "",
            "/spec/workerGroupSpecs/0/replicas",
            2,
            (1, 5),
            {"ray.io/cluster": "work", "ray.io/group": "gpu"},
        ),
        (
            ray_cluster(*TWO),
            "gpu",
            "/spec/workerGroupSpecs/1/replicas",
            3,
            (1, 5),
            {"ray.io/cluster": "work", "ray.io/group": "gpu"},
        ),
        (
            ray_cluster({"groupName": "cpu"}),
            "cpu",
            "/spec/workerGroupSpecs/0/replicas",
            0,
            (0, 10_000),
            {"ray.io/cluster": "work", "ray.io/group": "cpu"},
        ),
    ],
    ids=[
        "a Job that takes work",
        "a Job that leaves the default",
        "a Job is never wider than what is left of it",
        "an Indexed Job of independent indexes",
        "PyTorchJob",
        "PyTorchJob without bounds of its own",
        "TrainJob",
        "TrainJob, torchrun in its arguments",
        "RayCluster",
        "RayCluster of two groups",
        "RayCluster with the defaults of a group",
    ],
)
def test_where_the_number_is(
    document: Object,
    group: str,
    path: str,
    replicas: int,
    bounds: tuple[int, int],
    labels: dict[str, str],
) -> None:
    scale = scale_of(document, group)
    assert scale is not None
    assert scale.fixed == ""
    assert (pointer(scale.path), scale.replicas) == (path, replicas)
    assert (scale.least, scale.most) == bounds
    assert scale.selector == {"matchLabels": labels}


@pytest.mark.parametrize(
    ("document", "group", "words"),
    [
        (batch_job(DONE), "", "it has finished"),
        (batch_job(suspend=True), "", "it is suspended"),
        (
            batch_job(completions=2, completionMode="Indexed"),
            "",
            "ranks of one group of fixed size; let ranks come and go with an elastic PyTorchJob",
        ),
        (pytorch_job(elasticPolicy=None), "", "world size is fixed: it has no spec.elasticPolicy"),
        (pytorch_job(SUCCEEDED), "", "it has finished"),
        (pytorch_job(runPolicy={"suspend": True}), "", "it is suspended"),
        (
            pytorch_job(pytorchReplicaSpecs={"Master": {"replicas": 1}}),
            "",
            "it has no spec.pytorchReplicaSpecs.Worker.replicas; write it",
        ),
        (train_job(command=["torchrun", "--nnodes=2", "x.py"]), "", "--nnodes=MIN:MAX; write"),
        (train_job(command=None), "", "its world size is fixed"),
        (train_job(numNodes=None), "", "write spec.trainer.numNodes"),
        (train_job(suspend=True), "", "it is suspended"),
        (train_job(DONE), "", "it has finished"),
        (ray_cluster(suspend=True), "", "it is suspended"),
        (
            ray_cluster(enableInTreeAutoscaling=True),
            "",
            "Ray's own autoscaler sets the replicas (enableInTreeAutoscaling); switch that off",
        ),
        (ray_cluster(*TWO), "", "write one of cpu, gpu as actions.replicas.group"),
        (ray_cluster(*TWO), "tpu", "no worker group tpu; write one of cpu, gpu"),
        (ray_cluster(workerGroupSpecs=[]), "", "it has no worker group"),
        (ray_service(active=""), "", "no cluster of it serves yet"),
    ],
)
def test_why_it_cannot_be_set(document: Object, group: str, words: str) -> None:
    scale = scale_of(document, group)
    assert scale is not None
    assert scale.replicas is None
    assert words in scale.fixed
    # Its pods are found all the same: it is diagnosed.
    assert scale.selector["matchLabels"]


def test_only_ranks_that_find_each_other_again_are_elastic() -> None:
    elastic = [pytorch_job(), train_job()]
    rest = [batch_job(), ray_cluster(), pytorch_job(elasticPolicy=None)]
    assert [scale_of(each).elastic for each in (*elastic, *rest)] == [  # type: ignore[union-attr]
        *(True, True),
        *(False, False, False),
    ]


def test_other_kinds_are_scaled_through_their_scale_subresource() -> None:
    for version, kind in (("apps/v1", "Deployment"), ("leaderworkerset.x-k8s.io/v1", "Set")):
        assert scale_of({"apiVersion": version, "kind": kind}) is None
    # Of the same name, but of somebody else's group.
    assert scale_of({"apiVersion": "batch.volcano.sh/v1alpha1", "kind": "Job"}) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@CASES
@given(st.sampled_from(sorted(KINDS)), st.dictionaries(st.sampled_from(["spec", "status"]), JSON))
def test_whatever_an_object_holds_it_is_read(kind: tuple[str, str], parts: dict[str, Any]) -> None:
    document = {"apiVersion": f"{kind[0]}/v1", "kind": kind[1], "metadata": {"name": "x"}, **parts}
    scale = scale_of(document, "g")
    assert scale is not None
    assert scale.replicas is None or scale.fixed == ""


# -- reading and writing ---------------------------------------------------------------------------


class Api:
    """An API server of a few objects; JSON patches as one applies them."""

    def __init__(self, *objects: Object) -> None:
        self.objects = {o["kind"].lower() + "s/" + o["metadata"]["name"]: o for o in objects}
        self.answer: KubeError | None = None
        self.meanwhile: Any = None
        self.patched = 0

    async def resource(self, api_version: str, kind: str) -> Resource:
        return Resource(api_version, kind.lower() + "s", kind == "PyTorchJob")

    async def get(self, path: str) -> Object:
        found = self.objects.get("/".join(path.split("/")[-2:]))
        if found is None:
            raise KubeError(404, "not found")
        return copy.deepcopy(found)

    async def patch(self, path: str, body: list[Object], content_type: str) -> None:
        assert content_type == "application/json-patch+json"
        if self.meanwhile:
            self.meanwhile()
        if self.answer is not None:
            raise self.answer
        found = self.objects["/".join(path.split("/")[-2:])]
        version, change = body
        if version["value"] != found["metadata"]["resourceVersion"]:
            raise KubeError(409, "the object has been modified")
        *way, last = change["path"].split("/")[1:]
        place: Any = found
        for step in way:
            place = place[int(step)] if isinstance(place, list) else place[step]
        place[last] = change["value"]
        self.patched += 1


def read(api: Any, document: Object, group: str = "") -> Target:
    ref = {key: document[key] for key in ("apiVersion", "kind")} | {"name": "work"}
    return asyncio.run(read_target(api, "ml", TargetRef.model_validate(ref), group))


def write(api: Any, target: Target, replaces: int, desired: int) -> None:
    asyncio.run(set_replicas(api, "ml", target, replaces, desired))


BY_PATH = [
    (batch_job(), ""),
    (pytorch_job(), ""),
    (train_job(), ""),
    (ray_cluster(), ""),
    (ray_cluster(worker_group("cpu", replicas=9), worker_group("gpu")), "gpu"),
]


@pytest.mark.parametrize(("document", "group"), BY_PATH)
def test_the_number_is_written_and_nothing_else(document: Object, group: str) -> None:
    api = Api(copy.deepcopy(document))
    target = read(api, document, group)
    assert target.replicas == 2
    assert target.scale is not None
    for _ in range(2):  # a second time changes nothing
        write(api, target, 2, 3)
    (after,) = api.objects.values()
    assert value_at(after, target.scale.path) == 3
    assert api.patched == 1
    write(api, target, 3, 2)
    assert after == document


@pytest.mark.parametrize(("document", "group"), BY_PATH)
def test_what_others_set_is_left_alone(document: Object, group: str) -> None:
    api = Api(copy.deepcopy(document))
    target = read(api, document, group)
    with pytest.raises(SupersededError, match="has 2 replicas, neither 4 nor 5"):
        write(api, target, 4, 5)
    assert list(api.objects.values()) == [document]


@pytest.mark.parametrize(("document", "group"), BY_PATH)
def test_a_write_in_between_is_a_conflict_and_never_overwritten(
    document: Object, group: str
) -> None:
    api = Api(copy.deepcopy(document))
    target = read(api, document, group)
    (found,) = api.objects.values()
    api.meanwhile = lambda: found["metadata"].update(resourceVersion="8")
    with pytest.raises(KubeError) as error:
        write(api, target, 2, 3)
    assert error.value.conflict
    assert api.patched == 0


def test_a_ray_service_is_scaled_where_it_has_an_effect() -> None:
    cluster = ray_cluster()
    cluster["metadata"]["name"] = "work-raycluster-x7k2"
    service = ray_service()
    api = Api(copy.deepcopy(service), cluster)
    target = read(api, service)
    assert target.replicas == 2
    assert target.selector["matchLabels"] == {
        "ray.io/cluster": "work-raycluster-x7k2",
        "ray.io/group": "gpu",
    }
    write(api, target, 2, 4)
    assert cluster["spec"]["workerGroupSpecs"][0]["replicas"] == 4
    assert api.objects["rayservices/work"] == service


def test_a_finished_training_job_is_known_to_be_over() -> None:
    for document in (batch_job(DONE), pytorch_job(SUCCEEDED), train_job(DONE)):
        assert read(Api(document), document).finished
    for document in (batch_job(), pytorch_job(RUNNING), train_job(), ray_cluster()):
        target = read(Api(document), document)
        assert target.active
        assert not target.finished


def test_a_repository_that_writes_the_number_is_found_at_its_path() -> None:
    for document, field in ((batch_job(), "parallelism"), (ray_cluster(), "workerGroupSpecs")):
        document["metadata"]["managedFields"] = [managed("argocd-controller", -9, field)]
        assert read(Api(document), document).workload.gitops == "argocd-controller"
        document["metadata"]["managedFields"] = [managed("argocd-controller", -9, "template")]
        assert read(Api(document), document).workload.gitops == ""
