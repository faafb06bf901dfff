"""Figures that Linux keeps in /proc about processes and threads.

What a kernel or a sandbox does not tell is ``None``. Nothing here raises.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

MAX_BYTES = 64 * 1024

TICKS_PER_SECOND: int = os.sysconf("SC_CLK_TCK")
"""Unit of the times in ``/proc/PID/stat`` and ``/proc/stat``."""

THRIFT = 500.0
"""What takes t seconds to read is read again after ``THRIFT`` × t: at most 0.2% of the time goes
into it, however many threads or processes there are."""


def text(directory: str | None, name: str) -> str | None:
    """The content of a small file; None where it cannot be read."""
    if directory is None:
        return None
    try:
        # Without the layers of open(): a training step waits for this, for a dozen files.
        descriptor = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        return os.read(descriptor, MAX_BYTES).decode("ascii", "replace")
    except (OSError, ValueError):
        return None
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Process:
    """A process as ``/proc/PID/stat`` has it. ``started`` is in ticks since the machine's start and
    tells two processes apart that had one number after another."""

    state: str
    started: int
    cpu_seconds: float


def process(directory: str) -> Process | None:
    """The process whose directory of /proc this is, all its threads together."""
    # The name in parentheses may contain anything, also spaces and parentheses.
    fields = (text(directory, "stat") or "").rpartition(")")[2].split()
    try:
        ticks = int(fields[11]) + int(fields[12])
        return Process(fields[0], int(fields[19]), ticks / TICKS_PER_SECOND)
    except (ValueError, IndexError):
        return None


def started_at(directory: str = "/proc/self") -> float | None:
    """When the process began, seconds since the Unix epoch."""
    found = process(directory)
    if found is None:
        return None
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - found.started / TICKS_PER_SECOND
    return time.time() - max(0.0, age)


def run_queue_seconds(directory: str) -> float | None:
    """How long the thread of this directory was ready to run and got no CPU (of a process's
    directory: its main thread)."""
    try:
        return int((text(directory, "schedstat") or "").split()[1]) / 1e9
    except (ValueError, IndexError):
        return None


class ThreadsRunQueue:
    """The sum of ``run_queue_seconds`` over all threads of this process, those that ended included:
    a counter, where the sum over the living would go back."""

    def __init__(self, directory: str = "/proc/self/task") -> None:
        self._directory = directory
        self._living: dict[str, float] = {}
        self._ended = 0.0
        self._told: float | None = None
        self._again_at = float("-inf")

    def read(self) -> float | None:
        """The figure now, or a moment ago where reading it takes long."""
        begun = time.monotonic()
        if begun >= self._again_at:
            self._look()
            self._again_at = begun + THRIFT * (time.monotonic() - begun)
        return self._told

    def _look(self) -> None:
        try:
            names = os.listdir(self._directory)
        except OSError:
            return
        found: dict[str, float] = {}
        for name in names:
            seconds = run_queue_seconds(f"{self._directory}/{name}")
            if seconds is not None:
                found[name] = seconds
        if not found:
            return
        for name, seconds in self._living.items():
            if found.get(name, -1.0) < seconds:  # ended, or its number is another thread's now
                self._ended += seconds
        self._living = found
        self._told = self._ended + sum(found.values())
