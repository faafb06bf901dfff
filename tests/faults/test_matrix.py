"""The figures of the benchmark: what counts, and what does not."""

from __future__ import annotations

import pytest

from hack.bench.faultfile import HEALTHY
from hack.bench.matrix import Outcome, figures, table


def outcome(truth: str, named: str, kind: str = "real", failure: str = "") -> Outcome:
    return Outcome(f"{truth}-{named}", truth, kind, named, cpu_milliseconds=2.0, failure=failure)


OUTCOMES = [
    outcome("queueing", "queueing"),
    outcome("queueing", "slow-model"),
    outcome("hang", "hang"),
    outcome("hang", "", failure="no root"),
    outcome(HEALTHY, HEALTHY),
    outcome(HEALTHY, "queueing"),
    outcome("gpu-throttled", HEALTHY, "synthesised"),
]


def test_real_runs_are_counted_without_synthesised_and_failed_ones() -> None:
    document = figures(OUTCOMES)
    assert document["runs"] == 5
    assert document["top1"] == pytest.approx(2 / 3, abs=1e-3)
    assert document["falseOnHealthy"] == 0.5
    assert document["byCause"] == {
        "hang": {"runs": 1, "top1": 1.0},
        "queueing": {"runs": 2, "top1": 0.5},
    }
    assert document["cpuMillisecondsPerDiagnosis"] == 2.0
    assert document["synthesised"]["byCause"] == {"gpu-throttled": {"runs": 1, "top1": 0.0}}
    assert [each["reason"] for each in document["failed"]] == ["no root"]


def test_what_was_not_run_is_not_zero() -> None:
    document = figures([outcome("hang", "hang")])
    assert document["falseOnHealthy"] is None
    assert document["synthesised"]["top1"] is None


def test_the_table_shows_each_confusion_in_its_cell() -> None:
    rows = {line.split()[1]: line.split()[2:] for line in table(OUTCOMES).splitlines()[1:]}
    columns = ["gpu-throttled", "hang", "queueing", HEALTHY, "slow-model"]
    assert list(rows) == columns
    assert rows["queueing"] == ["·", "·", "1", "·", "1"]
    assert rows[HEALTHY] == ["·", "·", "1", "1", "·"]
    assert rows["slow-model"][0] == "(named,"
