"""Starting processes in their cgroup and namespace, and stopping them for certain."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from .cgroups import Cgroup

REPOSITORY = Path(__file__).resolve().parents[2]
STOP_SECONDS = 3.0


class RunError(RuntimeError):
    """A run that did not come about; the text says what happened and shows the end of the log."""


class Program:
    """One process with its log; may be started again after it has ended."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        cgroup: Cgroup | None = None,
        environment: Mapping[str, str] | None = None,
        folder: Path = REPOSITORY,
    ) -> None:
        self.name = name
        self.log = log
        self.starts = 0
        self._command = _entering(cgroup, command)
        self._environment = {**_environment(), **(environment or {})}
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, stack: ExitStack) -> Program:
        """Starts it; ``stack`` stops it."""
        self.starts += 1
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        stack.callback(self.stop)
        return self

    @property
    def status(self) -> int | None:
        """How it ended; None while it runs."""
        return None if self._process is None else self._process.poll()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Asks it to end, and ends it and its children if it does not."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
        # The children too, and also where it has ended by itself: its group outlives it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def tail(self) -> str:
        """The end of its log."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(f"    {line}" for line in lines[-12:])

    def check(self) -> None:
        """Raises ``RunError`` if it has ended."""
        if self.status is not None:
            raise RunError(f"{self.name} has ended with status {self.status}:\n{self.tail()}")


def module(name: str, *arguments: str) -> list[str]:
    """The command that runs one of our own programs."""
    return [sys.executable, "-m", name, *arguments]


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Waits for the condition. Raises ``RunError`` when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise RunError(f"{what} within {seconds:g} s")
        time.sleep(0.05)


def _environment() -> dict[str, str]:
    """Ours, without what would steer the workload by accident."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("BOTTLENECK_", "POD_"))}
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        inherited.pop(name, None)
    paths = [str(REPOSITORY), str(REPOSITORY / "operator"), str(REPOSITORY / "sidecar")]
    # One core per process is what small containers have; a fault file can say otherwise.
    return {**inherited, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def _entering(cgroup: Cgroup | None, command: Sequence[str]) -> list[str]:
    """The command, started by a shell that first joins the cgroup."""
    if cgroup is None:
        return list(command)
    joins = [f"echo $$ > {shlex.quote(str(entry))}" for entry in cgroup.entries]
    return ["/bin/sh", "-c", " && ".join([*joins, 'exec "$@"']), "sh", *command]
