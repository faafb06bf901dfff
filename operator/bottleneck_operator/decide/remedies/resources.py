"""More CPU or memory for a container of running pods, without a restart."""

from __future__ import annotations

from ...api import units
from ...api.conditions import Reason
from ...api.policy import PolicySpec
from ...api.report import Action, Cause, ContainerResources, Prediction, ResourcesChange
from ...observe.observation import Observation, WorkloadType
from ..decision import Facts, Refusal
from . import requests
from .common import WORTH, not_allowed

HEADROOM = 1.25
"""How much more than the predicted need is given: throttling begins before the mean reaches the
limit, since a quota is counted in periods of 100 ms (Linux CFS)."""

MOST_AT_ONCE = 4.0
"""Greatest factor of one resize: a wrong prediction must not take a node's CPUs at once."""

MEMORY_STEP = 1.5
"""Factor by which memory grows. Only how full it is can be seen, not how much it would like."""


def resources(
    cause: Cause, observation: Observation, spec: PolicySpec, facts: Facts
) -> Action | Refusal:
    """A higher CPU limit against throttling, a higher memory limit against memory pressure. A
    request that equals its limit is raised with it, so that the pod's quality of service stays as
    it is: the API server refuses anything else."""
    bounds = spec.actions.resources
    memory = cause.id == "memory-pressure"
    bound = None if bounds is None else bounds.memory if memory else bounds.cpu
    if bounds is None or bound is None:
        kind, example = ("memory", "8Gi") if memory else ("cpu", '"4"')
        return not_allowed(kind, f"actions: {{resources: {{{kind}: {{max: {example}}}}}}}")
    if facts.vpa is not None:
        return Refusal(
            Reason.RESOURCES_OWNED_BY_VPA,
            f"VerticalPodAutoscaler {facts.vpa} owns the resources; set its updateMode to Off, or"
            " leave actions.resources out of the policy",
        )
    found = requests.container(bounds, facts)
    if isinstance(found, Refusal):
        return found
    name, size = found
    if cause.id == "node-oversubscribed":
        return requests.more(cause, observation, name, size, bound, facts)
    limit = size.memory_limit if memory else size.cpu_limit
    if limit is None:
        kind = "memory" if memory else "CPU"
        return Refusal(Reason.NO_REMEDY, f"{name} has no {kind} limit that could be raised")
    now, most = units.quantity(limit), units.quantity(bound.max)
    share = min(cause.share, 0.9)
    wanted = now * (MEMORY_STEP if memory else min(MOST_AT_ONCE, HEADROOM / (1 - share)))
    given = min(most, wanted)
    if given < now * WORTH:
        return Refusal(
            Reason.AT_MAXIMUM,
            f"{name} has {limit}, and the policy's maximum is {bound.max}; raise"
            f" actions.resources.{'memory' if memory else 'cpu'}.max",
        )
    metric = (
        "training.samplesPerSecond"
        if observation.type is WorkloadType.TRAINING
        else "inference.latency"
    )
    before = observation.value(metric)
    if before is None:
        return Refusal(Reason.NO_DATA, f"{metric} is not known")
    # Throttled for a share of its time, it needs 1 / (1 - share) of what it has to lose nothing.
    left = max(0.0, 1 - given / now * (1 - share)) if not memory else 0.0
    gain = (1 - left) / (1 - share)
    after = before * gain if observation.type is WorkloadType.TRAINING else before / gain
    desired = _sized(size, memory, given)
    return Action(
        type="Resources",
        summary=_summary(name, memory, size, desired),
        cause=cause.id,
        resources=ResourcesChange(
            container=name,
            desired=desired,
            replaces=size,
            earlier=requests.earlier(name, facts, size),
        ),
        prediction=Prediction(
            before=round(before, 4),
            after=round(after, 4),
            basis="time without the share in which it waits for memory"
            if memory
            else "work done = CPU given, up to what it takes without throttling",
        ),
    )


def _sized(size: ContainerResources, memory: bool, given: float) -> ContainerResources:
    if memory:
        quantity, request, limit = units.mebibytes(given), size.memory_request, size.memory_limit
        names = ("memory_request", "memory_limit")
    else:
        quantity, request, limit = units.cores(given), size.cpu_request, size.cpu_limit
        names = ("cpu_request", "cpu_limit")
    guaranteed = request is not None and limit is not None
    guaranteed = guaranteed and units.quantity(request or "0") == units.quantity(limit or "0")
    changes = {names[1]: quantity} | ({names[0]: quantity} if guaranteed else {})
    return size.model_copy(update=changes)


def _summary(name: str, memory: bool, size: ContainerResources, desired: ContainerResources) -> str:
    if memory:
        return f"{name}: memory limit {size.memory_limit} → {desired.memory_limit}"
    return f"{name}: cpu limit {size.cpu_limit} → {desired.cpu_limit}"
