"""The two sides of a trade within a pool: replicas given up, and replicas that get what they waited
for."""

from __future__ import annotations

import math

from ...api.policy import PolicySpec
from ...api.report import (
    Action,
    Aim,
    BottleneckReport,
    Evidence,
    Prediction,
    ReplicasChange,
    Symptom,
    TradeRole,
)
from ...observe.observation import Observation
from ..decision import Facts, Plan

POOL_TRADE = "pool-trade"
"""The cause of an action that is made for a trade's sake."""


def give(observation: Observation, spec: PolicySpec, facts: Facts, now: float) -> Plan | None:
    """What the pool asks of this policy now, if anything."""
    gift = facts.gift
    if gift is None or facts.replicas is None or facts.replicas <= gift.replicas:
        return None
    left = facts.replicas - gift.replicas
    change = ReplicasChange(desired=left, replaces=facts.replicas)
    action = Action(
        type="Replicas",
        summary=f"replicas {facts.replicas} → {left}, for {gift.trade.policy}",
        cause=POOL_TRADE,
        aim=Aim.SAVE,
        replicas=change,
        prediction=_prediction(gift.before, gift.after, gift.trade.reason),
    )
    return Plan(action, _symptom(gift.trade.reason, facts.replicas), trade=gift.trade)


def take(giver: BottleneckReport, replicas: int) -> Plan | None:
    """The answer to a giver's report: the replicas that wait already get their devices. Their
    number stays, so that only the trade itself has to be undone. None where nothing is asked."""
    offer = giver.spec.trade
    if offer is None or offer.role is not TradeRole.GIVES:
        return None
    name, own = giver.metadata.name, giver.spec.policy
    trade = offer.model_copy(
        update={
            "role": TradeRole.TAKES,
            "policy": own,
            "report": name,
            "reason": f"{own} {offer.reason}",
        }
    )
    action = Action(
        type="Replicas",
        summary=f"{offer.ready} of {replicas} replicas ready, with {offer.devices:g} "
        f"{offer.resource} from {own}",
        cause=POOL_TRADE,
        replicas=ReplicasChange(desired=replicas, replaces=replicas),
    )
    return Plan(action, trade=trade)


def _prediction(before: float, after: float, basis: str) -> Prediction | None:
    if not (math.isfinite(before) and math.isfinite(after)):
        return None
    return Prediction(before=round(before, 4), after=round(after, 4), basis=basis)


def _symptom(text: str, replicas: int) -> Symptom:
    evidence = Evidence(
        signal="replicas.desired",
        window="0s",
        statistic="last",
        value=replicas,
        unit="replicas",
        source="API server",
    )
    return Symptom(objective="Pool", text=text, evidence=evidence)
