"""CPU and memory of running pods: in force once the nodes have given them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ...api.report import Phase, ResourcesChange
from ...observe.containers import ResizeState, one_of, same
from .standing import Effect, Progress, Standing

RESIZE_DEADLINE = 60.0
"""Seconds in which a node has to bring a resize about, or to find room for it."""


def resources_effect(change: ResourcesChange, phase: Phase, progress: Progress) -> Effect:
    """How far a resize of the running pods has come."""
    undo = phase is Phase.REVERTING
    wanted = change.replaces if undo else change.desired
    states = progress.containers
    if not states:
        return Effect(Standing.UNKNOWN)
    # Any size but those that this change finds and leaves is somebody else's doing.
    sizes = (change.desired, change.replaces, *change.earlier)
    ours = [each for each in states if one_of(each.wanted, sizes)]
    foreign = [each for each in states if each not in ours]
    if foreign and not (undo and ours):
        message = f"somebody else resized {change.container} of {foreign[0].pod}; left alone"
        return Effect(Standing.FOREIGN, message)
    if any(not same(each.wanted, wanted) for each in ours):
        return Effect(Standing.MISSING)
    if not undo and (refused := _infeasible(ours)):
        return Effect(Standing.REFUSED, refused)
    if all(same(each.actual, wanted) for each in ours):
        return Effect(Standing.IN_FORCE, f"{change.container} of {len(ours)} pods is resized")
    late = next((each for each in ours if not same(each.actual, wanted)), ours[0])
    why = f": {late.message}" if late.message else ""
    return Effect(
        Standing.UNDER_WAY,
        f"{late.pod} was not resized in {RESIZE_DEADLINE:.0f}s{why}",
        RESIZE_DEADLINE,
    )


def _infeasible(states: Iterable[ResizeState]) -> str:
    for each in states:
        if each.reason == "Infeasible":
            return f"the node of {each.pod} cannot give it: {each.message}"
        if each.reason == "Error":
            return f"the node of {each.pod} failed to resize it: {each.message}"
    return ""
