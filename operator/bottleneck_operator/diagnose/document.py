"""A diagnosis as the JSON document that ``diagnose -o json`` and ``explain -o json`` print. Pure.

This is a public contract: keys are only ever added. ``null`` stands where something is not known.
"""

from __future__ import annotations

from typing import Any

from ..api.report import Evidence, FaultTree, Fishbone
from .diagnosis import Diagnosis

Document = dict[str, Any]


def diagnosis_document(diagnosis: Diagnosis) -> Document:
    """``{"symptom", "causes", "ruledOut", "whys", "runnerUp", "fishbone", "faultTree"}``;
    ``symptom`` is null and ``causes`` empty where nothing is wrong. Every figure is finite."""
    symptom = diagnosis.symptom
    return {
        "symptom": symptom
        and {
            "objective": symptom.objective,
            "text": symptom.text,
            "evidence": _evidence(symptom.evidence),
        },
        "causes": [
            {
                "id": cause.id,
                "class": cause.class_,
                "category": cause.category,
                "title": cause.title,
                "share": cause.share,
                "confidence": cause.confidence,
                "evidence": [_evidence(item) for item in cause.evidence],
                "explainedBy": cause.explained_by,
            }
            for cause in diagnosis.causes
        ],
        "ruledOut": [{"id": item.id, "reason": item.reason} for item in diagnosis.ruled_out],
        "whys": list(diagnosis.whys),
        "runnerUp": diagnosis.runner_up,
        "fishbone": _whole(diagnosis.fishbone),
        "faultTree": _whole(diagnosis.fault_tree),
    }


def _evidence(evidence: Evidence) -> Document:
    return _whole(evidence) or {}


def _whole(model: Evidence | Fishbone | FaultTree | None) -> Document | None:
    """Unlike in the API, what is absent is written as null: readers of the file see every key."""
    return None if model is None else model.model_dump(mode="json", by_alias=True)
