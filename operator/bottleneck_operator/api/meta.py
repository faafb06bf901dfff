"""What both resources are made of."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel


class Model(BaseModel):
    """camelCase outside, snake_case inside; a field we do not know is an error, as it is in the API
    server under strict field validation."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )

    def dump(self) -> dict[str, object]:
        """As it stands in the API: camelCase, without what is absent."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def _aware(time: datetime) -> datetime:
    if time.tzinfo is None:
        raise ValueError("a time needs its zone: write it like 2026-01-31T12:00:00Z")
    return time.astimezone(UTC)


Time = Annotated[
    datetime, AfterValidator(_aware), WithJsonSchema({"type": "string", "format": "date-time"})
]
"""A moment as the Kubernetes API writes it (RFC 3339, UTC)."""


class TargetRef(Model):
    """The workload that a policy looks after, in the policy's own namespace."""

    api_version: str = Field(
        min_length=1, max_length=253, description="API version of the workload, such as apps/v1."
    )
    kind: str = Field(
        min_length=1, max_length=63, description="Kind of the workload, such as Deployment or Job."
    )
    name: str = Field(min_length=1, max_length=253, description="Name of the workload.")

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"
