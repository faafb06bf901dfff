"""The number of replicas: through the scale subresource of whatever has one, else by its path."""

from __future__ import annotations

from ..kube import JSON_PATCH, Kube
from ..observe.cluster import Target
from ..observe.scale import pointer, value_at


class SupersededError(Exception):
    """Somebody else changed the replicas meanwhile; they are left alone."""


async def set_replicas(
    kube: Kube, namespace: str, target: Target, replaces: int, desired: int
) -> None:
    """From ``replaces`` to ``desired``. Idempotent; the resource version makes sure that nobody's
    change in between is overwritten. Raises ``SupersededError`` where the number is neither, and
    ``KubeError``."""
    if target.scale is not None:
        await _set_by_path(kube, namespace, target, replaces, desired)
        return
    path = target.resource.path(namespace, target.ref.name, "scale")
    scale = await kube.get(path)
    current = scale["spec"].get("replicas", 0)
    if not _needed(target, current, replaces, desired):
        return
    version = scale["metadata"]["resourceVersion"]
    body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": desired}}
    await kube.patch(path, body)


async def _set_by_path(
    kube: Kube, namespace: str, target: Target, replaces: int, desired: int
) -> None:
    assert target.scale is not None
    assert target.holder is not None
    resource, name = target.holder
    place = target.scale.path
    path = resource.path(namespace, name)
    found = await kube.get(path)
    current = value_at(found, place)
    if not _needed(target, current or 0, replaces, desired):
        return
    version = found["metadata"]["resourceVersion"]
    # With its version the object is the one that was read: the path still leads to the same worker
    # group and the same number. Once it has passed, the answer is a conflict (409), and the next
    # turn reads again; a failed "test" would look like a refusal (422).
    await kube.patch(
        path,
        [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
            {"op": "add", "path": pointer(place), "value": desired},
        ],
        JSON_PATCH,
    )


def _needed(target: Target, current: int, replaces: int, desired: int) -> bool:
    if current not in (replaces, desired):
        raise SupersededError(
            f"{target.ref} has {current} replicas, neither {replaces} nor {desired}"
        )
    return current != desired
