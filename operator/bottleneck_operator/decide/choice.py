"""Which of several changes is made: the cheapest that is predicted to be enough. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..api import units
from ..api.policy import Disruption, PolicySpec
from ..api.report import Action, Alternative, Cost
from ..diagnose.diagnosis import Diagnosis
from ..observe.observation import Observation, WorkloadType
from .decision import Facts, Refusal
from .ledger import corrected, gain_of, record
from .remedies import MEANS


def priced(action: Action, observation: Observation, facts: Facts) -> Action:
    """The action with what it costs, and with the prediction that earlier outcomes leave of it."""
    latency = observation.type is WorkloadType.INFERENCE
    known = record(facts.reports, action.cause, action.type, facts.ledger)
    change = action.replicas
    cost = Cost(
        disruption=MEANS[action.type],
        replicas=max(0, change.desired - change.replaces) if change is not None else 0,
        accuracy_loss=action.image.accuracy_loss if action.image is not None else None,
        risk=round(known.missed / known.tried, 2) if known.tried else None,
    )
    action = action.model_copy(update={"cost": cost})
    if action.image is not None:
        return action  # predicted from what its newest canary measured, not from a model
    return corrected(action, facts.reports, latency, facts.ledger)


def choose(
    plans: Sequence[Action], diagnosis: Diagnosis, observation: Observation, spec: PolicySpec
) -> Action:
    """The cheapest action that is predicted to meet the breached objective: hot before in place
    before rolling, and of equals the one with fewer replicas, then with less risk. Where none is,
    the one against the first cause that is predicted to return most: the engine ranks causes by
    what removing them returns."""
    assert diagnosis.symptom is not None
    objective = diagnosis.symptom.objective
    if enough := [plan for plan in plans if meets(plan, objective, spec)]:
        return min(enough, key=_price)
    latency = observation.type is WorkloadType.INFERENCE
    first = [plan for plan in plans if plan.cause == plans[0].cause]
    return max(first, key=lambda plan: gain_of(plan.prediction, latency))


def _price(action: Action) -> tuple[int, int, float, float]:
    cost = action.cost or Cost(disruption=MEANS[action.type])
    accuracy = units.fraction(cost.accuracy_loss) if cost.accuracy_loss else 0.0
    return list(Disruption).index(cost.disruption), cost.replicas, accuracy, cost.risk or 0.0


def meets(action: Action, objective: str, spec: PolicySpec) -> bool:
    """Whether an action is predicted to meet the objective of that name."""
    if action.prediction is None:
        return False
    after, objectives = action.prediction.after, spec.objectives
    if objective == "Latency" and objectives.latency:
        return after <= units.seconds(objectives.latency.target)
    if objective == "Goodput" and objectives.goodput:
        return after >= units.number(objectives.goodput.min)
    return False


def alternatives(
    chosen: Action,
    plans: Sequence[Action],
    refused: Sequence[tuple[str, str, Refusal]],
    objective: str,
    spec: PolicySpec,
) -> list[Alternative]:
    """What was considered besides, and why it was not done. ``refused`` are (cause, type,
    refusal)."""
    found = [*_others(chosen, plans, objective, spec)]
    for cause, type, refusal in refused:
        reason = f"{refusal.reason}: {refusal.message}"
        found.append(Alternative(cause=cause, type=type, reason=reason[:1024]))
    return found[:16]


def _others(
    chosen: Action, plans: Sequence[Action], objective: str, spec: PolicySpec
) -> Iterator[Alternative]:
    enough = meets(chosen, objective, spec)
    for plan in plans:
        if plan is chosen:
            continue
        if not enough:
            why = "predicted to return less, or against a cause that takes less"
        elif meets(plan, objective, spec):
            why = f"predicted to be enough, too, but costs more: {cost_text(plan)}"
        else:
            why = "not predicted to meet the objective"
        if plan.prediction is not None:
            why += f" ({plan.prediction.before:g} → {plan.prediction.after:g})"
        yield Alternative(cause=plan.cause, type=plan.type, summary=plan.summary, reason=why)


def cost_text(action: Action) -> str:
    """What an action costs, in words."""
    cost = action.cost
    if cost is None:
        return "not known"
    words = [str(cost.disruption)]
    if cost.replicas:
        words.append(f"{cost.replicas} more replica{'s' * (cost.replicas > 1)} for as long as kept")
    if cost.accuracy_loss:
        words.append(f"{cost.accuracy_loss} of accuracy")
    if cost.risk:
        words.append(f"{cost.risk:.0%} of such actions missed before")
    return ", ".join(words)
