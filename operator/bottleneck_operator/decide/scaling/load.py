"""What is asked of a workload and how its replicas serve, from what was observed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

from ...api import units
from ...api.objectives import Objectives
from ...observe.observation import Observation, WorkloadType
from ...observe.trail import Slot, Trail
from .queueing import Goal, Service, erlang_c

RATE, SERVICE, LATENCY = "inference.arrivalRate", "inference.serviceSeconds", "inference.latency"

STABLE_SECONDS = 120.0
"""Over which the service time is averaged."""

STEADY_SECONDS = 20.0
"""What the load was at least for so long is no accident: two windows of ten seconds."""

LEARNT_SECONDS = 1800.0
LEAST_SLOTS = 12
"""Fewest slots to learn from: a minute of them."""

CALM = (0.3, 0.9)
"""Occupancies between which waits tell of variability: below there are next to none, above they
tell of the backlog."""

VARIABILITY = (0.25, 4.0)
"""Bounds of what is believed: service times as even as a clock's at even arrivals, and eight times
as variable as exponential ones."""


@dataclass(frozen=True, slots=True)
class Load:
    """The demand: ``rate`` requests per second arrive now, over the evaluation window (the panic
    window), ``steady`` was the least over the last ``STEADY_SECONDS``; ``backlog`` requests wait
    beyond those that wait within the objective."""

    rate: float
    steady: float
    backlog: float
    service: Service
    goal: Goal


def load_of(observation: Observation, objectives: Objectives, trail: Trail) -> Load | None:
    """The load at the time of ``observation``; None where something of it is not known."""
    if observation.type is not WorkloadType.INFERENCE:
        return None
    if not 0 < observation.streaming == observation.expected:
        return None
    rate = observation.value(RATE)
    service = _service(observation, trail)
    if rate is None or service is None:
        return None
    goal = _goal(objectives, trail, observation.time)
    past = trail.over(RATE, STEADY_SECONDS, observation.time)
    queued = observation.value("inference.queued") or 0.0
    spare = 0.0 if goal.seconds is None else max(0.0, goal.seconds - service.seconds)
    return Load(
        rate=rate,
        steady=min(rate, past.least) if past else 0.0,
        backlog=max(0.0, queued - rate * spare),
        service=service,
        goal=goal,
    )


def _service(observation: Observation, trail: Trail) -> Service | None:
    now = observation.value(SERVICE)
    if now is None or now <= 0:
        return None
    past = trail.series(SERVICE, STABLE_SECONDS, observation.time)
    seconds = mean(slot.mean for slot in past) if past else now
    # Requests that one replica serves at once: its worker processes times the places of each.
    processes = max(1, round(len(observation.ranks) / max(1, observation.streaming)))
    places = max(1.0, observation.value("inference.concurrency") or 1.0)
    batch = max(1.0, observation.value("inference.batchSize") or 1.0)
    limit = max(batch, observation.value("inference.batchLimit") or batch)
    if limit > 1:
        # A full batch takes longer than the usual one: half of its time is fixed, half goes with
        # its size (docs/actions.md), so that a server with small batches is not full yet.
        seconds *= (1 + limit / batch) / 2
        places = max(places, limit)
    places = max(1, int(places)) * processes
    plain = Service(seconds, places)
    if limit > 1:
        return plain
    return Service(seconds, places, variability(plain, trail, observation.time))


def variability(service: Service, trail: Trail, now: float) -> float:
    """How long requests waited against what M/M/k says at the same occupancy: the median over the
    calm slots of the last half hour; 1 where there are too few. Where one queue feeds all replicas,
    or requests come evenly, it is small; where they come in bursts, it is large."""
    slots = trail.series("inference.queueSeconds", *_lately(now))
    waits = {slot.begin: slot.mean for slot in slots}
    ratios = []
    for slot in trail.series("inference.occupancy", *_lately(now)):
        busy, waited = slot.mean, waits.get(slot.begin)
        if waited is None or not CALM[0] <= busy <= CALM[1]:
            continue
        modelled = _mean_wait(service, busy)
        if modelled > 0:
            ratios.append(waited / modelled)
    if len(ratios) < LEAST_SLOTS:
        return 1.0
    return min(VARIABILITY[1], max(VARIABILITY[0], median(ratios)))


def _lately(now: float) -> tuple[float, float]:
    return LEARNT_SECONDS, now


def _mean_wait(service: Service, busy: float) -> float:
    """The mean wait of M/M/k in seconds at an occupancy."""
    return (
        erlang_c(service.places, busy * service.places)
        * service.seconds
        / (service.places * (1 - busy))
    )


def _goal(objectives: Objectives, trail: Trail, now: float) -> Goal:
    if objectives.latency is None:
        return Goal()
    target = units.seconds(objectives.latency.target)
    slots = trail.series(LATENCY, *_lately(now))
    return Goal(objectives.latency.percentile, target, _unhurried(slots))


def _unhurried(slots: Sequence[Slot]) -> float:
    """The latency percentile while next to nobody waits: the tenth part of slots in which it was
    least; 0 while there are too few."""
    if len(slots) < LEAST_SLOTS:
        return 0.0
    means = sorted(slot.mean for slot in slots)
    return means[len(means) // 10]
