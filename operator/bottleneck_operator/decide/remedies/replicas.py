"""More replicas for servers that cannot keep up or soon could not, fewer where those are enough.
How many that are is said in ``decide/scaling``; here it becomes an action within the bounds. Whose
the replicas are was dealt with before (``owners.py``)."""

from __future__ import annotations

import math

from ...api import units
from ...api.allowed import ReplicasAction
from ...api.conditions import Reason
from ...api.policy import PolicySpec
from ...api.report import Action, Aim, Cause, Evidence, Prediction, ReplicasChange, Symptom
from ...observe.observation import Observation, Reading
from ..decision import Facts, Plan, Refusal
from ..scaling.growth import Growth, There, growth, there_of
from ..scaling.load import RATE, Load, load_of
from ..scaling.queueing import latency
from ..scaling.shrink import fewer
from .common import SURPLUS, not_allowed

DEMAND = "demand"
"""The cause of growth before an objective is missed."""


def replicas(
    cause: Cause, observation: Observation, spec: PolicySpec, facts: Facts
) -> Action | Refusal:
    """As many replicas as the load and its backlog need, at least one more: where the model finds
    that there are enough, what is measured says that there are not."""
    bounds = spec.actions.replicas
    if bounds is None:
        return not_allowed("replicas", "actions: {replicas: {min: 1, max: 4}}")
    count, load = facts.replicas, load_of(observation, spec.objectives, facts.trail)
    measured = observation.value("inference.latency")
    if load is None or measured is None or count is None:
        return Refusal(Reason.NO_DATA, "arrival rate and service time are not known")
    there = there_of(count, facts.ready, facts.reports, observation.time)
    window = units.seconds(bounds.stabilization)
    grown = growth(load, facts.trail, there, window, observation.time, breached=True)
    if there.ready < there.replicas and (refused := _no_room(facts)):
        return refused
    if facts.ready is None or (there.ready < there.replicas and grown.replicas <= there.replicas):
        return Refusal(
            Reason.REPLICAS_PENDING,
            f"{facts.ready or 0} of {count} replicas are ready; growth waits for them",
        )
    desired = min(bounds.max, max(grown.replicas, count + 1, bounds.min))
    if desired <= count:
        return Refusal(
            Reason.AT_MAXIMUM,
            f"{count} replicas is the policy's maximum; raise actions.replicas.max",
        )
    return _action(desired, count, cause.id, load, measured)


def more(
    observation: Observation, spec: PolicySpec, facts: Facts, breached: bool = False
) -> Plan | None:
    """Growth that the load demands by the model; None where it demands none, where the bounds leave
    none, and where something of it is not known."""
    found = _demanded(observation, spec, facts, breached)
    if found is None:
        return None
    bounds, load, there, grown = found
    reading = observation.signal(RATE)
    desired = min(bounds.max, max(grown.replicas, bounds.min))
    measured = observation.value("inference.latency")
    if desired <= there.replicas or measured is None or not isinstance(reading, Reading):
        return None
    carried = there.replicas * load.service.capacity
    return Plan(
        _action(desired, there.replicas, DEMAND, load, measured),
        Symptom(
            objective="Latency" if load.goal.seconds is not None else "Load",
            text=grown.reason,
            evidence=_evidence(reading, carried),
        ),
    )


def demanded(action: Action, observation: Observation, spec: PolicySpec, facts: Facts) -> bool:
    """Whether an action only follows the load: the model asks for it, so it is no experiment."""
    if action.type != "Replicas":
        return False
    return _demanded(observation, spec, facts, breached=True) is not None


def surplus(observation: Observation, spec: PolicySpec, facts: Facts, now: float) -> Plan | None:
    """What can be given back while the survivors carry the highest load of the last minutes."""
    bounds = spec.actions.replicas
    load = load_of(observation, spec.objectives, facts.trail)
    count, measured = facts.replicas, observation.value("inference.latency")
    reading = observation.signal(RATE)
    if bounds is None or load is None or count is None or measured is None:
        return None
    # During a rollout there are more pods than are wanted, and not all of them are ready.
    settled = facts.ready == count == observation.expected
    if not settled or not isinstance(reading, Reading):
        return None
    there = there_of(count, facts.ready, facts.reports, now)
    seconds = units.seconds(bounds.stabilization)
    survivors = fewer(load, facts.trail, there, seconds, now)
    if survivors is None or max(1, survivors, bounds.min) >= count:
        return None
    # Only who is idle goes to zero, and there is a gate for that (idle.py).
    desired = max(1, survivors, bounds.min)
    action = _action(desired, count, SURPLUS, load, measured)
    return Plan(
        action.model_copy(update={"aim": Aim.SAVE}),
        Symptom(
            objective="Surplus",
            text=f"{desired} of {count} replicas carried the highest load of the last "
            f"{bounds.stabilization}",
            evidence=_evidence(reading, desired * load.service.capacity),
        ),
    )


def _demanded(
    observation: Observation, spec: PolicySpec, facts: Facts, breached: bool
) -> tuple[ReplicasAction, Load, There, Growth] | None:
    bounds = spec.actions.replicas
    load = load_of(observation, spec.objectives, facts.trail)
    count = facts.replicas
    if bounds is None or load is None or not count or facts.ready is None:
        return None
    there = there_of(count, facts.ready, facts.reports, observation.time)
    window = units.seconds(bounds.stabilization)
    if there.ready < there.replicas and _no_room(facts):
        return None
    grown = growth(load, facts.trail, there, window, observation.time, breached)
    return (bounds, load, there, grown) if grown.replicas > count else None


def _no_room(facts: Facts) -> Refusal | None:
    """Where the pods that are missing cannot be placed, more of them cannot either."""
    if not facts.unplaced:
        return None
    return Refusal(
        Reason.CAPACITY_EXHAUSTED,
        f"the cluster has no room for the replicas that were asked for: {facts.unplaced}",
    )


def _action(desired: int, present: int, cause: str, load: Load, measured: float) -> Action:
    after = latency(load.rate, load.service, load.goal, desired)
    if desired > present:
        after = min(measured, after)
    elif math.isinf(after):
        after = measured
    busy = load.rate / load.service.capacity / max(1, desired)
    percentile = f"p{load.goal.percentile:.0f}"
    return Action(
        type="Replicas",
        summary=f"replicas {present} → {desired}",
        cause=cause,
        replicas=ReplicasChange(desired=desired, replaces=present),
        prediction=Prediction(
            before=round(measured, 4),
            after=round(after, 4),
            basis=f"M/M/{load.service.places} for each replica, waits "
            f"{load.service.variability:.2g} times as long: {percentile} at {busy:.0%} busy",
        ),
    )


def _evidence(reading: Reading, carried: float) -> Evidence:
    return Evidence(
        signal=RATE,
        window=f"{reading.window:.0f}s",
        statistic=reading.statistic,
        value=round(reading.value, 6),
        unit=reading.unit,
        threshold=round(carried, 6),
        source="places over service time, for the replicas",
    )
