"""What the demo measures, from lines as the workloads print them."""

from __future__ import annotations

import pytest
from demo import figures, summary


def test_throughput_is_the_counters_difference_within_the_window() -> None:
    lines = [{"time": float(second), "samples": second * 100} for second in range(0, 20, 2)]
    lines += [{"time": 20.0, "samples": 9000}]
    assert figures.throughput(lines, 4, 18) == pytest.approx(100)
    assert figures.throughput(lines, 4, 5) is None
    assert figures.throughput([], 0, 9) is None


def test_the_percentile_is_over_all_requests_and_failures_count_as_the_longest_wait() -> None:
    lines = [
        {"event": "begin", "lapSeconds": 8.0},
        {"time": 1.0, "latencies": [9.0] * 50, "errors": {}},
        {"time": 2.0, "latencies": [0.1] * 50, "errors": {}},
        {"time": 3.0, "latencies": [0.2] * 50, "errors": {}},
    ]
    assert figures.latency_p95(lines, 1.0, 3.0) == pytest.approx(200)
    lines[-1]["errors"] = {"timeout": 10}
    assert figures.latency_p95(lines, 1.0, 3.0) == pytest.approx(10_000)
    assert figures.latency_p95(lines, 5.0, 9.0) is None


def test_windows_hold_whole_laps() -> None:
    assert figures.whole_laps([{"event": "begin", "lapSeconds": 8.0}], 25) == 32
    assert figures.whole_laps([{"event": "begin", "lapSeconds": 8.0}], 24) == 24
    assert figures.whole_laps([], 25) == 25


def test_without_a_report_the_summary_claims_nothing() -> None:
    entry = summary.workload("digits", "training", "throughput", "samples/s", 100.04, 101, None)
    assert entry == {
        "name": "digits",
        "type": "training",
        "bottleneck": "",
        "whys": [],
        "action": "",
        "metric": "throughput",
        "unit": "samples/s",
        "before": 100.0,
        "after": 101,
        "verdict": "",
        "seconds": {"breachToDecision": None, "decisionToAck": None},
    }


def test_the_summary_takes_cause_action_and_times_from_the_report() -> None:
    report = {
        "spec": {
            "causes": [{"id": "queueing"}],
            "whys": ["because"],
            "action": {"summary": "replicas 1 → 2"},
            "breachedAt": "2026-01-31T12:00:00.000000Z",
            "decidedAt": "2026-01-31T12:00:01.250000Z",
        },
        "status": {
            "acknowledgedAt": "2026-01-31T12:00:03.250000Z",
            "verdict": {"result": "Improved"},
        },
    }
    entry = summary.workload("characters", "inference", "latency p95", "ms", 900, 200, report)
    assert (entry["bottleneck"], entry["action"], entry["whys"], entry["verdict"]) == (
        "queueing",
        "replicas 1 → 2",
        ["because"],
        "Improved",
    )
    assert entry["seconds"] == {"breachToDecision": 1.25, "decisionToAck": 2.0}
