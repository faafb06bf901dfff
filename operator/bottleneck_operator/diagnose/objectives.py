"""Compares an observation with the policy's objectives. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..api import units
from ..api.objectives import Device, Objectives
from ..api.report import Evidence, Symptom
from ..observe.observation import NoData, Observation, Reading, Signal, WorkloadType
from .diagnosis import ObjectiveState

POLICY_SOURCE = "objective of the policy"


RUNNING = "Running"
"""The symptom of a workload that does not run; it breaches a policy whatever its objectives."""

TRAINING = ("Goodput", "DataWait", "StepTime")
"""Objectives of training: a job that stands still breaches each of them."""


def evaluate(
    objectives: Objectives, observation: Observation, stopped: Symptom | None = None
) -> tuple[ObjectiveState, ...]:
    """The state of each objective that the policy sets, the most urgent first: failures hurt users
    more than slowness, and slowness more than what only explains it.

    ``stopped`` says that the workload does not run, which breaches it whatever its objectives are:
    the training objectives if there are any, since nothing is trained, else one of its own name.
    """
    states = tuple(_states(objectives, observation))
    if stopped is None:
        return states
    training = [state for state in states if state.name in TRAINING]
    if observation.type is not WorkloadType.TRAINING or not training:
        symptom = stopped.model_copy(update={"objective": RUNNING})
        return (ObjectiveState(RUNNING, "no", "yes", False, symptom), *states)
    return tuple(_halted(state, stopped) if state in training else state for state in states)


def _halted(state: ObjectiveState, stopped: Symptom) -> ObjectiveState:
    symptom = stopped.model_copy(update={"objective": state.name})
    current = "0 samples/s" if state.name == "Goodput" else "no steps"
    return replace(state, current=current, met=False, symptom=symptom, reason="")


def unknown(states: Sequence[ObjectiveState]) -> bool:
    """Whether some objective cannot be judged that should be. A step time has nothing to be judged
    by until its baseline has been learnt; while others can be judged, it is not waited for."""
    judged = any(state.met is not None for state in states)
    return any(s.met is None and not (judged and s.name == "StepTime") for s in states)


def all_met(objectives: Objectives, observation: Observation) -> bool:
    """Whether every objective is known to be met."""
    states = evaluate(objectives, observation)
    return not unknown(states) and all(state.met is not False for state in states)


def unmet(objectives: Objectives, observation: Observation) -> str:
    """The first objective that is not met, in words for people; nothing where none is known to be
    missed."""
    for state in evaluate(objectives, observation):
        if state.met is False:
            return f"{state.name} ({state.current}, objective {state.target})"
    return ""


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
    if (step := objectives.step_time) is not None:
        most = 1 + units.fraction(step.max_regression)
        name = "training.stepSlowdown"
        yield _state("StepTime", "Step time", name, observation.signal(name), most, at_most=True)
    if (use := objectives.utilization) is not None:
        gpu = use.device is Device.GPU
        name = "gpu.utilization" if gpu else "cpu.busyShare"
        signal = _busy(observation) if not gpu else observation.signal(name)
        title = f"{use.device} utilization"
        bounds = [(use.min, False), (use.max, True)]
        both = [
            _state("Utilization", title, name, signal, bound / 100, at_most)
            for bound, at_most in bounds
            if bound is not None
        ]
        # One objective with two sides: the one that is breached, else either.
        yield next((state for state in both if state.met is False), both[0])


def _busy(observation: Observation) -> Signal:
    """How busy the CPUs are that the workload may use."""
    known = observation.signal("cpu.busyShare")
    used, available = (observation.signal(f"cpu.{name}Cores") for name in ("used", "available"))
    if isinstance(known, Reading) or isinstance(used, NoData):
        return known if isinstance(known, Reading) else used
    if isinstance(available, NoData) or available.value <= 0:
        return available if isinstance(available, NoData) else NoData("there is no CPU to use")
    return replace(used, value=used.value / available.value, unit="")


def _state(
    objective: str, title: str, name: str, signal: Signal, bound: float, at_most: bool
) -> ObjectiveState:
    unit = signal.unit if isinstance(signal, Reading) else ("s" if objective == "Latency" else "")
    target = f"{'≤' if at_most else '≥'} {shown(name, bound, unit)}"
    if isinstance(signal, NoData):
        return ObjectiveState(objective, "no data", target, None, None, signal.reason)
    met = signal.value <= bound if at_most else signal.value >= bound
    current = shown(name, signal.value, signal.unit)
    symptom = None
    if not met:
        relation = "over its objective of at most" if at_most else "under its objective of at least"
        text = f"{title} is {current}, {relation} {shown(name, bound, unit)}"
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


def shown(name: str, value: float, unit: str) -> str:
    """A signal's figure as people read it. A ratio is a multiple, a number or a yes is plain; what
    has no unit otherwise is a share."""
    if unit in ("", "×", "rank", "yes"):
        if name.endswith(("Ratio", "Slowdown")) or unit == "×":
            return f"{value:.2f} times"
        if name.endswith(("Rank", "Size", "Limit", "Batch")) or name.startswith(_COUNTED):
            return f"{value:.1f}".rstrip("0").rstrip(".")
    return figure(value, unit)


_COUNTED = ("pods.", "replicas.", "hardware.", "workload.", "change.precedes")


def figure(value: float, unit: str) -> str:
    """A figure as people read it: shares in percent, short times in milliseconds."""
    if unit == "":
        return f"{value * 100:.1f}%" if value < 0.1 else f"{value * 100:.0f}%"
    if unit == "s":
        return _time(value)
    if unit.startswith(("B/", "bytes")):
        scale = next((i for i in (3, 2, 1) if value >= 1000**i), 0)
        rate = "/s" if unit.endswith("/s") else ""
        return f"{value / 1000**scale:.1f} {('B', 'kB', 'MB', 'GB')[scale]}{rate}"
    text = f"{value:.2f}" if value < 10 else f"{value:.0f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    if text == "1" and "/" not in unit:
        unit = unit.removesuffix("s")
    return f"{text} {unit}"


def _time(value: float) -> str:
    if value < 10:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s"
