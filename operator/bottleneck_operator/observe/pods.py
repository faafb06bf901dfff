"""Pods as the operator keeps them: as little as a fleet allows. Pure."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..api.conditions import INJECTED_LABEL, KNOBS_ANNOTATION
from .containers import (
    ContainerSize,
    ResizeState,
    ResizeTrouble,
    devices_of,
    sizes_of,
    trouble_with_resize,
)
from .documents import Document, clean, items
from .selectors import Selector, matches
from .troubles import Trouble, remembered, trouble_of


@dataclass(frozen=True, slots=True)
class Pod:
    """The slim record of a Pod object. ``phase`` is the pod's own, or "Terminating"; ``trouble`` is
    None for a pod of which nothing is wrong."""

    uid: str
    name: str
    namespace: str
    labels: Mapping[str, str]
    ip: str
    running: bool
    ready: bool
    started: str
    knobs: str
    phase: str = ""
    trouble: Trouble | None = None
    containers: tuple[ContainerSize, ...] = ()
    resize: ResizeTrouble | None = None
    version: str = ""
    """Its resource version: a write that names it changes this state of the pod, no later one."""
    devices: tuple[tuple[str, float], ...] = ()
    """Extended resources that its containers take together, by name."""
    node: str = ""
    controller: tuple[str, str, str] = ("", "", "")
    """Kind, name and uid of what controls it; empty for a pod of its own."""

    def size(self, container: str) -> ResizeState | None:
        """The size of one container, or None where the pod has none of that name."""
        for each in self.containers:
            if each.name == container:
                trouble = self.resize or ResizeTrouble("", "")
                return ResizeState(
                    self.name, each.wanted, each.actual, trouble.reason, trouble.message
                )
        return None

    @property
    def identity(self) -> dict[str, str]:
        """The metadata of a patch that is about this very state of this very pod."""
        return {"uid": self.uid, "resourceVersion": self.version}

    def image(self, container: str) -> str:
        """The image of one container, empty where the pod has none of that name."""
        return next((each.image for each in self.containers if each.name == container), "")


def pod_of(document: Document) -> Pod:
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
        ip=address_of(document),
        running=status.get("phase") == "Running" and not going,
        ready=ready and not going,
        started=status.get("startTime") or "",
        knobs=annotations.get(KNOBS_ANNOTATION, ""),
        phase="Terminating" if going else status.get("phase") or "",
        trouble=trouble_of(document),
        containers=sizes_of(document),
        devices=devices_of(document),
        resize=trouble_with_resize(conditions),
        # A fleet has many pods on few nodes.
        node=sys.intern(clean((document.get("spec") or {}).get("nodeName"), 253)),
        version=metadata.get("resourceVersion", ""),
        controller=_controller(metadata),
    )


def _controller(metadata: Document) -> tuple[str, str, str]:
    for each in items(metadata.get("ownerReferences")):
        if each.get("controller"):
            return str(each.get("kind")), str(each.get("name")), str(each.get("uid"))
    return "", "", ""


def foreign(pod: Pod, kind: str, name: str, uid: str) -> bool:
    """Whether a pod that the selector of a workload matches is another workload's: what its labels
    claim, its controller denies. A pod that nothing controls is nobody else's, and would be adopted
    by the workload's own controller."""
    owner, owner_name, owner_uid = pod.controller
    if not owner:
        return False
    if kind == "Deployment":
        own = f"{name}-{pod.labels.get(HASH_LABEL, '')}"
        return (owner, owner_name) != ("ReplicaSet", own)
    return kind in (owner, *DIRECT) and owner_uid != uid


DIRECT = ("ReplicaSet", "StatefulSet", "DaemonSet", "Job")
"""Kinds that make their pods themselves."""

HASH_LABEL = "pod-template-hash"
"""The label by which a Deployment tells its ReplicaSets apart; it ends their names, too."""


def address_of(document: Document) -> str:
    """The address at which a pod's sidecar is dialled, empty where there is none that is the pod's
    alone. On the node's network anybody there could answer; and who may write the status of a pod
    must not lead the operator to its own ports or to the node's metadata."""
    if (document.get("spec") or {}).get("hostNetwork"):
        return ""
    written = (document.get("status") or {}).get("podIP") or ""
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None) or address
    return "" if never_a_pod(mapped) else written


def never_a_pod(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address cannot be that of a pod or of a service."""
    return (
        address.is_loopback
        or address.is_link_local  # the metadata of cloud machines among them
        or address.is_multicast
        or address.is_unspecified
        or address.is_reserved
    )


@dataclass(slots=True)
class PodStore:
    """Injected pods of the cluster, kept up to date by a watch."""

    _pods: dict[str, dict[str, Pod]] = field(default_factory=dict)

    def update(self, document: dict[str, Any], deleted: bool = False) -> Pod:
        """Takes a watch event; gives the pod's record."""
        pod = pod_of(document)
        pods = self._pods.setdefault(pod.namespace, {})
        if deleted or INJECTED_LABEL not in pod.labels:
            pods.pop(pod.uid, None)
            return pod
        before = pods.get(pod.uid)
        if before is not None and before.trouble is not None:
            pod = replace(pod, trouble=remembered(pod.trouble, before.trouble))
        pods[pod.uid] = pod
        return pod

    def of(self, namespace: str, selector: Selector) -> list[Pod]:
        """Pods that a selector matches, in a stable order."""
        pods: Iterable[Pod] = self._pods.get(namespace, {}).values()
        return sorted((p for p in pods if matches(selector, p.labels)), key=lambda pod: pod.name)
