"""Many use a thing at once, until one changes it alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

SLICE_SECONDS = 0.5
"""Time between two calls of ``meanwhile`` while somebody waits to be alone."""

Value = TypeVar("Value")


class BusyError(RuntimeError):
    """There was no moment in which nobody used it."""


class SharedLock:
    """Lets any number of users in; whoever is to be ``alone`` waits until none is inside.

    As long as he only waits, users come and go as they like; when the last one leaves, the lock is
    closed for him at once, so that others who come back to back cannot take the moment away.
    """

    def __init__(self) -> None:
        self._one = threading.Lock()
        """Held by whoever is or waits to be alone."""
        self._moved = threading.Condition()
        self._inside: dict[int, int] = {}
        """Thread → how many times it has come in."""
        self._awaited = False
        self._closed = False

    def enter(self) -> int:
        """Comes in; waits while the lock is closed. The answer is to be handed to ``leave``."""
        thread = threading.get_ident()
        with self._moved:
            # Who is inside already gets in again, whatever holds: else he would never leave. That
            # is a nested use, or another coroutine of the same event loop.
            while self._closed and thread not in self._inside:
                self._moved.wait()
            self._inside[thread] = self._inside.get(thread, 0) + 1
        return thread

    def leave(self, thread: int) -> None:
        """Goes out, in whatever thread."""
        with self._moved:
            self._inside[thread] -= 1
            if not self._inside[thread]:
                del self._inside[thread]
            if not self._inside and self._awaited:
                self._closed = True
                self._moved.notify_all()

    def alone(
        self,
        work: Callable[[], Value],
        patience: float,
        hold: float,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Value:
        """What ``work`` returns, done while nobody is inside; users who come then wait.

        For ``patience`` seconds it waits for such a moment and holds nobody up; then it lets nobody
        new in for up to ``hold`` seconds, until those inside have left. ``meanwhile`` is called
        every half second. Raises ``BusyError`` if even so somebody stayed inside, and what
        ``work`` raises.
        """
        with self._one:
            with self._moved:
                self._awaited = True
            try:
                if not self._emptied(patience, meanwhile):
                    with self._moved:
                        self._closed = True
                    if not self._emptied(hold, meanwhile):
                        raise BusyError(
                            f"it was in use without a pause for {patience:g} s, and then somebody "
                            f"used it for longer than {hold:g} s"
                        )
                return work()
            finally:
                with self._moved:
                    self._awaited = self._closed = False
                    self._moved.notify_all()

    def _emptied(self, seconds: float, meanwhile: Callable[[], None]) -> bool:
        """Waits so long until nobody is inside; then the lock is closed."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            with self._moved:
                if self._moved.wait_for(
                    lambda: not self._inside, max(0.0, min(left, SLICE_SECONDS))
                ):
                    self._closed = True
                    return True
            if left <= 0:
                return False
            meanwhile()
