"""How far the effect of an action has come: one function for each kind of change. Pure.

The state machine (``lifecycle.py``) knows only the five answers; what they mean for knobs, replicas
or resources is said here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from ..api.report import (
    Action,
    KnobsChange,
    Phase,
    ReplicasChange,
    ResourcesChange,
    Verdict,
)
from ..observe.containers import ResizeState, one_of, same
from ..observe.observation import Observation

KNOBS_DEADLINE = 60.0
"""Seconds in which every rank has to acknowledge a knobs generation."""

REPLICAS_DEADLINE = 300.0
"""Seconds in which new replicas have to become ready: pulling an image and loading a model."""

RESIZE_DEADLINE = 60.0
"""Seconds in which a node has to bring a resize about, or to find room for it."""


class Standing(StrEnum):
    """Where an effect stands."""

    UNKNOWN = "Unknown"
    MISSING = "Missing"
    """It has to be brought about, or brought about again where something came later."""
    UNDER_WAY = "UnderWay"
    IN_FORCE = "InForce"
    FOREIGN = "Foreign"
    """Somebody else has changed the same thing; it is left alone."""
    REFUSED = "Refused"


@dataclass(frozen=True, slots=True)
class Effect:
    """The answer, in words for people. ``deadline`` in seconds since it was begun; None while it
    cannot be told whether the workload failed or only its telemetry. ``at`` is when it came into
    force, where that was seen."""

    standing: Standing
    message: str = ""
    deadline: float | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """What is known of an action's effect. ``replicas``, ``ready`` and ``containers`` (of running
    pods, by pod) come from the API server."""

    observation: Observation
    replicas: int | None = None
    ready: int | None = None
    containers: Sequence[ResizeState] = ()
    annotated: bool = False
    """Whether every running pod carries the generation that the report wants now."""
    in_force_at: float | None = None
    """When every rank ran with the report's knobs, seconds since the Unix epoch. An API server that
    is away must not move it: what was measured since would count as measured before."""
    target_gone: bool = False
    newest_generation: int = 0
    """Newest knobs generation that another report has brought into force."""
    another_open: bool = False
    """Whether another action is under way: a workload gets one experiment at a time."""
    verdict: Verdict | None = None
    met: bool = False
    """Whether every objective is known to be met now."""
    superseded_by: str = ""
    """Name of the report that carries this one's action further, if any."""


def effect_of(action: Action, phase: Phase, progress: Progress) -> Effect:
    """Where the effect stands that ``action`` should have in ``phase``: in Reverting its undoing,
    in all other phases its change."""
    if action.knobs is not None:
        return _knobs(action.knobs, phase, progress)
    if action.replicas is not None:
        return _replicas(action.replicas, phase, progress)
    assert action.resources is not None
    return _resources(action.resources, phase, progress)


# -- knobs -----------------------------------------------------------------------------------------


def _knobs(change: KnobsChange, phase: Phase, progress: Progress) -> Effect:
    undo = phase is Phase.REVERTING
    generation = change.generation + undo
    seen = progress.observation
    if phase is Phase.PLANNED or not progress.annotated:
        return Effect(Standing.MISSING)
    refused = "" if undo else refusal(seen, generation)
    if refused:
        return Effect(Standing.REFUSED, refused)
    if acknowledged(seen, generation):
        at = progress.in_force_at
        return Effect(
            Standing.IN_FORCE,
            f"generation {generation} is in force in {len(seen.ranks)} ranks",
            at=None if at is None else datetime.fromtimestamp(at, UTC),
        )
    # A silent sidecar is no refusal: without telemetry everything is held as it is.
    heard = undo or 0 < seen.streaming == seen.expected
    return Effect(
        Standing.UNDER_WAY,
        f"not every rank acknowledged generation {generation} in {KNOBS_DEADLINE:.0f}s",
        KNOBS_DEADLINE if heard else None,
    )


def acknowledged(observation: Observation, generation: int) -> bool:
    """Whether every rank of every expected pod runs with that generation or a newer one."""
    ranks = observation.ranks
    return (
        bool(ranks)
        and observation.streaming == observation.expected
        and all(
            rank.fresh
            and rank.generation is not None
            and rank.generation >= generation
            and rank.result in ("Applied", "Unchanged")
            for rank in ranks
        )
    )


def refusal(observation: Observation, generation: int) -> str:
    """The message of a rank that refused that generation, or nothing."""
    for rank in observation.ranks:
        if rank.result == "Refused" and rank.generation == generation:
            return f"rank {rank.rank} of {rank.pod} refused: {rank.message}"
    return ""


# -- replicas --------------------------------------------------------------------------------------


def _replicas(change: ReplicasChange, phase: Phase, progress: Progress) -> Effect:
    found = progress.replicas
    if found is None:
        return Effect(Standing.UNKNOWN)
    if phase is Phase.REVERTING:
        if found == change.desired:
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
    if ready >= change.desired:
        return Effect(Standing.IN_FORCE, f"{ready} replicas are ready")
    return Effect(
        Standing.UNDER_WAY,
        f"{ready} of {change.desired} replicas are ready after {REPLICAS_DEADLINE:.0f}s",
        REPLICAS_DEADLINE,
    )


def _set_by_others(found: int, wanted: int) -> Effect:
    message = f"somebody else set {found} replicas where {wanted} were wanted; left alone"
    return Effect(Standing.FOREIGN, message)


# -- resources -------------------------------------------------------------------------------------


def _resources(change: ResourcesChange, phase: Phase, progress: Progress) -> Effect:
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
