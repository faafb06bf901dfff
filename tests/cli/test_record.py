"""``record``: what comes through the API server's pod proxy ends in a file that is whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Said, StandIn, line, pod, policy

Run = Callable[..., Said]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_a_recording_holds_every_line_of_every_pod(api: StandIn, run: Run, tmp_path: Path) -> None:
    api.pods(pod("trainer-0"), pod("trainer-1"), pod("old", phase="Succeeded"))
    api.policies(policy())
    api.streams = {name: lambda n, name=name: line(name, n) for name in ("trainer-0", "trainer-1")}
    file = tmp_path / "incident.jsonl"
    said = run("record", "-l", "app=trainer", "-n", "ml", "--seconds", "1", "-o", str(file))
    assert said.code == 0, said.err
    assert said.out == ""
    assert f"lines of 2 pods in 1 s to {file}" in said.err
    first, *lines = read(file)
    assert first["recording"] == 1
    assert first["by"] == "kubectl bottleneck record"
    assert first["pods"] == ["trainer-0", "trainer-1"]
    assert first["policy"]["objectives"] == {"dataWait": {"max": "20%"}}
    samples = [each["sample"] for each in lines if "sample" in each]
    assert samples
    for name in ("trainer-0", "trainer-1"):
        sequences = [s["sequence"] for s in samples if s["pod"] == name]
        assert sequences == list(range(len(sequences)))
    received = [each["received"] for each in lines]
    assert received == sorted(received)
    assert not list(tmp_path.glob("*.part"))


def test_fields_that_this_version_does_not_know_are_kept(
    api: StandIn, run: Run, tmp_path: Path
) -> None:
    api.pods(pod("trainer-0"))
    newer = json.loads(line("trainer-0", 1)) | {"madeUp": {"later": 1}}
    api.streams["trainer-0"] = lambda n: json.dumps(newer | {"sequence": n}).encode() + b"\n"
    file = tmp_path / "a.jsonl"
    assert run("record", "trainer-0", "-n", "ml", "--seconds", "0.5", "-o", str(file)).code == 0
    assert read(file)[1]["sample"]["madeUp"] == {"later": 1}
    assert "policy" not in read(file)[0]


def test_lines_that_are_not_telemetry_are_left_out(api: StandIn, run: Run, tmp_path: Path) -> None:
    api.pods(pod("trainer-0"))
    other = [b"garbage\n", line("trainer-0", 1, uid="uid-of-another"), line("trainer-0", 2)]
    api.streams["trainer-0"] = lambda n: other[n] if n < 3 else line("trainer-0", n)
    file = tmp_path / "a.jsonl"
    assert run("record", "trainer-0", "-n", "ml", "--seconds", "0.5", "-o", str(file)).code == 0
    sequences = [each["sample"]["sequence"] for each in read(file) if "sample" in each]
    assert sequences[:2] == [2, 3]


def test_a_pod_that_says_nothing_is_a_warning_and_the_others_are_recorded(
    api: StandIn, run: Run, tmp_path: Path
) -> None:
    api.pods(pod("trainer-0"), pod("trainer-1"))
    api.streams["trainer-0"] = lambda n: line("trainer-0", n)
    file = tmp_path / "a.jsonl"
    said = run("record", "-l", "app=trainer", "-n", "ml", "--seconds", "0.5", "-o", str(file))
    assert said.code == 0
    assert "warning: nothing came of trainer-1: nothing listens on its port 9709" in said.err


def test_a_stream_that_ends_is_opened_again(api: StandIn, run: Run, tmp_path: Path) -> None:
    api.pods(pod("trainer-0"))
    opened: list[int] = []

    def speak(number: int) -> bytes:
        if number == 0:
            opened.append(1)
        return line("trainer-0", number) if number < 3 else b""

    api.streams["trainer-0"] = speak
    file = tmp_path / "a.jsonl"
    assert run("record", "trainer-0", "-n", "ml", "--seconds", "2", "-o", str(file)).code == 0
    assert len(opened) > 1


FORBIDDEN = (
    'pods "trainer-0" is forbidden: User "jo" cannot get resource "pods/proxy" in API group ""'
    ' in the namespace "ml"'
)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({}, ["trainer-7"], "there is no pod trainer-7 in namespace ml; did you mean trainer-0?"),
        ({}, ["-l", "app=none"], "no pod in namespace ml has the labels app=none"),
        ({"pods": [pod("trainer-0", injected=False)]}, ["trainer-0"], "have no sidecar; set the"),
        ({"pods": [pod("trainer-0", phase="Pending")]}, ["trainer-0"], "has no running pod"),
        (
            {"/api/v1/namespaces/ml/pods/trainer-0:9709/proxy/v1/stream": (403, FORBIDDEN)},
            ["trainer-0"],
            "it needs the verb get on pods/proxy in namespace ml",
        ),
        (
            {"/api/v1/namespaces/ml/pods/trainer-0": (401, "Unauthorized")},
            ["trainer-0"],
            "the cluster does not know you; log in again",
        ),
        ({}, ["trainer-0"], "no telemetry came: trainer-0: nothing listens on its port 9709"),
    ],
)
def test_what_cannot_be_recorded_is_said_and_leaves_no_file(
    api: StandIn,
    run: Run,
    tmp_path: Path,
    change: dict[str, Any],
    arguments: list[str],
    message: str,
) -> None:
    api.pods(*change.pop("pods", [pod("trainer-0")]))
    if "app=none" in arguments:
        api.pods()
    api.objects |= change
    file = tmp_path / "a.jsonl"
    said = run("record", *arguments, "-n", "ml", "--seconds", "1", "-o", str(file))
    assert said.code == 1
    assert said.err.startswith("kubectl bottleneck record: ")
    assert message in said.err
    assert said.err.count("\n") == 1
    assert not list(tmp_path.glob("a.jsonl*"))


def test_a_place_that_cannot_be_written_is_said(api: StandIn, run: Run, tmp_path: Path) -> None:
    api.pods(pod("trainer-0"))
    said = run("record", "trainer-0", "-n", "ml", "-o", str(tmp_path / "no" / "a.jsonl"))
    assert said.code == 1
    assert "cannot be written: No such file or directory" in said.err


def test_without_a_cluster_it_says_so(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    said = run("record", "trainer-0", "-o", "-")
    assert said.code == 1
    assert "no cluster: " in said.err
    assert "set KUBECONFIG" in said.err


def test_a_cluster_that_does_not_answer_is_said(
    api: StandIn, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "gone"
    config.write_text((tmp_path / "kubeconfig").read_text().replace(api.url, "http://127.0.0.1:1"))
    monkeypatch.setenv("KUBECONFIG", str(config))
    said = run("record", "trainer-0", "-o", "-")
    assert said.code == 1
    assert "the cluster does not answer" in said.err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "soon", "1e9"])
def test_seconds_that_make_no_sense_are_wrong_usage(run: Run, seconds: str) -> None:
    said = run("record", "trainer-0", f"--seconds={seconds}", "-o", "-")
    assert said.code == 2
    assert "write a number of seconds" in said.err


def test_ctrl_c_ends_a_recording_that_is_whole(api: StandIn, tmp_path: Path) -> None:
    api.pods(pod("trainer-0"))
    api.streams["trainer-0"] = lambda n: line("trainer-0", n)
    file = tmp_path / "a.jsonl"
    part = tmp_path / "a.jsonl.part"
    command = [sys.executable, "-m", "bottleneck_operator.cli.main", "record", "trainer-0"]
    process = subprocess.Popen(
        [*command, "-n", "ml", "--seconds", "600", "-o", str(file)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not part.exists() or part.read_bytes().count(b"\n") < 5:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert f"to {file}" in said
    assert "Traceback" not in said
    assert len(read(file)) >= 5
    assert not part.exists()
