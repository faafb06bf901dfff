"""What Prometheus says, brought into an observation of the sidecars. Pure.

A figure of a sidecar stays: it is of the process itself, and a second old. Prometheus fills in what
no sidecar sees, or all where there is none. A query of the policy goes before both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .observation import NoData, Observation, Reading, Replica, Signal, WorkloadType
from .prometheus_signals import Figures, Sourced, aged

NOT_SINCE = NoData("not looked at since the last change")


def merge(observation: Observation, sourced: Sourced, since: float) -> Observation:
    """The observation with Prometheus' figures in it, aged to its time. ``since`` is when the last
    change took effect (seconds since the Unix epoch): a look from before it says nothing now."""
    seconds = observation.time - sourced.time
    stale = since > sourced.since

    def current(figures: Figures) -> dict[str, Signal]:
        return {
            name: NOT_SINCE if stale else aged(figure, seconds) for name, figure in figures.items()
        }

    overall = current(sourced.figures)
    each = {pod: current(figures) for pod, figures in sourced.replicas.items()}
    signals = _joined(observation.signals, overall, sourced.explicit)
    own = {replica.pod: replica for replica in observation.replicas}
    fresh = [pod for pod, found in each.items() if _any_reading(found)]
    replicas = [
        Replica(
            pod, _joined(own[pod].signals if pod in own else {}, each.get(pod, {}), frozenset())
        )
        for pod in [*own, *(pod for pod in fresh if pod not in own)]
    ]
    merged = replace(
        observation,
        type=_type(observation, sourced),
        signals=signals,
        replicas=tuple(replicas),
    )
    if observation.expected:
        # The sidecars are there: what they do not tell is silence, whoever else speaks of the pod.
        return merged
    # Figures that belong to no pod are of the workload as a whole, and then of all of its pods.
    whole = not each and _any_reading(overall)
    ages = [signal.age for signal in overall.values() if isinstance(signal, Reading)]
    return replace(
        merged,
        expected=len(sourced.pods),
        streaming=len(sourced.pods) if whole else len(set(fresh) & set(sourced.pods)),
        newest=observation.time - min(ages) if ages else None,
    )


def _joined(
    own: Mapping[str, Signal], sourced: Mapping[str, Signal], explicit: frozenset[str]
) -> dict[str, Signal]:
    signals = dict(own)
    for name, signal in sourced.items():
        fills = isinstance(signal, Reading) and not isinstance(signals.get(name), Reading)
        if name in explicit or fills:
            signals[name] = signal
        else:
            signals.setdefault(name, signal)
    return signals


def _any_reading(signals: dict[str, Signal]) -> bool:
    return any(isinstance(signal, Reading) for signal in signals.values())


def _type(observation: Observation, sourced: Sourced) -> WorkloadType:
    if observation.type is not WorkloadType.UNKNOWN:
        return observation.type
    if sourced.workload:
        return WorkloadType(sourced.workload)
    kinds = {name.partition(".")[0] for name in sourced.explicit}
    for kind in (WorkloadType.TRAINING, WorkloadType.INFERENCE):
        if kind.value in kinds:
            return kind
    return WorkloadType.UNKNOWN
