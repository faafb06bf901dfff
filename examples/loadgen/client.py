"""Sends one HTTP request at a time over a connection of its own, to machines of one's own only."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from .trace import Request

ALLOWED = [
    ipaddress.ip_network(network)
    for network in (
        "127.0.0.0/8",
        "::1/128",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "fc00::/7",
    )
]
"""Loopback and the private ranges in which clusters live. Link-local addresses are not among them:
cloud metadata services answer there."""


class TargetError(ValueError):
    """A target that load may not or cannot be sent to."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go: the address is looked up once and is the only one ever connected to."""

    address: str
    port: int
    host: str
    path: str


def resolve(url: str) -> Target:
    """The target that ``url`` names. Raises ``TargetError`` unless it is loopback or private."""
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise TargetError(f"{url}: {error}") from None
    if parts.scheme != "http" or not parts.hostname:
        raise TargetError(f"{url}: write http://HOST:PORT/PATH")
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TargetError(f"{parts.hostname}: {error}") from None
    address = str(found[0][4][0])
    if not any(ipaddress.ip_address(address) in network for network in ALLOWED):
        raise TargetError(
            f"{parts.hostname} is {address}, neither loopback nor a private address: "
            "this tool sends load to your own machine or cluster only"
        )
    return Target(address, port, parts.netloc, parts.path or "/")


async def send(target: Target, request: Request, timeout_seconds: float) -> str:
    """Sends one request and reads the whole answer; "" when all went well, else what went wrong."""
    query = urlencode({"context": request.context, "tokens": request.tokens})
    head = f"GET {target.path}?{query} HTTP/1.1\r\nHost: {target.host}\r\nConnection: close\r\n\r\n"
    writer = None
    try:
        async with asyncio.timeout(timeout_seconds):
            # A connection of its own: a Service chooses a replica per connection.
            reader, writer = await asyncio.open_connection(target.address, target.port)
            writer.write(head.encode("ascii"))
            answer = await reader.read(-1)
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return type(error).__name__
    finally:
        if writer is not None:
            writer.close()
    status = answer.partition(b"\r\n")[0].split(b" ")
    if len(status) < 2 or not answer.startswith(b"HTTP/1."):
        return "no answer" if not answer else "not HTTP"
    return "" if status[1] == b"200" else f"status {status[1].decode('ascii', 'replace')}"
