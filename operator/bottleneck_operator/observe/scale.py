"""Where each kind keeps its number of replicas, for kinds that are scaled by path: one table. Pure.

A kind that is not in the table is scaled through its scale subresource, if it has one. The table
comes first: a PyTorchJob has that subresource whether or not its ranks can find each other again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .documents import Document, items, part
from .selectors import Selector

Path = tuple[str | int, ...]

NNODES = re.compile(r"--nnodes[= ]+[\"']?(\d+):(\d+)")
"""torchrun's elastic form, ``--nnodes=MIN:MAX`` (pytorch.org/docs/stable/elastic/run.html)."""

UNBOUNDED = 10_000


@dataclass(frozen=True, slots=True)
class Scale:
    """The number of replicas of one object and how it may change. ``replicas`` is None where it
    cannot be set, and ``fixed`` says why and what to write; ``least`` and ``most`` are the object's
    own bounds. ``pods`` is how many pods a replica has; ``elastic`` whether its ranks form their
    group anew when the number changes."""

    selector: Selector
    path: Path = ()
    replicas: int | None = None
    fixed: str = ""
    least: int = 0
    most: int = UNBOUNDED
    pods: int = 1
    elastic: bool = False
    active: bool = False
    """Whether the object's status counts any pod."""
    finished: bool = False
    child: tuple[str, str, str] | None = None
    """Version, kind and name of the object that holds the number in place of this one."""


def scale_of(document: Document, group: str = "") -> Scale | None:
    """The scale of an object, None for a kind that is not in the table. ``group`` names the worker
    group where an object has several."""
    kind = (str(document.get("apiVersion")).partition("/")[0], str(document.get("kind")))
    reading = KINDS.get(kind)
    return None if reading is None else reading(document, group)


def value_at(document: Document, path: Path) -> int | None:
    """The number at a path; None where there is none."""
    found: Any = document
    for step in path:
        if isinstance(step, int):
            found = found[step] if isinstance(found, list) and step < len(found) else None
        else:
            found = found.get(step) if isinstance(found, Mapping) else None
    return _number(found)


def pointer(path: Path) -> str:
    """The path as a JSON pointer (RFC 6901)."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def _job(document: Document, _: str) -> Scale:
    """A Job: ``spec.parallelism``. With NonIndexed completion its pods know nothing of each other,
    and of an Indexed one that does not run all its indexes at once each is work of its own. One
    that does is a group of ranks whose size is its completions: it never changes.
    (kubernetes.io/docs/concepts/workloads/controllers/job)"""
    spec, status = part(document, "spec"), part(document, "status")
    parallel, completions = _number(spec.get("parallelism")), _number(spec.get("completions"))
    now = 1 if parallel is None else parallel
    left = UNBOUNDED
    if completions is not None:
        left = max(0, completions - (_number(status.get("succeeded")) or 0))
    finished = _finished(status, "Complete", "Failed")
    fixed = ""
    if finished:
        fixed = "it has finished"
    elif spec.get("suspend"):
        fixed = "it is suspended"
    elif spec.get("completionMode") == "Indexed" and now >= (completions or 0):
        fixed = (
            "it is an Indexed Job that runs all its indexes at once, so its pods are ranks of one"
            " group of fixed size; let ranks come and go with an elastic PyTorchJob"
        )
    return Scale(
        selector=part(spec, "selector"),
        path=("spec", "parallelism"),
        # The API server fills parallelism in.
        replicas=None if fixed else now,
        fixed=fixed,
        most=left,
        active=bool(status.get("active")),
        finished=finished,
    )


def _pytorch_job(document: Document, _: str) -> Scale:
    """Kubeflow's PyTorchJob: ``spec.pytorchReplicaSpecs.Worker.replicas``, where
    ``spec.elasticPolicy`` says that its torchrun agents find each other again, and within its
    bounds. (kubeflow/training-operator: pkg/apis/kubeflow.org/v1/pytorch_types.go; the labels of
    its pods: common_types.go, whose controller writes the replica type in lower case)"""
    spec, status = part(document, "spec"), part(document, "status")
    labels = {"training.kubeflow.org/job-name": _name(document)}
    policy = part(spec, "elasticPolicy")
    finished = _finished(status, "Succeeded", "Failed")
    path: Path = ("spec", "pytorchReplicaSpecs", "Worker", "replicas")
    fixed = ""
    if finished:
        fixed = "it has finished"
    elif part(spec, "runPolicy").get("suspend"):
        fixed = "it is suspended"
    elif not policy:
        fixed = (
            "its world size is fixed: it has no spec.elasticPolicy; write one with minReplicas and"
            " maxReplicas to let ranks come and go"
        )
    elif value_at(document, path) is None:
        fixed = "it has no spec.pytorchReplicaSpecs.Worker.replicas; write it"
    else:
        # An elastic job has workers only; a master would be counted by no one.
        labels["training.kubeflow.org/replica-type"] = "worker"
    least, most = _number(policy.get("minReplicas")), _number(policy.get("maxReplicas"))
    counts = part(status, "replicaStatuses").values()
    return Scale(
        selector={"matchLabels": labels},
        path=path,
        replicas=None if fixed else value_at(document, path),
        fixed=fixed,
        least=1 if least is None else least,
        most=UNBOUNDED if most is None else most,
        elastic=not fixed,
        active=any(isinstance(each, Mapping) and each.get("active") for each in counts),
        finished=finished,
    )


def _train_job(document: Document, _: str) -> Scale:
    """Kubeflow's TrainJob: ``spec.trainer.numNodes``, where its command says that torchrun is
    elastic; the Trainer itself has no such mode yet (kubeflow/trainer#2903) and from 2.1 on refuses
    changes of ``spec.trainer`` (#3157), which is then told in the API server's words. Its pods are
    those of a JobSet of its name (pkg/constants/constants.go; jobset.sigs.k8s.io)."""
    spec, status = part(document, "spec"), part(document, "status")
    trainer = part(spec, "trainer")
    words = [*_words(trainer.get("command")), *_words(trainer.get("args"))]
    elastic = NNODES.search(" ".join(words))
    nodes = _number(trainer.get("numNodes"))
    finished = _finished(status, "Complete", "Failed")
    fixed = ""
    if finished:
        fixed = "it has finished"
    elif spec.get("suspend"):
        fixed = "it is suspended"
    elif elastic is None:
        fixed = (
            "its world size is fixed: its command does not run torchrun with --nnodes=MIN:MAX;"
            " write that in spec.trainer.command or args to let ranks come and go"
        )
    elif nodes is None:
        fixed = "it leaves the number of nodes to its runtime; write spec.trainer.numNodes"
    return Scale(
        selector={
            "matchLabels": {
                "jobset.sigs.k8s.io/jobset-name": _name(document),
                "jobset.sigs.k8s.io/replicatedjob-name": "node",
            }
        },
        path=("spec", "trainer", "numNodes"),
        replicas=None if fixed else nodes,
        fixed=fixed,
        least=int(elastic[1]) if elastic else 0,
        most=int(elastic[2]) if elastic else UNBOUNDED,
        elastic=not fixed,
        active=any(each.get("active") for each in items(status.get("jobsStatus"))),
        finished=finished,
    )


def _ray_cluster(document: Document, group: str) -> Scale:
    """A RayCluster: ``spec.workerGroupSpecs[].replicas`` of one group, within its bounds
    (ray-project/kuberay: ray-operator/apis/ray/v1/raycluster_types.go; the labels of its pods:
    controllers/ray/utils/constant.go)."""
    spec, status = part(document, "spec"), part(document, "status")
    name, chosen = _name(document), _group(spec, group)
    labels = {"ray.io/cluster": name}
    active = bool(status.get("readyWorkerReplicas"))
    fixed = ""
    if spec.get("suspend"):
        fixed = "it is suspended"
    elif spec.get("enableInTreeAutoscaling"):
        fixed = (
            "Ray's own autoscaler sets the replicas (enableInTreeAutoscaling); switch that off, or"
            " leave actions.replicas out of the policy"
        )
    elif isinstance(chosen, str):
        fixed = chosen
    if fixed or isinstance(chosen, str):
        return Scale({"matchLabels": labels}, fixed=fixed, active=active)
    workers = items(spec.get("workerGroupSpecs"))[chosen]
    # What is left out means: no worker, no least, no most, one host.
    now, least, most, hosts = (
        _number(workers.get(key))
        for key in ("replicas", "minReplicas", "maxReplicas", "numOfHosts")
    )
    labels["ray.io/group"] = str(workers.get("groupName"))
    path = ("spec", "workerGroupSpecs", chosen, "replicas")
    return Scale(
        selector={"matchLabels": labels},
        path=path,
        replicas=now or 0,
        least=least or 0,
        most=UNBOUNDED if most is None else most,
        pods=hosts or 1,
        active=active,
    )


def _ray_service(document: Document, group: str) -> Scale:
    """A RayService. Its controller makes a new cluster of whatever else changes in
    ``spec.rayClusterConfig``, but never takes new replicas from there to the cluster that serves:
    it compares specs without them, since autoscalers set them on the RayCluster itself
    (controllers/ray/rayservice_controller.go). So they are set where they have an effect: on the
    cluster that ``status.activeServiceStatus`` names."""
    active = part(document, "status", "activeServiceStatus").get("rayClusterName")
    if not isinstance(active, str) or not active:
        labels = {"ray.io/cluster": _name(document)}
        return Scale({"matchLabels": labels}, fixed="no cluster of it serves yet")
    child = (str(document.get("apiVersion")), "RayCluster", active)
    return Scale({"matchLabels": {"ray.io/cluster": active}}, child=child)


KINDS: dict[tuple[str, str], Callable[[Document, str], Scale]] = {
    ("batch", "Job"): _job,
    ("kubeflow.org", "PyTorchJob"): _pytorch_job,
    ("trainer.kubeflow.org", "TrainJob"): _train_job,
    ("ray.io", "RayCluster"): _ray_cluster,
    ("ray.io", "RayService"): _ray_service,
}
"""By API group and kind."""


def _group(spec: Document, wanted: str) -> int | str:
    """Index of the worker group, or why there is none."""
    names = [str(each.get("groupName")) for each in items(spec.get("workerGroupSpecs"))]
    if wanted in names:
        return names.index(wanted)
    if not names:
        return "it has no worker group"
    if wanted:
        listed = ", ".join(names)
        return f"it has no worker group {wanted}; write one of {listed} as actions.replicas.group"
    if len(names) > 1:
        listed = ", ".join(names)
        return f"it has several worker groups; write one of {listed} as actions.replicas.group"
    return 0


def _name(document: Document) -> str:
    return str(part(document, "metadata").get("name"))


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _words(value: object) -> Sequence[str]:
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def _finished(status: Document, *types: str) -> bool:
    return any(
        condition.get("type") in types and condition.get("status") == "True"
        for condition in items(status.get("conditions"))
    )
