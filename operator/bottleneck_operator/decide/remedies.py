"""One function for each type of action: the change it would make, with its prediction, or why not.

Pure. A remedy knows its bounds and its model; whether anything may be done at all is
``guardrails``' business.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..api.conditions import Reason
from ..api.policy import DataLoaderAction, PolicySpec
from ..api.report import Action, Cause, KnobsChange, Prediction, ReplicasChange
from ..observe.observation import Observation
from .decision import Facts, Refusal

WORKERS = "dataLoader.workers"
PREFETCH = "dataLoader.prefetch"

TARGET_OCCUPANCY = 0.6
"""Share of time that a server should be busy. In an M/G/1 queue with service times as variable as
exponential ones, the mean wait at 0.6 is 1.5 service times, at 0.8 already 4."""

WORTH = 1.05
"""A step more in size must be predicted to return at least 5% to be taken."""

Remedy = Callable[[Cause, Observation, PolicySpec, Facts], Action | Refusal]


def data_loader(
    cause: Cause, observation: Observation, spec: PolicySpec, facts: Facts
) -> Action | Refusal:
    """More loader workers, as many as the CPUs can feed and the bounds allow.

    Model: with loading time d and other time c of a step on w workers and C CPUs, a step takes
    max(c, d/w, (c + d)/C): it can be no shorter than its own work, than its share of the loading,
    and than all the work spread over all CPUs.
    """
    bounds = spec.actions.data_loader
    if bounds is None:
        return _not_allowed("dataLoader", "actions: {dataLoader: {maxWorkers: 4}}")
    if WORKERS not in facts.settable:
        return Refusal(
            Reason.KNOB_NOT_SETTABLE,
            "the training process does not let its loader be changed while it runs; "
            "wrap it with StepMonitor.loader of the SDK, with a map-style dataset",
        )
    workers = observation.value(WORKERS)
    step = observation.value("training.stepSeconds")
    share = observation.value("training.dataShare")
    rate = observation.value("training.samplesPerSecond")
    if workers is None or not step or share is None or rate is None:
        return Refusal(Reason.NO_DATA, "step time and loader settings are not known")
    ranks = max(1, len(observation.ranks) // max(1, observation.streaming))
    available = observation.value("cpu.availableCores")
    cpus = available / max(1, len(observation.ranks)) if available else None

    other = step * (1 - share)
    # With workers, what is seen as waiting is only the excess of loading over computing.
    loading = step * share if workers < 1 else step * workers

    def predicted(count: int) -> float:
        floor = (other + loading) / cpus if cpus else 0.0
        return max(other, loading / count, floor)

    now = int(workers)
    best, best_step = now, step
    for count in range(max(1, now + 1), bounds.max_workers + 1):
        if best_step / predicted(count) >= WORTH:
            best, best_step = count, predicted(count)
    if best == now:
        return _loader_exhausted(now, bounds, cpus, ranks)
    current = {WORKERS: now, PREFETCH: _knob(observation, PREFETCH, 2)}
    desired = {WORKERS: best, PREFETCH: min(bounds.max_prefetch, max(4, current[PREFETCH]))}
    return Action(
        type="DataLoader",
        summary=f"dataLoader.workers {now} → {best}, prefetch {current[PREFETCH]} → "
        f"{desired[PREFETCH]}",
        cause=cause.id,
        knobs=KnobsChange(
            generation=facts.generation + 1,
            desired=dict(facts.knobs) | desired,
            replaces=current | dict(facts.knobs),
        ),
        prediction=Prediction(
            before=round(rate, 3),
            after=round(rate * step / best_step, 3),
            basis="step = max(compute, loading / workers, all work / CPUs)",
        ),
    )


def _loader_exhausted(
    now: int, bounds: DataLoaderAction, cpus: float | None, ranks: int
) -> Refusal:
    if now >= bounds.max_workers:
        return Refusal(
            Reason.AT_MAXIMUM,
            f"dataLoader.workers is {now}, the policy's maximum; raise actions.dataLoader."
            "maxWorkers, or make preprocessing cheaper. More replicas would not help",
        )
    return Refusal(
        Reason.NO_REMEDY,
        f"more than {now} workers would not be faster on {cpus or 0:.1f} CPUs for each of {ranks} "
        "ranks; make preprocessing cheaper or give it more CPU. More replicas would not help",
    )


def _knob(observation: Observation, name: str, default: int) -> int:
    values = [rank.knobs.get(name) for rank in observation.ranks]
    known = [int(value) for value in values if isinstance(value, int | float)]
    return min(known, default=default)


def replicas(
    cause: Cause, observation: Observation, spec: PolicySpec, facts: Facts
) -> Action | Refusal:
    """As many replicas as bring the servers' busy share down to ``TARGET_OCCUPANCY``."""
    bounds = spec.actions.replicas
    if bounds is None:
        return _not_allowed("replicas", "actions: {replicas: {min: 1, max: 4}}")
    if facts.replicas is None:
        return Refusal(Reason.TARGET_NOT_SUPPORTED, "the target has no scale subresource")
    if facts.hpa is not None:
        return Refusal(
            Reason.REPLICAS_OWNED_BY_HPA,
            f"HorizontalPodAutoscaler {facts.hpa} owns the replicas; delete it, or leave "
            "actions.replicas out of the policy",
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
    places = (observation.value("inference.concurrency") or 1.0) * processes
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


def _not_allowed(name: str, example: str) -> Refusal:
    return Refusal(
        Reason.ACTION_NOT_ALLOWED,
        f"the policy does not allow changing {name}; to allow it write {example}",
    )


REMEDIES: dict[str, Remedy] = {"DataLoader": data_loader, "Replicas": replicas}
