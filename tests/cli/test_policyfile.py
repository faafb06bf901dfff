"""A policy from a file is checked as the API server would, and says what to write instead."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from bottleneck_operator.cli.output import RefusedError
from bottleneck_operator.cli.policyfile import objectives_of, read_objectives

from .conftest import policy

Object = dict[str, Any]


def written(path: Path, *documents: Object) -> str:
    file = path / "policy.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    return str(file)


def test_the_objectives_are_read_from_among_other_documents(tmp_path: Path) -> None:
    other = {"kind": "Job", "metadata": {"name": "trainer"}}
    objectives = read_objectives(written(tmp_path, other, policy()))
    assert objectives.data_wait
    assert objectives.data_wait.max == "20%"


def test_they_are_read_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(yaml.safe_dump(policy())))
    assert read_objectives("-").data_wait


@pytest.mark.parametrize("example", ["training", "inference"])
def test_the_policies_of_the_examples_are_read(example: str) -> None:
    root = Path(__file__).parents[2]
    assert read_objectives(str(root / "examples" / example / "policy.yaml")).model_fields_set


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        (
            {"latency": {"target": "250"}},
            'spec.objectives.latency.target: write a duration with its unit (ms, s, m or h), such'
            ' as "250ms"',
        ),
        ({"latency": {"target": "0s"}}, "target: write a duration longer than zero"),
        ({"latency": {"percentile": 95}}, "spec.objectives.latency.target is missing: write it"),
        ({"latency": {"target": "1s", "percentile": 100}}, "percentile: input should be less than"),
        ({"dataWait": {"max": "20"}}, "dataWait.max: write a percentage from 0 to 100"),
        ({"dataWait": {"max": "120%"}}, "dataWait.max: write a percentage from 0 to 100"),
        ({"errorRate": {"max": "101%"}}, "errorRate.max: write a percentage from 0 to 100"),
        ({"goodput": {"min": "0"}}, "goodput.min: write a number above zero in quotes"),
        ({"goodput": {"min": 500}}, "goodput.min: input should be a valid string, found 500"),
        ({"dataWeit": {"max": "2%"}}, "dataWeit: there is no such field; did you mean dataWait?"),
        ({"latency": {"target": "1s", "p": 1}}, "latency.p: there is no such field"),
        ({}, "spec.objectives: write at least one objective"),
        ({"utilization": {"device": "GPU"}}, "utilization: write min, max or both"),
        ({"utilization": {"device": "GPU", "min": 9, "max": 9}}, "write a min that is below max"),
        ("fast", "spec.objectives: input should be"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_what_to_write(
    tmp_path: Path, objectives: Any, message: str
) -> None:
    file = written(tmp_path, policy(objectives=objectives))
    with pytest.raises(RefusedError) as refused:
        read_objectives(file)
    assert message in str(refused.value)
    assert str(refused.value).startswith(file)
    assert "pydantic" not in str(refused.value)


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    wrong = {"latency": {"target": "x"}, "dataWait": {"max": "y"}}
    with pytest.raises(RefusedError, match=r"latency\.target.*; spec\.objectives\.dataWait\.max"):
        read_objectives(written(tmp_path, policy(objectives=wrong)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not YAML"),
        ("just words", "holds no BottleneckPolicy; write one with kind: BottleneckPolicy"),
        ("", "holds no BottleneckPolicy"),
        ("kind: Job", "holds no BottleneckPolicy"),
        ("kind: BottleneckPolicy\n---\nkind: BottleneckPolicy", "holds 2 policies"),
        ("kind: BottleneckPolicy", "metadata is missing: write it; spec is missing: write it"),
        (b"\xff\xfe\x00", "is not a text file"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_is_no_policy_is_refused(
    tmp_path: Path, text: str | bytes | None, message: str
) -> None:
    file = tmp_path / "p.yaml"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RefusedError) as refused:
        read_objectives(str(file))
    assert message in str(refused.value)


def test_the_policy_of_a_recording_is_checked_too() -> None:
    spec = policy()["spec"]
    assert objectives_of(spec, "a.jsonl").data_wait
    with pytest.raises(RefusedError, match=r"a\.jsonl: policy\.objectives.*--policy"):
        objectives_of(spec | {"objectives": {"later": {}}}, "a.jsonl")
