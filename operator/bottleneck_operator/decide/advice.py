"""What only people can do about what was found, and what it would return. Pure."""

from __future__ import annotations

from ..api.policy_status import Recommendation
from ..api.report import Cause
from ..diagnose.catalogue import CATALOGUE
from ..diagnose.diagnosis import Diagnosis
from ..observe.observation import WorkloadType

MOST = 5
"""Recommendations in a status: the first ones return most."""

_ADVICE = {entry.id: entry.advice for entry in CATALOGUE}


def recommendations(diagnosis: Diagnosis, workload: WorkloadType) -> list[Recommendation]:
    """For each confirmed cause that does not only follow from another one, the first first: what
    to do, and what that is expected to return at most."""
    return [
        Recommendation(
            cause=cause.id,
            title=cause.title,
            how=_ADVICE[cause.id],
            expected_gain=expected_gain(cause, workload),
        )
        for cause in diagnosis.causes
        if not cause.explained_by and _ADVICE.get(cause.id)
    ][:MOST]


def expected_gain(cause: Cause, workload: WorkloadType) -> str:
    """What removing a cause returns at most, by Amdahl's law; "not measured" where its share of
    the time is not known."""
    share = min(cause.share, 0.99)
    if share < 0.01:
        return "not measured"
    if workload is WorkloadType.TRAINING:
        return f"up to +{1 / (1 - share) - 1:.0%} goodput"
    return f"up to -{share:.0%} latency"
