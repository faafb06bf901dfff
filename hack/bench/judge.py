"""Diagnoses a recording with the code that ``kubectl bottleneck diagnose`` uses."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from bottleneck_operator.api.policy import Objectives
from bottleneck_operator.diagnose.document import diagnosis_document
from bottleneck_operator.diagnose.engine import diagnose
from bottleneck_operator.observe.recording import parse, replay

from .faultfile import HEALTHY


def judge(recording: Path, objectives: dict[str, Any] | None) -> tuple[dict[str, Any], float]:
    """The diagnosis as the command's JSON, and the milliseconds of CPU that it took (reading the
    file, which an operator does not do, left out)."""
    with recording.open(encoding="utf-8") as lines:
        parsed = parse(lines)
    wanted = Objectives.model_validate(objectives) if objectives is not None else None
    percentile = wanted.latency.percentile if wanted and wanted.latency else 95
    replayed = replay(parsed, percentile)
    began = time.process_time()
    diagnosis = diagnose(replayed.observation, wanted, replayed.facts, replayed.texts)
    taken = (time.process_time() - began) * 1e3
    return diagnosis_document(diagnosis), taken


def named(document: dict[str, Any]) -> str:
    """The first cause, or healthy."""
    causes = document["causes"]
    return str(causes[0]["id"]) if causes else HEALTHY
