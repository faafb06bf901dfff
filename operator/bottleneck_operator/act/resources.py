"""CPU and memory of running pods, in place: the resize subresource (Kubernetes 1.33 and later)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..api.report import ContainerResources
from ..kube import STRATEGIC_MERGE_PATCH, Kube, KubeError
from ..observe.containers import one_of
from ..observe.pods import Pod


async def resize(
    kube: Kube,
    pods: Iterable[Pod],
    container: str,
    desired: ContainerResources,
    replaces: Iterable[ContainerResources],
) -> None:
    """Gives ``container`` of these pods the ``desired`` size. Idempotent: a pod of another size
    than ``replaces`` is somebody else's doing and is left alone; one that is gone, or has changed
    since it was seen, is skipped.
    Raises ``KubeError``."""
    sizes = list(replaces)
    for pod in pods:
        state = pod.size(container)
        if state is None or not one_of(state.wanted, sizes):
            continue
        body = {
            "metadata": pod.identity,
            "spec": {"containers": [{"name": container, "resources": document(desired)}]},
        }
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/resize"
        try:
            await kube.patch(path, body, STRATEGIC_MERGE_PATCH)
        except KubeError as error:
            if not (error.conflict or (error.not_found and await _gone(kube, pod))):
                raise


async def _gone(kube: Kube, pod: Pod) -> bool:
    """Whether it is the pod that is missing, and not the subresource (an older API server)."""
    try:
        await kube.get(f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}")
    except KubeError as error:
        return error.not_found
    return False


def document(size: ContainerResources) -> dict[str, Any]:
    """The ``resources`` of a container, with null for what shall not be set."""
    return {
        "requests": {"cpu": size.cpu_request, "memory": size.memory_request},
        "limits": {"cpu": size.cpu_limit, "memory": size.memory_limit},
    }
