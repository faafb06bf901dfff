"""What one replica more or less would do to a workload. Pure.

``forecast`` is the one place that knows models: the pool (``pool.py``) only compares what it gives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..api import units
from ..api.objectives import Device
from ..api.policy import PolicySpec
from ..diagnose.objectives import figure
from ..observe.observation import Observation, WorkloadType
from .decision import Facts
from .scaling.load import load_of
from .scaling.queueing import latency

BUSY = 0.9
"""Share of time that a server without a latency objective may be busy: an M/M/1 queue is ten
service times long there."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """A workload with another number of replicas. ``strain`` is its worst figure over the
    objective: 1 just meets it, more breaches it. ``value`` is that figure, ``text`` says it."""

    strain: float
    value: float
    text: str


def forecast(
    observation: Observation, spec: PolicySpec, facts: Facts, replicas: int
) -> Forecast | None:
    """The workload with so many ready replicas under its present load; None where that cannot be
    told. ``facts.ready`` is how many carry the load now: one fewer of N is N/(N-1) of it for each
    of the others."""
    if not facts.ready or replicas < 1:
        return None
    found = []
    if observation.type is WorkloadType.INFERENCE:
        found.append(_serving(observation, spec, facts, replicas))
    elif spec.objectives.goodput is not None:
        found.append(_training(observation, spec, facts.ready / replicas))
    else:
        return None
    if spec.objectives.utilization is not None and spec.objectives.utilization.max is not None:
        found.append(_utilization(observation, spec, facts.ready / replicas))
    known = [each for each in found if each is not None]
    return max(known, key=lambda each: each.strain) if len(known) == len(found) else None


def _serving(
    observation: Observation, spec: PolicySpec, facts: Facts, replicas: int
) -> Forecast | None:
    """Latency as it was measured, changed as the queueing model says (``scaling/queueing.py``)."""
    load = load_of(observation, spec.objectives, facts.trail)
    measured = observation.value("inference.latency")
    if load is None or measured is None or not facts.ready:
        return None
    if load.goal.seconds is None:
        busy = load.rate / load.service.capacity / replicas
        return Forecast(busy / BUSY, busy, f"servers {busy:.0%} busy of {BUSY:.0%}")
    now, then = (latency(load.rate, load.service, load.goal, n) for n in (facts.ready, replicas))
    if replicas == facts.ready:
        expected = measured
    elif math.isinf(now):
        expected = min(measured, then) if replicas > facts.ready else then
    else:
        expected = measured * then / now
    target, name = load.goal.seconds, f"p{load.goal.percentile:.0f}"
    if math.isinf(expected):
        return Forecast(math.inf, math.inf, f"{name} beyond all bounds of {figure(target, 's')}")
    return Forecast(
        expected / target, expected, f"{name} {figure(expected, 's')} of {figure(target, 's')}"
    )


def _training(observation: Observation, spec: PolicySpec, share: float) -> Forecast | None:
    """Goodput in proportion to the ranks: the most that a rank can be worth."""
    rate = observation.value("training.samplesPerSecond")
    if not rate or spec.objectives.goodput is None:
        return None
    least, expected = units.number(spec.objectives.goodput.min), rate / share
    return Forecast(
        least / expected, expected, f"goodput {expected:.0f} of at least {least:.0f} samples/s"
    )


def _utilization(observation: Observation, spec: PolicySpec, share: float) -> Forecast | None:
    wanted = spec.objectives.utilization
    assert wanted is not None
    assert wanted.max is not None
    name = "gpu.utilization" if wanted.device is Device.GPU else "cpu.busyShare"
    used = observation.value(name)
    if used is None:
        return None
    expected = used * share
    text = f"{wanted.device} {expected:.0%} of {wanted.max}%"
    return Forecast(expected * 100 / wanted.max, expected, text)
