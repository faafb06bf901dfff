"""Generates the CustomResourceDefinitions from the models.

``python -m bottleneck_operator.api.crd crds/`` writes them, once as plain manifests for ``kubectl
apply`` and once as templates of the chart; with ``--check`` it only compares, for CI.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .conditions import GROUP, POLICIES, REPORTS, VERSION
from .meta import INT_OR_STRING, VALIDATIONS, Model
from .policy import BottleneckPolicy
from .report import BottleneckReport

Schema = dict[str, Any]

CHART_FOLDER = "charts/bottleneck-operator/templates/crds"

_KEPT = (
    *("type", "format", "enum", "pattern", "minLength", "maxLength"),
    *("minItems", "maxItems", "maxProperties"),
)
_EXTENSIONS = "x-kubernetes-"


@dataclass(frozen=True)
class Column:
    """A column of ``kubectl get``; ``wide`` ones are shown with ``-o wide`` only."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False

    def dump(self) -> Schema:
        column: Schema = {"name": self.name, "type": self.type, "jsonPath": self.path}
        return column | ({"priority": 1} if self.wide else {})


AGE = Column("Age", ".metadata.creationTimestamp", "date")


@dataclass(frozen=True)
class Resource:
    """What a CRD says besides its schema."""

    model: type[Model]
    plural: str
    short: str
    columns: tuple[Column, ...]

    @property
    def file(self) -> str:
        return f"{GROUP}_{self.plural}.yaml"


RESOURCES = (
    Resource(
        BottleneckPolicy,
        POLICIES,
        "bnp",
        (
            Column("Target", ".spec.targetRef.name"),
            Column("Mode", ".spec.mode"),
            Column("Bottleneck", ".status.bottleneck.id"),
            Column("Action", ".status.lastAction.summary"),
            Column("Verdict", ".status.lastAction.verdict"),
            Column("Kind", ".spec.targetRef.kind", wide=True),
            Column("Objective", ".status.objectives[0].name", wide=True),
            Column("Current", ".status.objectives[0].current", wide=True),
            Column("Wanted", ".status.objectives[0].target", wide=True),
            Column("Knobs", ".status.knobs.desired", wide=True),
            AGE,
        ),
    ),
    Resource(
        BottleneckReport,
        REPORTS,
        "bnr",
        (
            Column("Policy", ".spec.policy"),
            Column("Phase", ".status.phase"),
            Column("Action", ".spec.action.summary"),
            Column("Verdict", ".status.verdict.result"),
            Column("Effect", ".status.verdict.effect", "number"),
            Column("Cause", ".spec.action.cause", wide=True),
            Column("Refusal", ".spec.refusal", wide=True),
            AGE,
        ),
    ),
)


def crd(resource: Resource) -> Schema:
    """The CustomResourceDefinition of one resource."""
    kind = resource.model.__name__
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": resource.plural,
                "singular": kind.lower(),
                "shortNames": [resource.short],
                "categories": ["bottleneck"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": object_schema(resource.model)},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [column.dump() for column in resource.columns],
                }
            ],
        },
    }


def object_schema(model: type[Model]) -> Schema:
    """The structural schema of a whole object. Only the spec is defaulted: a status says what was
    seen, and a default would be a figure that nobody has seen."""
    source = model.model_json_schema(by_alias=True)
    definitions = source.get("$defs", {})
    properties = source["properties"]
    schema: Schema = {
        "type": "object",
        "description": _text(source.get("description", "")),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"{model.__name__}."},
            "metadata": {"type": "object"},
            "spec": structural(properties["spec"], definitions, defaults=True),
            "status": structural(properties["status"], definitions, defaults=False),
        },
    }
    return schema | ({VALIDATIONS: source[VALIDATIONS]} if VALIDATIONS in source else {})


def structural(source: Schema, definitions: Schema, *, defaults: bool) -> Schema:
    """JSON Schema as pydantic writes it → structural schema as the API server wants it: references
    inlined, absence in place of null, and only the keywords that Kubernetes has."""
    source = _resolved(source, definitions)
    schema: Schema = {key: source[key] for key in ("type",) if key in source}
    if source.get("description"):
        schema["description"] = _text(source["description"])
    if defaults and source.get("default") is not None:
        schema["default"] = source["default"]
    schema |= {key: source[key] for key in _KEPT if key in source}
    schema |= _bounds(source)
    schema |= {key: value for key, value in source.items() if key.startswith(_EXTENSIONS)}
    if VALIDATIONS in schema:
        schema[VALIDATIONS] = [
            {key: rule[key] for key in ("rule", "message", "fieldPath") if key in rule}
            for rule in schema[VALIDATIONS]
        ]
    if schema.get("type") == "string" and VALIDATIONS in schema:
        # The rule says what to write; the pattern's own message would only quote the expression.
        schema.pop("pattern", None)
    if "items" in source:
        schema["items"] = structural(source["items"], definitions, defaults=defaults)
    if isinstance(source.get("additionalProperties"), dict):
        schema["additionalProperties"] = structural(
            source["additionalProperties"], definitions, defaults=defaults
        )
    if "properties" in source:
        if source.get("required"):
            schema["required"] = source["required"]
        schema["properties"] = {
            name: structural(value, definitions, defaults=defaults)
            for name, value in source["properties"].items()
        }
        if defaults:
            for name in _left_out_as_empty(source, definitions):
                schema["properties"][name]["default"] = {}
    return schema


def _resolved(source: Schema, definitions: Schema) -> Schema:
    """``source`` without ``$ref`` and without ``anyOf … null``; what stands beside those wins."""
    while "$ref" in source or "anyOf" in source:
        beside = {key: value for key, value in source.items() if key not in ("$ref", "anyOf")}
        if "$ref" in source:
            inner = definitions[source["$ref"].removeprefix("#/$defs/")]
        else:
            choices = [choice for choice in source["anyOf"] if choice.get("type") != "null"]
            if len(choices) != 1:
                raise ValueError(f"a structural schema has no unions: {source}")
            inner = choices[0]
        source = inner | beside
    if "type" not in source and INT_OR_STRING not in source:
        raise ValueError(f"a structural schema needs a type everywhere: {source}")
    return source


def _bounds(source: Schema) -> Schema:
    """Numeric bounds; Kubernetes still writes an exclusive one as a flag beside the bound."""
    bounds: Schema = {}
    for bound, exclusive in (
        ("minimum", "exclusiveMinimum"),
        ("maximum", "exclusiveMaximum"),
    ):
        if bound in source:
            bounds[bound] = source[bound]
        if exclusive in source:
            bounds |= {bound: source[exclusive], exclusive: True}
    return bounds


def _left_out_as_empty(source: Schema, definitions: Schema) -> Iterator[str]:
    """Objects that may be left out and then are ``{}``, so that the API server fills in the
    defaults inside them."""
    for name, value in source["properties"].items():
        optional = name not in source.get("required", ()) and "default" not in value
        if optional and "properties" in _resolved(value, definitions):
            yield name


def _text(description: str) -> str:
    """A docstring as one line."""
    return " ".join(description.split())


class _Dumper(yaml.SafeDumper):
    """Repeats itself in place of anchors, which nobody wants to read in a manifest."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def manifest(resource: Resource) -> str:
    """The CRD as a plain manifest."""
    return "# Generated from the models by `make generate`. Do not edit.\n" + _yaml(crd(resource))


def template(resource: Resource) -> str:
    """The CRD as a template of the chart. As a template ``helm upgrade`` changes it, which it never
    does with a chart's crds/ folder; the annotation keeps it, and with it every policy, on
    ``helm uninstall``."""
    document = crd(resource)
    document["metadata"]["annotations"] = {"helm.sh/resource-policy": "keep"}
    body = _yaml(document)
    if "{{" in body:
        raise ValueError(f"{resource.plural}: a description would be read as a template")
    return (
        "{{- /* Generated from the models by `make generate`. Do not edit. */ -}}\n"
        "{{- if .Values.crds.install }}\n" + body + "{{- end }}\n"
    )


def _yaml(document: Schema) -> str:
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
    return text


def files(crds: Path, chart: Path) -> Iterator[tuple[Path, str]]:
    """Every generated file with its content."""
    for resource in RESOURCES:
        yield crds / resource.file, manifest(resource)
        yield chart / resource.file, template(resource)


def differences(crds: Path, chart: Path) -> Iterator[str]:
    """Lines of a diff from what is on disk to what the models say; none when they agree."""
    for path, wanted in files(crds, chart):
        present = path.read_text() if path.exists() else ""
        yield from difflib.unified_diff(
            present.splitlines(keepends=True),
            wanted.splitlines(keepends=True),
            str(path),
            f"{path} (from the models)",
        )


def main(argv: list[str] | None = None) -> int:
    """Writes or checks the generated files."""
    parser = argparse.ArgumentParser(
        prog="python -m bottleneck_operator.api.crd",
        description="Generate the CustomResourceDefinitions from the models.",
        epilog="Example: python -m bottleneck_operator.api.crd --check crds/",
    )
    parser.add_argument("crds", type=Path, help="folder of the plain manifests: crds/")
    parser.add_argument(
        "--chart",
        type=Path,
        default=Path(CHART_FOLDER),
        help="folder of the chart's templates (default: %(default)s)",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    arguments = parser.parse_args(argv)
    if arguments.check:
        diff = list(differences(arguments.crds, arguments.chart))
        sys.stdout.writelines(diff)
        if diff:
            print("The CRDs differ from the models: run `make generate`.", file=sys.stderr)
        return 1 if diff else 0
    for path, text in files(arguments.crds, arguments.chart):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
