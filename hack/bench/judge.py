"""Diagnoses a recording with the code that ``kubectl bottleneck diagnose`` uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bottleneck_operator.api.objectives import Objectives
from bottleneck_operator.diagnose.document import diagnosis_document
from bottleneck_operator.diagnose.engine import diagnose
from bottleneck_operator.observe.recording import replay
from bottleneck_operator.observe.recording_format import parse

from .faultfile import HEALTHY


def judge(recording: Path, objectives: dict[str, Any] | None) -> dict[str, Any]:
    """The diagnosis, as the command's JSON."""
    with recording.open(encoding="utf-8") as lines:
        parsed = parse(lines)
    wanted = Objectives.model_validate(objectives) if objectives is not None else None
    percentile = wanted.latency.percentile if wanted and wanted.latency else 95
    replayed = replay(parsed, percentile)
    return diagnosis_document(
        diagnose(replayed.observation, wanted, replayed.facts, replayed.texts)
    )


def named(document: dict[str, Any]) -> str:
    """The first cause, or healthy."""
    causes = document["causes"]
    return str(causes[0]["id"]) if causes else HEALTHY
