"""``diagnose``: a recording is replayed and told, or refused with the line that is wrong."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from .conftest import Said, line, policy, write_recording

Run = Callable[..., Said]

KEYS = ["symptom", "causes", "ruledOut", "whys", "runnerUp", "fishbone", "faultTree"]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A starved trainer for half a minute, with its policy."""
    return write_recording(tmp_path / "incident.jsonl", policy=policy()["spec"])


def test_a_recording_is_told_like_a_live_workload(recording: Path, run: Run) -> None:
    said = run("diagnose", str(recording))
    assert said.code == 0, said.err
    for wanted in (
        f"{recording} · 30 s of telemetry of 1 pod, recorded at 2027-01-15 08:00:00 UTC"
        " by kubectl bottleneck record",
        "Waiting for input is 80%, over its objective of at most 20%",
        "loader-without-workers (data-loading / Data)",
        "DataWait 80%, wanted ≤ 20%: missed",
        "└─ Because",
        "Fishbone",
        "Fault tree",
    ):
        assert wanted in " ".join(said.out.split()), said.out
    assert "Notes" not in said.out
    assert said.err == ""


def test_json_is_the_public_contract(recording: Path, run: Run) -> None:
    document = run("diagnose", str(recording), "-o", "json").json
    assert list(document) == KEYS
    cause = document["causes"][0]
    described = ["id", "class", "category", "title", "share", "confidence", "evidence"]
    assert list(cause) == [*described, "explainedBy"]
    assert cause["id"] == "loader-without-workers"
    wanted = {"signal", "window", "statistic", "value", "unit", "threshold", "source"}
    assert all(set(item) == wanted for item in cause["evidence"])


def test_the_same_recording_gives_the_same_answer(recording: Path, run: Run) -> None:
    assert run("diagnose", str(recording)).out == run("diagnose", str(recording)).out


@pytest.mark.parametrize("picture", ["all", "fishbone", "fault-tree", "whys"])
def test_it_is_drawn(recording: Path, run: Run, picture: str) -> None:
    said = run("diagnose", str(recording), "-o", "svg", "--picture", picture)
    assert ElementTree.fromstring(said.out).tag.endswith("svg")  # noqa: S314


def test_it_becomes_a_page(recording: Path, run: Run) -> None:
    page = run("diagnose", str(recording), "-o", "html").out
    assert page.startswith("<!DOCTYPE html>")
    assert "loader-without-workers" in page


def test_a_policy_that_is_given_takes_the_place_of_the_recorded(
    recording: Path, run: Run, tmp_path: Path
) -> None:
    lax = tmp_path / "lax.yaml"
    lax.write_text(yaml.safe_dump(policy(objectives={"dataWait": {"max": "90%"}})))
    said = run("diagnose", str(recording), "--policy", str(lax))
    assert "Nothing is wrong." in said.out
    assert "Every objective is met." in said.out
    assert run("diagnose", str(recording), "--policy", str(lax), "-o", "json").json["causes"] == []


def test_without_a_policy_a_fault_is_its_own_symptom(tmp_path: Path, run: Run) -> None:
    file = write_recording(tmp_path / "r.jsonl")
    document = run("diagnose", str(file), "-o", "json").json
    assert document["causes"][0]["id"] == "loader-without-workers"
    assert document["symptom"]["objective"] == "Fault"


def test_a_recording_without_a_word_is_not_called_healthy(tmp_path: Path, run: Run) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text('{"recording": 1, "createdAt": 1, "by": "me", "pods": ["p"]}\n')
    said = run("diagnose", str(file))
    assert said.code == 0
    assert "It cannot be told what is wrong." in said.out
    assert "Nothing is wrong" not in said.out
    assert run("diagnose", str(file), "-o", "json").json["causes"] == []


def test_a_half_written_last_line_is_left_out_and_told(recording: Path, run: Run) -> None:
    whole = run("diagnose", str(recording), "-o", "json").json
    with recording.open("ab") as file:
        file.write(line("trainer-0", 99)[:100])
    said = run("diagnose", str(recording))
    assert said.code == 0
    assert "The last line is only half written and was left out." in said.out
    assert run("diagnose", str(recording), "-o", "json").json == whole


def test_it_reads_standard_input(
    recording: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = io.TextIOWrapper(io.BytesIO(recording.read_bytes()))
    monkeypatch.setattr(sys, "stdin", data)
    said = run("diagnose", "-", "-o", "json")
    assert said.json["causes"][0]["id"] == "loader-without-workers"
    assert not data.buffer.closed


def spoilt(path: Path, change: Callable[[list[str]], Any]) -> Path:
    lines = path.read_text().splitlines()
    change(lines)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines.__setitem__(3, "garbage"), "line 4: this is no JSON"),
        (lambda lines: lines.__setitem__(-1, "{"), "this is no JSON; remove the line"),
        (lambda lines: lines.__setitem__(2, "[]"), "line 3: expected an object"),
        (lambda lines: lines.__setitem__(0, lines[1]), "line 1: not the first line of a recording"),
        (
            lambda lines: lines.__setitem__(
                0, lines[0].replace('"recording": 1', '"recording": 2')
            ),
            "line 1: recording version 2; this reader knows version 1: use a kubectl-bottleneck",
        ),
        (
            lambda lines: lines.__setitem__(2, lines[2].replace('"version": 1', '"version": 9')),
            "line 3: sample: version 9",
        ),
        (lambda lines: lines.clear(), "it is empty; a recording begins with a line like"),
        (lambda lines: lines.__setitem__(2, "x" * 10_000_000), "line 3: longer than"),
    ],
)
def test_what_is_no_recording_is_refused_with_its_line(
    recording: Path, run: Run, change: Callable[[list[str]], Any], message: str
) -> None:
    said = run("diagnose", str(spoilt(recording, change)))
    assert said.code == 1
    assert said.out == ""
    assert said.err.startswith(f"kubectl bottleneck diagnose: {recording}: ")
    assert message in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    "data", [b"", b"\x00" * 100, b"\xff\xfe", b"\x1f\x8b\x08", b"kind: Pod\n", b"[" * 50_000]
)
def test_no_file_whatever_makes_it_fail_otherwise(tmp_path: Path, run: Run, data: bytes) -> None:
    file = tmp_path / "x"
    file.write_bytes(data)
    said = run("diagnose", str(file))
    assert said.code == 1
    assert "this should not happen" not in said.err
    assert "a recording begins with a line like" in said.err or "line 1" in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-file"], "no-such-file cannot be read: No such file or directory"),
        (["."], ". cannot be read: Is a directory"),
        (["-", "--policy", "-"], "only one of recording and policy can come from standard input"),
    ],
)
def test_a_file_that_cannot_be_read_is_said(run: Run, arguments: list[str], message: str) -> None:
    said = run("diagnose", *arguments)
    assert (said.code, message in said.err) == (1, True)


def test_a_policy_in_the_recording_that_is_wrong_is_said(tmp_path: Path, run: Run) -> None:
    spec = policy(objectives={"dataWait": {"max": "lots"}})["spec"]
    said = run("diagnose", str(write_recording(tmp_path / "r.jsonl", policy=spec)))
    assert said.code == 1
    assert "policy.objectives.dataWait.max: write a percentage from 0 to 100" in said.err
    assert "give another with --policy" in said.err


def test_a_moment_outside_of_the_calendar_is_no_matter(tmp_path: Path, run: Run) -> None:
    said = run("diagnose", str(write_recording(tmp_path / "r.jsonl", createdAt=1e18)))
    assert said.code == 0
    assert "30 s of telemetry of 1 pod, recorded by kubectl bottleneck record" in " ".join(
        said.out.split()
    )


def test_names_from_a_recording_cannot_command_the_terminal(tmp_path: Path, run: Run) -> None:
    file = write_recording(tmp_path / "r.jsonl", by="\x1b[31mred\x07")
    out = run("diagnose", str(file)).out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert json.loads(file.read_text().splitlines()[0])["by"].startswith("\x1b")
