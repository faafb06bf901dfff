"""More data-parallel ranks for a training job whose step is computing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...api import units
from ...api.conditions import Reason
from ...api.policy import PolicySpec
from ...api.report import Action, Cause, Prediction, ReplicasChange
from ...observe.observation import Observation
from ..decision import Facts, Refusal
from .common import knob, not_allowed

MOST_AT_ONCE = 2
"""Greatest factor of one growth: the share of communication was measured at the present size, and
further than to twice of it is guesswork."""

EFFICIENCY = 0.5
"""Least that an added device must return, of what one returns now. Below that, more than half of
what is added would wait for the others."""


@dataclass(frozen=True, slots=True)
class Group:
    """Ranks now. ``batch`` is the samples of one optimizer step of all ranks together, ``share`` of
    the step is communication; both are None where every replica trains for itself."""

    replicas: int
    ranks: int
    batch: int | None
    share: float | None


def ranks(
    cause: Cause, observation: Observation, spec: PolicySpec, facts: Facts
) -> Action | Refusal:
    """As many replicas as reach the goodput wanted, or as return most; never where ranks of a fixed
    group would be left waiting for one that is not of it."""
    bounds, now = spec.actions.replicas, facts.replicas
    if bounds is None or now is None:
        return not_allowed("replicas", "actions: {replicas: {min: 1, max: 4}}")
    if facts.ready is None or facts.ready < now or now < 1:
        message = f"{facts.ready or 0} of {now} replicas are ready; growth waits for them"
        return Refusal(Reason.REPLICAS_PENDING, message)
    if now >= bounds.max:
        return Refusal(
            Reason.AT_MAXIMUM,
            f"{now} replicas is the most that the policy and the target allow; raise"
            " actions.replicas.max, and the target's own maximum where it has one",
        )
    rate = observation.value("training.samplesPerSecond")
    group = _group(observation, facts, now)
    if isinstance(group, Refusal):
        return group
    if rate is None:
        return Refusal(Reason.NO_DATA, "training.samplesPerSecond is not known")
    sizes = list(_sizes(group, bounds.min, bounds.max))
    if not sizes:
        tried = f"{now + 1} to {min(bounds.max, MOST_AT_ONCE * now)}" if now > 1 else "2"
        return Refusal(
            Reason.NO_REMEDY,
            f"the global batch of {group.batch} samples cannot be divided among the ranks of"
            f" {tried} replicas; choose a batch size with more divisors",
        )
    worth = [size for size in sizes if _efficiency(group, size) >= EFFICIENCY]
    if not worth:
        return Refusal(
            Reason.NO_REMEDY,
            f"communication is {group.share or 0.0:.0%} of the step, so {sizes[0]} replicas would"
            f" train {gain(group, sizes[0]):.2f} times as fast as {now}: let ranks communicate less"
            " before there are more of them",
        )
    goodput = spec.objectives.goodput
    wanted = units.number(goodput.min) if goodput else float("inf")
    desired = next((size for size in worth if rate * gain(group, size) >= wanted), worth[-1])
    return Action(
        type="Replicas",
        summary=f"replicas {now} → {desired}",
        cause=cause.id,
        replicas=ReplicasChange(desired=desired, replaces=now),
        prediction=Prediction(
            before=round(rate, 4),
            after=round(rate * gain(group, desired), 4),
            basis=_basis(group),
        ),
    )


def gain(group: Group, size: int) -> float:
    """How many times as fast ``size`` replicas train. Amdahl's law: of a step of a constant global
    batch the computing is divided among the ranks, and communication is not. In a ring each rank
    sends 2 (n - 1) / n times the gradients (Patarasu & Yuan, 2009), so that it even grows a
    little. Where each trains for itself, the rates add up."""
    growth = size / group.replicas
    if group.share is None:
        return growth
    before, after = group.ranks, group.ranks * growth
    sent = (1 - 1 / after) / (1 - 1 / before) if before > 1 else 1.0
    return 1 / ((1 - group.share) / growth + group.share * sent)


def _efficiency(group: Group, size: int) -> float:
    return (gain(group, size) - 1) / (size / group.replicas - 1)


def _sizes(group: Group, least: int, most: int) -> Iterator[int]:
    """Numbers of replicas that the batch can be divided among."""
    now = group.replicas
    for size in range(max(least, now + 1), min(most, MOST_AT_ONCE * now) + 1):
        ranks = group.ranks * size
        if ranks % now == 0 and (group.batch is None or group.batch % (ranks // now) == 0):
            yield size


def _group(observation: Observation, facts: Facts, replicas: int) -> Group | Refusal:
    seen = observation.ranks
    worlds = {rank.world_size for rank in seen}
    pods = {rank.pod for rank in seen}
    world = worlds.pop() if len(worlds) == 1 else None
    if world is None or not pods:
        return Refusal(Reason.NO_DATA, "the ranks do not say of how many their group is")
    elastic = facts.scale is not None and facts.scale.elastic
    if not elastic and world * len(pods) <= len(seen):
        return Group(replicas, len(seen), None, None)
    if not elastic:
        return Refusal(
            Reason.REPLICAS_FIXED,
            f"{world} ranks train together, and their world size is fixed: with a rank more or less"
            " the others would wait for ever; run them as a PyTorchJob with spec.elasticPolicy to"
            " let ranks come and go",
        )
    # A rank alone communicates with nobody; what it will cost shows when there are two.
    share = 0.0 if world == 1 else observation.value("training.collectiveShare")
    micro = knob(observation, "batch.micro") or _whole(observation.value("training.microBatch"))
    steps = knob(observation, "batch.accumulation") or 1
    if len(seen) != world or share is None or micro is None:
        return Refusal(
            Reason.NO_DATA,
            "the share of communication, the batch, or some of the ranks are not known",
        )
    return Group(replicas, world, micro * steps * world, share)


def _whole(value: float | None) -> int | None:
    """A mean that is a whole number; one that is not comes from batches of different sizes."""
    if value is None or abs(value - round(value)) > 1e-6 or round(value) < 1:
        return None
    return round(value)


def _basis(group: Group) -> str:
    if group.share is None:
        return "every replica trains for itself, so their rates add up"
    return (
        f"Amdahl: {group.share:.0%} of the step is communication, the rest is divided among the"
        f" ranks at the same global batch of {group.batch}"
    )
