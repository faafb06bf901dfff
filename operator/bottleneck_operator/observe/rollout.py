"""How a workload replaces its pods: images, the fields that steer a rolling update, and who owns
them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..api.conditions import AGENT_CONTAINER
from ..api.report import RolloutFields
from .documents import Document, clean, items, part
from .troubles import Trouble

GITOPS = ("argocd", "kustomize-controller", "helm-controller", "fleet-agent")
"""How the field managers of Argo CD, Flux and Fleet begin: programs that set a field back to what
their repository says."""

FOREVER = 2**31 - 1
"""A progress deadline that the Deployment controller takes for none."""


@dataclass(frozen=True, slots=True)
class PodImage:
    """The image of one container of one pod. ``words`` say what is wrong with the pod, ``stuck``
    that it will hardly mend by itself."""

    pod: str
    image: str
    ready: bool
    words: str = ""
    stuck: bool = False


@dataclass(frozen=True, slots=True)
class Rollout:
    """What the target says. ``images`` and ``owners`` (the GitOps manager that writes an image) are
    by container; ``settled`` tells that every pod is ready and made from the newest template;
    ``hindrance`` why no pod can go ahead of the others, in words that say what to change."""

    kind: str = ""
    replicas: int = 0
    images: Mapping[str, str] = field(default_factory=dict)
    owners: Mapping[str, str] = field(default_factory=dict)
    fields: RolloutFields = field(default_factory=RolloutFields)
    settled: bool = False
    hindrance: str = ""

    def held(self) -> RolloutFields:
        """The fields with which a rolling update stops at its first pod.

        A Deployment makes one pod more and takes none of the old ones away, since the new one does
        not count as available for longer than anybody waits; a Service sends traffic to what is
        ready. Its progress deadline has to be longer than that. A StatefulSet replaces only the
        ordinals from its partition on.
        """
        if self.kind == "StatefulSet":
            return RolloutFields(partition=max(0, self.replicas - 1))
        return RolloutFields(
            max_surge="1",
            max_unavailable="0",
            min_ready_seconds=FOREVER - 1,
            progress_deadline_seconds=FOREVER,
        )


def rollout_of(target: Document) -> Rollout:
    """From a target object; of kinds without a rolling update only the images are known."""
    kind, spec, status = target.get("kind"), part(target, "spec"), part(target, "status")
    containers = items(part(spec, "template", "spec").get("containers"))
    images = {
        name: clean(container.get("image"), 512)
        for container in containers
        if (name := clean(container.get("name"), 63)) != AGENT_CONTAINER
    }
    replicas = _whole(spec.get("replicas"), 1)
    return Rollout(
        kind=kind if isinstance(kind, str) else "",
        replicas=replicas,
        images=images,
        owners=_owners(part(target, "metadata"), images),
        fields=fields_of(target),
        settled=_settled(part(target, "metadata"), status, replicas),
        hindrance=_hindrance(kind, spec),
    )


def fields_of(target: Document) -> RolloutFields:
    """The fields as they are now."""
    spec = part(target, "spec")
    if target.get("kind") == "StatefulSet":
        partition = part(spec, "updateStrategy", "rollingUpdate").get("partition")
        return RolloutFields(partition=partition if isinstance(partition, int) else None)
    rolling = part(spec, "strategy", "rollingUpdate")
    surge, unavailable = rolling.get("maxSurge"), rolling.get("maxUnavailable")
    ready, deadline = spec.get("minReadySeconds"), spec.get("progressDeadlineSeconds")
    return RolloutFields(
        max_surge=None if surge is None else str(surge),
        max_unavailable=None if unavailable is None else str(unavailable),
        min_ready_seconds=ready if isinstance(ready, int) else None,
        progress_deadline_seconds=deadline if isinstance(deadline, int) else None,
    )


def still_held(now: RolloutFields, holds: RolloutFields, restores: RolloutFields) -> list[str]:
    """Names of the fields that still have the value that holds a rolling update, and should not.
    What somebody has changed since then is theirs."""
    return [
        name
        for name in RolloutFields.model_fields
        if getattr(now, name) == getattr(holds, name) != getattr(restores, name)
    ]


def words_about(trouble: Trouble | None) -> str:
    """What keeps a pod from running, in the kubelet's or the scheduler's words."""
    if trouble is None:
        return ""
    if trouble.waiting or trouble.unschedulable:
        return trouble.waiting or trouble.unschedulable
    last = trouble.ends[-1]
    return f"{last.container} ended with exit code {last.exit_code} ({last.reason or 'no reason'})"


def _owners(metadata: Document, names: Iterable[str]) -> dict[str, str]:
    found = {}
    for entry in items(metadata.get("managedFields")):
        manager = clean(entry.get("manager"), 128)
        if entry.get("subresource") or not manager.startswith(GITOPS):
            continue
        owned = part(entry, "fieldsV1", "f:spec", "f:template", "f:spec", "f:containers")
        for name in names:
            if "f:image" in part(owned, f'k:{{"name":"{name}"}}'):
                found[name] = manager
    return found


def _hindrance(kind: object, spec: Document) -> str:
    if kind == "Deployment":
        if spec.get("paused"):
            return "the Deployment is paused; set spec.paused to false"
        if part(spec, "strategy").get("type") == "Recreate":
            return (
                "its strategy Recreate replaces all pods at once, so that none could be tried"
                " first; set spec.strategy.type to RollingUpdate"
            )
        return ""
    if kind == "StatefulSet":
        if part(spec, "updateStrategy").get("type") == "OnDelete":
            return (
                "its updateStrategy OnDelete replaces no pod by itself; set"
                " spec.updateStrategy.type to RollingUpdate"
            )
        if part(spec, "updateStrategy", "rollingUpdate").get("partition"):
            return "its rolling update is held by a partition already; set it to 0"
        return ""
    return "only a Deployment or a StatefulSet can be held at one pod of a rolling update"


def _settled(metadata: Document, status: Document, replicas: int) -> bool:
    generation = metadata.get("generation")
    if generation is not None and status.get("observedGeneration") != generation:
        return False
    names = ("replicas", "updatedReplicas", "readyReplicas")
    return all(_whole(status.get(name), 0) == replicas for name in names)


def _whole(value: object, default: int) -> int:
    return value if isinstance(value, int) else default
