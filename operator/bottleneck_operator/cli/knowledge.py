"""What the catalogue says about causes, and when nothing can be said, for the renderers."""

from __future__ import annotations

from ..diagnose.catalogue import CATALOGUE
from ..diagnose.diagnosis import Diagnosis
from ..observe.observation import NoData, Observation, Reading


def advice() -> dict[str, str]:
    """What people can do, by cause id."""
    return {entry.id: entry.advice or _remedy(entry.remedies) for entry in CATALOGUE}


def hints() -> dict[str, tuple[str, str]]:
    """Category and title, by cause id: for reports without a fishbone."""
    return {entry.id: (entry.category, entry.title) for entry in CATALOGUE}


def unknown(diagnosis: Diagnosis, observation: Observation) -> str:
    """Why a diagnosis can say nothing, empty where it can. Without a policy a workload of which
    nothing was measured must not pass for a healthy one."""
    if diagnosis.causes or diagnosis.symptom is not None:
        return ""
    missing = [f"{s.name}: {s.reason}" for s in diagnosis.objectives if s.met is None and s.reason]
    if not diagnosis.known and missing:
        return "; ".join(missing)
    readings = observation.signals.values()
    if diagnosis.known and (diagnosis.objectives or any(isinstance(r, Reading) for r in readings)):
        return ""
    reasons = (reading.reason for reading in readings if isinstance(reading, NoData))
    return next(reasons, "there is no telemetry to judge by")


def _remedy(remedies: tuple[str, ...]) -> str:
    words = {
        "Replicas": "More replicas",
        "DataLoader": "Other loader settings",
        "Variant": "another image of the model",
    }
    named = " or ".join(words.get(remedy, remedy) for remedy in remedies)
    return f"{named}, which the operator sets where the policy's actions allow it." if named else ""
