"""The operator's own figures, for Prometheus."""

from __future__ import annotations

from functools import partial

from prometheus_client import Counter, Gauge, Histogram

from ..observe.streams import Refusal, Streams

LEADER = Gauge("bottleneck_leader", "1 while this process acts, 0 while it stands by.")
POLICIES = Gauge("bottleneck_policies", "Policies that this operator looks after.")
BREACHED = Gauge(
    "bottleneck_policy_breached",
    "1 while an objective of the policy is breached, 0 while all are met; absent without data.",
    ["namespace", "policy"],
)
TURN_SECONDS = Histogram(
    "bottleneck_turn_seconds",
    "Time that one turn of a policy's loop took.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)
DECISION_SECONDS = Histogram(
    "bottleneck_breach_to_decision_seconds",
    "Time from the sample with which an objective broke to the recorded decision.",
    buckets=(0.1, 0.25, 0.5, 1, 2, 5, 10, 30),
)
ACTIONS = Counter("bottleneck_actions_total", "Actions planned.", ["type"])
VERDICTS = Counter("bottleneck_verdicts_total", "Verdicts on actions.", ["type", "verdict"])
ERRORS = Counter("bottleneck_turn_errors_total", "Turns of a loop that failed.", ["kind"])
INQUIRIES = Counter(
    "bottleneck_inquiry_requests_total",
    "Requests to the API server that were made only because something was wrong.",
    ["resource"],
)
LINES = Gauge("bottleneck_telemetry_lines", "Lines of telemetry taken since the start.")
REFUSED = Gauge(
    "bottleneck_telemetry_refused_lines",
    "What sidecars sent and was not taken since the start, by reason.",
    ["reason"],
)


def tell_of(streams: Streams) -> None:
    """From now on the figures of telemetry are those of ``streams``."""
    LINES.set_function(lambda: streams.lines)
    for reason in Refusal:
        REFUSED.labels(reason).set_function(partial(streams.refused.__getitem__, reason))
