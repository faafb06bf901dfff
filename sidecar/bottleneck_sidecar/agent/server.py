"""The agent's HTTP port: three things to read and nothing to command.

A reader of its own, since ``http.server`` brings mail, HTML and TLS along: 7 MiB and a tenth of a
second at start, for three paths that take no body. One thread for each connection, so that a slow
reader waits for itself alone; the number of connections is bounded.
"""

from __future__ import annotations

import select
import socket
import socketserver
import threading
import time
from typing import Any
from urllib.parse import parse_qs

from bottleneck_sidecar.agent import metrics
from bottleneck_sidecar.agent.lines import Hub, Lines, Stream
from bottleneck_sidecar.agent.state import State

MAX_CONNECTIONS = 32
MAX_STREAMS = 8
"""An operator, its successor, and some people with ``kubectl bottleneck``."""

TIMEOUT_SECONDS = 10.0
"""A peer that takes longer to send its request or to take a line is given up."""

MAX_REQUEST_BYTES = 8 * 1024
MIN_INTERVAL, MAX_INTERVAL, DEFAULT_INTERVAL = 0.2, 60.0, 10.0


class Server(socketserver.ThreadingTCPServer):
    """Serves ``state`` on ``host:port``. Raises OSError if the port cannot be had."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(self, host: str, port: int, state: State, interval: float) -> None:
        self.state = state
        self.interval = interval
        self.hub = Hub()
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:  # one socket for both families
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Takes the connection up in a thread, or turns it away when too many are open."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Runs in the connection's thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is the reader's affair and no news."""


def listen(host: str, port: int, state: State, interval: float) -> Server:
    """A server on ``host``, or on every address where it is empty. Raises OSError."""
    if host:
        return Server(host, port, state, interval)
    try:
        return Server("::", port, state, interval)
    except OSError:  # a node without IPv6
        return Server("0.0.0.0", port, state, interval)  # noqa: S104


class _Handler(socketserver.BaseRequestHandler):
    server: Server
    request: socket.socket

    def handle(self) -> None:
        connection = self.request
        connection.settimeout(TIMEOUT_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._answer(self._request_line())
        except OSError:
            return

    def _request_line(self) -> bytes:
        """The first line of the request, after reading all of its head within the time limit."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        head = b""
        while b"\r\n\r\n" not in head and b"\n\n" not in head:
            if len(head) > MAX_REQUEST_BYTES or time.monotonic() > deadline:
                raise TimeoutError
            chunk = self.request.recv(4096)
            if not chunk:
                raise ConnectionError
            head += chunk
        return head.split(b"\n", 1)[0].strip()

    def _answer(self, line: bytes) -> None:
        parts = line.decode("latin-1").split()
        if len(parts) != 3 or not parts[2].startswith("HTTP/"):
            return self._reply("400 Bad Request", "this port speaks HTTP")
        method, target, _ = parts
        path, _, query = target.partition("?")
        if path not in ("/v1/stream", "/metrics", "/healthz"):
            return self._reply(
                "404 Not Found", "there are /v1/stream?interval=SECONDS, /metrics and /healthz"
            )
        if method != "GET":
            return self._reply("405 Method Not Allowed", "only GET", ["Allow: GET"])
        if path == "/healthz":
            return self._reply("200 OK", "ok")
        if path == "/metrics":
            body = metrics.render(self.server.state, len(self.server.hub))
            return self._send(_head("200 OK", metrics.CONTENT_TYPE, len(body)) + body)
        interval = _interval(query, self.server.interval)
        if interval is None:
            return self._reply(
                "400 Bad Request",
                f"interval must be a number of seconds from {MIN_INTERVAL:g} to {MAX_INTERVAL:g}, "
                "for instance /v1/stream?interval=10",
            )
        with self.server.hub.stream() as stream:
            if stream is None:
                return self._reply(
                    "503 Service Unavailable", f"{MAX_STREAMS} streams are open; that is the limit"
                )
            self._stream(stream, interval)
        return None

    def _stream(self, stream: Stream, interval: float) -> None:
        state, connection = self.server.state, self.request
        # A peer whose node is gone says nothing: without this its place would be lost for long.
        connection.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(3000 * TIMEOUT_SECONDS)
        )
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._send(_head("200 OK", "application/x-ndjson"))
        poller = select.poll()
        poller.register(connection, select.POLLIN | select.POLLRDHUP)
        poller.register(stream.wakeup, select.POLLIN)
        lines = Lines(state, stream, interval)
        while True:
            self._send(lines.take() + b"\n")
            while not lines.due():
                if self._hung_up(poller, lines):
                    return

    def _hung_up(self, poller: select.poll, lines: Lines) -> bool:
        """Waits until there is something to look at; True if the reader has gone."""
        for descriptor, events in poller.poll(lines.patience() * 1000 + 1):
            if descriptor == lines.stream.wakeup:
                lines.stream.woken()
                continue
            if events & (select.POLLRDHUP | select.POLLHUP | select.POLLERR):
                return True
            if not self.request.recv(4096):  # what a reader says is not listened to
                return True
        return False

    def _reply(self, status: str, text: str, headers: list[str] | None = None) -> None:
        body = f"{text}\n".encode()
        self._send(_head(status, "text/plain; charset=utf-8", len(body), headers) + body)

    def _send(self, data: bytes) -> None:
        self.request.sendall(data)


def _head(
    status: str, content_type: str, length: int | None = None, headers: list[str] | None = None
) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", "Connection: close"]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, *(headers or []), "", ""]).encode()


def _interval(query: str, default: float) -> float | None:
    """The interval that a query asks for, in seconds; None for one that is not served."""
    values = parse_qs(query, keep_blank_values=True).get("interval", [str(default)])
    try:
        interval = float(values[-1])
    except ValueError:
        return None
    return interval if MIN_INTERVAL <= interval <= MAX_INTERVAL else None
