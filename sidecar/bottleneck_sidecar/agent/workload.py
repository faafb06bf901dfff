"""Finds the workload's cgroup from the agent, for pods whose processes do not use the SDK.

Works only in a pod with ``shareProcessNamespace: true``, and only with processes of the agent's
own user (the kernel guards ``/proc/PID/root``). Such a pod is told by its process 1, ``pause``:
with the node's processes in sight nothing is taken, nor ever the agent's own cgroup.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from bottleneck_sidecar import cgroup
from bottleneck_sidecar.wire import Container

SCAN_SECONDS = 10.0
"""Least time between two searches through /proc."""


class Finder:
    """Follows the process that has used most CPU time among those outside the agent's cgroup."""

    def __init__(
        self,
        proc: str = "/proc",
        root: str = cgroup.ROOT,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._proc = proc
        self._root = root
        self._monotonic = monotonic
        self._scanned_at = float("-inf")
        self._pid: int | None = None

    def read(self) -> Container | None:
        """The figures of the workload's container; None where it cannot be found."""
        now = self._monotonic()
        if now - self._scanned_at >= SCAN_SECONDS:
            self._scanned_at = now
            self._pid = self._find()
        if self._pid is None:
            return None
        found = self._cgroup(self._pid)
        if found is None:
            self._scanned_at = float("-inf")  # it has ended: search again next time
        return cgroup.read(found, self._cpus(self._pid))

    def _find(self) -> int | None:
        own = cgroup.locate(self._root, os.path.join(self._proc, "self"))
        own_identity = own.identity if own is not None else None
        if own_identity is None or self._name("1") != "pause":
            return None
        best: tuple[float, int] | None = None
        for name in os.listdir(self._proc):
            if not name.isdecimal() or self._name(name) in (None, "pause"):
                continue
            found = self._cgroup(int(name))
            identity = found.identity if found is not None else None
            if identity is None or identity == own_identity:
                continue
            ticks = self._ticks(name)
            if best is None or ticks > best[0]:
                best = ticks, int(name)
        return best[1] if best is not None else None

    def _cgroup(self, pid: int) -> cgroup.Cgroup | None:
        process = os.path.join(self._proc, str(pid))
        return cgroup.locate(f"{process}/root{self._root}", process)

    def _name(self, pid: str) -> str | None:
        try:
            return Path(self._proc, pid, "comm").read_text().strip()
        except (OSError, ValueError):
            return None

    def _ticks(self, pid: str) -> float:
        try:
            # The name in parentheses may contain anything, also spaces and parentheses.
            fields = Path(self._proc, pid, "stat").read_text().rpartition(")")[2].split()
            return float(fields[11]) + float(fields[12])
        except (OSError, ValueError, IndexError):
            return 0.0

    def _cpus(self, pid: int) -> int | None:
        try:
            return len(os.sched_getaffinity(pid))
        except OSError:
            return None
