"""What limits the workload now that an action was kept. Pure.

Removing one constraint exposes the next one, so a kept action is followed by another diagnosis.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..api.objectives import Goodput, Latency, Objectives
from ..api.report import Cause
from ..diagnose.diagnosis import Diagnosis
from ..diagnose.engine import diagnose
from ..observe.observation import Observation, Signal, WorkloadType

MET = "nothing: every objective is met"

STRETCH = 2.0
"""How much better a workload that meets its objectives is asked to be, to see what would be in the
way: nothing limits what nobody wants more of."""


def constraint(
    diagnosis: Diagnosis,
    observation: Observation,
    percentile: int,
    facts: Mapping[str, Signal],
    texts: Mapping[str, str],
) -> str | None:
    """The constraint in a few words, None while it cannot be known."""
    if not diagnosis.known:
        return None
    if diagnosis.breached:
        if diagnosis.causes:
            return _named(diagnosis.causes[0], observation.type)
        return "not known: an objective is breached, and no known cause is confirmed"
    stretched = _stretched(observation, percentile)
    if stretched is None:
        return MET
    beyond = diagnose(observation, stretched, facts, texts)
    if not beyond.breached or not beyond.causes:
        return MET
    return f"{MET}; to get further: {_named(beyond.causes[0], observation.type)}"


def _named(cause: Cause, workload: WorkloadType) -> str:
    whole = {WorkloadType.TRAINING: " of the step", WorkloadType.INFERENCE: " of the latency"}
    return f"{cause.id}, {cause.share:.0%}{whole.get(workload, '')} ({cause.title})"


def _stretched(observation: Observation, percentile: int) -> Objectives | None:
    """Objectives that ask for ``STRETCH`` times what there is now."""
    if observation.type is WorkloadType.TRAINING:
        rate = observation.value("training.samplesPerSecond")
        return Objectives(goodput=Goodput(min=f"{rate * STRETCH:.6f}")) if rate else None
    latency = observation.value("inference.latency")
    if not latency:
        return None
    target = f"{latency * 1000 / STRETCH:.3f}ms"
    return Objectives(latency=Latency(percentile=percentile, target=target))
