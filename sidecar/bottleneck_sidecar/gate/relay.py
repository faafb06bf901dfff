"""Bytes from one connection to the other, both ways, none of them looked at."""

from __future__ import annotations

import asyncio
import socket

LINGER_SECONDS = 5.0
"""How long a client may take to hang up after its backend did. Many leave a connection that the
server has closed in their pool, and would keep it for ever."""

KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 6))
"""A peer whose node is gone says no goodbye; after two minutes it does not count any more."""


async def relay(client: socket.socket, backend: socket.socket) -> None:
    """Hands on what either says until both are through. Takes both sockets over; raises OSError
    where they cannot be used."""
    loop = asyncio.get_running_loop()
    left, right = _Side(loop.create_future()), _Side(loop.create_future())
    left.other, right.other = right, left
    try:
        for made in (client, backend):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in KEEPALIVE:
                made.setsockopt(socket.IPPROTO_TCP, option, value)
        await loop.create_connection(lambda: right, sock=backend)
        await loop.connect_accepted_socket(lambda: left, client)
        await right.through
        while right.open or left.open:
            await asyncio.wait([left.closed, right.closed], timeout=LINGER_SECONDS)
            if not left.unsent:
                break
    finally:
        for side, made in ((left, client), (right, backend)):
            if side.transport is None:
                made.close()
            else:
                side.transport.abort()


class _Side(asyncio.Protocol):
    """One of the two connections. ``through`` is done when it has said all that it will say."""

    other: _Side

    def __init__(self, through: asyncio.Future[None]) -> None:
        self.through = through
        self.closed: asyncio.Future[None] = through.get_loop().create_future()
        self.transport: asyncio.Transport | None = None

    @property
    def open(self) -> bool:
        return not self.closed.done()

    @property
    def unsent(self) -> int:
        """Bytes for this side that it has not taken yet."""
        return self.transport.get_write_buffer_size() if self.transport and self.open else 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.other.transport is None:
            transport.pause_reading()  # until there is somebody to tell it to
        else:
            self.other.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        assert self.other.transport is not None
        self.other.transport.write(data)

    def pause_writing(self) -> None:
        assert self.other.transport is not None
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        assert self.other.transport is not None
        self.other.transport.resume_reading()

    def eof_received(self) -> bool:
        self._is_through()
        other = self.other.transport
        if other is not None and not other.is_closing():
            other.write_eof()
        return not self.other.through.done()  # the other one may have more to say

    def connection_lost(self, error: Exception | None) -> None:
        self._is_through()
        if not self.closed.done():
            self.closed.set_result(None)
        if self.other.transport is not None:
            self.other.transport.close()  # after what it has still to be sent

    def _is_through(self) -> None:
        if not self.through.done():
            self.through.set_result(None)
