"""Compares an observation with the policy's objectives. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ..api import units
from ..api.policy import Objectives
from ..api.report import Evidence, Symptom
from ..observe.observation import NoData, Observation, Reading, Signal
from .diagnosis import ObjectiveState

POLICY_SOURCE = "objective of the policy"


def evaluate(objectives: Objectives, observation: Observation) -> tuple[ObjectiveState, ...]:
    """The state of each objective that the policy sets, the most urgent first: failures hurt users
    more than slowness, and slowness more than what only explains it."""
    return tuple(_states(objectives, observation))


def _states(objectives: Objectives, observation: Observation) -> Iterator[ObjectiveState]:
    if (rate := objectives.error_rate) is not None:
        most = units.fraction(rate.max)
        signal = observation.signal("inference.errorRate")
        yield _state("ErrorRate", "Error rate", "inference.errorRate", signal, most, at_most=True)
    if (latency := objectives.latency) is not None:
        most = units.seconds(latency.target)
        signal = observation.signal("inference.latency")
        title = f"Latency p{latency.percentile}"
        yield _state("Latency", title, "inference.latency", signal, most, at_most=True)
    if (goodput := objectives.goodput) is not None:
        least = units.number(goodput.min)
        signal = observation.signal("training.samplesPerSecond")
        name = "training.samplesPerSecond"
        yield _state("Goodput", "Goodput", name, signal, least, at_most=False)
    if (wait := objectives.data_wait) is not None:
        most = units.fraction(wait.max)
        signal = observation.signal("training.dataShare")
        yield _state("DataWait", "Waiting for input", "training.dataShare", signal, most, True)


def _state(
    objective: str, title: str, name: str, signal: Signal, bound: float, at_most: bool
) -> ObjectiveState:
    unit = signal.unit if isinstance(signal, Reading) else ("s" if objective == "Latency" else "")
    target = f"{'≤' if at_most else '≥'} {figure(bound, unit)}"
    if isinstance(signal, NoData):
        return ObjectiveState(objective, "no data", target, None, None, signal.reason)
    met = signal.value <= bound if at_most else signal.value >= bound
    current = figure(signal.value, signal.unit)
    symptom = None
    if not met:
        relation = "over its objective of at most" if at_most else "under its objective of at least"
        text = f"{title} is {current}, {relation} {figure(bound, unit)}"
        symptom = Symptom(
            objective=objective, text=text, evidence=evidence(name, signal, bound, POLICY_SOURCE)
        )
    return ObjectiveState(objective, current, target, met, symptom)


def evidence(name: str, reading: Reading, threshold: float | None, source: str) -> Evidence:
    """The figure as evidence, with the threshold it was held against."""
    return Evidence(
        signal=name,
        window=f"{reading.window:.0f}s",
        statistic=reading.statistic,
        value=round(reading.value, 6),
        unit=reading.unit,
        threshold=threshold,
        source=source,
    )


def figure(value: float, unit: str) -> str:
    """A figure as people read it: shares in percent, short times in milliseconds."""
    if unit == "":
        return f"{value * 100:.1f}%" if value < 0.1 else f"{value * 100:.0f}%"
    if unit == "s":
        return f"{value * 1000:.0f} ms" if value < 10 else f"{value:.1f} s"
    text = f"{value:.2f}" if value < 10 else f"{value:.0f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return f"{text} {unit}"
