"""Takes connections, holds them while no backend is there, and lets them through.

Not a byte is read from a connection before a backend has accepted it: what a client says waits in
the kernel meanwhile, which also slows it down. So any protocol passes, and nothing is ever sent
twice. Only to turn somebody away the gate looks whether he speaks HTTP/1.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import select
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from bottleneck_sidecar.gate.backend import Backend
from bottleneck_sidecar.gate.counts import Counts
from bottleneck_sidecar.gate.relay import relay

RETRY_SECONDS = 0.1
"""Time between two attempts to reach a backend while somebody waits for one: one attempt at a time,
however many wait."""

BACKLOG = 4096
"""Connections that the kernel takes before the gate does."""

PAUSE_SECONDS = 0.1
"""Rest after a connection could not be taken, for want of file descriptors."""

FAREWELL_SECONDS = 2.0
"""How long somebody who is turned away may take to read why."""

_HTTP = re.compile(rb"[A-Z]{3,16} [^ \r\n]+ HTTP/1\.[01]\r?\n")


@dataclass(frozen=True, slots=True)
class Limits:
    """``most_held`` connections without a backend at once, each for at most ``longest_hold``
    seconds; one that has said nothing yet counts as well."""

    most_held: int = 1000
    longest_hold: float = 120.0


class RefusedError(Exception):
    """A connection that is turned away; the text says why."""


class HungUpError(Exception):
    """The client has gone."""


@dataclass(eq=False, slots=True)
class _Waiting:
    client: socket.socket
    deadline: float
    turn: asyncio.Future[socket.socket | None] = field(repr=False)


class Gate:
    """One listener in front of one backend. ``log`` gets lines for people; ``changed`` is called
    when the first connection has to wait."""

    def __init__(
        self,
        backend: Backend,
        limits: Limits,
        log: Callable[[str], None],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.counts = Counts()
        self._backend, self._limits = backend, limits
        self._log, self._changed = log, changed
        self._tasks: set[asyncio.Task[None]] = set()
        self._silent = 0
        self._queue: deque[_Waiting] = deque()
        self._seeking: asyncio.Task[None] | None = None
        self._refused_unsaid = 0
        self._said_at = float("-inf")

    async def serve(self, listener: socket.socket) -> None:
        """Takes connections until it is cancelled."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        while True:
            try:
                client, _ = await loop.sock_accept(listener)
            except OSError as error:
                self._log(f"cannot take a connection: {error}")
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            self._take(client)

    def take_rest(self, listener: socket.socket) -> None:
        """Takes what the kernel has taken already, before the listener is closed."""
        with contextlib.suppress(BlockingIOError):
            while True:
                client, _ = listener.accept()
                client.setblocking(False)
                self._take(client)

    async def drained(self) -> None:
        """Returns when every connection is over."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _take(self, client: socket.socket) -> None:
        task = asyncio.create_task(self._look_after(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look_after(self, client: socket.socket) -> None:
        with client:
            try:
                if not await self._speaks(client):
                    return
                self.counts.arrived()
                try:
                    await relay(client, await self._find(client))
                finally:
                    self.counts.ended()
            except RefusedError as error:
                self._complain(str(error))
                await _turn_away(client, str(error))
            except HungUpError:
                return
            except OSError as error:
                self._log(f"a connection broke off: {error}")

    async def _speaks(self, client: socket.socket) -> bool:
        """Waits for the first byte: a probe that only connects must not wake a workload. Whether
        there is one."""
        if self._silent + self.counts.held >= self._limits.most_held:
            raise self._too_many()
        self._silent += 1
        try:
            async with asyncio.timeout(self._limits.longest_hold):
                while True:
                    try:
                        return bool(client.recv(1, socket.MSG_PEEK))
                    except BlockingIOError:
                        await _readable(client)
        except TimeoutError:
            return False
        finally:
            self._silent -= 1

    # -- a backend -------------------------------------------------------------------------------

    async def _find(self, client: socket.socket) -> socket.socket:
        """A connection to a backend, as soon as there is one. Raises RefusedError, HungUpError."""
        failed: OSError | None = None
        if self._seeking is None:
            try:
                return await self._backend.dial()
            except OSError as error:
                failed = error
        if self.counts.held + self._silent >= self._limits.most_held:
            raise self._too_many()
        deadline = asyncio.get_running_loop().time() + self._limits.longest_hold
        self.counts.hold(client)
        try:
            while True:
                found = await self._wait(client, deadline, failed)
                if found is not None:
                    return found
                try:
                    return await self._backend.dial()
                except OSError as error:
                    failed = error
        finally:
            self.counts.release(client)

    async def _wait(
        self, client: socket.socket, deadline: float, failed: OSError | None
    ) -> socket.socket | None:
        """Waits in the queue. None: others were let through, so it is worth a try."""
        waiting = _Waiting(client, deadline, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if self._seeking is None:
            self._log(f"no backend of {self._backend.name} answers ({failed}); holding")
            self._seeking = asyncio.create_task(self._seek())
            self._changed()
        return await waiting.turn

    async def _seek(self) -> None:
        """Tries to reach a backend until nobody waits for one."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        while self._queue:
            self._sort_out(clock())
            if not self._queue:
                break
            try:
                found = await self._backend.dial()
            except OSError:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self._let_through(found, clock() - begun)
            break
        self._seeking = None

    def _sort_out(self, now: float) -> None:
        """Ends the waits of those who have hung up and of those who waited for too long."""
        hung_up = select.poll()
        for waiting in self._queue:
            hung_up.register(waiting.client, select.POLLRDHUP)
        gone = {descriptor for descriptor, _ in hung_up.poll(0)}
        staying: deque[_Waiting] = deque()
        for waiting in self._queue:
            if waiting.turn.done():  # its task was cancelled
                continue
            if waiting.client.fileno() in gone:
                waiting.turn.set_exception(HungUpError())
            elif now >= waiting.deadline:
                waiting.turn.set_exception(self._too_long())
            else:
                staying.append(waiting)
        self._queue = staying

    def _let_through(self, found: socket.socket, seconds: float) -> None:
        """The first one gets the connection that was found; the others may try for themselves."""
        self._log(
            f"{self._backend.name} answers after {seconds:.1f} s; {len(self._queue)} were held"
        )
        queue, self._queue = self._queue, deque()
        given = False
        for waiting in queue:
            if not waiting.turn.done():
                waiting.turn.set_result(None if given else found)
                given = True
        if not given:
            found.close()

    # -- turning away ----------------------------------------------------------------------------

    def _too_many(self) -> RefusedError:
        return RefusedError(
            f"{self._limits.most_held} connections wait for {self._backend.name} already, "
            "the gate's limit (--most-held)"
        )

    def _too_long(self) -> RefusedError:
        return RefusedError(
            f"no backend of {self._backend.name} was ready within "
            f"{self._limits.longest_hold:g} s, the gate's limit (--longest-hold)"
        )

    def _complain(self, text: str) -> None:
        """At most a line a second, however many are turned away."""
        self.counts.refused()
        self._refused_unsaid += 1
        now = asyncio.get_running_loop().time()
        if now - self._said_at >= 1.0:
            self._log(f"turned away {self._refused_unsaid}: {text}")
            self._refused_unsaid, self._said_at = 0, now


async def _readable(client: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def mark() -> None:
        loop.remove_reader(client)
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(client, mark)
    try:
        await ready
    finally:
        loop.remove_reader(client)


async def _turn_away(client: socket.socket, why: str) -> None:
    """Says why to those who speak HTTP/1, and hangs up."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        async with asyncio.timeout(FAREWELL_SECONDS):
            said = await loop.sock_recv(client, 4096)
            if _HTTP.match(said):
                await loop.sock_sendall(client, _unavailable(why))
            client.shutdown(socket.SHUT_WR)
            # To close with something unread would take the answer away from him.
            while await loop.sock_recv(client, 65536):
                pass


def _unavailable(why: str) -> bytes:
    body = f"{why}\n".encode()
    return (
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Retry-After: 10\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    ) + body
