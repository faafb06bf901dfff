"""API objects as a cluster really shows them, cut to what is looked at."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

from .builders import NOW

Object = dict[str, Any]

SCHEDULER = (
    "0/3 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/"
    "control-plane: }, 2 Insufficient cpu. preemption: 0/3 nodes are available: 1 Preemption is "
    "not helpful for scheduling, 2 No preemption victims found for incoming pod."
)

QUOTA = (
    'Error creating: pods "ranker-5d9c7b6f4-x2x7k" is forbidden: exceeded quota: compute, '
    "requested: requests.cpu=2, used: requests.cpu=8, limited: requests.cpu=8"
)


def at(seconds: float) -> str:
    """``NOW`` plus some seconds, as the API writes it."""
    return datetime.fromtimestamp(NOW + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- pods ------------------------------------------------------------------------------------------


def pod(name: str = "ranker-0", created: float = -3600, **status: Any) -> Object:
    """A pod that runs and is ready, unless its status says otherwise."""
    return {
        "metadata": {
            "uid": f"uid-{name}",
            "name": name,
            "namespace": "ml",
            "creationTimestamp": at(created),
            "labels": {"app": "ranker", "bottleneck.dev/injected": "true"},
        },
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "startTime": at(created),
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [running("main")],
            "initContainerStatuses": [running("bottleneck-agent")],
            **status,
        },
    }


def unschedulable(name: str = "ranker-0", since: float = -90) -> Object:
    """A pod that no node takes."""
    conditions = [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": SCHEDULER,
            "lastTransitionTime": at(since),
        }
    ]
    found = pod(name, created=since, phase="Pending", conditions=conditions)
    for absent in ("podIP", "startTime", "containerStatuses", "initContainerStatuses"):
        del found["status"][absent]
    return found


def running(name: str, restarts: int = 0, last: Object | None = None) -> Object:
    """The status of a container that runs, for the (restarts + 1)th time."""
    return {
        "name": name,
        "ready": True,
        "restartCount": restarts,
        "state": {"running": {"startedAt": at(-30)}},
        "lastState": {"terminated": last} if last else {},
    }


def backing_off(name: str, restarts: int, last: Object) -> Object:
    """The status of a container that the kubelet lets wait before it starts it again."""
    message = (
        f"back-off 40s restarting failed container={name} pod=ranker-0_ml(8f4f2e9c-6c0d-4d0f-9c9c)"
    )
    return {
        "name": name,
        "ready": False,
        "restartCount": restarts,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": message}},
        "lastState": {"terminated": last},
    }


def ended(seconds: float, reason: str = "OOMKilled", code: int = 137) -> Object:
    """How a container's process ended."""
    return {
        "containerID": "containerd://6f0c",
        "exitCode": code,
        "reason": reason,
        "startedAt": at(seconds - 20),
        "finishedAt": at(seconds),
    }


def looping(last: float = -15, restarts: int = 3, created: float = -200) -> Object:
    """A pod whose container is killed for its memory again and again."""
    status = [backing_off("main", restarts, ended(last))]
    conditions = [{"type": "Ready", "status": "False"}]
    return pod(created=created, containerStatuses=status, conditions=conditions)


# -- workloads -------------------------------------------------------------------------------------

CONTAINER: Object = {
    "name": "main",
    "image": "registry.example/ranker:v2",
    "args": ["--threads", "4"],
    "env": [{"name": "TOKEN", "value": "hunter2"}],
    "resources": {
        "requests": {"cpu": "2", "memory": "2Gi"},
        "limits": {"cpu": "4", "memory": "2Gi"},
    },
    "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8000}},
}


def container(**changes: Any) -> Object:
    """A container that lacks nothing but a digest; None takes a field away."""
    found = copy.deepcopy(CONTAINER) | changes
    return {key: value for key, value in found.items() if value is not None}


def template(*containers: Object, **spec: Any) -> Object:
    """A pod template."""
    return {
        "metadata": {"labels": {"app": "ranker"}},
        "spec": {"containers": list(containers) or [container()], **spec},
    }


def managed(manager: str, seconds: float, *fields: str, subresource: str = "") -> Object:
    """An entry of managedFields that owns ``spec.<field>`` for each of the fields."""
    owned: Object = {f"f:{field}": {} for field in fields}
    if "template" in fields:
        owned["f:template"] = {"f:spec": {"f:containers": {'k:{"name":"main"}': {"f:image": {}}}}}
    entry = {
        "manager": manager,
        "operation": "Update",
        "apiVersion": "apps/v1",
        "time": at(seconds),
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": owned},
    }
    return entry | ({"subresource": subresource} if subresource else {})


def deployment(replicas: int = 2, existing: int = 2, revision: int = 2, **changes: Any) -> Object:
    """A Deployment; ``status`` and ``annotations`` are added to, all else replaces metadata."""
    status = {"replicas": existing, "readyReplicas": existing, **changes.pop("status", {})}
    annotations = {
        "deployment.kubernetes.io/revision": str(revision),
        **changes.pop("annotations", {}),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "ranker",
            "namespace": "ml",
            "uid": "uid-deployment",
            "generation": 7,
            "creationTimestamp": at(-86400),
            "annotations": annotations,
            "managedFields": [
                managed("kubectl-client-side-apply", -300, "replicas", "selector", "template"),
                managed("bottleneck-operator", -20, "replicas", subresource="scale"),
                managed("kube-controller-manager", -5, subresource="status"),
            ],
            **changes,
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "ranker"}},
            "template": template(),
        },
        "status": status,
    }


def replica_set(
    revision: int, created: float, *containers: Object, owner: str = "uid-deployment"
) -> Object:
    """One revision of the Deployment."""
    made = template(*containers)
    made["metadata"]["labels"]["pod-template-hash"] = f"hash{revision}"
    return {
        "metadata": {
            "name": f"ranker-hash{revision}",
            "creationTimestamp": at(created),
            "annotations": {"deployment.kubernetes.io/revision": str(revision)},
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "Deployment", "name": "ranker", "uid": owner}
            ],
        },
        "spec": {"replicas": 2, "template": made},
    }


def controller_revision(name: str, revision: int, created: float, *containers: Object) -> Object:
    """One revision of a StatefulSet."""
    return {
        "metadata": {
            "name": name,
            "creationTimestamp": at(created),
            "ownerReferences": [{"kind": "StatefulSet", "name": "ranker", "uid": "uid-set"}],
        },
        "revision": revision,
        "data": {"spec": {"template": {**template(*containers), "$patch": "replace"}}},
    }


def job(active: int = 1, succeeded: int = 0, **spec: Any) -> Object:
    """A Job that wants one pod, unless told otherwise."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "trainer",
            "namespace": "ml",
            "uid": "uid-job",
            "generation": 1,
            "creationTimestamp": at(-400),
            "managedFields": [
                managed("kubectl-create", -400, "template", "parallelism"),
                managed("kube-controller-manager", -380, subresource="status"),
            ],
        },
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "uid-job"}},
            "template": template(container(readinessProbe=None)),
            **spec,
        },
        "status": {"active": active, "succeeded": succeeded},
    }


def failed_create(seconds: float, message: str = QUOTA, **changes: Any) -> Object:
    """The event of a controller that could not make a pod."""
    return {
        "type": "Warning",
        "reason": "FailedCreate",
        "message": message,
        "count": 7,
        "firstTimestamp": at(seconds - 60),
        "lastTimestamp": at(seconds),
        "eventTime": None,
        "involvedObject": {"kind": "Job", "name": "trainer", "uid": "uid-job"},
        **changes,
    }
