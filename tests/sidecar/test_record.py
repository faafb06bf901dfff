"""``bottleneck-agent --record``: the file it writes, and what happens when it cannot."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bottleneck_sidecar import VERSION, wire
from bottleneck_sidecar.client import Client
from bottleneck_sidecar.wire import Acknowledgement, Sample

from .conftest import Agent, eventually, rank  # type: ignore[import-not-found]


class Started:
    """Starts agents and ends them, whatever happens."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._agents: list[Agent] = []

    def __call__(self, file: Path | str, *options: str) -> Agent:
        agent = Agent(self._directory, f"--record={file}", *options)
        self._agents.append(agent)
        return agent

    def end(self) -> None:
        for agent in self._agents:
            if agent.process.poll() is None:
                agent.process.kill()
                agent.process.wait()
            assert agent.process.stderr is not None
            agent.process.stderr.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Started]:
    started = Started(tmp_path)
    yield started
    started.end()


def lines(path: Path) -> list[Any]:
    """The complete lines of a recording, parsed."""
    text = path.read_text() if path.exists() else ""
    assert text == "" or text.endswith("\n"), "a line is written as a whole"
    return [json.loads(line) for line in text.splitlines()]


def samples(path: Path) -> list[Sample]:
    return [wire.decode_sample(json.dumps(line["sample"]).encode()) for line in lines(path)[1:]]


def test_header_and_samples(start: Started, tmp_path: Path) -> None:
    file = tmp_path / "new" / "incident.jsonl"
    agent = start(file, "--interval=0.2")
    eventually(lambda: len(lines(file)) >= 3, "a line for each interval")
    header, first = lines(file)[:2]
    assert header["recording"] == 1
    assert header["by"] == f"bottleneck-agent {VERSION}"
    assert header["pods"] == ["trainer-0"]
    assert abs(header["createdAt"] - first["received"]) < 60
    assert set(first) == {"received", "sample"}
    assert [sample.sequence for sample in samples(file)][:2] == [1, 2]
    assert agent.metric("bottleneck_agent_streams") == 0, "readers keep all their places"


def test_news_is_recorded_at_once_and_the_end_too(start: Started, tmp_path: Path) -> None:
    file = tmp_path / "incident.jsonl"
    agent = start(file, "--interval=60")
    eventually(lambda: len(lines(file)) == 2)
    client = Client(agent.socket)
    client.send(training=rank(acknowledgement=Acknowledgement(1, "Applied", 5, "")))
    eventually(lambda: samples(file)[-1].training, "an acknowledgement")
    client.send(training=rank(phase="checkpoint"))
    eventually(lambda: samples(file)[-1].training[0].phase == "checkpoint", "a long phase")
    client.send(training=rank(phase="checkpoint", steps=11))
    eventually(lambda: agent.metric('bottleneck_training_steps_total{rank="0"}') == 11)
    assert agent.stop() == 0
    assert samples(file)[-1].training[0].steps == 11, "the last line is written at the end"


def test_a_recording_of_an_agent_before_is_kept(start: Started, tmp_path: Path) -> None:
    file = tmp_path / "incident.jsonl"
    agent = start(file)
    eventually(lambda: len(lines(file)) == 2)
    agent.stop(signal.SIGKILL)
    start(file)
    before = eventually(lambda: lines(tmp_path / "incident.jsonl.1"))
    assert len(before) == 2
    eventually(lambda: len(lines(file)) == 2)
    assert before[1]["sample"]["agent"] != lines(file)[1]["sample"]["agent"]


def test_it_ends_at_its_greatest_size(start: Started, tmp_path: Path) -> None:
    file = tmp_path / "incident.jsonl"
    agent = start(file, "--interval=0.2", "--record-max-mb=0.002")
    assert agent.process.stderr is not None
    assert "reached 0.002 MiB" in agent.process.stderr.readline()
    assert len(lines(file)) >= 2
    assert file.stat().st_size <= 0.002 * 2**20
    assert Client(agent.socket).send(training=rank())
    eventually(lambda: agent.metric("bottleneck_agent_reports_total") == 1)


@pytest.mark.parametrize("where", ["/dev/full", "directory", "file/below", "/proc/nothing/here"])
def test_where_nothing_can_be_written_it_says_so_once(
    start: Started, tmp_path: Path, where: str
) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_text("precious")
    agent = start(where if where[0] == "/" else tmp_path / where, "--interval=0.2")
    assert agent.process.stderr is not None
    assert where.rpartition("/")[2] in agent.process.stderr.readline()
    stream = agent.stream(interval=0.2)
    assert [stream.read().sequence for _ in range(4)] == [1, 2, 3, 4], "the agent goes on"
    stream.close()
    assert agent.stop() == 0
    assert agent.log == [], "and says nothing more"
    assert (tmp_path / "file").read_text() == "precious"


def test_the_disk_fills_up_and_is_emptied_again(start: Started, tmp_path: Path) -> None:
    """As with a full disk, by the process's own limit on the size of files."""
    file = tmp_path / "incident.jsonl"
    agent = start(file, "--interval=0.2")
    eventually(lambda: len(lines(file)) >= 2)
    limits = ["prlimit", f"--pid={agent.process.pid}"]
    full = file.stat().st_size + 10
    subprocess.run([*limits, f"--fsize={full}:unlimited"], check=True)
    assert agent.process.stderr is not None
    assert "cannot record" in agent.process.stderr.readline()
    assert Client(agent.socket).send(training=rank())
    subprocess.run([*limits, "--fsize=unlimited"], check=True)
    eventually(lambda: samples(file)[-1].training, "what came after it")
    assert agent.stop() == 0
    assert agent.log == []


def test_a_size_that_is_none() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "bottleneck_sidecar.agent", "--record-max-mb=0"],
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 2
    assert "must be above 0, for instance 256" in answer.stderr
