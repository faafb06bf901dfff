"""A real agent process and ways to talk to it. Nothing here sleeps for luck: every wait has a
condition and a deadline."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from bottleneck_sidecar import wire
from bottleneck_sidecar.client import Client
from bottleneck_sidecar.wire import InferenceServer, Sample, TrainingRank

DEADLINE_SECONDS = 30.0

Value = TypeVar("Value")


def eventually(condition: Callable[[], Value], what: str = "the condition") -> Value:
    """The first true value of ``condition``; fails after the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    pytest.fail(f"{what} did not come true within {DEADLINE_SECONDS:g} s")


class Agent:
    """One agent process on a free port."""

    def __init__(self, directory: Path, *options: str, **environment: str) -> None:
        self.socket = str(directory / "agent.sock")
        self.log: list[str] = []
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "bottleneck_sidecar.agent",
                f"--socket={self.socket}",
                "--port=0",
                "--host=127.0.0.1",
                *options,
            ],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "POD_NAME": "trainer-0", "POD_NAMESPACE": "ml", **environment},
        )
        assert self.process.stderr is not None
        started = self.process.stderr.readline()
        assert "port" in started, started
        self.port = int(started.rpartition(" ")[2])

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_SECONDS)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def metric(self, name: str) -> float | None:
        """The value of the series written exactly as ``name``."""
        for line in self.get("/metrics")[1].splitlines():
            series, _, value = line.rpartition(" ")
            if series == name:
                return float(value)
        return None

    def stream(self, interval: float = 60.0) -> Stream:
        return Stream(self.port, interval)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        status = self.process.wait(DEADLINE_SECONDS)
        assert self.process.stderr is not None
        self.log += self.process.stderr.read().splitlines()
        return status


class Stream:
    """An open stream; ``read`` gives its next line."""

    def __init__(self, port: int, interval: float) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
        self._connection.request("GET", f"/v1/stream?interval={interval}")
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200

    def read(self) -> Sample:
        return wire.decode_sample(self._answer.readline())

    def until(self, condition: Callable[[Sample], object]) -> Sample:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            if condition(sample := self.read()):
                return sample
        pytest.fail("no such line came")

    def close(self) -> None:
        self._answer.close()
        self._connection.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    running = Agent(tmp_path)
    yield running
    if running.process.poll() is None:
        running.process.kill()
        running.process.wait()
    assert running.process.stderr is not None
    running.process.stderr.close()


@pytest.fixture
def client(agent: Agent) -> Client:
    return Client(agent.socket)


class Inbox:
    """Stands where the agent's socket is, to see every single report."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(self.path)

    def read(self) -> list[TrainingRank]:
        reports = []
        while True:
            try:
                report = wire.decode_report(self._socket.recv(wire.MAX_BYTES))
            except BlockingIOError:
                return reports
            assert report.training is not None
            reports.append(report.training)


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path / "inbox.sock")


def rank(**changes: object) -> TrainingRank:
    """A report of rank 0 after ten steps of 0.1 s."""
    fields: dict[str, object] = {
        "epoch": "e0",
        "rank": 0,
        "world_size": 1,
        "steps": 10,
        "samples": 320,
        "step_seconds": 1.0,
        "seconds": {phase: 1.0 if phase == "data" else 0.0 for phase in wire.PHASES},
        **changes,
    }
    return TrainingRank(**fields)  # type: ignore[arg-type]


def server(**changes: object) -> InferenceServer:
    """A report of a server that has answered three requests."""
    fields: dict[str, object] = {
        "epoch": "s0",
        "worker": 1,
        "requests": 3,
        "errors": 1,
        "arrivals": 4,
        "latency_buckets": [1, 2] + [0] * (len(wire.LATENCY_BOUNDS_SECONDS) - 1),
        "latency_seconds": 0.003,
        **changes,
    }
    return InferenceServer(**fields)  # type: ignore[arg-type]
