"""What a gate counts."""

from __future__ import annotations

import time
from collections.abc import Callable

from bottleneck_sidecar import proc
from bottleneck_sidecar.client import new_epoch
from bottleneck_sidecar.wire import Gate


class Counts:
    """Not thread-safe: for the event loop's thread alone."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._epoch = new_epoch()
        self._started_at = proc.started_at()
        self._idle_since = monotonic()
        self._holds: dict[object, float] = {}
        self._longest = self._hold_seconds = 0.0
        self._arrivals = self._held_before = self._refused = self._in_flight = 0

    @property
    def held(self) -> int:
        """Connections that wait for a backend."""
        return len(self._holds)

    @property
    def in_flight(self) -> int:
        """Connections that have one."""
        return self._in_flight

    def arrived(self) -> None:
        """A connection has said something; from now on it is in flight."""
        self._arrivals += 1
        self._in_flight += 1

    def hold(self, connection: object) -> None:
        """It has to wait."""
        self._in_flight -= 1
        self._held_before += 1
        self._holds[connection] = self._monotonic()

    def release(self, connection: object) -> None:
        """Its wait is over; it is in flight again, if only to be turned away."""
        seconds = self._monotonic() - self._holds.pop(connection)
        self._hold_seconds += seconds
        self._longest = max(self._longest, seconds)
        self._in_flight += 1

    def refused(self) -> None:
        """It is turned away."""
        self._refused += 1

    def ended(self) -> None:
        """It is over."""
        self._in_flight -= 1
        if not self._in_flight and not self._holds:
            self._idle_since = self._monotonic()

    def figures(self) -> Gate:
        """All that is known now."""
        now = self._monotonic()
        waiting = [now - since for since in self._holds.values()]
        busy = bool(self._in_flight or waiting)
        return Gate(
            epoch=self._epoch,
            arrivals=self._arrivals,
            held=len(waiting),
            in_flight=self._in_flight,
            holds=self._held_before,
            refused=self._refused,
            hold_seconds=round(self._hold_seconds + sum(waiting), 3),
            longest_hold_seconds=round(max([self._longest, *waiting]), 3),
            idle_seconds=0.0 if busy else round(now - self._idle_since, 3),
            started_at=self._started_at,
        )
