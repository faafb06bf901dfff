"""What a diagnosis is made of. Pure data; the other pure folders import this module."""

from __future__ import annotations

from dataclasses import dataclass

from ..api.report import Cause, FaultTree, Fishbone, RuledOut, Symptom


@dataclass(frozen=True, slots=True)
class ObjectiveState:
    """One objective and where the workload stands; ``met`` is None while there is no data."""

    name: str
    current: str
    target: str
    met: bool | None
    symptom: Symptom | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The answer to "what is wrong, and why".

    ``known`` is False while some objective cannot be judged and none is breached: then there are no
    causes, and nothing may be done. ``causes`` are ranked by what removing each would return; one
    that another explains stands right behind it. ``runner_up`` is the id of the strongest cause
    that the first does not explain, or empty. ``fishbone`` and ``fault_tree`` are there whenever
    hypotheses were tried.
    """

    time: float
    known: bool
    objectives: tuple[ObjectiveState, ...]
    symptom: Symptom | None = None
    causes: tuple[Cause, ...] = ()
    ruled_out: tuple[RuledOut, ...] = ()
    whys: tuple[str, ...] = ()
    runner_up: str = ""
    fishbone: Fishbone | None = None
    fault_tree: FaultTree | None = None

    @property
    def breached(self) -> bool:
        """Whether an objective is breached."""
        return self.symptom is not None
