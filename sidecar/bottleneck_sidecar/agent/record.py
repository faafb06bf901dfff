"""``--record``: what the streams tell, written to a file as JSON Lines.

The first line is the header, every other one ``{"received": SECONDS, "sample": {...}}``. One write
for each line: a reader never sees half of one, but for the last after a crash. A disk that is full
or slow holds up this thread alone; it says so once, and goes on trying.
"""

from __future__ import annotations

import json
import os
import select
import stat
import sys
import threading
import time

from bottleneck_sidecar import VERSION
from bottleneck_sidecar.agent.lines import Hub, Lines
from bottleneck_sidecar.agent.state import State

RECORDING = 1
"""Version of the recording format."""

END_SECONDS = 2.0
"""Longest time that the agent's end waits for the last line."""


class Recorder:
    """Records ``state`` to ``path`` in a thread, at most ``max_bytes`` bytes. A file that is there
    already is kept as ``path`` + ``.1``: it may be what the agent saw before it was restarted."""

    def __init__(self, path: str, state: State, hub: Hub, interval: float, max_bytes: int) -> None:
        self._path = path
        self._state = state
        self._hub = hub
        self._interval = interval
        self._max_bytes = max_bytes
        self._size = 0
        self._complained = False
        self._ended = False
        self._end, self._ending = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Writes a last line, if the disk takes it in time."""
        os.write(self._ending, b"e")
        self._thread.join(END_SECONDS)

    def _run(self) -> None:
        try:
            descriptor = self._open()
        except (OSError, ValueError) as error:
            self._complain(f"nothing is recorded: cannot write {self._path}: {_reason(error)}")
            return
        try:
            with self._hub.stream(recorder=True) as stream:
                assert stream is not None
                poller = select.poll()
                poller.register(stream.wakeup, select.POLLIN)
                poller.register(self._end, select.POLLIN)
                lines = Lines(self._state, stream, self._interval)
                if not self._write(descriptor, self._header()):
                    return  # a recording without a header is none
                while self._write(descriptor, _entry(lines.take())) and not self._ended:
                    while not (self._ended or lines.due()):
                        for ready, _ in poller.poll(lines.patience() * 1000 + 1):
                            if ready == stream.wakeup:
                                stream.woken()
                            else:
                                self._ended = True
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        os.makedirs(os.path.dirname(self._path) or ".", exist_ok=True)
        try:
            found = os.stat(self._path)
            if stat.S_ISREG(found.st_mode) and found.st_size > 0:
                os.replace(self._path, f"{self._path}.1")
        except FileNotFoundError:
            pass
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.open(self._path, flags, 0o644)

    def _header(self) -> bytes:
        header = {
            "recording": RECORDING,
            "createdAt": round(time.time(), 3),
            "by": f"bottleneck-agent {VERSION}",
            "pods": [self._state.identity.pod],
        }
        return json.dumps(header).encode() + b"\n"

    def _write(self, descriptor: int, line: bytes) -> bool:
        """Appends a line; False when there is to be no further one."""
        if self._size + len(line) > self._max_bytes:
            self._complain(
                f"the recording {self._path} has reached {self._max_bytes / 2**20:.3g} MiB and "
                "ends; for more give a greater --record-max-mb"
            )
            return False
        try:
            written = 0
            while written < len(line):
                written += os.write(descriptor, line[written:])
            self._size += len(line)
        except OSError as error:
            if not self._complained:
                self._complained = True
                self._complain(
                    f"cannot record to {self._path}: {_reason(error)}; the agent goes on"
                )
            try:
                os.ftruncate(descriptor, self._size)  # no half line before the next one
            except OSError:
                return self._size > 0
            return self._size > 0
        return True

    def _complain(self, text: str) -> None:
        print(f"bottleneck-agent: {text}", file=sys.stderr, flush=True)


def _entry(line: bytes) -> bytes:
    return b'{"received":%.3f,"sample":%b}\n' % (time.time(), line)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
