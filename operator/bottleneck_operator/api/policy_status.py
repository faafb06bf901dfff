"""The status of a BottleneckPolicy: what the operator sees and did."""

from __future__ import annotations

from pydantic import Field

from .ledger import Ledger
from .meta import ContainerResources, Model, Setting, Time


class ConditionStatus(Model):
    """One condition, after the Kubernetes API conventions."""

    type: str
    status: str = Field(description="True, False or Unknown.")
    reason: str
    message: str = ""
    last_transition_time: Time
    observed_generation: int | None = None


class BottleneckStatus(Model):
    """The bottleneck as it is seen now."""

    id: str = Field(description="The cause's id in the catalogue.")
    title: str = ""
    share: float | None = Field(
        None, ge=0, le=1, description="Share of the step or latency that removing it would return."
    )


class KnobsStatus(Model):
    """Settings of running processes that the operator stands for."""

    generation: int = Field(0, ge=0, description="Raised by one with every change.")
    desired: dict[str, Setting] = Field(
        default_factory=dict, description="Dotted knob names and their desired values."
    )
    acknowledged: int = Field(
        0, ge=0, description="The newest generation that every rank has acknowledged."
    )


class SizeStatus(Model):
    """The size of a container that the operator stands for."""

    container: str
    desired: ContainerResources
    replaces: list[ContainerResources] = Field(
        default_factory=list,
        max_length=17,
        description="Sizes that later pods are created with; any other one is left alone.",
    )


class ObjectiveStatus(Model):
    """One objective and where the workload stands."""

    name: str
    current: str = Field(description='The current figure with its unit, or "no data".')
    target: str
    met: bool | None = Field(None, description="Absent while there is no data.")


class LastAction(Model):
    """The newest action and what became of it."""

    report: str
    summary: str
    verdict: str = ""
    time: Time


class Recommendation(Model):
    """What people can do themselves about a confirmed cause."""

    cause: str = Field(description="The cause's id in the catalogue.")
    title: str
    how: str = Field(description="What to do.")
    expected_gain: str = Field(
        description='The most that it is expected to return: "up to +40% goodput".'
    )


class BaselineStatus(Model):
    """What one signal usually is at one load, learnt while nothing was known to be wrong."""

    signal: str = Field(max_length=63, description='For instance "inference.serviceSeconds".')
    load: str = Field(
        max_length=63,
        description="The load at which it was learnt: an octave of the arrival rate, or the"
        " micro-batch and the number of ranks.",
    )
    median: float
    spread: float = Field(ge=0, description="Typical distance of a window from the median.")
    anchor: float | None = Field(
        None, description="What is compared with: follows the median, but hardly gets worse."
    )
    count: int = Field(ge=0, description="Number of windows that it was learnt from.")
    since: Time | None = Field(None, description="When learning began.")
    updated_at: Time


class TrailStatus(Model):
    """What one signal was over the last half hour, in steps of 30 s."""

    signal: str = Field(max_length=63)
    begin: Time = Field(description="Begin of the first step.")
    means: str = Field(max_length=1024, description='Means, oldest first; "-" for an unseen step.')
    highest: str = Field(max_length=1024, description="The highest figures of the same steps.")


class PolicyStatus(Model):
    """What the operator sees and did."""

    observed_generation: int | None = None
    conditions: list[ConditionStatus] = Field(
        default_factory=list,
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
    )
    replicas: int | None = None
    streaming: int | None = Field(None, description="Replicas whose telemetry is fresh.")
    objectives: list[ObjectiveStatus] = Field(default_factory=list)
    bottleneck: BottleneckStatus | None = None
    why: str = Field("", description="The chain of causes in one paragraph.")
    recommendations: list[Recommendation] = Field(
        default_factory=list,
        max_length=5,
        description="What people can do about the confirmed causes, the largest gain first.",
    )
    knobs: KnobsStatus | None = None
    sizes: list[SizeStatus] = Field(
        default_factory=list,
        max_length=16,
        description="Sizes that were found to help and that later pods get as they are created.",
    )
    last_action: LastAction | None = None
    next: str = Field("", description="What limits the workload since the last kept action.")
    next_report: int = Field(1, ge=1, description="Number of the next report's name.")
    ledger: Ledger = Field(
        default_factory=Ledger,
        description="Predictions against outcomes of all actions; it outlives their reports.",
    )
    baselines: list[BaselineStatus] = Field(
        default_factory=list,
        max_length=64,
        description="What is usual for this workload; a restarted operator goes on from here.",
    )
    trail: list[TrailStatus] = Field(
        default_factory=list,
        max_length=8,
        description="The load of the last half hour, as a restarted operator takes it up.",
    )
    breached_since: Time | None = Field(None, description="When the objective broke, if one did.")
    degraded_since: Time | None = Field(
        None, description="Since when the workload is worse than it was, if it is."
    )
