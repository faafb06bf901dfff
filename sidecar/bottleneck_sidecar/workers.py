"""CPU time and run-queue time of loader workers, the ended ones included.

The processes are read while they live; the last time when their loader is about to end them, since
nothing is left of a process in /proc once it has been waited for.
"""

from __future__ import annotations

import time
import weakref
from dataclasses import dataclass
from typing import Any

from bottleneck_sidecar import proc

LOOK_SECONDS = 0.4
"""Least time between two looks at the workers (a little less than between two reports)."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Over all workers: lifetime, CPU time, and time that the main threads were ready to run
    without getting a CPU, in seconds. None while there has never been a worker."""

    seconds: float | None = None
    cpu_seconds: float | None = None
    run_queue_seconds: float | None = None


class _Worker:
    __slots__ = ("begun", "cpu", "run_queue", "seconds", "started")

    def __init__(self, begun: float, started: int) -> None:
        self.begun = begun
        self.started = started
        self.seconds = self.cpu = 0.0
        self.run_queue: float | None = 0.0


class LoaderWorkers:
    """The workers of the iterators that were handed to ``watch``. Holds no reference to them: a
    loader that is thrown away must take its workers with it."""

    def __init__(self, directory: str = "/proc") -> None:
        self._directory = directory
        self._living: dict[int, _Worker] = {}
        self._total = _Worker(0.0, 0)
        self._any = False
        self._again_at = float("-inf")
        _everyone.add(self)

    def watch(self, iterator: Any) -> None:
        """Counts the workers of a DataLoader's iterator from now on; nothing for one without."""
        now = time.monotonic()
        for pid in _pids(iterator):
            found = proc.process(f"{self._directory}/{pid}")
            if found is not None and pid not in self._living:
                self._living[pid] = _Worker(now, found.started)
                self._any = True

    def last_look(self, iterator: Any) -> None:
        """The workers of this iterator are about to end."""
        now = time.monotonic()
        for pid in _pids(iterator):
            worker = self._living.get(pid)
            if worker is not None:
                self._look(pid, worker, now)
                self._end(pid)

    def read(self) -> Totals:
        """The totals now, or a moment ago."""
        if not self._any:
            return Totals()
        begun = time.monotonic()
        if begun >= self._again_at:
            for pid, worker in list(self._living.items()):
                if not self._look(pid, worker, time.monotonic()):
                    self._end(pid)
            cost = time.monotonic() - begun
            self._again_at = begun + max(LOOK_SECONDS, proc.THRIFT * cost)
        everyone = [self._total, *list(self._living.values())]
        waits = [each.run_queue for each in everyone]
        return Totals(
            sum(each.seconds for each in everyone),
            sum(each.cpu for each in everyone),
            None if None in waits else sum(wait for wait in waits if wait is not None),
        )

    def _look(self, pid: int, worker: _Worker, now: float) -> bool:
        """Reads one worker; False if it has ended."""
        directory = f"{self._directory}/{pid}"
        found = proc.process(directory)
        if found is None or found.started != worker.started:
            return False
        worker.seconds = now - worker.begun
        worker.cpu = max(worker.cpu, found.cpu_seconds)
        worker.run_queue = proc.run_queue_seconds(directory)
        return found.state not in "ZX"

    def _end(self, pid: int) -> None:
        # Taken out first: a loader can be collected, and call this, in the middle of anything.
        worker = self._living.pop(pid, None)
        if worker is None:
            return
        total = self._total
        total.seconds += worker.seconds
        total.cpu += worker.cpu
        if worker.run_queue is None or total.run_queue is None:
            total.run_queue = None
        else:
            total.run_queue += worker.run_queue


def last_look(iterator: Any) -> None:
    """To be called before an iterator ends its workers, whoever watches them."""
    for each in list(_everyone):
        each.last_look(iterator)


def forget() -> None:
    """In a forked child: the workers are the parent's."""
    _everyone.clear()


def _pids(iterator: Any) -> list[int]:
    processes = getattr(iterator, "_workers", None) or ()
    return [each.pid for each in processes if isinstance(getattr(each, "pid", None), int)]


_everyone: weakref.WeakSet[LoaderWorkers] = weakref.WeakSet()
