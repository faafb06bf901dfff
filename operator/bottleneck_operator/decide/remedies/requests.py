"""What a container asks of the scheduler: more where others take its CPUs, and less of what it has
not used for an hour."""

from __future__ import annotations

from ...api import units
from ...api.allowed import ResourceBound, ResourcesAction
from ...api.conditions import Reason
from ...api.policy import PolicySpec
from ...api.report import (
    Action,
    Aim,
    Cause,
    ContainerResources,
    Evidence,
    Prediction,
    ResourcesChange,
    Symptom,
)
from ...observe.containers import ResizeState, one_of, same
from ...observe.observation import Observation, WorkloadType
from ..decision import Facts, Plan, Refusal
from .common import SURPLUS, WORTH

SPARE_SECONDS = 3600.0 - 60.0
"""How long a request must not have been used to be cut, and how far apart two cuts are: nearly all
that the trail keeps."""

SPARE_HEADROOM = 1.25
"""What is left beyond the most that was used in that time."""

SPARE_WORTH = 0.8
"""A cut has to save a fifth, and takes half at most at once."""
SPARE_STEP = 0.5

REQUEST_HEADROOM = 1.1


def container(bounds: ResourcesAction, facts: Facts) -> tuple[str, ContainerResources] | Refusal:
    """The container to resize and its present size, the same in all running pods; a refusal where
    it is not known, or a resize is under way."""
    names = sorted(facts.containers)
    if not names:
        return Refusal(Reason.NO_DATA, "no running pod is known")
    if not bounds.container and len(names) > 1:
        return Refusal(
            Reason.NO_REMEDY,
            f"the pods have several containers; write one of {', '.join(names)} as"
            " actions.resources.container",
        )
    name = bounds.container or names[0]
    if name not in names:
        return Refusal(
            Reason.NO_REMEDY,
            f"the pods have no container {name}; write one of {', '.join(names)} as"
            " actions.resources.container",
        )
    states = facts.containers[name]
    size = states[0].wanted
    if any(not same(each.wanted, size) for each in states):
        return Refusal(Reason.NO_DATA, f"the pods' containers {name} are of different sizes")
    return _waiting(name, states) or (name, size)


def _waiting(name: str, states: tuple[ResizeState, ...]) -> Refusal | None:
    """A resize that is not done yet, whoever asked for it: nothing is put on top of it."""
    for each in states:
        if not same(each.wanted, each.actual):
            why = f": {each.message}" if each.message else ""
            return Refusal(Reason.COOLDOWN, f"{name} of {each.pod} is still being resized{why}")
    return None


def earlier(name: str, facts: Facts, size: ContainerResources) -> list[ContainerResources]:
    """Sizes that pods of this workload begin with, from earlier changes that were kept."""
    found: list[ContainerResources] = []
    for report in facts.reports:
        change = report.spec.action.resources if report.spec.action else None
        if change is not None and change.container == name:
            for each in (*change.earlier, change.replaces):
                if not one_of(each, (size, *found)):
                    found.append(each)
    return found[-16:]


def more(
    cause: Cause,
    observation: Observation,
    name: str,
    size: ContainerResources,
    bound: ResourceBound,
    facts: Facts,
) -> Action | Refusal:
    """A CPU request as large as the need. The kernel shares a full node's CPUs in proportion to the
    requests (cpu.weight), and the scheduler keeps what is asked for free."""
    if size.cpu_request is None:
        return Refusal(
            Reason.NO_REMEDY,
            f"{name} asks for no CPU, and a running pod cannot begin to; write resources.requests"
            " into its template",
        )
    used = observation.value("cpu.mostUsedCores")
    metric, before = _metric(observation)
    if used is None or before is None:
        return Refusal(Reason.NO_DATA, f"the CPU in use, or {metric}, is not known")
    share = min(cause.share, 0.9)
    need = used / (1 - share) * REQUEST_HEADROOM
    most = min(
        units.quantity(bound.max),
        units.quantity(size.cpu_limit) if size.cpu_limit else float("inf"),
    )
    now, given = units.quantity(size.cpu_request), min(need, most)
    if given < now * WORTH:
        return Refusal(
            Reason.AT_MAXIMUM,
            f"{name} asks for {size.cpu_request} CPU already, of {need:.2f} that it needs; raise"
            " its limit and actions.resources.cpu.max, or move it to another node",
        )
    desired = size.model_copy(update={"cpu_request": units.cores(given)})
    gain = 1 / (1 - share)
    after = before * gain if observation.type is WorkloadType.TRAINING else before / gain
    return Action(
        type="Resources",
        summary=f"{name}: cpu request {size.cpu_request} → {desired.cpu_request}",
        cause=cause.id,
        resources=ResourcesChange(
            container=name, desired=desired, replaces=size, earlier=earlier(name, facts, size)
        ),
        prediction=Prediction(
            before=round(before, 4),
            after=round(after, 4),
            basis="the time in which it waits for a CPU goes away: a full node is shared in"
            " proportion to the requests",
        ),
    )


def spare(observation: Observation, spec: PolicySpec, facts: Facts, now: float) -> Plan | None:
    """A smaller request of what was not used for an hour; None where nothing is known to be too
    much. Where the limit equals the request, both are cut: a pod keeps its quality of service."""
    bounds = spec.actions.resources
    if bounds is None or facts.vpa is not None or _cut_lately(facts, now):
        return None
    found = container(bounds, facts)
    if isinstance(found, Refusal):
        return None
    name, size = found
    if bounds.cpu is not None and bounds.cpu.min is not None and size.cpu_request is not None:
        used = facts.trail.over("cpu.mostUsedCores", SPARE_SECONDS, now)
        least = units.quantity(bounds.cpu.min)
        if used is not None:
            plan = _cut(observation, facts, name, size, "cpu", used.most, least)
            if plan is not None:
                return plan
    if bounds.memory is not None and bounds.memory.min is not None and size.memory_limit:
        share = facts.trail.over("memory.usedShare", SPARE_SECONDS, now)
        if share is not None and size.memory_request is not None:
            used_bytes = share.most * units.quantity(size.memory_limit)
            least = units.quantity(bounds.memory.min)
            return _cut(observation, facts, name, size, "memory", used_bytes, least)
    return None


def _cut_lately(facts: Facts, now: float) -> bool:
    """Whether a size was changed within the time that is looked back on: what was used then was
    used of another size."""
    return any(
        report.spec.action is not None
        and report.spec.action.resources is not None
        and report.status.applied_at is not None
        and now - report.status.applied_at.timestamp() < SPARE_SECONDS
        for report in facts.reports
    )


def _cut(
    observation: Observation,
    facts: Facts,
    name: str,
    size: ContainerResources,
    resource: str,
    used: float,
    least: float,
) -> Plan | None:
    request = getattr(size, f"{resource}_request")
    limit = getattr(size, f"{resource}_limit")
    now = units.quantity(request)
    given = max(least, used * SPARE_HEADROOM, now * SPARE_STEP)
    _, before = _metric(observation)
    if given > now * SPARE_WORTH or before is None:
        return None
    write = units.cores if resource == "cpu" else units.mebibytes
    changes = {f"{resource}_request": write(given)}
    if limit is not None and units.quantity(limit) == now:
        changes[f"{resource}_limit"] = write(given)
    desired = size.model_copy(update=changes)
    shown = f"{used:.2f} cores" if resource == "cpu" else f"{used / 2**20:.0f} MiB"
    text = f"{name} asks for {request} of {resource}; in the last hour it used {shown} at most"
    action = Action(
        type="Resources",
        summary=f"{name}: {resource} request {request} → {changes[f'{resource}_request']}",
        cause=SURPLUS,
        aim=Aim.SAVE,
        resources=ResourcesChange(
            container=name, desired=desired, replaces=size, earlier=earlier(name, facts, size)
        ),
        prediction=Prediction(
            before=round(before, 4), after=round(before, 4), basis="what was not used is not missed"
        ),
    )
    evidence = Evidence(
        signal="cpu.mostUsedCores" if resource == "cpu" else "memory.usedShare",
        window="59m",
        statistic="maximum",
        value=round(used, 4),
        unit="cores" if resource == "cpu" else "B",
        threshold=now,
        source="the container's request",
    )
    return Plan(action, Symptom(objective="Surplus", text=text, evidence=evidence))


def _metric(observation: Observation) -> tuple[str, float | None]:
    training = observation.type is WorkloadType.TRAINING
    name = "training.samplesPerSecond" if training else "inference.latency"
    return name, observation.value(name)
