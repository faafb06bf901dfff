"""Another image by the workload's own rolling update, held at its first pod until it is judged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..api.report import ImageChange, RolloutFields, Stage
from ..kube import STRATEGIC_MERGE_PATCH, Kube, KubeError
from ..observe.cluster import Target
from ..observe.pods import Pod
from ..observe.rollout import rollout_of, still_held
from .replicas import SupersededError


async def roll(
    kube: Kube, namespace: str, target: Target, change: ImageChange, stage: Stage | None
) -> None:
    """The desired image, at the first pod only unless ``stage`` is Rolled. Idempotent; the resource
    version makes sure that nobody's change in between is overwritten. Raises ``SupersededError``
    where the image is neither, and ``KubeError``."""
    path = target.resource.path(namespace, target.ref.name)
    found = await kube.get(path)
    now = rollout_of(found)
    image = now.images.get(change.container, "")
    if image not in (change.desired, change.replaces):
        raise SupersededError(f"{target.ref} has {image or 'no image'} in {change.container}")
    if stage is Stage.ROLLED:
        names = still_held(now.fields, change.holds, change.restores)
        fields = _some(change.restores, names)
    else:
        fields = _some(change.holds, RolloutFields.model_fields)
    # In one write: the rolling update must not begin before it is held.
    await kube.patch(path, _body(found, change, change.desired, fields), STRATEGIC_MERGE_PATCH)


async def undo(
    kube: Kube, namespace: str, target: Target, change: ImageChange, pods: Iterable[Pod]
) -> None:
    """What was there before. An image or a field that somebody else has set meanwhile is left
    alone. Raises ``KubeError``."""
    path = target.resource.path(namespace, target.ref.name)
    found = await kube.get(path)
    now = rollout_of(found)
    image = change.replaces if now.images.get(change.container) == change.desired else None
    fields = _some(change.restores, still_held(now.fields, change.holds, change.restores))
    if image is not None or fields:
        await kube.patch(path, _body(found, change, image, fields), STRATEGIC_MERGE_PATCH)
    if target.ref.kind == "StatefulSet":
        await _mend(kube, change, pods)


async def _mend(kube: Kube, change: ImageChange, pods: Iterable[Pod]) -> None:
    """A StatefulSet waits for a broken pod before it replaces it, for ever if need be
    (kubernetes/kubernetes#67250). The image of a pod can be set: so it comes up, and is replaced
    after that."""
    for pod in pods:
        if pod.image(change.container) != change.desired or pod.ready:
            continue
        containers = [{"name": change.container, "image": change.replaces}]
        body = {"metadata": pod.identity, "spec": {"containers": containers}}
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"
        try:
            await kube.patch(path, body, STRATEGIC_MERGE_PATCH)
        except KubeError as error:
            # 409: the pod, or one of its name, is not as it was seen; the next turn sees it anew.
            if not (error.not_found or error.conflict):
                raise


def _some(fields: RolloutFields, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(fields, name) for name in names}


def _body(
    found: dict[str, Any], change: ImageChange, image: str | None, fields: dict[str, Any]
) -> dict[str, Any]:
    """The patch; null takes a field away."""
    spec: dict[str, Any] = {}
    if image is not None:
        containers = [{"name": change.container, "image": image}]
        spec["template"] = {"spec": {"containers": containers}}
    for name, at in _PATHS[found["kind"]].items():
        if name in fields:
            inner = spec
            for step in at[:-1]:
                inner = inner.setdefault(step, {})
            value = fields[name]
            inner[at[-1]] = int(value) if isinstance(value, str) and value.isdigit() else value
    return {"metadata": {"resourceVersion": found["metadata"]["resourceVersion"]}, "spec": spec}


_PATHS: dict[str, dict[str, tuple[str, ...]]] = {
    "Deployment": {
        "max_surge": ("strategy", "rollingUpdate", "maxSurge"),
        "max_unavailable": ("strategy", "rollingUpdate", "maxUnavailable"),
        "min_ready_seconds": ("minReadySeconds",),
        "progress_deadline_seconds": ("progressDeadlineSeconds",),
    },
    "StatefulSet": {"partition": ("updateStrategy", "rollingUpdate", "partition")},
}
