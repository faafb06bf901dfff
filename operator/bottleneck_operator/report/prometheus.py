"""What the condition TelemetryAvailable says where a policy names a Prometheus server. Pure."""

from __future__ import annotations

from ..api.conditions import Reason
from ..observe.observation import Observation
from ..observe.prometheus_signals import NOT_YET
from .status import Problem


def with_prometheus(
    problem: Problem | None, observation: Observation, said: str | None
) -> Problem | None:
    """The problem of the sidecars together with what was wrong with the last look at Prometheus:
    ``said`` is empty where nothing was, and None for a policy without Prometheus."""
    if said is None:
        return problem
    if problem is not None and problem.reason is Reason.NOT_INJECTED:
        # Without a sidecar on purpose: Prometheus speaks for the pods.
        told, expected = observation.streaming, observation.expected
        words = f"Prometheus has fresh figures of {told} of {expected} replicas"
        if not expected:
            words = "no replica has run long enough for figures from Prometheus"
        problem = Problem(Reason.NO_DATA, words)
    if not said:
        return problem
    if said == NOT_YET:
        return Problem(Reason.NO_DATA, said)
    beside = f"; {problem.message}" if problem is not None else ""
    return Problem(Reason.PROMETHEUS_FAILED, f"{said}{beside}")
