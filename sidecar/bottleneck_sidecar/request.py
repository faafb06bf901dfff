"""One request on its way through a server."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bottleneck_sidecar.serving import ServerMonitor


class Request:
    """One request on its way. Its methods can be called from any thread, and more than once."""

    __slots__ = (
        "_alone",
        "_depending",
        "_marked",
        "_monitor",
        "arrived",
        "called",
        "ended",
        "service_ended",
        "service_started",
        "waited",
    )

    def __init__(self, monitor: ServerMonitor, arrived: float) -> None:
        self._monitor = monitor
        self.arrived = arrived
        self.service_started: float | None = None
        self.service_ended: float | None = None
        self.ended = False
        self.waited = [0.0, 0.0, 0.0]
        """Seconds in which it waited for any dependency: before, within and after service."""
        self.called: dict[str, float] = {}
        """Seconds by dependency. Calls side by side count for each, and once in ``waited``."""
        self._alone = False
        """Whether the model works on it outside of ``service()``: then it is its own batch."""
        self._depending = 0
        self._marked = 0.0

    def start_service(self) -> None:
        """The model begins with this request: it is no longer queued."""
        self._monitor._start_service((self,), alone=True)

    def end_service(self) -> None:
        """The model is done with this request."""
        self._monitor._end_service((self,))

    @contextmanager
    def dependency(self, name: str) -> Iterator[None]:
        """The time in which this request waits for another service, a database, a cache."""
        with self._monitor.dependency(name, (self,)):
            yield

    def end(self, error: bool = False) -> None:
        """The last byte has been sent, or the request has failed on the server's side."""
        self._monitor._end(self, error)

    @property
    def _queued(self) -> bool:
        return self.service_started is None and not self.ended

    def _settle(self, now: float) -> None:
        """Puts the waiting for dependencies until now where it belongs."""
        if self._depending:
            stage = 0 if self.service_started is None else 1 if self.service_ended is None else 2
            self.waited[stage] += now - self._marked
        self._marked = now


current_request: contextvars.ContextVar[Request | None] = contextvars.ContextVar(
    "bottleneck_request", default=None
)
"""The request that the present context works on."""


def present() -> Sequence[Request]:
    """The request of the present context, or nothing."""
    request = current_request.get()
    return () if request is None else (request,)
