"""``kubectl bottleneck inject``: every kind with a pod template, and text that means the same."""

import argparse
import io
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from bottleneck_operator.cli import inject as command
from bottleneck_operator.inject.manifest import TEMPLATES, inject_manifest
from bottleneck_operator.inject.pod import InjectSettings

Object = dict[str, Any]

SETTINGS = InjectSettings(image="bottleneck/sidecar:1")
TEMPLATE = {"spec": {"containers": [{"name": "main", "image": "trainer:1"}]}}


def workload(kind: str, template: Object) -> Object:
    """An object of a kind with its pod template in its place."""
    inner: Object = template
    for key in reversed(TEMPLATES[kind]):
        inner = {key: inner}
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}} | inner


def sidecars(text: object) -> int:
    return str(text).count("'name': 'bottleneck-agent'")


@pytest.mark.parametrize("kind", TEMPLATES)
def test_every_kind_with_a_pod_template_is_injected(kind: str) -> None:
    document = workload(kind, TEMPLATE)
    injected = inject_manifest([document], SETTINGS)
    assert injected.warnings == []
    assert sidecars(injected.documents) == 1
    assert sidecars(document) == 0, "the argument is not changed"
    assert inject_manifest(injected.documents, SETTINGS) == injected


def test_the_items_of_a_list_are_injected() -> None:
    items = [workload("Deployment", TEMPLATE), workload("Job", TEMPLATE)]
    injected = inject_manifest([{"kind": "List", "items": items}], SETTINGS)
    assert sidecars(injected.documents) == 2


@pytest.mark.parametrize(
    ("document", "warning"),
    [
        ({"kind": "Service", "metadata": {"name": "x"}}, "Service/x is left as it is: this kind"),
        ({"kind": "Deployment", "metadata": {"name": "x"}}, "it has no pod template"),
        ({"kind": ["Pod"]}, "is left as it is"),
        ({"kind": "Pod", "spec": {"hostNetwork": True, "containers": [{}]}}, "node's network"),
        ({}, "object/? is left as it is"),
    ],
)
def test_what_is_not_injected_is_passed_through_and_said(document: Object, warning: str) -> None:
    injected = inject_manifest([document], SETTINGS)
    assert injected.documents == [document]
    assert warning in injected.warnings[0]


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="kubectl bottleneck")
    command.add_parser(parser.add_subparsers())
    parsed = parser.parse_args(["inject", *arguments])
    result = parsed.run(parsed)
    assert isinstance(result, int)
    return result


TRICKY = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: "12", annotations: {exponent: "1e3", answer: "y", octal: "0o14", on: "on"}}
data:
  script: |
    first line
    second line
---
---
apiVersion: v1
kind: Pod
metadata: {name: p}
spec: {containers: [{name: main, image: "a:1", env: [{name: N, value: "10"}]}]}
"""


def test_standard_input_comes_out_injected(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(TRICKY))
    assert run("-f", "-", "--image", "sidecar:7") == 0
    said = capsys.readouterr()
    config, pod = yaml.safe_load_all(said.out)
    assert config == next(yaml.safe_load_all(TRICKY))
    assert pod["spec"]["initContainers"][0]["image"] == "sidecar:7"
    assert "ConfigMap/12 is left as it is" in said.err


def test_a_string_that_other_readers_take_for_a_number_is_quoted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text(TRICKY)
    assert run("-f", str(tmp_path / "a.yaml")) == 0
    out = capsys.readouterr().out
    for line in ('exponent: "1e3"', 'answer: "y"', 'octal: "0o14"', 'value: "10"', 'name: "12"'):
        assert line in out


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not YAML"), ("just words", "a manifest is a mapping"), (None, "No such file")],
)
def test_what_is_no_manifest_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, message: str
) -> None:
    file = tmp_path / "a.yaml"
    if text is not None:
        file.write_text(text)
    assert run("-f", str(file)) == 1
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""
