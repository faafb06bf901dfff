"""How a server forms batches: what it declares, and where it reads the limits that are in force."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import NamedTuple

MAX_SIZE, DELAY = "batch.maxSize", "batch.delayMilliseconds"


class Limits(NamedTuple):
    """The two limits of one batch, as they were at one time. None: not declared."""

    max_size: int | None
    delay_seconds: float | None


class Batching:
    """The server forms batches of at most ``max_size`` requests and lets the first one wait at
    most ``delay_seconds`` for others to join it. What is not given is not reported.

    ``adjustable`` says that the server reads the limits from here each time it begins a batch;
    then those that were given can be changed while it runs. Without it this is a declaration.
    Limits that make no sense raise ``ValueError`` or ``TypeError``.
    """

    def __init__(
        self,
        max_size: int | None = None,
        delay_seconds: float | None = None,
        *,
        adjustable: bool = False,
    ) -> None:
        if max_size is not None and operator.index(max_size) < 1:
            raise ValueError(f"max_size is at least 1, not {max_size}")
        if delay_seconds is not None and not (math.isfinite(delay_seconds) and delay_seconds >= 0):
            raise ValueError(f"delay_seconds is a number from 0 on, not {delay_seconds}")
        if adjustable and max_size is None and delay_seconds is None:
            raise ValueError("write what is adjustable: Batching(max_size=8, adjustable=True)")
        self.adjustable = adjustable
        self._limits = Limits(max_size, delay_seconds)

    @property
    def limits(self) -> Limits:
        """Both limits. Whoever reads ``max_size`` and then ``delay_seconds`` may get the one from
        before a change and the other from after it; here they belong together."""
        return self._limits  # one object, replaced as a whole: no lock is needed

    @property
    def max_size(self) -> int | None:
        """Most requests in one batch."""
        return self._limits.max_size

    @property
    def delay_seconds(self) -> float | None:
        """Longest time that the first request of a batch waits for others."""
        return self._limits.delay_seconds

    def knobs(self) -> dict[str, float | str | bool]:
        """As knobs in force; what was not given is absent."""
        size, delay = self._limits
        found: dict[str, float | str | bool] = {}
        if size is not None:
            found[MAX_SIZE] = float(size)
        if delay is not None:
            found[DELAY] = round(delay * 1000, 6)
        return found

    def settable(self) -> list[str]:
        """The knobs that can be changed."""
        return list(self.knobs()) if self.adjustable else []

    def refusal(self, settings: Mapping[str, int | str]) -> str:
        """Why these knobs cannot be changed, and what to write; empty if they can."""
        missing = [name for name in settings if name not in self.settable()]
        if not missing:
            return ""
        size, delay = self._limits
        return (
            f"{', '.join(missing)} cannot be changed here: write "
            f"Batching(max_size={8 if size is None else size}, "
            f"delay_seconds={0.02 if delay is None else delay}, adjustable=True) "
            "where the server reads its limits from that object for each batch, as Batcher does"
        )

    def change(self, settings: Mapping[str, int | str]) -> bool:
        """Puts these knobs in force, for ``refusal`` had nothing against them; False if they
        were."""
        in_force = self.knobs()
        news = {name: value for name, value in settings.items() if in_force.get(name) != value}
        size, delay = self._limits
        if MAX_SIZE in news:
            size = int(news[MAX_SIZE])
        if DELAY in news:
            delay = int(news[DELAY]) / 1000
        self._limits = Limits(size, delay)
        return bool(news)
