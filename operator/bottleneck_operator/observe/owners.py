"""Who else owns the replicas of a target: autoscalers and queues. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..api.meta import TargetRef
from ..api.report import HpaBounds
from .documents import Document, items, part
from .workload import gitops_of

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
ELASTIC_ANNOTATION = "kueue.x-k8s.io/elastic-job"
"""With it Kueue admits growth as a further slice of the workload and does not evict it
(kueue.sigs.k8s.io/docs/concepts/elastic_workload)."""

PAUSED = ("autoscaling.keda.sh/paused", "autoscaling.keda.sh/paused-replicas")
"""Annotations that hold the replicas where they are, or at a number
(keda.sh/docs/2.17/concepts/scaling-deployments)."""


@dataclass(frozen=True, slots=True)
class Hpa:
    """The HorizontalPodAutoscaler that scales a target. ``scaled_object`` is the ScaledObject that
    made it, ``gitops`` the program that sets its bounds to what a repository says."""

    name: str
    bounds: HpaBounds
    scaled_object: str = ""
    gitops: str = ""

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class ScaledObject:
    """A ScaledObject of KEDA. A paused one has no HorizontalPodAutoscaler."""

    name: str
    paused: bool


def kueue_of(document: Document) -> str:
    """The queue through which Kueue admits the pods of an object, nothing where it lets the object
    grow as it likes, or has nothing to do with it."""
    metadata = part(document, "metadata")
    if part(metadata, "annotations").get(ELASTIC_ANNOTATION) == "true":
        return ""
    return str(part(metadata, "labels").get(QUEUE_LABEL) or "")


def hpa_of(document: Document) -> Hpa:
    """The record of a HorizontalPodAutoscaler."""
    metadata, spec = part(document, "metadata"), part(document, "spec")
    owners = items(metadata.get("ownerReferences"))
    made_by = (str(each.get("name")) for each in owners if each.get("kind") == "ScaledObject")
    least = spec.get("minReplicas")
    return Hpa(
        name=str(metadata.get("name")),
        # The API server fills a minimum in.
        bounds=HpaBounds(min=1 if least is None else least, max=spec["maxReplicas"]),
        scaled_object=next(made_by, ""),
        gitops=gitops_of(metadata, ("minReplicas",)) or gitops_of(metadata, ("maxReplicas",)),
    )


def scaled_object(document: Document) -> ScaledObject:
    """The record of a ScaledObject."""
    metadata = part(document, "metadata")
    marks = part(metadata, "annotations")
    paused = marks.get(PAUSED[0], "false") != "false" or PAUSED[1] in marks
    return ScaledObject(str(metadata.get("name")), paused)


def scales(document: Document, ref: TargetRef, kind: str = "") -> bool:
    """Whether an autoscaler's ``spec.scaleTargetRef`` means that target; ``kind`` is what one that
    names none means."""
    target = part(document, "spec", "scaleTargetRef")
    return (target.get("kind", kind), target.get("name")) == (ref.kind, ref.name)
