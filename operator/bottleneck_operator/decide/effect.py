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
    HpaBounds,
    HpaChange,
    ImageChange,
    KnobsChange,
    Phase,
    ReplicasChange,
    ResourcesChange,
    Stage,
    TradeRole,
    Verdict,
)
from ..observe.containers import ResizeState, one_of, same
from ..observe.observation import Observation
from ..observe.rollout import PodImage, Rollout, still_held
from .trading import OtherSide

KNOBS_DEADLINE = 60.0
"""Seconds in which every rank has to acknowledge a knobs generation."""

REPLICAS_DEADLINE = 300.0
"""Seconds in which new replicas have to become ready: pulling an image and loading a model."""

RESIZE_DEADLINE = 60.0
"""Seconds in which a node has to bring a resize about, or to find room for it."""


CANARY_DEADLINE = 300.0
"""Seconds in which a pod with another image has to become ready: the image is pulled and the model
loaded. Each further pod gets as long again."""

STUCK_DEADLINE = 60.0
"""The same for one whose image cannot be pulled or whose container does not stay up: the kubelet
tries again at growing distances, and has done so twice by then."""


class Standing(StrEnum):
    """Where an effect stands."""

    UNKNOWN = "Unknown"
    MISSING = "Missing"
    """It has to be brought about, or brought about again where something came later."""
    UNDER_WAY = "UnderWay"
    IN_FORCE = "InForce"
    FOREIGN = "Foreign"
    """Somebody else has changed the same thing; it is left alone."""
    OVERTAKEN = "Overtaken"
    """The same, and what was set beside it has to be taken back."""
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
    elastic: bool = False
    """Whether ranks form their group anew when their number changes."""
    hpa: HpaBounds | None = None
    """Bounds of the HorizontalPodAutoscaler, None while they are not known."""
    hpa_gone: bool = False
    """Whether no autoscaler of the action's name scales the target any more."""
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
    trade: OtherSide | None = None
    """The other side of the trade that the report is in, if any."""
    stage: Stage | None = None
    rollout: Rollout | None = None
    images: Sequence[PodImage] = ()
    """The changed container of every pod that is not going, whether it runs or not."""
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
    if action.image is not None:
        return _image(action.image, phase, progress)
    if action.hpa is not None:
        return _hpa(action.hpa, phase, progress)
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


# -- bounds of an autoscaler -----------------------------------------------------------------------


def _hpa(change: HpaChange, phase: Phase, progress: Progress) -> Effect:
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


# -- image -----------------------------------------------------------------------------------------


def _image(change: ImageChange, phase: Phase, progress: Progress) -> Effect:
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
