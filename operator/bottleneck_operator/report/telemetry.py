"""Why telemetry is missing, in words that say where to look. Pure."""

from __future__ import annotations

from ..api.conditions import Reason
from ..observe.observation import Observation
from .status import Problem


def telemetry_problem(
    observation: Observation,
    running: int,
    target: str,
    finished: bool,
    active: bool,
    asleep: bool = False,
) -> Problem | None:
    """None while every replica that should be speaking does. ``running`` counts the pods that run
    with a sidecar, ``active`` tells whether there are pods, all of them without one; ``asleep``
    whether there should be none."""
    if observation.expected and observation.streaming == observation.expected:
        return None
    if running:
        silent = observation.expected - observation.streaming
        message = (
            f"{silent} of {observation.expected} replicas are silent; look at the container "
            "bottleneck-agent of the pods"
            if observation.expected
            else f"waiting for the first telemetry of {running} pods"
        )
        return Problem(Reason.NO_DATA, message)
    if finished:
        return Problem(Reason.NO_REPLICAS, f"{target} has finished")
    if asleep:
        return Problem(Reason.SCALED_TO_ZERO, f"{target} is scaled to zero: nothing runs")
    if active:
        return Problem(
            Reason.NOT_INJECTED,
            'the pods have no sidecar; set the label bottleneck.dev/inject: "true" in the pod '
            "template and roll it out, or use kubectl bottleneck inject",
        )
    return Problem(Reason.NO_REPLICAS, f"{target} has no running pod with a sidecar")
