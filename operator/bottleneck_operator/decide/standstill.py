"""A workload that does not run at all: what can be said of it without any telemetry. Pure.

A silent workload leaves every objective without data, and without data nothing is ever done. But
why it is silent may be known: its pods find no node, the kernel ends them for their memory, or the
process speaks and takes no step. That is named, so that people can act; the operator does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..api.policy import Objectives
from ..diagnose.diagnosis import Diagnosis
from ..diagnose.engine import diagnose
from ..observe.observation import Observation, Signal

STANDSTILL = frozenset({"hang", "oom-loop", "unschedulable"})
"""Ids of the causes that stop a workload. Any other needs an objective that is breached: what
merely slows one that nobody can judge is nobody's business."""


def judge_workload(
    observation: Observation,
    objectives: Objectives,
    facts: Mapping[str, Signal],
    texts: Mapping[str, str],
) -> Diagnosis:
    """The diagnosis of a workload, be it silent. While no objective at all can be judged and a
    cause of ``STANDSTILL`` is confirmed, that cause is named; ``known`` stays False then, so that
    nothing is done on data that is not there."""
    diagnosis = diagnose(observation, objectives, facts, texts)
    if diagnosis.known or any(state.met is not None for state in diagnosis.objectives):
        return diagnosis
    fault = diagnose(observation, None, facts, texts)
    if not fault.causes or fault.causes[0].id not in STANDSTILL:
        return diagnosis
    return replace(fault, known=False, objectives=diagnosis.objectives)
