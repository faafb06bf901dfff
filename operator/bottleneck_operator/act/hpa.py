"""Bounds of a HorizontalPodAutoscaler."""

from __future__ import annotations

from ..api.report import HpaBounds
from ..kube import Kube
from ..observe.owners import hpa_of
from .replicas import SupersededError


async def set_bounds(
    kube: Kube, namespace: str, name: str, replaces: HpaBounds, desired: HpaBounds
) -> None:
    """From ``replaces`` to ``desired``. Idempotent; the resource version makes sure that nobody's
    change in between is overwritten. Raises ``SupersededError`` where the bounds are neither, and
    ``KubeError``."""
    path = f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers/{name}"
    found = await kube.get(path)
    current = hpa_of(found).bounds
    if current == desired:
        return
    if current != replaces:
        raise SupersededError(
            f"{name} has bounds of {current.min} and {current.max} replicas, neither"
            f" {replaces.min} and {replaces.max} nor {desired.min} and {desired.max}"
        )
    version = found["metadata"]["resourceVersion"]
    bounds = {"minReplicas": desired.min, "maxReplicas": desired.max}
    await kube.patch(path, {"metadata": {"resourceVersion": version}, "spec": bounds})
