"""Knobs of running processes: one annotation on each pod (docs/architecture.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ..api.conditions import KNOBS_ANNOTATION
from ..decide.lifecycle import DesiredKnobs
from ..kube import Kube, KubeError
from ..observe.pods import Pod

MAX_GENERATION = 2**31
"""A generation from here on is nobody's count of changes."""


def annotation(knobs: DesiredKnobs) -> str:
    """The annotation's value: ``{"dataLoader.workers": 2}`` becomes nested JSON."""
    document: dict[str, Any] = {"generation": knobs.generation}
    for name, value in sorted(knobs.values.items()):
        group, _, knob = name.partition(".")
        document.setdefault(group, {})[knob] = value
    return json.dumps(document, separators=(",", ":"))


def generation(text: str) -> int:
    """The generation that an annotation carries; 0 for one that is absent or not ours. People can
    write anything there."""
    try:
        value = json.loads(text)["generation"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0
    ours = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_GENERATION
    return int(value) if ours else 0


def outdated(pods: Iterable[Pod], knobs: DesiredKnobs) -> list[Pod]:
    """Pods whose annotation is not what is wanted. A newer generation is left alone: then this
    process is the late one."""
    wanted = annotation(knobs)
    return [
        pod for pod in pods if pod.knobs != wanted and generation(pod.knobs) <= knobs.generation
    ]


async def write(kube: Kube, pods: Iterable[Pod], knobs: DesiredKnobs) -> None:
    """Writes the annotation to every pod that lacks it. Idempotent; a pod that is gone, or has
    changed since it was seen, is skipped. Raises ``KubeError``."""
    for pod in outdated(pods, knobs):
        change = {"annotations": {KNOBS_ANNOTATION: annotation(knobs)}}
        body = {"metadata": {**pod.identity, **change}}
        try:
            await kube.patch(f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}", body)
        except KubeError as error:
            # 409: the pod, or one of its name, is not as it was seen; the next turn sees it anew.
            if not (error.not_found or error.conflict):
                raise
