"""The number of replicas, through the scale subresource of whatever has one."""

from __future__ import annotations

from ..kube import Kube
from ..observe.cluster import Target


class SupersededError(Exception):
    """Somebody else changed the replicas meanwhile; they are left alone."""


async def set_replicas(
    kube: Kube, namespace: str, target: Target, replaces: int, desired: int
) -> None:
    """From ``replaces`` to ``desired``. Idempotent; the resource version makes sure that nobody's
    change in between is overwritten. Raises ``SupersededError`` where the number is neither, and
    ``KubeError``."""
    path = target.resource.path(namespace, target.ref.name, "scale")
    scale = await kube.get(path)
    current = scale["spec"].get("replicas", 0)
    if current == desired:
        return
    if current != replaces:
        raise SupersededError(
            f"{target.ref} has {current} replicas, neither {replaces} nor {desired}"
        )
    version = scale["metadata"]["resourceVersion"]
    body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": desired}}
    await kube.patch(path, body)
