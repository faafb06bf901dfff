"""The target, its scale, and who else owns its replicas: read from the API server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..api.meta import TargetRef
from ..kube import Kube, KubeError, Resource
from .documents import part
from .pods import Pod
from .selectors import Selector, from_string, matches
from .workload import Workload, workload_of


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
    workload: Workload = field(default_factory=Workload)


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
        workload=workload_of(found, replicas if resource.scalable else None),
    )


async def owner_of_resources(kube: Kube, namespace: str, ref: TargetRef) -> str | None:
    """Name of the VerticalPodAutoscaler that sets the target's resources, if any; one that only
    recommends (updateMode Off) sets none. Raises ``KubeError``."""
    if await kube.resource("autoscaling.k8s.io/v1", "VerticalPodAutoscaler") is None:
        return None
    path = f"/apis/autoscaling.k8s.io/v1/namespaces/{namespace}/verticalpodautoscalers"
    for item in (await kube.get(path)).get("items", []):
        target = part(item, "spec", "targetRef")
        recommends = part(item, "spec", "updatePolicy").get("updateMode") == "Off"
        if not recommends and (target.get("kind"), target.get("name")) == (ref.kind, ref.name):
            return str(item["metadata"]["name"])
    return None


async def disruptions_allowed(kube: Kube, namespace: str, pods: Sequence[Pod]) -> int | None:
    """How many of these pods may go at once by the PodDisruptionBudgets of the namespace; None
    where none is about them. Raises ``KubeError``."""
    path = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"
    allowed = []
    for item in (await kube.get(path)).get("items", []):
        selector = part(item, "spec", "selector")
        # Unlike anywhere else an empty selector is about every pod of the namespace.
        if not selector or any(matches(selector, pod.labels) for pod in pods):
            left = part(item, "status").get("disruptionsAllowed")
            allowed.append(left if isinstance(left, int) else 0)
    return min(allowed, default=None)


async def owner_of_replicas(kube: Kube, namespace: str, ref: TargetRef) -> str | None:
    """Name of the HorizontalPodAutoscaler that scales the target, if any."""
    listed = await kube.get(f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers")
    for item in listed.get("items", []):
        target = item["spec"]["scaleTargetRef"]
        if target["kind"] == ref.kind and target["name"] == ref.name:
            return str(item["metadata"]["name"])
    return None
