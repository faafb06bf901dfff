"""The size of a pod's containers: what is wanted of the node, and what the node has given. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from ..api import units
from ..api.report import ContainerResources
from .documents import Document, clean, items, part

FIELDS = ("cpu_request", "cpu_limit", "memory_request", "memory_limit")


@dataclass(frozen=True, slots=True)
class ContainerSize:
    """One container: ``wanted`` (and ``image``) from its spec, ``actual`` as the kubelet reports
    it."""

    name: str
    wanted: ContainerResources
    actual: ContainerResources
    image: str = ""


@dataclass(frozen=True, slots=True)
class ResizeState:
    """One container of one pod, and why a resize of that pod is not done yet: ``reason`` is
    Infeasible, Deferred or Error, or empty."""

    pod: str
    wanted: ContainerResources
    actual: ContainerResources
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class ResizeTrouble:
    """What the kubelet says of a resize that it has not brought about."""

    reason: str
    message: str


def sizes_of(pod: Document) -> tuple[ContainerSize, ...]:
    """The containers of a pod object, without init containers (the sidecar is one)."""
    given = {
        clean(status.get("name"), 63): part(status, "resources")
        for status in items(part(pod, "status").get("containerStatuses"))
    }
    found = []
    for container in items(part(pod, "spec").get("containers")):
        name = clean(container.get("name"), 63)
        wanted = part(container, "resources")
        image = clean(container.get("image"), 512)
        found.append(ContainerSize(name, size_of(wanted), size_of(given.get(name, {})), image))
    return _shared(tuple(found))


def devices_of(pod: Document) -> tuple[tuple[str, float], ...]:
    """The extended resources that a pod takes, such as ``(("nvidia.com/gpu", 2.0),)``: those whose
    name has a domain that is not Kubernetes' own, over all containers that run side by side."""
    found: dict[str, float] = {}
    for container in items(part(pod, "spec").get("containers")):
        wanted = part(container, "resources")
        for name, amount in {**part(wanted, "requests"), **part(wanted, "limits")}.items():
            domain = name.partition("/")[0] if "/" in name else ""
            if domain and not domain.endswith("kubernetes.io") and str(amount).isdigit():
                found[name] = found.get(name, 0.0) + float(amount)
    return _same_devices(tuple(sorted(found.items())))


@lru_cache(maxsize=256)
def _same_devices(devices: tuple[tuple[str, float], ...]) -> tuple[tuple[str, float], ...]:
    """The same object for equal devices, as for sizes."""
    return devices


@lru_cache(maxsize=4096)
def _shared(sizes: tuple[ContainerSize, ...]) -> tuple[ContainerSize, ...]:
    """The same object for equal sizes: the pods of a workload are alike, and a fleet has many."""
    return sizes


def size_of(resources: Document) -> ContainerResources:
    """The size that a container's ``resources`` say."""
    values = {
        f"{resource}_{word}": part(resources, kind).get(resource)
        for resource in ("cpu", "memory")
        for kind, word in (("requests", "request"), ("limits", "limit"))
    }
    return ContainerResources(**{name: str(v) for name, v in values.items() if v is not None})


def trouble_with_resize(conditions: Iterable[Document]) -> ResizeTrouble | None:
    """From a pod's conditions: PodResizePending says Deferred or Infeasible, PodResizeInProgress
    says Error where the kubelet tried in vain."""
    for condition in conditions:
        if condition.get("status") != "True":
            continue
        reason = clean(condition.get("reason"), 63)
        pending = condition.get("type") == "PodResizePending"
        failing = condition.get("type") == "PodResizeInProgress" and reason == "Error"
        if pending or failing:
            return ResizeTrouble(reason, clean(condition.get("message")))
    return None


def same(one: ContainerResources | None, other: ContainerResources | None) -> bool:
    """Whether two sizes are the same amounts, however they are written (1 and 1000m)."""
    if one is None or other is None:
        return one is other
    return all(_amount(getattr(one, name)) == _amount(getattr(other, name)) for name in FIELDS)


def one_of(size: ContainerResources, sizes: Iterable[ContainerResources]) -> bool:
    """Whether a size is the same as any of some others."""
    return any(same(size, each) for each in sizes)


def _amount(quantity: str | None) -> float | str | None:
    try:
        return None if quantity is None else units.quantity(quantity)
    except ValueError:
        return quantity  # another notation of Kubernetes' (1e3): compared as it stands
