"""When a workload that does not run as it should is worth a word. Pure.

Silence leaves every objective without data, and without data nothing is ever done. But why it is
silent may be known without telemetry: its pods find no node, the kernel ends them for their memory.
The engine takes that for a breach of its own, so that it is named and people can act; the planner
does nothing about it. Here the other half: a workload that meets its objectives all the same is
left in peace.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..api.objectives import Objectives
from ..diagnose.diagnosis import Diagnosis
from ..diagnose.engine import diagnose
from ..diagnose.objectives import all_met, evaluate
from ..observe.observation import Observation, Signal

TOLERATED = frozenset({"unschedulable", "oom-loop"})
"""Ids of the causes that can hold for a part of the pods while the others do all the work. A hang
is none: a GPU in a deadlock is busy, and meets an objective for that."""


def judge_workload(
    observation: Observation,
    objectives: Objectives,
    facts: Mapping[str, Signal],
    texts: Mapping[str, str],
) -> Diagnosis:
    """The diagnosis of a workload, be it silent; nothing is wrong with one that meets all of its
    objectives on figures that were measured, whatever some pods of it lack."""
    diagnosis = diagnose(observation, objectives, facts, texts)
    tolerated = bool(diagnosis.causes) and diagnosis.causes[0].id in TOLERATED
    if tolerated and all_met(objectives, observation):
        return Diagnosis(observation.time, True, evaluate(objectives, observation))
    return diagnosis
