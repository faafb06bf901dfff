"""Another image: one pod first, then all of them. Pure."""

from __future__ import annotations

from ...api.report import ImageChange, Phase, Stage
from ...observe.rollout import Rollout, still_held
from .standing import Effect, Progress, Standing

CANARY_DEADLINE = 300.0
"""Seconds in which a pod with another image has to become ready: the image is pulled and the model
loaded. Each further pod gets as long again."""

STUCK_DEADLINE = 60.0
"""The same for one whose image cannot be pulled or whose container does not stay up: the kubelet
tries again at growing distances, and has done so twice by then."""


def image_effect(change: ImageChange, phase: Phase, progress: Progress) -> Effect:
    """How far another image has come: as a canary, then in all pods."""
    found = progress.rollout
    if found is None:
        return Effect(Standing.UNKNOWN)
    image, undo = found.images.get(change.container, ""), phase is Phase.REVERTING
    held = still_held(found.fields, change.holds, change.restores)
    if phase is Phase.PLANNED:
        begun = image == change.desired and found.fields == change.holds
        if begun or (image == change.replaces and found.fields == change.restores):
            return Effect(Standing.MISSING)
        return _image_of_others(change, image, Standing.FOREIGN)
    if undo:
        if image == change.desired or held or _broken(change, progress):
            return Effect(Standing.MISSING)
        if image != change.replaces:
            return _image_of_others(change, image, Standing.FOREIGN)
        return _rolled(change, change.replaces, found)
    if image != change.desired:
        standing = Standing.OVERTAKEN if held else Standing.FOREIGN
        return _image_of_others(change, image, standing)
    if progress.stage is Stage.ROLLED:
        return Effect(Standing.MISSING) if held else _rolled(change, image, found)
    if found.fields != change.holds:
        message = f"somebody else changed how {change.container} is rolled out; taken back"
        return Effect(Standing.OVERTAKEN, message)
    return _canary(change, progress)


def _canary(change: ImageChange, progress: Progress) -> Effect:
    canaries = [each for each in progress.images if each.image == change.desired]
    if ready := [each for each in canaries if each.ready]:
        beside = sum(each.image != change.desired and each.ready for each in progress.images)
        untouched = f"{beside} untouched" if beside else "no other to compare with"
        return Effect(Standing.IN_FORCE, f"canary {ready[0].pod} is ready, {untouched}")
    stuck = any(each.stuck for each in canaries)
    deadline = STUCK_DEADLINE if stuck else CANARY_DEADLINE
    words = "; ".join(each.words for each in canaries if each.words)
    name = canaries[0].pod if canaries else "no pod with the new image"
    return Effect(
        Standing.UNDER_WAY,
        f"canary {name} was not ready in {deadline:.0f}s" + (f": {words}" if words else ""),
        deadline,
    )


def _rolled(change: ImageChange, image: str, found: Rollout) -> Effect:
    if found.settled:
        return Effect(Standing.IN_FORCE, f"all {found.replicas} replicas run {image}")
    deadline = CANARY_DEADLINE * max(1, found.replicas)
    return Effect(
        Standing.UNDER_WAY,
        f"not all {found.replicas} replicas ran {image} after {deadline:.0f}s",
        deadline,
    )


def _broken(change: ImageChange, progress: Progress) -> bool:
    """Whether a StatefulSet has a pod with the image to be undone that is not ready: it would wait
    for that pod for ever before it replaces it."""
    stateful = progress.rollout is not None and progress.rollout.kind == "StatefulSet"
    return stateful and any(e.image == change.desired and not e.ready for e in progress.images)


def _image_of_others(change: ImageChange, image: str, standing: Standing) -> Effect:
    message = (
        f"somebody else set the image of {change.container} to {image or 'nothing'}, or how it is"
        " rolled out; left alone"
    )
    return Effect(standing, message)
