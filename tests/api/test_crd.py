"""The generated CRDs, without a cluster."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from bottleneck_operator.api import crd
from bottleneck_operator.api.meta import VALIDATIONS, Model
from pydantic import Field

ROOT = Path(__file__).parents[2]
KNOWN = {
    "additionalProperties",
    "default",
    "description",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
}
"""The keywords of a structural schema that the generator may write, but for x-kubernetes-*."""


def schemas(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema in a schema, with its path."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from schemas(inner, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from schemas(schema[key], f"{path}[]")


def every_schema() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{resource.model.__name__}{path}", schema)
        for resource in crd.RESOURCES
        for path, schema in schemas(crd.object_schema(resource.model))
    ]


def test_what_is_on_disk_is_what_the_models_say() -> None:
    assert "".join(crd.differences(ROOT / "crds", ROOT / crd.CHART_FOLDER)) == ""


def test_every_schema_is_structural() -> None:
    for path, schema in every_schema():
        either = schema.get("x-kubernetes-int-or-string") is True  # the one union there is
        assert either or isinstance(schema.get("type"), str), f"{path} has no type"
        unknown = {key for key in schema if not key.startswith("x-kubernetes-")} - KNOWN
        assert not unknown, f"{path} has keywords that Kubernetes does not know: {unknown}"


def test_every_rule_says_what_to_write_instead() -> None:
    rules = [
        (path, rule) for path, schema in every_schema() for rule in schema.get(VALIDATIONS, [])
    ]
    assert len(rules) > 10
    for path, rule in rules:
        assert (
            "write" in rule["message"]
            or "cannot be changed" in rule["message"]
            or ("remove" in rule["message"])
        ), f"the message at {path} only complains: {rule['message']}"


def test_every_field_that_people_write_is_described() -> None:
    for path, schema in every_schema():
        if path.startswith("BottleneckPolicy.spec"):
            assert schema.get("description"), f"kubectl explain has nothing to say about {path}"


def test_a_status_has_no_defaults() -> None:
    for path, schema in every_schema():
        if ".status" in path:
            assert "default" not in schema, f"{path} would be a figure that nobody has seen"


def test_check_finds_a_difference_and_generate_mends_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(tmp_path / "crds"), "--chart", str(tmp_path / "chart")]
    assert crd.main(folders) == 0
    assert crd.main([*folders, "--check"]) == 0
    changed = tmp_path / "crds" / crd.RESOURCES[0].file
    changed.write_text(changed.read_text().replace("maximum: 99", "maximum: 98"))
    capsys.readouterr()
    assert crd.main([*folders, "--check"]) == 1
    said = capsys.readouterr()
    assert (
        "-                        maximum: 98\n+                        maximum: 99\n" in said.out
    )
    assert "make generate" in said.err
    assert crd.main(folders) == 0
    assert crd.main([*folders, "--check"]) == 0


def test_the_chart_keeps_the_same_crds_on_uninstall() -> None:
    for resource in crd.RESOURCES:
        plain = yaml.safe_load(crd.manifest(resource))
        lines = crd.template(resource).splitlines()
        assert lines[1] == "{{- if .Values.crds.install }}"
        assert lines[-1] == "{{- end }}"
        kept = yaml.safe_load("\n".join(lines[2:-1]))
        assert kept["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert kept == plain


class Union(Model):
    either: int | str = 0


class Bounds(Model):
    above: float = Field(gt=0, lt=1)


def test_a_union_is_refused_by_the_generator() -> None:
    source = Union.model_json_schema()
    with pytest.raises(ValueError, match="no unions"):
        crd.structural(source, {}, defaults=True)


def test_an_exclusive_bound_is_a_flag_beside_the_bound() -> None:
    schema = crd.structural(Bounds.model_json_schema(), {}, defaults=True)
    assert schema["properties"]["above"] == {
        "type": "number",
        "minimum": 0,
        "exclusiveMinimum": True,
        "maximum": 1,
        "exclusiveMaximum": True,
    }
