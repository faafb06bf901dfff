"""The way from the workload to the agent: datagrams that are sent or dropped, never waited for.

Counters are totals, so a dropped datagram loses resolution and no truth.
"""

from __future__ import annotations

import os
import socket
import time

from bottleneck_sidecar import cgroup, gpu, wire
from bottleneck_sidecar.wire import Container, Gpu, InferenceServer, Report, TrainingRank

SOCKET_VARIABLE = "BOTTLENECK_SOCKET"
GPU_VARIABLE = "BOTTLENECK_GPU"
"""``all``: this process owns every device that NVML shows it; ``off``: read none."""

REPORT_SECONDS = 0.5
"""Least time between two reports of a process, but for acknowledgements."""

CONTAINER_SECONDS = 1.0
"""Least time between two readings of the cgroup files."""


class Client:
    """Sends reports to the agent's socket. ``sent`` and ``dropped`` count what became of them.

    ``path`` defaults to the environment's BOTTLENECK_SOCKET; without either nothing is ever sent.
    """

    def __init__(self, path: str | None = None, cgroup_root: str = cgroup.ROOT) -> None:
        self.path = path or os.environ.get(SOCKET_VARIABLE) or None
        self.sent = 0
        self.dropped = 0
        self._socket: socket.socket | None = None
        self._watcher: gpu.Watcher | None = None
        self._cgroup = cgroup.locate(cgroup_root) if self.path else None
        self._container_at = float("-inf")

    @property
    def enabled(self) -> bool:
        """Whether there is anywhere to send to."""
        return self.path is not None

    def watch_gpus(self, uuids: list[str] | None = None) -> None:
        """Adds these devices (all visible ones by default) to the reports, read in a thread."""
        if self.enabled and self._watcher is None and os.environ.get(GPU_VARIABLE) != "off":
            self._watcher = gpu.Watcher(uuids)

    def send(
        self, training: TrainingRank | None = None, inference: InferenceServer | None = None
    ) -> bool:
        """Sends one report with what is known of container and GPUs; True if the agent has it.

        Never waits and never raises: whatever goes wrong, the report is dropped and counted.
        """
        if self.path is None:
            return False
        try:
            report = Report(
                wire.VERSION, time.time(), training, inference, self._container(), self._gpus()
            )
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            # Addressed each time instead of connected once: the agent may have been restarted.
            self._socket.sendto(wire.encode(report), self.path)
        except (OSError, ValueError, TypeError):
            self.dropped += 1
            return False
        self.sent += 1
        return True

    def close(self) -> None:
        """Gives the socket and the GPU thread back. The client can still be used afterwards."""
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _container(self) -> Container | None:
        now = time.monotonic()
        if now - self._container_at < CONTAINER_SECONDS:
            return None
        self._container_at = now
        return cgroup.read(self._cgroup, cgroup.own_cpus())

    def _gpus(self) -> list[Gpu] | None:
        return None if self._watcher is None else self._watcher.latest


def new_epoch() -> str:
    """A name for one life of a counting process."""
    return os.urandom(8).hex()
