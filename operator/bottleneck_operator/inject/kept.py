"""What the operator found for a workload, given to its pods as they are created. Pure.

Changing the pod template would restart every pod; a pod that is only now created loses nothing. It
is an offer: where it cannot be known, a pod gets what its template says, and the operator resizes
it when it runs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from ..act.knobs import annotation
from ..act.resources import document
from ..api.conditions import KNOBS_ANNOTATION
from ..api.policy import BottleneckPolicy
from ..decide.lifecycle import DesiredKnobs
from ..observe.containers import one_of, size_of
from ..observe.pods import HASH_LABEL

Object = dict[str, Any]


def owner(pod: Object) -> tuple[str, str] | None:
    """Kind and name of the workload that a pod is created for: its controller, and a ReplicaSet's
    Deployment. None for a pod of its own."""
    metadata = pod.get("metadata") or {}
    for reference in metadata.get("ownerReferences") or []:
        if not reference.get("controller"):
            continue
        kind, name = str(reference.get("kind")), str(reference.get("name"))
        suffix = f"-{(metadata.get('labels') or {}).get(HASH_LABEL, '')}"
        if kind == "ReplicaSet" and len(suffix) > 1 and name.endswith(suffix):
            return "Deployment", name.removesuffix(suffix)
        return kind, name
    return None


def policy_of(pod: Object, policies: Iterable[Object]) -> BottleneckPolicy | None:
    """The policy that looks after the pod's workload, the oldest where there are several, as the
    operator has it. One that cannot be read is passed over."""
    found = owner(pod)
    read = []
    for item in policies:
        try:
            read.append(BottleneckPolicy.model_validate(item))
        except ValidationError:
            continue
    own = [p for p in read if (p.spec.target_ref.kind, p.spec.target_ref.name) == found]
    return min(
        own, key=lambda p: (str(p.metadata.creation_timestamp), p.metadata.name), default=None
    )


def with_kept(pod: Object, policy: BottleneckPolicy) -> Object:
    """The pod with the sizes and the knobs that its policy's status says are in force."""
    pod, status = copy.deepcopy(pod), policy.status
    sizes = {size.container: size for size in status.sizes}
    for container in pod["spec"]["containers"]:
        size = sizes.get(container.get("name"))
        present = container.get("resources") or {}
        # A template of another size was written by people since; it is left alone.
        if size is None or not one_of(size_of(present), size.replaces):
            continue
        container["resources"] = {**present, **_merged(present, document(size.desired))}
    if status.knobs is not None and status.knobs.generation:
        knobs = DesiredKnobs(status.knobs.generation, dict(status.knobs.desired))
        annotations = pod["metadata"].setdefault("annotations", {})
        annotations[KNOBS_ANNOTATION] = annotation(knobs)
    return pod


def _merged(present: Object, wanted: Object) -> Object:
    """Requests and limits with other amounts of CPU and memory; what else there is stays."""
    merged = {kind: {**(present.get(kind) or {}), **amounts} for kind, amounts in wanted.items()}
    return {
        kind: {name: value for name, value in amounts.items() if value is not None}
        for kind, amounts in merged.items()
    }
