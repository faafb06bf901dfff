"""Steps along one knob, without a cause: further on a way that helped, or a way not yet tried.

Pure. Where no model tells better, a further step is taken to return the square root of what the
last one did: a way that helps usually helps less and less.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..api.meta import Setting
from ..api.policy import PolicySpec
from ..api.report import Action, BottleneckReport, Prediction
from ..observe.observation import Observation, WorkloadType
from ..verify.judge import MATTERS
from .decision import Facts
from .remedies.batch_size import (
    ACCUMULATION,
    DELAY,
    MAX_SIZE,
    MICRO,
    divisors,
    further,
    may_fill,
    shorter,
)
from .remedies.common import WORTH, knob, knobs_change, listed
from .remedies.data_loader import PREFETCH, WORKERS

SHORT_OF_DATA = 0.05
"""XProf: a moderate share of the step that waits for data; less is none."""

LEAST = f"nothing is known of it; it is kept if it returns {MATTERS:.0%}"

TYPES = {WORKERS: "DataLoader", MICRO: "BatchSize", MAX_SIZE: "BatchSize", DELAY: "BatchSize"}
"""Knobs that have a direction, with the type of action that changes them."""


def same_way(
    kept: BottleneckReport, observation: Observation, spec: PolicySpec, facts: Facts
) -> Action | None:
    """A further step on the way of an action that helped, from where it led to; None where it is
    predicted to return less than 5%, where the bounds end, or where somebody changed the knob."""
    action, verdict = kept.spec.action, kept.status.verdict
    if action is None or action.knobs is None or verdict is None:
        return None
    larger = further(kept, observation, spec, facts)
    if larger is not None:
        return larger
    before, after = verdict.before, verdict.after
    if not before or not after or before <= 0 or after <= 0:
        return None
    better = before / after if kept.spec.metric.lower_is_better else after / before
    if math.sqrt(better) < WORTH:
        return None
    for name in TYPES:
        old, new = (
            _number(knobs.get(name)) for knobs in (action.knobs.replaces, action.knobs.desired)
        )
        if old is None or new is None or old == new or knob(observation, name) != new:
            continue
        if name == MICRO and new > old:
            continue  # the curve says that it is not worth it
        step = _step(name, new > old, observation, spec, facts)
        if step is not None:
            basis = f"the square root of what {action.summary} returned"
            return _action(step, action.cause, observation, facts, math.sqrt(better), basis)
    return None


def other_ways(observation: Observation, spec: PolicySpec, facts: Facts) -> Iterator[Action]:
    """Ways that no cause of the catalogue leads, least harmful first."""
    wanted: list[tuple[str, bool, str]] = []
    if observation.type is WorkloadType.TRAINING:
        waiting = observation.value("training.dataShare")
        if waiting is not None and waiting < SHORT_OF_DATA:
            wanted.append((WORKERS, False, "cpu-heavy-preprocessing"))
            wanted.append((MICRO, False, "host-bound"))
    else:
        wanted.append((MAX_SIZE, True, "queueing"))
    for name, up, cause in wanted:
        step = _step(name, up, observation, spec, facts)
        if step is not None:
            yield _action(step, cause, observation, facts, 1 + MATTERS, LEAST)


Step = tuple[str, dict[str, Setting], dict[str, Setting]]
"""Type of the action, the knobs in force, and those that are wanted."""


def _step(
    name: str, up: bool, observation: Observation, spec: PolicySpec, facts: Facts
) -> Step | None:
    """The next value of a knob, within the bounds of the policy, with the knobs that go with it."""
    now = knob(observation, name)
    if now is None or name not in facts.settable:
        return None
    if name == WORKERS:
        return _workers(now, up, observation, spec)
    if spec.actions.batch_size is None:
        return None
    if name == MICRO:
        return _micro(now, observation, spec)
    return _batcher(name, now, up, observation, spec)


def _workers(now: int, up: bool, observation: Observation, spec: PolicySpec) -> Step | None:
    bounds = spec.actions.data_loader
    if bounds is None:
        return None
    wanted = min(bounds.max_workers, now + max(1, now // 2)) if up else max(1, now // 2)
    prefetch = knob(observation, PREFETCH) or 2
    if wanted == now or (up and wanted < now) or (not up and wanted > now):
        return None
    keep: dict[str, Setting] = {PREFETCH: prefetch}
    return TYPES[WORKERS], {WORKERS: now, **keep}, {WORKERS: wanted, **keep}


def _micro(now: int, observation: Observation, spec: PolicySpec) -> Step | None:
    """A quarter: the samples of one fit better into a cache, and a half seldom shows."""
    bounds, accumulation = spec.actions.batch_size, knob(observation, ACCUMULATION)
    assert bounds is not None
    if not accumulation:
        return None
    sizes = divisors(now * accumulation, bounds)
    wanted = max((size for size in sizes if size <= now / 4), default=None)
    if wanted is None:
        return None
    samples = now * accumulation
    return (
        TYPES[MICRO],
        {MICRO: now, ACCUMULATION: accumulation},
        {MICRO: wanted, ACCUMULATION: samples // wanted},
    )


def _batcher(
    name: str, now: int, up: bool, observation: Observation, spec: PolicySpec
) -> Step | None:
    bounds, other = spec.actions.batch_size, DELAY if name == MAX_SIZE else MAX_SIZE
    assert bounds is not None
    beside = knob(observation, other)
    if beside is None:
        return None
    if name == DELAY:
        wanted = now if up else shorter(now)
    else:
        filled = observation.value("inference.batchSize")
        if filled is None or not may_fill(filled, now):
            return None  # a limit that nothing comes near
        wanted = min(bounds.max, now * 2) if up else max(bounds.min, now // 2)
        if (wanted > now) is not up:
            return None
    if wanted == now:
        return None
    return TYPES[name], {name: now, other: beside}, {name: wanted, other: beside}


def _action(
    step: Step,
    cause: str,
    observation: Observation,
    facts: Facts,
    better: float,
    basis: str,
) -> Action:
    """The action, predicted to be ``better`` times as good."""
    type_, current, desired = step
    training = observation.type is WorkloadType.TRAINING
    before = observation.value("training.samplesPerSecond" if training else "inference.latency")
    prediction = None
    if before is not None:
        after = before * better if training else before / better
        prediction = Prediction(before=round(before, 4), after=round(after, 4), basis=basis)
    return Action(
        type=type_,
        summary=listed(current, desired),
        cause=cause,
        knobs=knobs_change(facts, current, desired),
        prediction=prediction,
    )


def _number(value: Setting | None) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
