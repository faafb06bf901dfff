"""A clock that runs ``factor`` times as fast as the world's.

An action takes most of a minute: windows have to fill, caches to warm, figures to come. None of the
operator's constants is changed for that; the clock of its process runs faster instead, and so does
the one of the fake sidecars. Both begin at the same moment.
"""

from __future__ import annotations

import mmap
import selectors
import struct
import time
from dataclasses import dataclass
from pathlib import Path

_wall, _monotonic, _gettime = time.time, time.monotonic, time.clock_gettime


@dataclass(frozen=True)
class Clock:
    """``began`` is the moment (real, seconds since the Unix epoch) at which both clocks agree."""

    began: float
    factor: float

    def now(self) -> float:
        """Seconds since the Unix epoch on the fast clock."""
        return self.began + (_wall() - self.began) * self.factor

    def real(self, seconds: float) -> float:
        """How long ``seconds`` of the fast clock really are."""
        return seconds / self.factor


class Skew:
    """Seconds by which a process's wall clock is off: a file that both sides have mapped."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(struct.pack("d", 0.0))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8)

    def get(self) -> float:
        """Seconds."""
        return float(struct.unpack("d", self._map[:8])[0])

    def set(self, seconds: float) -> None:
        """From now on."""
        self._map[:8] = struct.pack("d", seconds)


def install(clock: Clock, skew: Skew) -> None:
    """Makes this whole process live by the fast clock: ``time.time`` (and the skew on top),
    ``time.monotonic`` and with it every timer of asyncio, and ``time.clock_gettime``."""
    start = _monotonic()
    time.time = lambda: clock.now() + skew.get()
    time.monotonic = lambda: start + (_monotonic() - start) * clock.factor
    # Only its differences matter to anybody.
    time.clock_gettime = lambda which: _gettime(which) * clock.factor

    class Selector(selectors.EpollSelector):
        def select(self, timeout: float | None = None):  # type: ignore[no-untyped-def]
            return super().select(timeout / clock.factor if timeout else timeout)

    selectors.DefaultSelector = Selector  # type: ignore[misc]
