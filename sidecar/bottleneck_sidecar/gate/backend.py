"""The way to the workload: a name is looked up, one of its addresses is dialled."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

RESOLVED_SECONDS = 5.0
"""How long an answer of the name service is used. Whatever cannot be dialled is asked for anew."""

DIAL_SECONDS = 1.0
"""Longest wait for one address or one answer of the name service. Some networks drop what goes to a
Service without endpoints instead of refusing it."""

Address = tuple[Any, ...]
"""As the ``socket`` module has it: host and port first."""


class Backend:
    """``host:port``: a Service's name, or one that resolves to the pods themselves. ``resolve`` is
    asked for the addresses."""

    def __init__(
        self,
        host: str,
        port: int,
        resolve: Callable[[], Awaitable[Sequence[tuple[int, Address]]]] | None = None,
    ) -> None:
        self.name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._host, self._port = host, port
        self._resolve = resolve or self._look_up
        self._known: Sequence[tuple[int, Address]] = ()
        self._known_at = float("-inf")
        self._turn = itertools.count()

    async def dial(self) -> socket.socket:
        """A connection that a backend has accepted. Raises OSError where there is none."""
        now = asyncio.get_running_loop().time()
        if now - self._known_at > RESOLVED_SECONDS:
            self._known = await asyncio.wait_for(self._resolve(), DIAL_SECONDS)
            self._known_at = now
        if not self._known:
            self.forget()
            raise ConnectionRefusedError(f"{self.name} has no address")
        family, address = self._known[next(self._turn) % len(self._known)]
        try:
            return await _connected(family, address)
        except OSError:
            self.forget()
            raise

    def forget(self) -> None:
        """The addresses are asked for anew before the next attempt."""
        self._known_at = float("-inf")

    async def _look_up(self) -> Sequence[tuple[int, Address]]:
        found = await asyncio.get_running_loop().getaddrinfo(
            self._host, self._port, type=socket.SOCK_STREAM
        )
        return [(int(family), address) for family, _, _, _, address in found]


async def _connected(family: int, address: Address) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        async with asyncio.timeout(DIAL_SECONDS):
            await asyncio.get_running_loop().sock_connect(made, address)
    except BaseException:
        made.close()
        raise
    return made
