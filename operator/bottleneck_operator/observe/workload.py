"""What the target object says of itself: how many pods it wants, what they lack, who wrote the pod
template. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..api.conditions import AGENT_CONTAINER
from .documents import Document, clean, items, part, seconds_of
from .rollout import GITOPS, Rollout, rollout_of
from .template import digest_of

REVISION = "deployment.kubernetes.io/revision"
CHANGE_CAUSE = "kubernetes.io/change-cause"


@dataclass(frozen=True, slots=True)
class Touch:
    """The newest write to the pod template: by which field manager, and when it last wrote. A
    manager is a program's name for itself; which person ran it the cluster does not tell."""

    manager: str
    at: float


@dataclass(frozen=True, slots=True)
class Gaps:
    """Names of containers of the template that lack something (the sidecar is not looked at)."""

    containers: tuple[str, ...] = ()
    without_requests: tuple[str, ...] = ()
    without_limits: tuple[str, ...] = ()
    unpinned: tuple[str, ...] = ()
    """``container: image`` of those whose image is not pinned by its digest."""
    without_probe: tuple[str, ...] | None = ()
    """Without a readiness probe; None for a workload that serves nobody."""
    memory_limits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Workload:
    """What is kept of the target object. ``wanted`` and ``missing`` count pods: None where the kind
    does not say how many it wants."""

    created: float | None = None
    generation: int = 0
    revision: str = ""
    """Which ReplicaSet (by its revision) or ControllerRevision (by its name) is the current one."""
    change_cause: str = ""
    touch: Touch | None = None
    gitops: str = ""
    """The field manager that writes the number of replicas from a repository, if any."""
    gaps: Gaps = field(default_factory=Gaps)
    wanted: int | None = None
    missing: int | None = None
    refused: str = ""
    """The words with which the API server refused a pod, where the target's status has them."""
    rollout: Rollout = field(default_factory=Rollout)
    template: str = ""
    """Digest of the pod templates."""


def workload_of(target: Document, replicas: int | None = None) -> Workload:
    """The record of a target object. ``replicas`` is the wanted number where it has a scale."""
    metadata, spec, status = (part(target, name) for name in ("metadata", "spec", "status"))
    kind = target.get("kind")
    wanted, missing = _pods(spec, status, replicas, kind)
    annotations = part(metadata, "annotations")
    revision = status.get("updateRevision") or annotations.get(REVISION)
    generation = metadata.get("generation")
    return Workload(
        created=seconds_of(metadata.get("creationTimestamp")),
        generation=generation if isinstance(generation, int) else 0,
        revision=revision if isinstance(revision, str) else "",
        change_cause=clean(annotations.get(CHANGE_CAUSE), 120),
        touch=touch_of(metadata),
        gitops=gitops_of(metadata),
        gaps=gaps_of(part(spec, "template", "spec"), serves=kind not in ("Job", "CronJob")),
        wanted=wanted,
        missing=missing,
        refused=refusal_of(status),
        rollout=rollout_of(target),
        template=digest_of(spec),
    )


def _pods(
    spec: Document, status: Document, replicas: int | None, kind: object
) -> tuple[int | None, int | None]:
    """How many pods are wanted now, and how many of those do not exist."""
    if kind == "Job":
        over = any(
            c.get("type") in ("Complete", "Failed") and c.get("status") == "True"
            for c in items(status.get("conditions"))
        )
        if over or spec.get("suspend"):
            return 0, 0
        parallel = _number(spec.get("parallelism"), 1)
        left = _number(spec.get("completions"), parallel) - _number(status.get("succeeded"), 0)
        wanted = max(0, min(parallel, left))
        return wanted, max(0, wanted - _number(status.get("active"), 0))
    if replicas is None:
        return None, None
    return replicas, max(0, replicas - _number(status.get("replicas"), 0))


def _number(value: object, default: int) -> int:
    return value if isinstance(value, int) else default


def refusal_of(status: Document) -> str:
    """Why no more pods can be made, from a Deployment's (or ReplicaSet's) own conditions."""
    for condition in items(status.get("conditions")):
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return clean(condition.get("message"))
    return ""


def touch_of(metadata: Document) -> Touch | None:
    """The manager that wrote the pod template last. Writes to subresources are not looked at: the
    status belongs to controllers, and the scale (by people, autoscalers and this operator) changes
    no template."""
    found: list[Touch] = []
    for entry in items(metadata.get("managedFields")):
        at = seconds_of(entry.get("time"))
        owns = bool(part(entry, "fieldsV1", "f:spec", "f:template"))
        if owns and at is not None and not entry.get("subresource"):
            found.append(Touch(clean(entry.get("manager"), 128), at))
    return max(found, key=lambda touch: touch.at, default=None)


def gitops_of(metadata: Document, path: Iterable[str | int] = ("replicas",)) -> str:
    """The GitOps manager that owns a field of ``spec`` (by default ``replicas``), or nothing. A
    list is owned as a whole."""
    names = [f"f:{step}" for step in itertools.takewhile(lambda s: isinstance(s, str), path)]
    for entry in items(metadata.get("managedFields")):
        manager = clean(entry.get("manager"), 128)
        owns = names[-1] in part(entry, "fieldsV1", "f:spec", *names[:-1]) if names else False
        if owns and not entry.get("subresource") and manager.startswith(GITOPS):
            return manager
    return ""


def gaps_of(pod: Document, serves: bool = True) -> Gaps:
    """What the containers of a pod template lack. A limit counts as a request, as it does for the
    API server; resources of the pod as a whole count for each container."""
    names: list[str] = []
    requests: list[str] = []
    limits: list[str] = []
    unpinned: list[str] = []
    probes: list[str] = []
    memory: dict[str, str] = {}
    whole = part(pod, "resources")
    for container in items(pod.get("containers")):
        name = clean(container.get("name"), 63)
        if name == AGENT_CONTAINER:
            continue
        names.append(name)
        own = part(container, "resources")
        limit = {**part(whole, "limits"), **part(own, "limits")}
        request = {**limit, **part(whole, "requests"), **part(own, "requests")}
        if not _both(request):
            requests.append(name)
        if not _both(limit):
            limits.append(name)
        if isinstance(limit.get("memory"), str):
            memory[name] = clean(limit["memory"], 32)
        image = clean(container.get("image"), 200)
        if "@" not in image:
            unpinned.append(f"{name}: {image}")
        if "readinessProbe" not in container:
            probes.append(name)
    return Gaps(
        containers=tuple(names),
        without_requests=tuple(requests),
        without_limits=tuple(limits),
        unpinned=tuple(unpinned),
        without_probe=tuple(probes) if serves else None,
        memory_limits=memory,
    )


def _both(resources: Mapping[str, object]) -> bool:
    return "cpu" in resources and "memory" in resources


def listed(names: Iterable[str], most: int = 3) -> str:
    """``a, b, c and 2 more``."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
