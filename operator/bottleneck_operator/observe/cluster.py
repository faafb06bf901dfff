"""The target, its scale, and who else owns its replicas: read from the API server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..api.meta import TargetRef
from ..kube import Kube, KubeError, Object, Resource
from .documents import items, part
from .owners import Hpa, ScaledObject, hpa_of, kueue_of, scaled_object, scales
from .pods import Pod
from .scale import Scale, scale_of
from .selectors import Selector, from_string, matches
from .workload import Workload, gitops_of, workload_of


class TargetError(Exception):
    """The target cannot be looked after; ``kind`` tells which of the three reasons holds."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Target:
    """The workload of a policy. ``replicas`` and ``ready`` are None where it has no scale, or one
    that cannot be set; ``active`` tells whether it has any pod that runs. ``scale`` is there for
    kinds that are scaled by path, and ``holder`` the resource and name of the object to write to.
    """

    ref: TargetRef
    resource: Resource
    uid: str
    selector: Selector
    replicas: int | None
    ready: int | None
    active: bool
    finished: bool
    workload: Workload = field(default_factory=Workload)
    scale: Scale | None = None
    holder: tuple[Resource, str] | None = None
    kueue: str = ""
    """The queue through which Kueue admits its pods, if it does."""


async def read_target(kube: Kube, namespace: str, ref: TargetRef, group: str = "") -> Target:
    """The target as it is now; ``group`` is the worker group to scale where it has several. Raises
    ``TargetError`` with kind ``missing``, ``unsupported`` or ``forbidden``."""
    resource = await kube.resource(ref.api_version, ref.kind)
    if resource is None:
        raise TargetError(
            "unsupported",
            f"the cluster has no {ref.kind} in {ref.api_version}; check spec.targetRef",
        )
    try:
        found = await kube.get(resource.path(namespace, ref.name))
        # An object need not say of itself what it was asked for by.
        found = {"apiVersion": ref.api_version, "kind": ref.kind, **found}
        scale = scale_of(found, group)
        if scale is not None:
            return await _scaled_by_path(kube, namespace, ref, resource, found, scale, group)
        spec, status = found.get("spec", {}), found.get("status", {})
        selector = spec.get("selector")
        replicas, ready = spec.get("replicas"), status.get("readyReplicas", 0)
        if resource.scalable and (replicas is None or not isinstance(selector, dict)):
            answer = await kube.get(resource.path(namespace, ref.name, "scale"))
            replicas = answer["spec"].get("replicas", 0)
            selector = from_string((answer.get("status") or {}).get("selector", ""))
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
        finished=False,
        workload=workload_of(found, replicas if resource.scalable else None),
        kueue=kueue_of(found),
    )


async def _scaled_by_path(
    kube: Kube,
    namespace: str,
    ref: TargetRef,
    resource: Resource,
    found: Object,
    scale: Scale,
    group: str,
) -> Target:
    holder, holding = (resource, ref.name), found
    if scale.child is not None:
        version, kind, name = scale.child
        inner = await kube.resource(version, kind)
        if inner is None:
            raise TargetError("unsupported", f"{ref} needs {kind} in {version}, which is not there")
        holding = {"apiVersion": version, "kind": kind}
        holding |= await kube.get(inner.path(namespace, name))
        holder, scale = (inner, name), scale_of(holding, group) or scale
    # Only a Job says in its status what its pods lack.
    workload = workload_of(found)
    return Target(
        ref=ref,
        resource=resource,
        uid=found["metadata"]["uid"],
        selector=scale.selector,
        replicas=scale.replicas,
        # Counted by the watch of pods.
        ready=None if scale.replicas is None else 0,
        active=scale.active,
        finished=scale.finished,
        workload=replace(workload, gitops=gitops_of(part(holding, "metadata"), scale.path[1:])),
        scale=scale,
        holder=holder,
        kueue=kueue_of(found),
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


async def owner_of_replicas(kube: Kube, namespace: str, ref: TargetRef) -> Hpa | None:
    """The HorizontalPodAutoscaler that scales the target, if any. Raises ``KubeError``."""
    listed = await kube.get(f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers")
    return next((hpa_of(item) for item in items(listed.get("items")) if scales(item, ref)), None)


async def scaled_object_of(kube: Kube, namespace: str, ref: TargetRef) -> ScaledObject | None:
    """The ScaledObject of KEDA that scales the target, if any. Raises ``KubeError``."""
    resource = await kube.resource("keda.sh/v1alpha1", "ScaledObject")
    if resource is None:
        return None
    listed = items((await kube.get(resource.path(namespace))).get("items"))
    found = (scaled_object(item) for item in listed if scales(item, ref, "Deployment"))
    return next(found, None)
