"""What follows from an action: under what it was tried, whether its undoing was enough, and who
took it back."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from .meta import Model, Time

MOST_NODES = 16


class Circumstances(Model):
    """Under what an action is decided. A miss is not repeated until some of it has changed."""

    template: str = Field("", max_length=64, description="Digest of the target's pod templates.")
    nodes: list[str] = Field(
        default_factory=list,
        max_length=MOST_NODES,
        description="Nodes of the running pods; empty where they are more than 16.",
    )
    replicas: int | None = Field(None, ge=0)
    load: float | None = Field(
        None, ge=0, description="Requests per second over the last minute; absent for training."
    )


class RevertResult(StrEnum):
    """Whether an undone action left things as they were."""

    RESTORED = "Restored"
    NOT_RESTORED = "NotRestored"
    NO_DATA = "NoData"


class RevertVerdict(Model):
    """The judgement on an undoing, with its statistics."""

    result: RevertResult
    at: Time
    before: float | None = Field(None, description="Median before the action.")
    after: float | None = Field(None, description="Median since the undoing.")
    effect: float | None = Field(
        None, description="Relative change of the metric, since the undoing against before."
    )
    interval: list[float] = Field(
        default_factory=list, description="95% confidence interval of the effect."
    )
    p_value: float | None = None
    bins: list[int] = Field(
        default_factory=list, description="Number of figures before and since the undoing."
    )
    differences: list[str] = Field(
        default_factory=list,
        max_length=16,
        description="Values that are not what they were before the action.",
    )
    reason: str = ""


class Rollback(Model):
    """People's wish to take an action back, and what became of it."""

    by: str = Field("", max_length=128, description="Who asked, as the request says.")
    requested: str = Field("", max_length=64, description="When, as the request says.")
    answered_at: Time
    refused: str = Field("", description="Why it was not done; empty where it was.")
    generation: int = Field(
        0, ge=0, description="The knobs generation with which the old values come back."
    )
