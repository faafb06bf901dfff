"""More replicas for servers that cannot keep up."""

from __future__ import annotations

import math

from ...api.conditions import Reason
from ...api.policy import PolicySpec
from ...api.report import Action, Cause, Prediction, ReplicasChange
from ...observe.observation import Observation
from ..decision import Facts, Refusal
from .common import not_allowed

TARGET_OCCUPANCY = 0.6
"""Share of time that a server should be busy. In an M/G/1 queue with service times as variable as
exponential ones, the mean wait at 0.6 is 1.5 service times, at 0.8 already 4."""


def replicas(
    cause: Cause, observation: Observation, spec: PolicySpec, facts: Facts
) -> Action | Refusal:
    """As many replicas as bring the servers' busy share down to ``TARGET_OCCUPANCY``."""
    bounds = spec.actions.replicas
    if bounds is None:
        return not_allowed("replicas", "actions: {replicas: {min: 1, max: 4}}")
    if facts.replicas is None:
        return Refusal(Reason.TARGET_NOT_SUPPORTED, "the target has no scale subresource")
    if facts.hpa is not None:
        return Refusal(
            Reason.REPLICAS_OWNED_BY_HPA,
            f"HorizontalPodAutoscaler {facts.hpa} owns the replicas; delete it, or leave "
            "actions.replicas out of the policy",
        )
    if facts.gitops:
        return Refusal(
            Reason.REPLICAS_OWNED_BY_GITOPS,
            f"{facts.gitops} sets the replicas to what its repository says; leave spec.replicas out"
            " of the manifest there, or actions.replicas out of the policy",
        )
    if facts.ready is None or facts.ready < facts.replicas:
        return Refusal(
            Reason.REPLICAS_PENDING,
            f"{facts.ready or 0} of {facts.replicas} replicas are ready; growth waits for them",
        )
    rate = observation.value("inference.arrivalRate")
    service = observation.value("inference.serviceSeconds")
    latency = observation.value("inference.latency")
    if rate is None or service is None or latency is None:
        return Refusal(Reason.NO_DATA, "arrival rate and service time are not known")
    # Requests that one replica serves at once: its worker processes times the places of each.
    processes = max(1.0, len(observation.ranks) / max(1, observation.streaming))
    # A batch is served in one service time, however many requests are in it.
    at_once = max(
        observation.value("inference.concurrency") or 1.0,
        observation.value("inference.batchSize") or 1.0,
    )
    places = at_once * processes
    offered = rate * service / places
    needed = max(facts.replicas + 1, bounds.min, math.ceil(offered / TARGET_OCCUPANCY - 1e-9))
    desired = min(bounds.max, needed)
    if desired <= facts.replicas:
        return Refusal(
            Reason.AT_MAXIMUM,
            f"{facts.replicas} replicas is the policy's maximum; raise actions.replicas.max",
        )
    busy = offered / desired
    after = latency if busy >= 1 else min(latency, service * (1 + 3 * busy / (1 - busy)))
    return Action(
        type="Replicas",
        summary=f"replicas {facts.replicas} → {desired}",
        cause=cause.id,
        replicas=ReplicasChange(desired=desired, replaces=facts.replicas),
        prediction=Prediction(
            before=round(latency, 4),
            after=round(after, 4),
            basis=f"M/M/1 for each replica: a p95 of about three mean waits, at {busy:.0%} busy",
        ),
    )
