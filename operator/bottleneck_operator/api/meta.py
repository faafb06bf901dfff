"""What both resources are made of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

VALIDATIONS = "x-kubernetes-validations"
INT_OR_STRING = "x-kubernetes-int-or-string"


@dataclass(frozen=True)
class Rule:
    """A CEL rule that the API server checks, with the message it gives: what to write instead.

    Stands in ``Model.rules`` for a whole object, or in ``Annotated[...]`` for a single value.
    """

    rule: str
    message: str
    field: str = ""
    """The field that is to blame, as a path such as ``.targetRef``; empty for ``self``."""

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core)
        schema[VALIDATIONS] = [*schema.get(VALIDATIONS, []), self.dump()]
        return schema

    def dump(self) -> dict[str, str]:
        """As it stands in a CRD."""
        where = {"fieldPath": self.field} if self.field else {}
        return {"rule": self.rule, "message": self.message, **where}


class Model(BaseModel):
    """camelCase outside, snake_case inside; a field we do not know is an error, as it is in the API
    server under strict field validation."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    """What the API server checks beyond types and bounds."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        reference = handler(core)
        if cls.rules:
            schema = handler.resolve_ref_schema(reference)
            schema[VALIDATIONS] = [rule.dump() for rule in cls.rules]
        return reference

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


Setting = Annotated[int | str, WithJsonSchema({INT_OR_STRING: True})]
"""The value of a knob: a whole number (4), or a word ("bf16")."""


class TargetRef(Model):
    """The workload that a policy looks after, in the policy's own namespace."""

    rules = (
        Rule(
            r"self.apiVersion.matches('^([a-z0-9.-]+/)?v[0-9]+[a-z0-9]*$')",
            "write the group and version of the workload, such as apps/v1 or batch/v1",
            ".apiVersion",
        ),
        Rule(
            "self.kind.matches('^[A-Z][A-Za-z0-9]*$')",
            "write the kind in the singular, such as Deployment, StatefulSet or Job",
            ".kind",
        ),
        Rule(
            r"self.name.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
            "write the name of an object: lower-case letters, digits, '-' and '.'",
            ".name",
        ),
    )

    api_version: str = Field(
        min_length=1, max_length=253, description="API version of the workload, such as apps/v1."
    )
    kind: str = Field(
        min_length=1, max_length=63, description="Kind of the workload, such as Deployment or Job."
    )
    name: str = Field(min_length=1, max_length=253, description="Name of the workload.")

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


class ContainerResources(Model):
    """CPU and memory of a container, as quantities; what is absent is not set."""

    cpu_request: str | None = None
    cpu_limit: str | None = None
    memory_request: str | None = None
    memory_limit: str | None = None


class OwnerReference(Model):
    """An owner of an object, as far as the operator looks at it."""

    model_config = Model.model_config | {"extra": "ignore"}

    uid: str = ""


class ObjectMeta(Model):
    """The part of an object's metadata that the operator reads."""

    model_config = Model.model_config | {"extra": "ignore"}

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    annotations: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    owner_references: list[OwnerReference] = Field(default_factory=list)
