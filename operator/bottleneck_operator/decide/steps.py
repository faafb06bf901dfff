"""Steps along one knob, without a cause: further on a way that helped, or a way not yet tried.

Pure. Where no model tells better, a further step is taken to return the square root of what the
last one did: a way that helps usually helps less and less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from ..api.meta import Setting
from ..api.policy import PolicySpec
from ..api.report import Action, BottleneckReport, KnobsChange, Phase, Prediction
from ..observe.observation import Observation, WorkloadType
from ..verify.judge import MATTERS
from .decision import Facts
from .remedies.batch_size import DELAY, MAX_SIZE, at_most, divisors, further, may_fill, shorter
from .remedies.common import ACCUMULATION, MICRO, WORTH, knob, knobs_change, listed
from .remedies.data_loader import PREFETCH, WORKERS

SHORT_STEP = 0.020
"""Seconds of a micro-batch below which handing it over between processes, which takes
milliseconds, may cost more than loading it in the training process."""

XPROF = 0.20
"""Share of the step from which it waits for data, and the size of the batch is beside the point."""

CHANCE = 0.05
"""Below that p of its verdict, what an action returned is taken to be more than chance."""

SEEN = 1.03
"""Least that an action must have returned, without being kept, for a step twice as far: twice that
is worth a try."""

LEAST = f"nothing is known of it; it is kept if it returns {MATTERS:.0%}"

BESIDE = {WORKERS: PREFETCH, MICRO: ACCUMULATION, MAX_SIZE: DELAY, DELAY: MAX_SIZE}
"""The knob that is always named together with one."""

TYPES = {WORKERS: "DataLoader", MICRO: "BatchSize", MAX_SIZE: "BatchSize", DELAY: "BatchSize"}
"""Knobs that have a direction, with the type of action that changes them."""


def same_way(
    done: BottleneckReport, observation: Observation, spec: PolicySpec, facts: Facts
) -> Action | None:
    """A further step on the way of an action that helped, from where it led to; or one twice as
    far, where it helped by too little to be kept. None where that is predicted to return less than
    5%, where the bounds end, or where somebody changed the knob."""
    action, verdict = done.spec.action, done.status.verdict
    if action is None or action.knobs is None or verdict is None:
        return None
    kept = done.status.phase is Phase.KEPT
    larger = further(done, observation, spec, facts) if kept else None
    if larger is not None:
        return larger
    better = returned(done)
    if kept:
        promised, basis = math.sqrt(better), f"the square root of what {action.summary} returned"
    else:
        promised = better**2 if seen(done) else 1.0
        basis = f"twice of what {action.summary} returned, which was too little to be kept"
    if promised < WORTH:
        return None
    there = action.knobs.desired if kept else action.knobs.replaces
    for name, up in directions(action.knobs).items():
        if knob(observation, name) != there[name]:
            continue
        if kept and name == MICRO and up:
            continue  # the curve says that it is not worth it
        step = _step(name, up, observation, spec, facts, far=not kept)
        if step is not None:
            return _action(step, action.cause, observation, facts, promised, basis)
    return None


def returned(done: BottleneckReport) -> float:
    """How many times better the metric was after an action; 1 where that is not known."""
    verdict = done.status.verdict
    if verdict is None or not verdict.before or not verdict.after:
        return 1.0
    if verdict.before <= 0 or verdict.after <= 0:
        return 1.0
    better = verdict.after / verdict.before
    return 1 / better if done.spec.metric.lower_is_better else better


def seen(done: BottleneckReport) -> bool:
    """Whether an action clearly returned something, be it too little to be kept."""
    verdict = done.status.verdict
    clear = verdict is not None and verdict.p_value is not None and verdict.p_value < CHANCE
    return clear and returned(done) >= SEEN


def other_ways(observation: Observation, spec: PolicySpec, facts: Facts) -> Iterator[Action]:
    """Ways that no cause of the catalogue leads, least harmful first."""
    if observation.type is WorkloadType.TRAINING:
        waiting = observation.value("training.dataShare")
        wanted = [(MICRO, False, "host-bound")] if waiting is not None and waiting < XPROF else []
        step = observation.value("training.stepSeconds")
        if step is not None and step / (knob(observation, ACCUMULATION) or 1) < SHORT_STEP:
            wanted.insert(0, (WORKERS, False, "cpu-heavy-preprocessing"))
    else:
        wanted = [(MAX_SIZE, True, "queueing")]
    return _ways(wanted, observation, spec, facts)


def beside(observation: Observation, spec: PolicySpec, facts: Facts) -> Iterator[Action]:
    """The way of each knob that most often pays, to go together with another change."""
    if observation.type is WorkloadType.TRAINING:
        wanted = [(WORKERS, True, "cpu-heavy-preprocessing"), (MICRO, True, "host-bound")]
    else:
        wanted = [(MAX_SIZE, True, "queueing"), (DELAY, False, "batching-delay")]
    return _ways(wanted, observation, spec, facts)


def _ways(
    wanted: Sequence[tuple[str, bool, str]],
    observation: Observation,
    spec: PolicySpec,
    facts: Facts,
) -> Iterator[Action]:
    for name, up, cause in wanted:
        step = _step(name, up, observation, spec, facts)
        if step is not None:
            yield _action(step, cause, observation, facts, 1 + MATTERS, LEAST)


def directions(change: KnobsChange) -> dict[str, bool]:
    """The knobs with a direction that a change moves, and whether up."""
    found = {}
    for name in TYPES:
        old, new = (_number(knobs.get(name)) for knobs in (change.replaces, change.desired))
        if old is not None and new is not None and old != new:
            found[name] = new > old
    return found


Step = tuple[str, dict[str, Setting], dict[str, Setting]]
"""Type of the action, the knobs in force, and those that are wanted."""


def _step(
    name: str,
    up: bool,
    observation: Observation,
    spec: PolicySpec,
    facts: Facts,
    far: bool = False,
) -> Step | None:
    """The next value of a knob, or the one after the next, with the knobs that go with it."""
    now, other = knob(observation, name), knob(observation, BESIDE[name])
    if now is None or other is None or not {name, BESIDE[name]} <= facts.settable:
        return None
    values = _values(name, up, now, other, observation, spec)
    if len(values) <= far:
        return None
    wanted = values[far]
    also = now * other // wanted if name == MICRO else other
    service = observation.value("inference.serviceSeconds")
    if name == MAX_SIZE and service is not None:
        also = at_most(other, service)
    current: dict[str, Setting] = {name: now, BESIDE[name]: other}
    return TYPES[name], current, {name: wanted, BESIDE[name]: also}


def _values(
    name: str, up: bool, now: int, other: int, observation: Observation, spec: PolicySpec
) -> list[int]:
    """The next values of a knob that has the value ``now``, at most two, within the bounds of the
    policy."""
    loader, batch = spec.actions.data_loader, spec.actions.batch_size
    filled = observation.value("inference.batchSize")
    following: Callable[[int], int]
    if name == WORKERS and loader is not None:
        low, high = 0, loader.max_workers
        following = _half_as_many_again if up else _half
    elif name == MICRO and batch is not None:
        # A quarter: the samples of one fit better into a cache, and a half seldom shows.
        sizes = divisors(now * other, batch)
        low, high = batch.min, batch.max
        following = partial(_larger, sizes) if up else partial(_smaller, sizes)
    elif name == DELAY and batch is not None and not up:
        low, high, following = 0, now, shorter
    elif name == MAX_SIZE and batch is not None and filled and may_fill(filled, now):
        low, high = batch.min, batch.max
        following = _double if up else _half
    else:
        return []  # not allowed, or a limit that nothing comes near
    values, value = [], now
    for _ in range(2):
        value = min(max(following(value), low), high)
        if (value > now) is up and value != now and value not in values:
            values.append(value)
    return values


def _half(value: int) -> int:
    return value // 2


def _double(value: int) -> int:
    return value * 2


def _half_as_many_again(value: int) -> int:
    return value + max(1, value // 2)


def _larger(sizes: Sequence[int], value: int) -> int:
    return min((size for size in sizes if size >= 4 * value), default=value)


def _smaller(sizes: Sequence[int], value: int) -> int:
    return max((size for size in sizes if 4 * size <= value), default=value)


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
