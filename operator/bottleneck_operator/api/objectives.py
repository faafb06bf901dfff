"""What a workload should reach: a part of the BottleneckPolicy."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from .meta import Model, Rule
from .scalars import Duration, Number, Percent
from .units import DURATION_PATTERN


class Latency(Model):
    """A percentile of the time from a request's arrival to its last byte."""

    rules = (
        Rule(
            f"!self.target.matches(r'{DURATION_PATTERN}')"
            " || duration(self.target) > duration('0s')",
            'write a duration longer than zero, such as "250ms"',
            ".target",
        ),
    )

    percentile: int = Field(95, ge=50, le=99, description="Which percentile, 50 to 99.")
    target: Duration = Field(description='The most it may be, for instance "250ms".')


class ErrorRate(Model):
    """The share of requests that fail."""

    max: Percent = Field(description='The most it may be, for instance "1%".')


class Goodput(Model):
    """Samples per second that all replicas or ranks train on together."""

    min: Number = Field(description='The least it may be, in samples per second: "500".')


class DataWait(Model):
    """The share of a training step that is spent waiting for input."""

    max: Percent = Field(description='The most it may be, for instance "20%".')


class StepTime(Model):
    """How much slower than this workload's own usual a training step may become."""

    max_regression: Percent = Field(
        description="The most that a step may be slower than the learnt baseline at the same batch"
        ' and ranks, for instance "20%". There is nothing to judge by until it has been learnt.'
    )


class Device(StrEnum):
    """What a utilization is of."""

    GPU = "GPU"
    CPU = "CPU"


class Utilization(Model):
    """Bounds within which a device should be busy."""

    rules = (
        Rule(
            "has(self.min) || has(self.max)",
            "write min, max or both, as whole percent: {device: GPU, min: 40, max: 90}",
        ),
        Rule(
            "!has(self.min) || !has(self.max) || self.min < self.max",
            "write a min that is below max",
            ".min",
        ),
    )

    device: Device = Field(description="GPU, or CPU: the share of the CPUs the container may use.")
    min: int | None = Field(None, ge=1, le=100, description="The least, in whole percent: 40.")
    max: int | None = Field(None, ge=1, le=100, description="The most, in whole percent: 90.")


class Objectives(Model):
    """What "breached" means; at least one."""

    rules = (
        Rule(
            "has(self.latency) || has(self.errorRate) || has(self.goodput) || has(self.dataWait)"
            " || has(self.stepTime) || has(self.utilization)",
            "write at least one objective: latency or errorRate for serving,"
            " goodput, dataWait or stepTime for training, utilization for either",
        ),
    )

    latency: Latency | None = Field(None, description="For serving: a latency percentile.")
    error_rate: ErrorRate | None = Field(None, description="For serving: the share of failures.")
    goodput: Goodput | None = Field(None, description="For training: samples per second.")
    data_wait: DataWait | None = Field(
        None, description="For training: the share of the step spent waiting for input."
    )
    step_time: StepTime | None = Field(
        None, description="For training: how much slower than usual a step may become."
    )
    utilization: Utilization | None = Field(
        None, description="For either: how busy the GPUs or the CPUs should be."
    )
