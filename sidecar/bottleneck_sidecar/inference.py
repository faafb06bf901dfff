"""Telemetry of a model server: an ASGI middleware, and a recorder for servers of other kinds.

    app = TelemetryMiddleware(app, concurrency=1)

and, where the model is called, in the request's task or in a thread started from it:

    with service():
        model(batch)

What lies before ``service()`` is queueing, what lies within it is the model's own time. Where the
request waits for somebody else:

    with dependency("feature-store"):
        features = await client.get(...)
"""

from __future__ import annotations

from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    MutableMapping,
    Sequence,
)
from contextlib import contextmanager
from typing import Any

from bottleneck_sidecar.batcher import Batcher
from bottleneck_sidecar.batching import Batching
from bottleneck_sidecar.request import Request, current_request, present
from bottleneck_sidecar.serving import ServerMonitor

__all__ = [
    "Batcher",
    "Batching",
    "Request",
    "ServerMonitor",
    "TelemetryMiddleware",
    "current",
    "dependency",
    "service",
]

HEALTH_PATHS = ("/health", "/healthz", "/livez", "/readyz", "/metrics")

ATTEMPT_HEADERS = {
    b"x-retry-attempt": 0,
    b"x-retry-count": 0,
    b"retry-attempt": 0,
    b"grpc-previous-rpc-attempts": 0,
    b"x-envoy-attempt-count": 1,
}
"""Header → what it says on a first attempt; more says that the client tries again."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class TelemetryMiddleware:
    """ASGI middleware around ``app``: latency is from the call of the app to the last byte handed
    to the server. Answers of 500 and above, exceptions and missing answers count as errors.

    ``exclude`` are paths that are not counted. Requests that say in a header that they are a
    repeated attempt (``ATTEMPT_HEADERS``) count as retries. Keyword arguments go to
    ``ServerMonitor``, which is at hand as ``monitor``. Waiting in the server's own accept queue is
    not seen from here.
    """

    def __init__(
        self,
        app: App,
        concurrency: int | None = None,
        *,
        batching: Batching | None = None,
        exclude: Collection[str] = HEALTH_PATHS,
        monitor: ServerMonitor | None = None,
        **options: Any,
    ) -> None:
        self.app = app
        self.monitor = monitor or ServerMonitor(
            concurrency=concurrency, batching=batching, **options
        )
        self._exclude = frozenset(exclude)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            self.monitor.start()
        if (
            not self.monitor.enabled
            or scope["type"] != "http"
            or scope.get("path") in self._exclude
        ):
            await self.app(scope, receive, send)
            return
        request = self.monitor.begin(retry=_is_retry(scope.get("headers") or ()))
        status: int | None = None

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                request.end(error=status is None or status >= 500)

        token = current_request.set(request)
        try:
            await self.app(scope, receive, watched)
            request.end(error=status is None or status >= 500)
        except Exception:
            request.end(error=True)
            raise
        finally:
            request.end()  # cancelled: the client has gone, which is not the server's error
            current_request.reset(token)


def current() -> Request | None:
    """The request of the present context, to hand to a batching worker; None outside of one."""
    return current_request.get()


@contextmanager
def service(requests: Sequence[Request] | None = None) -> Iterator[None]:
    """``ServerMonitor.service`` of the monitor that the requests belong to; nothing happens where
    there is no request. Within one, ``requests`` may be left out."""
    if requests is None:
        requests = present()
    if not requests:
        yield
        return
    with requests[0]._monitor.service(requests):
        yield


@contextmanager
def dependency(name: str, requests: Sequence[Request] | None = None) -> Iterator[None]:
    """The time in which the present request (or ``requests``) waits for something outside of this
    process: another service, a database, a cache. Works around an ``await`` too. Nothing happens
    where there is no request.

    It counts neither as queueing nor as the model's time. The first 16 names are told apart.
    """
    if requests is None:
        requests = present()
    if not requests:
        yield
        return
    with requests[0]._monitor.dependency(name, requests):
        yield


def _is_retry(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    for name, value in headers:
        first = ATTEMPT_HEADERS.get(name)
        if first is not None:
            try:
                return int(value) > first
            except ValueError:
                return False
    return False
