"""The cluster's state, value by value, against what a report says was there. Pure.

Only what is known is compared; what a silent process has in force is not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum

from ..api.meta import Setting
from ..api.report import (
    Action,
    ContainerResources,
    HpaChange,
    ImageChange,
    KnobsChange,
    ResourcesChange,
    RolloutFields,
)
from ..observe.containers import FIELDS, same
from .effects.standing import Progress

MOST = 16


class State(StrEnum):
    """Which of the two states of a change is expected."""

    BEFORE = "before the action"
    AFTER = "as the action left it"


def differences(action: Action, expected: State, progress: Progress) -> list[str]:
    """Every value that is another one than expected, in words; empty where none is known to be."""
    found: Iterable[str] = ()
    if action.knobs is not None:
        found = _knobs(action.knobs, expected, progress)
    elif action.replicas is not None:
        change = action.replicas
        wanted = change.replaces if expected is State.BEFORE else change.desired
        found = _one("replicas", progress.replicas, wanted, expected)
    elif action.hpa is not None:
        found = _bounds(action.hpa, expected, progress)
    elif action.resources is not None:
        found = _sizes(action.resources, expected, progress)
    elif action.image is not None:
        found = _image(action.image, expected, progress)
    return list(dict.fromkeys(found))[:MOST]


def _one(name: str, found: object, wanted: object, expected: State) -> Iterator[str]:
    if found is not None and found != wanted:
        yield f"{name} {found}, {expected} {wanted}"


def _knobs(change: KnobsChange, expected: State, progress: Progress) -> Iterator[str]:
    values = change.replaces if expected is State.BEFORE else change.desired
    for name, wanted in sorted(values.items()):
        for rank in progress.observation.ranks:
            found = rank.knobs.get(name) if rank.fresh else None
            if found is not None and not _equal(found, wanted):
                where = f"{name} of rank {rank.rank} of {rank.pod}"
                yield f"{where} {_text(found)}, {expected} {wanted}"


def _equal(found: float | str | bool, wanted: Setting) -> bool:
    """Processes tell switches as true and false, and numbers as they like."""
    if isinstance(found, str) or isinstance(wanted, str):
        return str(found) == str(wanted)
    return float(found) == float(wanted)


def _text(found: float | str | bool) -> str:
    return f"{found:g}" if isinstance(found, float) else str(found)


def _bounds(change: HpaChange, expected: State, progress: Progress) -> Iterator[str]:
    wanted, found = (
        change.replaces if expected is State.BEFORE else change.desired,
        progress.hpa,
    )
    if progress.hpa_gone:
        yield f"HorizontalPodAutoscaler {change.name} does not scale the target any more"
    elif found is not None:
        yield from _one(f"minReplicas of {change.name}", found.min, wanted.min, expected)
        yield from _one(f"maxReplicas of {change.name}", found.max, wanted.max, expected)


def _sizes(change: ResourcesChange, expected: State, progress: Progress) -> Iterator[str]:
    wanted = change.replaces if expected is State.BEFORE else change.desired
    for state in progress.containers:
        for size, where in ((state.wanted, "asked for"), (state.actual, "given")):
            # Pods that began later have the size that such pods begin with.
            if not any(same(size, each) for each in (wanted, *change.earlier)):
                for name in _unlike(size, wanted):
                    now, then = getattr(size, name), getattr(wanted, name)
                    what = f"{name.replace('_', ' ')} {where} of {change.container} of {state.pod}"
                    yield f"{what} {now or 'none'}, {expected} {then or 'none'}"


def _unlike(one: ContainerResources, other: ContainerResources) -> list[str]:
    alone = ContainerResources()
    return [
        name
        for name in FIELDS
        if not same(
            alone.model_copy(update={name: getattr(one, name)}),
            alone.model_copy(update={name: getattr(other, name)}),
        )
    ]


def _image(change: ImageChange, expected: State, progress: Progress) -> Iterator[str]:
    rollout = progress.rollout
    if rollout is None:
        return
    before = expected is State.BEFORE
    image = change.replaces if before else change.desired
    found = rollout.images.get(change.container, "none")
    yield from _one(f"image of {change.container}", found, image, expected)
    for name in RolloutFields.model_fields:
        # In either state a rolling update runs as its owner wrote it.
        now, then = getattr(rollout.fields, name), getattr(change.restores, name)
        if now != then:
            yield f"{name} {_set(now)}, {expected} {_set(then)}"


def _set(value: object) -> str:
    return "not set" if value is None else str(value)
