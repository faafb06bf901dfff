"""Another batch size: micro-batches in training at an unchanged global batch, and the limits of a
server's batcher."""

from __future__ import annotations

import math

from ...api.allowed import BatchSizeAction, GlobalBatch
from ...api.conditions import Reason
from ...api.meta import Setting
from ...api.policy import PolicySpec
from ...api.report import Action, BottleneckReport, Cause, Prediction
from ...observe.observation import Observation, WorkloadType
from ..decision import Facts, Refusal
from .batch_growth import PER_STEP, grow
from .common import (
    ACCUMULATION,
    MAX_ACCUMULATION,
    MEMORY_SHARE,
    MICRO,
    WORTH,
    knob,
    knobs_change,
    listed,
    not_allowed,
    not_settable,
)

MAX_SIZE = "batch.maxSize"
DELAY = "batch.delayMilliseconds"


OVERHEAD_LEFT = 0.05
"""Fixed cost that a larger micro-batch may leave, as a share of the present step: a still larger
one returns next to nothing and costs memory."""

FIXED_SHARE = 0.5
"""Share of a batch's time taken to be the same for any size while it has been measured at one size
only. What came of it is measured afterwards."""

IDLE = 0.70
"""Occupancy below which a server has time left; where ``batching-delay`` is named, too."""

SMALLER = frozenset({"gpu-memory-full", "memory-pressure"})
"""Causes that a smaller micro-batch removes."""


def batch_size(
    cause: Cause, observation: Observation, spec: PolicySpec, facts: Facts
) -> Action | Refusal:
    """Training: a micro-batch that divides the global batch. Serving: the batcher's limits."""
    bounds = spec.actions.batch_size
    if bounds is None:
        return not_allowed("the batch size", "actions: {batchSize: {min: 1, max: 64}}")
    if observation.type is WorkloadType.TRAINING:
        return _training_or_growth(cause, observation, bounds, facts)
    return _serving(cause, observation, bounds, facts)


# -- training --------------------------------------------------------------------------------------


def _training_or_growth(
    cause: Cause, observation: Observation, bounds: BatchSizeAction, facts: Facts
) -> Action | Refusal:
    """At the same global batch, which costs nothing of what is learnt; where that does not do, a
    larger one, if the policy allows it."""
    if cause.id in PER_STEP:
        return grow(cause, observation, bounds, facts)
    answer = _training(cause, observation, bounds, facts)
    if isinstance(answer, Action) or cause.id in SMALLER:
        return answer
    if bounds.global_batch is GlobalBatch.GROW and answer.reason is Reason.AT_MAXIMUM:
        return grow(cause, observation, bounds, facts)
    return answer


def _training(
    cause: Cause, observation: Observation, bounds: BatchSizeAction, facts: Facts
) -> Action | Refusal:
    if not {MICRO, ACCUMULATION} <= facts.settable:
        return not_settable(
            "its batch size",
            "load with monitor.loader(loader, accumulation=N), and step with monitor.forward(),"
            " backward() and optimizer_step() of the SDK",
        )
    micro, accumulation = knob(observation, MICRO), knob(observation, ACCUMULATION)
    rate = observation.value("training.samplesPerSecond")
    if not micro or not accumulation or rate is None:
        return Refusal(Reason.NO_DATA, "micro-batch, accumulation and throughput are not known")
    sizes = divisors(micro * accumulation, bounds)
    if cause.id in SMALLER:
        chosen = max((size for size in sizes if size <= micro / 2), default=None)
        if chosen is None:
            return Refusal(
                Reason.AT_MAXIMUM,
                f"no micro-batch from {bounds.min} to {micro // 2} divides the global batch of"
                f" {micro * accumulation} samples of a rank; lower actions.batchSize.min",
            )
        after, basis = rate, "half the activations, the same work"
    else:
        chosen = _larger(sizes, micro, cause.share, _most(observation, micro))
        if chosen is None:
            return _no_larger(micro, accumulation, bounds)
        after = rate / _step(cause.share, micro / chosen)
        basis = "step = fixed cost of each micro-batch + time of its samples"
    current: dict[str, Setting] = {MICRO: micro, ACCUMULATION: accumulation}
    desired: dict[str, Setting] = {MICRO: chosen, ACCUMULATION: micro * accumulation // chosen}
    return _action(cause.id, facts, current, desired, rate, after, basis)


def further(
    kept: BottleneckReport, observation: Observation, spec: PolicySpec, facts: Facts
) -> Action | None:
    """The next step after a larger micro-batch that helped. Two sizes have been measured by now,
    and through them goes the curve: time of a sample = its own work + fixed cost / size. None
    where the action was another one, or where the curve promises less than 5%."""
    action, verdict, bounds = kept.spec.action, kept.status.verdict, spec.actions.batch_size
    if bounds is None or action is None or action.knobs is None or verdict is None:
        return None
    old, new = (knobs.get(MICRO) for knobs in (action.knobs.replaces, action.knobs.desired))
    micro, accumulation = knob(observation, MICRO), knob(observation, ACCUMULATION)
    rate = observation.value("training.samplesPerSecond")
    if not (isinstance(old, int) and isinstance(new, int) and 0 < old < new == micro):
        return None
    if not (verdict.before and verdict.after and rate and accumulation):
        return None
    fixed = (1 / verdict.before - 1 / verdict.after) / (1 / old - 1 / new)
    work = 1 / verdict.after - fixed / new
    overhead = fixed / micro / max(fixed / micro + work, 1e-12)
    if not overhead > 0:
        return None
    overhead = min(overhead, 1.0)
    sizes = divisors(micro * accumulation, bounds)
    size = _larger(sizes, micro, overhead, _most(observation, micro))
    if size is None:
        return None
    return _action(
        action.cause,
        facts,
        {MICRO: micro, ACCUMULATION: accumulation},
        {MICRO: size, ACCUMULATION: micro * accumulation // size},
        rate,
        rate / _step(overhead, micro / size),
        f"the curve through what was measured at {old} and at {new}",
    )


def divisors(samples: int, bounds: BatchSizeAction) -> list[int]:
    """Sizes within the bounds that split ``samples`` evenly, ascending: with any other one an
    optimizer step would be of other samples."""
    return [
        size
        for size in range(bounds.min, min(bounds.max, samples) + 1)
        if samples % size == 0 and samples // size <= MAX_ACCUMULATION
    ]


def _most(observation: Observation, micro: int) -> float:
    """The largest micro-batch that a GPU's memory is predicted to hold, all of it taken to grow
    with the batch; no bound where its use is not measured."""
    memory = observation.value("gpu.memoryShare")
    return micro * MEMORY_SHARE / memory if memory else math.inf


def _step(overhead: float, fewer: float) -> float:
    """The step, as a multiple of the present one, when its fixed cost (a share ``overhead`` of it)
    is paid ``fewer`` times as often. Amdahl's law over the step."""
    return 1 - overhead + overhead * fewer


def _larger(sizes: list[int], micro: int, overhead: float, most: float) -> int | None:
    fitting = [size for size in sizes if micro < size <= most]
    worth = [size for size in fitting if 1 / _step(overhead, micro / size) >= WORTH]
    enough = [size for size in worth if overhead * micro / size <= OVERHEAD_LEFT]
    return enough[0] if enough else worth[-1] if worth else None


def _no_larger(micro: int, accumulation: int, bounds: BatchSizeAction) -> Refusal:
    if accumulation == 1:
        return Refusal(
            Reason.AT_MAXIMUM,
            f"one micro-batch of {micro} samples is the whole batch of a rank: a larger one would"
            " change what an optimizer step is of, which globalBatch: Preserve rules out",
        )
    return Refusal(
        Reason.AT_MAXIMUM,
        f"no micro-batch from {micro + 1} to {bounds.max} that divides the {micro * accumulation}"
        " samples of a rank would return 5% and fit; raise actions.batchSize.max",
    )


# -- serving ---------------------------------------------------------------------------------------


def _serving(
    cause: Cause,
    observation: Observation,
    bounds: BatchSizeAction,
    facts: Facts,
) -> Action | Refusal:
    if not {MAX_SIZE, DELAY} <= facts.settable:
        return not_settable(
            "the limits of its batcher",
            "form batches with Batching(..., adjustable=True) of the SDK",
        )
    size = knob(observation, MAX_SIZE)
    latency = observation.value("inference.latency")
    service = observation.value("inference.serviceSeconds")
    delay = observation.value("inference.batchDelaySeconds")
    if not size or latency is None or service is None or delay is None:
        return Refusal(Reason.NO_DATA, "the batcher's limits and the latency are not known")
    milliseconds = math.ceil(delay * 1000)
    current: dict[str, Setting] = {MAX_SIZE: size, DELAY: milliseconds}
    if cause.id == "batching-delay":
        if milliseconds == 0:
            return Refusal(Reason.AT_MAXIMUM, "the batcher does not wait at all already")
        rate = observation.value("inference.arrivalRate")
        # A delay longer than a batch takes to fill is never waited for.
        filling = math.ceil(1000 * size / rate) if rate else milliseconds
        wait = 0 if _idle(observation, service) else shorter(min(milliseconds, filling))
        after = max(service, latency - delay + wait / 1000)
        desired: dict[str, Setting] = {MAX_SIZE: size, DELAY: wait}
        basis = "a request waits as much less as the batcher may make it wait"
    elif cause.id == "batch-too-large":
        filled = observation.value("inference.batchSize")
        if not filled:
            return Refusal(Reason.NO_DATA, "the size of batches is not known")
        # A limit that is never reached bounds nothing.
        smaller = max(bounds.min, min(size // 2, int(filled)))
        if smaller >= size:
            return _at_bound("smallest", size, "min", bounds.min)
        time = service * _batch_time(min(1.0, smaller / filled))
        rate = observation.value("inference.arrivalRate")
        if rate is not None and rate * time / smaller / max(1, len(observation.ranks)) >= 1:
            return Refusal(
                Reason.NO_REMEDY,
                f"with batches of {smaller} the servers would not keep up with what arrives; add"
                " replicas first",
            )
        after = latency - service + time
        desired = {MAX_SIZE: smaller, DELAY: at_most(milliseconds, service)}
        basis = "time of a batch = half fixed + half by its size"
    else:
        filled = observation.value("inference.batchSize")
        if filled is not None and not may_fill(filled, size):
            return Refusal(
                Reason.NO_REMEDY,
                f"batches of {filled:.1f} do not fill the {size} they may have; larger ones would"
                " not form",
            )
        larger = min(bounds.max, size * 2)
        if larger <= size:
            return _at_bound("largest", size, "max", bounds.max)
        predicted = _after_growth(observation, latency, service, larger, larger / size)
        if predicted is None:
            return Refusal(Reason.NO_DATA, "the arrival rate and the size of batches are not known")
        if latency / max(predicted, 1e-9) < WORTH:
            return Refusal(
                Reason.NO_REMEDY, f"batches of {larger} are predicted to return less than 5%"
            )
        after = predicted
        desired = {MAX_SIZE: larger, DELAY: at_most(milliseconds, service)}
        basis = (
            "time of a batch = half fixed + half by its size; a request waits for the batch before,"
            " for its own, and in a queue"
        )
    return _action(cause.id, facts, current, desired, latency, after, basis)


def may_fill(filled: float, size: int) -> bool:
    """Whether batches of ``filled`` requests on average come up to ``size`` now and then: where
    requests come independently of each other, one batch in fifty is two standard deviations (the
    root of the mean) larger."""
    return filled + 2 * math.sqrt(filled) >= size


def shorter(milliseconds: int) -> int:
    """The next shorter delay of a batcher: a quarter, and none below 8 ms."""
    return milliseconds // 4 if milliseconds >= 8 else 0


def at_most(milliseconds: int, service: float) -> int:
    """The delay that goes with another largest batch: no longer than a batch takes (``service``,
    seconds). Who comes too late for one batch waits for the next one no longer than that."""
    return min(milliseconds, int(service * 1000))


def _idle(observation: Observation, service: float) -> bool:
    """Whether the servers would have time left though each request were a batch of its own, which
    takes at most the time of a batch as they are: then nothing is won by waiting for others."""
    rate = observation.value("inference.arrivalRate")
    return rate is not None and rate * service / max(1, len(observation.ranks)) < IDLE


def _batch_time(ratio: float) -> float:
    """Time of a batch, as a multiple of the present one, at ``ratio`` times its size."""
    return FIXED_SHARE + (1 - FIXED_SHARE) * ratio


def _after_growth(
    observation: Observation, latency: float, service: float, size: int, ratio: float
) -> float | None:
    """The latency in seconds with batches of ``size``, ``ratio`` times as large as now.

    A request waits for the batch that runs, then for its own; to that come three mean waits of an
    M/M/1 queue (about the 95th percentile) whose service time is a request's part of a batch. How
    busy the server will be follows from what arrives, and not from how busy it is, which is never
    more than 100%. A queue that still grows is as much shorter as the server is faster.
    """
    rate, filled = (observation.value(f"inference.{name}") for name in ("arrivalRate", "batchSize"))
    if rate is None or not filled:
        return None
    offered = rate * service / filled / max(1, len(observation.ranks))
    longer, faster = service * _batch_time(ratio), ratio / _batch_time(ratio)
    busy = offered / faster
    if busy >= 1:
        return latency / faster
    return min(latency, 2 * longer + 3 * longer / size * busy / (1 - busy))


def _at_bound(which: str, size: int, name: str, bound: int) -> Refusal:
    return Refusal(
        Reason.AT_MAXIMUM,
        f"batches of at most {size} are the {which} that the policy allows:"
        f" actions.batchSize.{name} is {bound}",
    )


def _action(
    cause: str,
    facts: Facts,
    current: dict[str, Setting],
    desired: dict[str, Setting],
    before: float,
    after: float,
    basis: str,
) -> Action:
    return Action(
        type="BatchSize",
        summary=listed(current, desired),
        cause=cause,
        knobs=knobs_change(facts, current, desired),
        prediction=Prediction(before=round(before, 4), after=round(after, 4), basis=basis),
    )
