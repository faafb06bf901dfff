"""Replicas, and the bounds of an autoscaler that sets them. Pure."""

from __future__ import annotations

from ...api.report import HpaChange, Phase, ReplicasChange, TradeRole
from .standing import Effect, Progress, Standing

REPLICAS_DEADLINE = 300.0
"""Seconds in which new replicas have to become ready: pulling an image and loading a model."""


def replicas_effect(change: ReplicasChange, phase: Phase, progress: Progress) -> Effect:
    """How far a new number of replicas has come."""
    found = progress.replicas
    if found is None:
        return Effect(Standing.UNKNOWN)
    if phase is Phase.REVERTING:
        if found == change.desired != change.replaces:
            return Effect(Standing.MISSING)
        return (
            Effect(Standing.IN_FORCE)
            if found == change.replaces
            else _set_by_others(found, change.replaces)
        )
    if phase is Phase.PLANNED and found in (change.replaces, change.desired):
        return Effect(Standing.MISSING)
    if found != change.desired:
        return _set_by_others(found, change.desired)
    ready = progress.ready
    if ready is None:
        return Effect(Standing.UNKNOWN)
    wanted = change.desired
    if progress.trade is not None and progress.trade.role is TradeRole.TAKES:
        # A trade may bring fewer than wait; the others wait on.
        wanted = min(wanted, progress.trade.ready)
    if ready >= wanted and _gathered(progress, wanted):
        return Effect(Standing.IN_FORCE, f"{ready} replicas are ready")
    if ready >= change.desired:
        seen = progress.observation
        return Effect(
            Standing.UNDER_WAY,
            f"the ranks did not form one group again in {REPLICAS_DEADLINE:.0f}s",
            REPLICAS_DEADLINE if seen.streaming == seen.expected else None,
        )
    return Effect(
        Standing.UNDER_WAY,
        f"{ready} of {change.desired} replicas are ready after {REPLICAS_DEADLINE:.0f}s",
        REPLICAS_DEADLINE,
    )


def _gathered(progress: Progress, wanted: int) -> bool:
    """Whether ranks are heard of in all pods that are wanted and, where they train together, have
    all found each other. What only the old ones do must not be measured as the new group's."""
    seen = progress.observation
    worlds = {rank.world_size for rank in seen.ranks}
    if worlds <= {None}:
        return True  # servers
    pods = {rank.pod for rank in seen.ranks}
    if len(pods) < wanted:
        return False
    apart = max(world or 1 for world in worlds) <= len(seen.ranks) / len(pods)
    if apart and not progress.elastic:
        return True  # each pod trains for itself
    return (
        len(pods) == seen.expected == seen.streaming
        and all(rank.fresh for rank in seen.ranks)
        and worlds == {len(seen.ranks)}
    )


def _set_by_others(found: int, wanted: int) -> Effect:
    message = f"somebody else set {found} replicas where {wanted} were wanted; left alone"
    return Effect(Standing.FOREIGN, message)


def hpa_effect(change: HpaChange, phase: Phase, progress: Progress) -> Effect:
    """How far new bounds of an autoscaler have come."""
    undo = phase is Phase.REVERTING
    wanted = change.replaces if undo else change.desired
    if progress.hpa_gone:
        message = f"HorizontalPodAutoscaler {change.name} does not scale the target any more"
        return Effect(Standing.FOREIGN, message)
    found = progress.hpa
    if found is None:
        return Effect(Standing.UNKNOWN)
    if found not in (change.desired, change.replaces):
        message = (
            f"somebody else set the bounds of {change.name} to {found.min} and {found.max}; left"
            " alone"
        )
        return Effect(Standing.FOREIGN, message)
    if phase is Phase.PLANNED or (undo and found != wanted):
        return Effect(Standing.MISSING)
    if found != wanted:
        message = f"somebody else set the bounds of {change.name} back; left alone"
        return Effect(Standing.FOREIGN, message)
    if undo:
        return Effect(Standing.IN_FORCE)
    if progress.replicas is None or progress.ready is None:
        return Effect(Standing.UNKNOWN)
    if progress.replicas >= wanted.min and progress.ready >= progress.replicas:
        return Effect(Standing.IN_FORCE, f"{progress.ready} replicas are ready")
    return Effect(
        Standing.UNDER_WAY,
        f"{progress.ready} replicas are ready, and {change.name} shall have at least {wanted.min},"
        f" after {REPLICAS_DEADLINE:.0f}s",
        REPLICAS_DEADLINE,
    )
