"""Before and after, from what the workloads themselves print: never from the operator's word."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

Line = dict[str, Any]

TIMEOUT_SECONDS = 10.0
"""What a request without an answer counts as: the longest wait that the load generator grants."""


def throughput(lines: Sequence[Line], start: float, end: float) -> float | None:
    """Samples per second between two times, from the trainer's counter of samples."""
    found = [line for line in lines if "samples" in line and start <= line["time"] <= end]
    if len(found) < 2:
        return None
    first, last = found[0], found[-1]
    rate: float = (last["samples"] - first["samples"]) / (last["time"] - first["time"])
    return rate


def latency_p95(lines: Sequence[Line], start: float, end: float) -> float | None:
    """The 95th percentile, in milliseconds, of the requests that ended between two times."""
    values: list[float] = []
    for line in lines:
        if "latencies" in line and start < line["time"] <= end:
            values += line["latencies"]
            values += [TIMEOUT_SECONDS] * sum(line["errors"].values())
    if len(values) < 20:
        return None
    return statistics.quantiles(values, n=100, method="inclusive")[94] * 1000


def whole_laps(lines: Sequence[Line], least: float) -> float:
    """The shortest time of at least ``least`` seconds in which the load generator goes through its
    trace a whole number of times: both windows then hold the same arrivals."""
    lap: float = next((line["lapSeconds"] for line in lines if "lapSeconds" in line), least)
    return math.ceil(least / lap) * lap
