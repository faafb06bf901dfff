"""The fishbone and the fault tree: every hypothesis that was tried, and what became of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..api.report import (
    Bone,
    FaultCause,
    FaultCondition,
    FaultStage,
    FaultTree,
    Fishbone,
    HypothesisState,
)
from .catalogue import CATEGORIES, STAGES, CauseEntry
from .gaps import GAPS
from .predicates import Signals, attempt

TEXT = 256
"""Longest text in a picture, in characters: reports are kept in the cluster."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one hypothesis: its state, by which figure, and each of its conditions."""

    entry: CauseEntry
    state: HypothesisState
    reason: str
    conditions: tuple[tuple[str, bool | None], ...]


def fishbone(effect: str, outcomes: Sequence[Outcome], signals: Signals) -> Fishbone:
    """All of them by category, and what people left out; each of the five is there."""
    bones: dict[str, list[Bone]] = {category: [] for category in CATEGORIES}
    for outcome in outcomes:
        entry = outcome.entry
        bones.setdefault(entry.category, []).append(
            Bone(id=entry.id, title=entry.title, state=outcome.state, reason=outcome.reason[:TEXT])
        )
    for gap in GAPS:
        tried = attempt(gap.condition, signals)
        reason = tried.text if tried.holds is not None else f"no data: {tried.text}"
        bones[gap.category].append(
            Bone(id=gap.id, title=gap.title, state=_state(tried.holds), reason=reason[:TEXT])
        )
    return Fishbone(effect=effect, bones=bones)


def _state(holds: bool | None) -> HypothesisState:
    if holds is None:
        return HypothesisState.NO_DATA
    return HypothesisState.CONFIRMED if holds else HypothesisState.RULED_OUT


def fault_tree(top: str, outcomes: Sequence[Outcome]) -> FaultTree:
    """The same by the pipeline's stages: any cause of any stage brings about the top event, a cause
    only if all of its conditions hold."""
    stages: dict[str, list[FaultCause]] = {stage: [] for stage in STAGES}
    for outcome in outcomes:
        entry = outcome.entry
        stages.setdefault(entry.stage, []).append(
            FaultCause(
                id=entry.id,
                title=entry.title,
                state=outcome.state,
                conditions=[
                    FaultCondition(text=text[:TEXT], holds=good)
                    for text, good in outcome.conditions
                ],
            )
        )
    drawn = [
        FaultStage(
            id=stage,
            title=STAGES.get(stage, stage),
            state=_any([cause.state for cause in causes]),
            causes=causes,
        )
        for stage, causes in stages.items()
    ]
    return FaultTree(top=top, state=_any([stage.state for stage in drawn]), stages=drawn)


def _any(states: Sequence[HypothesisState]) -> HypothesisState:
    """An OR gate: open while something that might hold has no data."""
    for state in (HypothesisState.CONFIRMED, HypothesisState.NO_DATA):
        if state in states:
            return state
    return HypothesisState.RULED_OUT
