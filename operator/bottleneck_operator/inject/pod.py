"""A pod → the same pod with the telemetry sidecar. Pure, and idempotent piece by piece.

Fail open: a pod for which the sidecar could do harm is left exactly as it is, and ``refusal`` says
why. What is already there under one of our names is the author's and stays.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from bottleneck_sidecar import wire

from ..api.conditions import (
    AGENT_CONTAINER,
    GROUP,
    INJECT_LABEL,
    INJECTED_LABEL,
    KNOBS_ANNOTATION,
)

Object = dict[str, Any]
"""A Kubernetes object, or a part of one, as JSON has it."""

AGENT = AGENT_CONTAINER
RUN_VOLUME = "bottleneck-run"
RUN_PATH = "/var/run/bottleneck"
KNOBS_VOLUME = "bottleneck-knobs"
KNOBS_PATH = "/etc/bottleneck"
PORT_NAME = "bottleneck"
SHARE_PROCESSES_ANNOTATION = f"{GROUP}/share-process-namespace"
MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
OS_LABEL = "kubernetes.io/os"

USER = 65532
"""The conventional "nonroot"; no image needs to know it."""


@dataclass(frozen=True)
class InjectSettings:
    """What an administrator decides about the sidecar."""

    image: str
    pull_policy: str = "IfNotPresent"
    cpu_request: str = "10m"
    memory_request: str = "32Mi"
    memory_limit: str = "64Mi"
    cpu_limit: str = "200m"
    """Set only on pods whose containers all have one: see ``_resources``."""
    gpu: bool = False
    """Let the NVIDIA runtime show the node's devices to the sidecar. Off: a sidecar without a GPU
    request may see every device of the node, not only the workload's own."""


def refusal(pod: Object) -> str | None:
    """Why ``pod`` is left as it is; ``None`` when it can take the sidecar."""
    if not _readable(pod):
        return "it is not a pod as Kubernetes writes it"
    metadata, spec = pod.get("metadata") or {}, pod["spec"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    if "false" in (labels.get(INJECT_LABEL), annotations.get(INJECT_LABEL)):
        return f'{INJECT_LABEL} is "false"'
    if MIRROR_ANNOTATION in annotations:
        return "it is a static pod, which cannot be changed through the API"
    selector = (spec.get("nodeSelector") or {}).get(OS_LABEL)
    if "windows" in ((spec.get("os") or {}).get("name"), selector):
        return "it runs on Windows, for which there is no sidecar"
    if spec.get("hostNetwork"):
        return f"it uses the node's network, where port {wire.PORT} may be taken"
    if any(_uses_port(container) for container in _containers(spec) if not _is_agent(container)):
        return f"one of its containers uses port {wire.PORT} itself"
    return None


def inject(pod: Object, settings: InjectSettings) -> Object:
    """``pod`` with the sidecar, or an equal pod when ``refusal`` has something to say."""
    pod = copy.deepcopy(pod)
    if refusal(pod) is not None:
        return pod
    metadata, spec = pod.setdefault("metadata", {}), pod["spec"]
    metadata["labels"] = (metadata.get("labels") or {}) | {INJECTED_LABEL: "true"}
    _share_processes(spec, metadata.get("annotations") or {})
    spec["volumes"] = _extended(spec.get("volumes"), _volumes())
    for container in spec["containers"]:
        _connect(container)
    # Last, so that the workload's own init containers do not wait for it.
    spec["initContainers"] = _extended(spec.get("initContainers"), [_agent(spec, settings)])
    return pod


def _agent(spec: Object, settings: InjectSettings) -> Object:
    """The native sidecar: an init container that stays. Without any probe: a startup probe would
    hold the workload's start until the agent answers, and a dead agent must not do that."""
    env = [_field_env(name, path) for name, path in _IDENTITY]
    if settings.gpu:
        env += [
            {"name": "BOTTLENECK_GPU", "value": "all"},
            {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"},
            {"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "utility"},
        ]
    agent: Object = {
        "name": AGENT,
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "restartPolicy": "Always",
        "ports": [{"name": PORT_NAME, "containerPort": wire.PORT, "protocol": "TCP"}],
        "env": env,
        "resources": _resources(spec, settings),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsGroup": USER,
            "runAsNonRoot": True,
            "runAsUser": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    _connect(agent)
    return agent


_IDENTITY = (
    ("POD_NAME", "metadata.name"),
    ("POD_NAMESPACE", "metadata.namespace"),
    ("POD_UID", "metadata.uid"),
)


def _field_env(name: str, path: str) -> Object:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _connect(container: Object) -> None:
    """Gives a container the agent's socket and the knobs file."""
    mounts = container.get("volumeMounts") or []
    paths = {str(mount.get("mountPath")).rstrip("/") for mount in mounts}
    ours: list[Object] = [
        {"name": RUN_VOLUME, "mountPath": RUN_PATH},
        {"name": KNOBS_VOLUME, "mountPath": KNOBS_PATH, "readOnly": True},
    ]
    # Two mounts at one path are refused by the API server: what the author put there stays.
    added = [mount for mount in ours if mount["mountPath"] not in paths]
    container["volumeMounts"] = [*mounts, *added]
    container["env"] = _extended(
        container.get("env"),
        [
            {"name": "BOTTLENECK_SOCKET", "value": f"{RUN_PATH}/agent.sock"},
            {"name": "BOTTLENECK_KNOBS", "value": f"{KNOBS_PATH}/knobs"},
        ],
    )


def _volumes() -> list[Object]:
    knobs = {"fieldPath": f"metadata.annotations['{KNOBS_ANNOTATION}']"}
    return [
        # In memory: an emptyDir on disk keeps a cluster autoscaler from draining the node.
        {"name": RUN_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {
            "name": KNOBS_VOLUME,
            "downwardAPI": {"items": [{"path": "knobs", "fieldRef": knobs}]},
        },
    ]


def _resources(spec: Object, settings: InjectSettings) -> Object:
    """Small, and such that the pod keeps its QoS class and passes its namespace's quota.

    A Guaranteed pod stays Guaranteed only when requests and limits of the sidecar are equal, too;
    and where every container has a CPU limit, a quota may insist on one.
    """
    requests = {"cpu": settings.cpu_request, "memory": settings.memory_request}
    limits = {"memory": settings.memory_limit}
    each = [container.get("resources") or {} for container in spec["containers"]]
    if all("cpu" in (resources.get("limits") or {}) for resources in each):
        limits["cpu"] = settings.cpu_limit
    if all(_guaranteed(resources) for resources in each):
        requests = limits
    return {"requests": dict(requests), "limits": dict(limits)}


def _guaranteed(resources: Object) -> bool:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    # A request that is left out is defaulted to the limit.
    return all(
        name in limits and requests.get(name, limits[name]) == limits[name]
        for name in ("cpu", "memory")
    )


def _share_processes(spec: Object, annotations: Object) -> None:
    """On request, lets the agent see the workload's processes (and through them its cgroup)."""
    # The API server refuses it together with hostPID, which shows them anyway.
    if annotations.get(SHARE_PROCESSES_ANNOTATION) == "true" and not spec.get("hostPID"):
        spec["shareProcessNamespace"] = True


def _extended(present: list[Object] | None, wanted: list[Object]) -> list[Object]:
    """``present`` and what of ``wanted`` it has no namesake of."""
    present = present or []
    names = {item.get("name") for item in present}
    return [*present, *(item for item in wanted if item["name"] not in names)]


def _containers(spec: Object) -> list[Object]:
    return [*spec["containers"], *(spec.get("initContainers") or [])]


def _is_agent(container: Object) -> bool:
    return container.get("name") == AGENT


def _uses_port(container: Object) -> bool:
    ports = container.get("ports") or []
    return any(port.get("containerPort") == wire.PORT for port in ports)


def _readable(pod: Object) -> bool:
    """Whether everything that injection looks at has the type that Kubernetes gives it."""
    spec = pod.get("spec")
    if not isinstance(spec, dict) or not spec.get("containers"):
        return False
    metadata = pod.get("metadata") or {}
    if not _objects(spec["containers"]) or not _objects(spec.get("initContainers") or []):
        return False
    lists = [spec.get("volumes")]
    mappings = [metadata, spec.get("os"), spec.get("nodeSelector")]
    if isinstance(metadata, dict):
        mappings += [metadata.get("labels"), metadata.get("annotations")]
    for container in _containers(spec):
        lists += [container.get(key) for key in ("env", "ports", "volumeMounts")]
        resources = container.get("resources") or {}
        mappings.append(resources)
        if isinstance(resources, dict):
            mappings += [resources.get("limits"), resources.get("requests")]
    return all(_objects(items or []) for items in lists) and all(
        isinstance(mapping or {}, dict) for mapping in mappings
    )


def _objects(items: object) -> bool:
    return isinstance(items, list) and all(isinstance(item, dict) for item in items)
