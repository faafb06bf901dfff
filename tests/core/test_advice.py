"""What only people can do about what was found."""

from __future__ import annotations

import pytest
from bottleneck_operator.api.report import Cause
from bottleneck_operator.decide.advice import MOST, expected_gain, recommendations
from bottleneck_operator.diagnose.catalogue import CATALOGUE
from bottleneck_operator.diagnose.diagnosis import Diagnosis
from bottleneck_operator.observe.observation import WorkloadType

from .builders import NOW


def cause(id: str, share: float = 0.5, explained_by: str = "") -> Cause:
    fields = {"class": "c", "category": "Data", "title": id, "confidence": 1.0}
    return Cause(id=id, share=share, explained_by=explained_by, **fields)


@pytest.mark.parametrize(
    ("share", "workload", "expected"),
    [
        (0.5, WorkloadType.TRAINING, "up to +100% goodput"),
        (0.2, WorkloadType.TRAINING, "up to +25% goodput"),
        (0.5, WorkloadType.INFERENCE, "up to -50% latency"),
        (0.0, WorkloadType.TRAINING, "not measured"),
        (1.0, WorkloadType.TRAINING, "up to +9900% goodput"),
    ],
)
def test_the_gain_is_the_share_that_goes_away(
    share: float, workload: WorkloadType, expected: str
) -> None:
    assert expected_gain(cause("slow-storage", share), workload) == expected


def test_who_only_follows_from_another_cause_gets_no_advice() -> None:
    causes = (cause("slow-storage"), cause("cpu-throttled", explained_by="slow-storage"))
    found = recommendations(Diagnosis(NOW, True, (), causes=causes), WorkloadType.TRAINING)
    assert [each.cause for each in found] == ["slow-storage"]
    assert "cache" in found[0].how


def test_there_are_never_more_than_a_status_holds() -> None:
    causes = tuple(cause(entry.id) for entry in CATALOGUE)
    found = recommendations(Diagnosis(NOW, True, (), causes=causes), WorkloadType.TRAINING)
    assert len(found) == MOST
