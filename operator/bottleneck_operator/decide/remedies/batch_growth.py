"""A larger global batch in training, where the policy allows it: fewer optimizer steps and fewer
exchanges of gradients for the same samples. Pure.

More samples in a step are worth less and less: beyond the gradient noise scale they say what the
others said already. So growth is judged by goodput, which is throughput times statistical
efficiency (Qiao et al., Pollux, OSDI 2021), and ends at the noise scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ...api.allowed import BatchSizeAction, GlobalBatch, LearningRateRule
from ...api.conditions import Reason
from ...api.meta import Setting
from ...api.report import Action, Cause, Prediction
from ...observe.observation import Observation
from ...verify.efficiency import efficiency
from ..decision import Facts, Refusal
from .common import (
    ACCUMULATION,
    MAX_ACCUMULATION,
    MEMORY_SHARE,
    MICRO,
    WORTH,
    knob,
    knobs_change,
    listed,
    not_settable,
)

LEARNING_RATE = "optimizer.learningRatePercent"

PER_STEP = frozenset({"communication-bound"})
"""Causes whose cost is paid once an optimizer step, whatever the micro-batch is."""

FACTORS = (2, 4)
"""By how much the global batch may grow at once: what comes of it is measured before it goes on."""

MAX_PERCENT = 10000

EXAMPLE = "actions: {batchSize: {max: 64, globalBatch: Grow, maxGlobal: 4096, learningRate: %s}}"


@dataclass(frozen=True, slots=True)
class Split:
    """How the samples of a rank's optimizer step are cut."""

    micro: int
    accumulation: int

    @property
    def samples(self) -> int:
        return self.micro * self.accumulation


def grow(
    cause: Cause, observation: Observation, bounds: BatchSizeAction, facts: Facts
) -> Action | Refusal:
    """The growth that is predicted to return most goodput, or why there is none."""
    rule, most = bounds.learning_rate, bounds.max_global
    if bounds.global_batch is not GlobalBatch.GROW or rule is None or most is None:
        return Refusal(
            Reason.ACTION_NOT_ALLOWED,
            f"what {cause.id} costs is paid in every optimizer step, and the policy keeps what a"
            f" step is of; to allow steps of more samples write {EXAMPLE % 'SquareRoot'}",
        )
    if not {MICRO, ACCUMULATION, LEARNING_RATE} <= facts.settable:
        return not_settable(
            "its global batch and its learning rate",
            "load with monitor.loader(loader, accumulation=N), and step with monitor.forward(),"
            " backward() and optimizer_step() of the SDK",
        )
    micro, accumulation = knob(observation, MICRO), knob(observation, ACCUMULATION)
    percent = knob(observation, LEARNING_RATE)
    rate = observation.value("training.samplesPerSecond")
    if not micro or not accumulation or not percent or rate is None:
        return Refusal(
            Reason.NO_DATA, "micro-batch, accumulation, learning rate and throughput are not known"
        )
    noise = observation.value("training.noiseScale")
    if not noise:
        return Refusal(
            Reason.NO_DATA,
            "the gradient noise scale is not known (yet), so neither is what a larger batch would"
            " be worth; it takes half a minute, and an optimizer step of several batches"
            " (accumulation=2 or more) or several ranks under DistributedDataParallel",
        )
    now, ranks = Split(micro, accumulation), len(observation.ranks)
    before = now.samples * ranks
    limit = min(most, noise)
    if FACTORS[0] * before > limit:
        what = "actions.batchSize.maxGlobal" if most <= noise else "the gradient noise scale"
        return Refusal(
            Reason.AT_MAXIMUM,
            f"an optimizer step of {before} samples cannot double: {what} is {limit:.0f} samples",
        )
    best: tuple[float, Split] | None = None
    for split in _splits(now, cause, observation, bounds):
        if split.samples * ranks > limit:
            continue
        faster = 1 / _sample_time(now, split, cause, observation)
        worth = efficiency(noise, split.samples * ranks) / efficiency(noise, before)
        if best is None or faster * worth > best[0]:
            best = faster * worth, split
    if best is None or best[0] < WORTH:
        return Refusal(
            Reason.NO_REMEDY,
            f"steps of more than {before} samples are predicted to return less than 5% goodput at a"
            f" gradient noise scale of {noise:.0f} samples, or do not fit",
        )
    gain, split = best
    wanted = scaled(percent, rule, before, split.samples * ranks, noise)
    if wanted > MAX_PERCENT:
        return Refusal(
            Reason.AT_MAXIMUM, f"the learning rate would be {wanted}% of the script's own"
        )
    current: dict[str, Setting] = {
        MICRO: micro,
        ACCUMULATION: accumulation,
        LEARNING_RATE: percent,
    }
    desired: dict[str, Setting] = {
        MICRO: split.micro,
        ACCUMULATION: split.accumulation,
        LEARNING_RATE: wanted,
    }
    after = split.samples * ranks
    return Action(
        type="BatchSize",
        summary=f"{listed(current, desired)} (global batch {before} → {after}, {rule})",
        cause=cause.id,
        knobs=knobs_change(facts, current, desired),
        prediction=Prediction(
            before=round(rate, 4),
            after=round(rate * gain, 4),
            basis="throughput with what is paid in each step paid less often, times the"
            f" statistical efficiency at a gradient noise scale of {noise:.0f} samples",
        ),
    )


def scaled(percent: int, rule: LearningRateRule, before: float, after: float, noise: float) -> int:
    """The learning rate in per cent of the script's own, when the global batch grows from
    ``before`` to ``after`` samples and it is ``percent`` now.

    Linear: Goyal et al., Accurate, Large Minibatch SGD, 2017. SquareRoot: Krizhevsky, One weird
    trick for parallelizing convolutional neural networks, 2014. AdaScale: Johnson et al., AdaScale
    SGD, 2020: times the gain (σ² + μ²) / (σ²/S + μ²), where σ² is the variance of a gradient over
    ``before`` samples, μ² its squared mean and S the growth; with the noise scale σ²/μ² it is the
    growth times the statistical efficiency. The gain is that of the moment of the change.
    """
    growth = after / before
    factor = {
        LearningRateRule.LINEAR: growth,
        LearningRateRule.SQUARE_ROOT: math.sqrt(growth),
        LearningRateRule.ADA_SCALE: growth * efficiency(noise, after) / efficiency(noise, before),
    }[rule]
    return max(1, round(percent * factor))


def _splits(
    now: Split, cause: Cause, observation: Observation, bounds: BatchSizeAction
) -> Iterator[Split]:
    """Larger steps, the smallest first: of more micro-batches, or of larger ones."""
    memory = observation.value("gpu.memoryShare")
    most = min(bounds.max, now.micro * MEMORY_SHARE / memory) if memory else bounds.max
    for factor in FACTORS:
        if cause.id not in PER_STEP and now.micro * factor <= most:
            yield Split(now.micro * factor, now.accumulation)
        if now.accumulation * factor <= MAX_ACCUMULATION:
            yield Split(now.micro, now.accumulation * factor)


def _sample_time(now: Split, then: Split, cause: Cause, observation: Observation) -> float:
    """The time of a sample, as a multiple of the present one. What each optimizer step costs
    (exchanging gradients, the optimizer) is paid for more samples, and so is the cause's fixed cost
    of each micro-batch. Amdahl's law over the step."""
    fixed = cause.share if cause.id not in PER_STEP else 0.0
    # What all ranks spend in collectives: the rest is waiting for the slowest, which goes on.
    exchange = observation.value("training.collectiveFloorShare")
    if exchange is None:
        exchange = observation.value("training.collectiveShare") or 0.0
    step = min(exchange + (observation.value("training.optimizerShare") or 0.0), 1 - fixed)
    return 1 - fixed - step + fixed * now.micro / then.micro + step * now.samples / then.samples
