"""Waiting for other ranks, on two real processes over gloo, one of them slowed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from bottleneck_sidecar.wire import TrainingRank

from .conftest import Inbox  # type: ignore[import-not-found]
from .ranks import KINDS, STEPS  # type: ignore[import-not-found]

SLOW_SECONDS = 0.05


class Job:
    """What the two ranks print, and what they report last for each kind."""

    def __init__(self, directory: Path, watched: bool) -> None:
        inbox = Inbox(directory / "inbox.sock")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        environment = {key: value for key, value in os.environ.items() if "BOTTLENECK" not in key}
        if watched:
            environment["BOTTLENECK_SOCKET"] = inbox.path
        program = Path(__file__).with_name("ranks.py")
        ranks = [
            subprocess.Popen(
                [sys.executable, str(program), str(rank), str(port), str(SLOW_SECONDS)],
                env={**environment, "GLOO_SOCKET_IFNAME": "lo"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        self.printed: list[str] = []
        self.reports: list[TrainingRank] = []
        reading = threading.Thread(target=self._read, args=(inbox,))
        self._done = threading.Event()
        reading.start()
        try:
            for rank in ranks:
                out, errors = rank.communicate(timeout=300)
                assert rank.returncode == 0, errors
                self.printed.append(out)
        finally:
            self._done.set()
            reading.join()
            for rank in ranks:
                rank.kill()
                rank.wait()

    def _read(self, inbox: Inbox) -> None:
        while not self._done.wait(0.05):
            self.reports += inbox.read()
        self.reports += inbox.read()

    def ranks(self, kind: str) -> list[TrainingRank]:
        """The last report of each rank on this kind."""
        found = []
        for rank in range(2):
            newest = {each.epoch: each for each in self.reports if each.rank == rank}
            found.append(list(newest.values())[KINDS.index(kind)])
        return found


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return Job(tmp_path_factory.mktemp("watched"), watched=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_fast_rank_waits_and_the_slow_one_works(watched: Job, kind: str) -> None:
    fast, slow = watched.ranks(kind)
    assert (fast.steps, slow.steps, fast.world_size) == (STEPS, STEPS, 2)
    delay = STEPS * SLOW_SECONDS
    assert slow.seconds["backward"] >= 0.9 * delay
    assert fast.seconds["collective"] >= 0.7 * delay
    assert slow.seconds["collective"] < 0.5 * fast.seconds["collective"]
    assert fast.seconds["backward"] < 0.5 * slow.seconds["backward"]
    assert fast.cpu_seconds is not None
    assert fast.cpu_seconds["collective"] < 0.5 * fast.seconds["collective"], "it slept"


def test_the_weights_are_the_same_to_the_bit(watched: Job, tmp_path: Path) -> None:
    plain = Job(tmp_path, watched=False)
    assert plain.reports == []
    assert watched.printed == plain.printed
    assert len(plain.printed[0].splitlines()) == len(KINDS)
