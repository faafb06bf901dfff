"""When a line is due: after the interval, and at once when there is news."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bottleneck_sidecar.agent import figures
from bottleneck_sidecar.agent.state import State
from bottleneck_sidecar.wire import Sample

MAX_STREAMS = 8
"""An operator, its successor, and some people with ``kubectl bottleneck``."""

MOVE_GAP_SECONDS = 1.0
"""Least time between two lines because a figure moved."""

ACKNOWLEDGE_GAP_SECONDS = 0.05
"""Least time between two lines because of an acknowledgement."""


class Hub:
    """Wakes the streams that are open. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._streams: set[Stream] = set()

    def __len__(self) -> int:
        """Number of readers; a recorder is none."""
        return sum(not stream.recorder for stream in list(self._streams))

    @contextmanager
    def stream(self, recorder: bool = False) -> Iterator[Stream | None]:
        """A place among the streams; None if all are taken. A recorder always has one."""
        with self._lock:
            stream = Stream(recorder) if recorder or len(self) < MAX_STREAMS else None
            if stream is not None:
                self._streams.add(stream)
        try:
            yield stream
        finally:
            if stream is not None:
                with self._lock:
                    self._streams.discard(stream)
                    os.close(stream.wakeup)

    def reported(self, acknowledged: bool) -> None:
        """A report has come in; ``acknowledged`` if with a new acknowledgement."""
        with self._lock:
            for stream in self._streams:
                stream.changed = True
                stream.acknowledged = stream.acknowledged or acknowledged
                # Within the first second after a line the stream looks for itself when it is over.
                if acknowledged or time.monotonic() >= stream.sent_at + MOVE_GAP_SECONDS:
                    os.eventfd_write(stream.wakeup, 1)


class Stream:
    """What a stream has been told since it last looked."""

    def __init__(self, recorder: bool = False) -> None:
        self.recorder = recorder
        self.wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.changed = False
        self.acknowledged = False
        self.sent_at = float("-inf")

    def woken(self) -> None:
        """Takes note of a wake-up."""
        os.eventfd_read(self.wakeup)


class Lines:
    """The lines for one stream."""

    def __init__(self, state: State, stream: Stream, interval: float) -> None:
        self.stream = stream
        self._state = state
        self._interval = interval
        self._last: Sample | None = None
        self._window: figures.Figures = {}
        self._sequence = 0

    def take(self) -> bytes:
        """The next line, without its end."""
        self._sequence += 1
        stream = self.stream
        stream.acknowledged = stream.changed = False
        sample, line = self._state.line(self._sequence)
        stream.sent_at = time.monotonic()
        if self._last is not None:
            self._window = figures.figures(self._last, sample)
        self._last = sample
        return line

    def due(self) -> bool:
        """Whether the next line should be taken now."""
        stream = self.stream
        since = time.monotonic() - stream.sent_at
        if since >= self._interval or (stream.acknowledged and since >= ACKNOWLEDGE_GAP_SECONDS):
            return True
        if stream.changed and since >= MOVE_GAP_SECONDS and self._last is not None:
            stream.changed = False
            return figures.moved(self._window, figures.figures(self._last, self._state.sample()))
        return False

    def patience(self) -> float:
        """Seconds to wait at most before asking again whether a line is due; less if woken."""
        since = time.monotonic() - self.stream.sent_at
        until = [self._interval - since]
        if self.stream.acknowledged:
            until.append(ACKNOWLEDGE_GAP_SECONDS - since)
        if since < MOVE_GAP_SECONDS:
            until.append(MOVE_GAP_SECONDS - since)
        return max(0.0, min(until))
