"""Knobs: in force once every rank of every pod has acknowledged them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from ...api.report import KnobsChange, Phase
from ...observe.observation import Observation
from .standing import Effect, Progress, Standing

KNOBS_DEADLINE = 60.0
"""Seconds in which every rank has to acknowledge a knobs generation."""


def knobs_effect(change: KnobsChange, phase: Phase, progress: Progress) -> Effect:
    """How far new knobs have come in the running processes."""
    undo = phase is Phase.REVERTING
    generation = change.generation + undo
    seen = progress.observation
    if phase is Phase.PLANNED or not progress.annotated:
        return Effect(Standing.MISSING)
    refused = "" if undo else refusal(seen, generation)
    if refused:
        return Effect(Standing.REFUSED, refused)
    if acknowledged(seen, generation):
        at = progress.in_force_at
        return Effect(
            Standing.IN_FORCE,
            f"generation {generation} is in force in {len(seen.ranks)} ranks",
            at=None if at is None else datetime.fromtimestamp(at, UTC),
        )
    # A silent sidecar is no refusal: without telemetry everything is held as it is.
    heard = undo or 0 < seen.streaming == seen.expected
    return Effect(
        Standing.UNDER_WAY,
        f"not every rank acknowledged generation {generation} in {KNOBS_DEADLINE:.0f}s",
        KNOBS_DEADLINE if heard else None,
    )


def acknowledged(observation: Observation, generation: int) -> bool:
    """Whether every rank of every expected pod runs with that generation or a newer one."""
    ranks = observation.ranks
    return (
        bool(ranks)
        and observation.streaming == observation.expected
        and all(
            rank.fresh
            and rank.generation is not None
            and rank.generation >= generation
            and rank.result in ("Applied", "Unchanged")
            for rank in ranks
        )
    )


def refusal(observation: Observation, generation: int) -> str:
    """The message of a rank that refused that generation, or nothing."""
    for rank in observation.ranks:
        if rank.result == "Refused" and rank.generation == generation:
            return f"rank {rank.rank} of {rank.pod} refused: {rank.message}"
    return ""
