"""Cluster facts: the target, its scale, its pods, who else owns its replicas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..api.conditions import INJECTED_LABEL, KNOBS_ANNOTATION
from ..api.meta import TargetRef
from ..kube import Kube, KubeError, Object, Resource
from .selectors import Selector, from_string, matches


class TargetError(Exception):
    """The target cannot be looked after; ``kind`` tells which of the three reasons holds."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Target:
    """The workload of a policy. ``replicas`` and ``ready`` are None where it has no scale;
    ``active`` tells whether it has any pod that runs."""

    ref: TargetRef
    resource: Resource
    uid: str
    selector: Selector
    replicas: int | None
    ready: int | None
    active: bool
    finished: bool


@dataclass(frozen=True, slots=True)
class Pod:
    """What the operator keeps of a pod: as little as a fleet allows."""

    uid: str
    name: str
    namespace: str
    labels: Mapping[str, str]
    ip: str
    running: bool
    ready: bool
    started: str
    knobs: str


async def read_target(kube: Kube, namespace: str, ref: TargetRef) -> Target:
    """The target as it is now. Raises ``TargetError`` with kind ``missing``, ``unsupported`` or
    ``forbidden``."""
    resource = await kube.resource(ref.api_version, ref.kind)
    if resource is None:
        raise TargetError(
            "unsupported",
            f"the cluster has no {ref.kind} in {ref.api_version}; check spec.targetRef",
        )
    try:
        found = await kube.get(resource.path(namespace, ref.name))
        spec, status = found.get("spec", {}), found.get("status", {})
        selector = spec.get("selector")
        replicas, ready = spec.get("replicas"), status.get("readyReplicas", 0)
        if resource.scalable and (replicas is None or not isinstance(selector, dict)):
            scale = await kube.get(resource.path(namespace, ref.name, "scale"))
            replicas = scale["spec"].get("replicas", 0)
            selector = from_string((scale.get("status") or {}).get("selector", ""))
    except KubeError as error:
        if error.not_found:
            message = f"{ref} does not exist in namespace {namespace}; create it, or mend targetRef"
            raise TargetError("missing", message) from None
        if error.status == 403:
            raise TargetError("forbidden", error.message) from None
        raise
    except ValueError as error:
        raise TargetError("unsupported", f"{ref}: {error}") from None
    if not isinstance(selector, dict):
        raise TargetError("unsupported", f"{ref} has no pod selector")
    return Target(
        ref=ref,
        resource=resource,
        uid=found["metadata"]["uid"],
        selector=selector,
        replicas=replicas if resource.scalable else None,
        ready=ready if resource.scalable else None,
        active=bool(status.get("active") or status.get("readyReplicas")),
        finished=any(
            condition.get("type") in ("Complete", "Failed") and condition.get("status") == "True"
            for condition in status.get("conditions") or []
            if ref.kind == "Job"
        ),
    )


async def owner_of_replicas(kube: Kube, namespace: str, ref: TargetRef) -> str | None:
    """Name of the HorizontalPodAutoscaler that scales the target, if any."""
    listed = await kube.get(f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers")
    for item in listed.get("items", []):
        target = item["spec"]["scaleTargetRef"]
        if target["kind"] == ref.kind and target["name"] == ref.name:
            return str(item["metadata"]["name"])
    return None


def pod_of(document: Mapping[str, Any]) -> Pod:
    """The slim record of a Pod object."""
    metadata, status = document["metadata"], document.get("status") or {}
    annotations = metadata.get("annotations") or {}
    conditions = status.get("conditions") or []
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    going = metadata.get("deletionTimestamp") is not None
    return Pod(
        uid=metadata["uid"],
        name=metadata["name"],
        namespace=metadata["namespace"],
        labels=dict(metadata.get("labels") or {}),
        ip=status.get("podIP") or "",
        running=status.get("phase") == "Running" and not going,
        ready=ready and not going,
        started=status.get("startTime") or "",
        knobs=annotations.get(KNOBS_ANNOTATION, ""),
    )


@dataclass(slots=True)
class PodStore:
    """Injected pods of the cluster, kept up to date by a watch."""

    _pods: dict[str, dict[str, Pod]] = field(default_factory=dict)

    def update(self, document: Object, deleted: bool = False) -> Pod:
        """Takes a watch event; gives the pod's record."""
        pod = pod_of(document)
        pods = self._pods.setdefault(pod.namespace, {})
        if deleted or INJECTED_LABEL not in pod.labels:
            pods.pop(pod.uid, None)
        else:
            pods[pod.uid] = pod
        return pod

    def of(self, namespace: str, selector: Selector) -> list[Pod]:
        """Pods that a selector matches, in a stable order."""
        pods: Iterable[Pod] = self._pods.get(namespace, {}).values()
        return sorted((p for p in pods if matches(selector, p.labels)), key=lambda pod: pod.name)
