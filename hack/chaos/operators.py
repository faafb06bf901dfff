"""Operator processes: started from the nursery, killed, frozen, and short of disk."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .clock import Clock, Skew
from .cluster import NAMESPACE, ROOT


@dataclass
class Nursery:
    """The process that forks operators. ``folder`` gets their kubeconfig and their logs."""

    folder: Path
    _process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Imports the operator, once."""
        paths = (ROOT, ROOT / "operator", ROOT / "sidecar")
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            # Read when the client library is imported; the file is written for each round.
            "KUBECONFIG": str(self.kubeconfig),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hack.chaos.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        self.tell(do="nothing")  # answered once everything is imported

    @property
    def kubeconfig(self) -> Path:
        """Of the operators."""
        return self.folder / "kubeconfig"

    def tell(self, **command: Any) -> dict[str, Any]:
        """One command, and its answer."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def stop(self) -> None:
        """Ends it, and every operator with it."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(20)


@dataclass
class Operator:
    """The operator of a round; there is one process at a time."""

    nursery: Nursery
    clock: Clock
    log: Path
    without: str = ""
    pid: int = 0

    def start(self) -> None:
        """A new process."""
        ports = [str(_free_port()) for _ in range(2)]
        self.pid = self.nursery.tell(
            do="start",
            log=str(self.log),
            environment={"POD_NAME": "chaos", "POD_NAMESPACE": NAMESPACE},
            clock=[self.clock.began, self.clock.factor],
            skew=str(self.nursery.folder / "skew"),
            without=self.without,
            arguments=["--health-port", ports[0], "--metrics-port", ports[1]],
        )["pid"]

    def kill(self) -> None:
        """SIGKILL, and the process is gone."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            self.nursery.tell(do="reap", pid=self.pid)
            self.pid = 0

    def ensure(self) -> None:
        """Starts one if none runs."""
        if self.pid and not self.nursery.tell(do="alive", pid=self.pid)["alive"]:
            self.pid = 0
        if not self.pid:
            self.start()

    def signal(self, number: int) -> None:
        """Stops it or lets it go on."""
        if self.pid:
            os.kill(self.pid, number)

    def fill_disk(self, full: bool) -> None:
        """Whether it can write to any file: by a limit on its size, which binds root as well."""
        if self.pid:
            most = 0 if full else resource.RLIM_INFINITY
            _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (most, hard))

    def skew(self) -> Skew:
        """Of its wall clock."""
        return Skew(self.nursery.folder / "skew")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
