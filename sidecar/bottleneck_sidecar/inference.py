"""Telemetry of a model server: an ASGI middleware, and a recorder for servers of other kinds.

    app = TelemetryMiddleware(app, concurrency=1)

and, where the model is called, in the request's task or in a thread started from it:

    with service():
        model(batch)

What lies before ``service()`` is queueing, what lies within it is the model's own time.
"""

from __future__ import annotations

import contextvars
import os
import threading
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

from bottleneck_sidecar.client import GPU_VARIABLE, REPORT_SECONDS, Client, new_epoch
from bottleneck_sidecar.knobs import KnobsFile
from bottleneck_sidecar.wire import LATENCY_BOUNDS_SECONDS, Acknowledgement, InferenceServer

WORKER_VARIABLE = "BOTTLENECK_WORKER"
"""Number of this server process among those of its pod; by default its process id."""

HEALTH_PATHS = ("/health", "/healthz", "/livez", "/readyz", "/metrics")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Request:
    """One request on its way. Its methods can be called from any thread, and more than once."""

    __slots__ = ("_monitor", "arrived", "ended", "service_ended", "service_started")

    def __init__(self, monitor: ServerMonitor, arrived: float) -> None:
        self._monitor = monitor
        self.arrived = arrived
        self.service_started: float | None = None
        self.service_ended: float | None = None
        self.ended = False

    def start_service(self) -> None:
        """The model begins with this request: it is no longer queued."""
        self._monitor._start_service((self,))

    def end_service(self) -> None:
        """The model is done with this request."""
        self._monitor._end_service((self,))

    def end(self, error: bool = False) -> None:
        """The last byte has been sent, or the request has failed on the server's side."""
        self._monitor._end(self, error)


class ServerMonitor:
    """Counts the requests of one server process and reports them every half second from a thread,
    also while idle: silence means dead.

    ``concurrency`` is how many requests the process serves at once, where that is known.
    ``socket`` and ``knobs`` are paths, by default the ones the injector sets; without a socket the
    monitor does nothing. Its methods can be called from any thread and never raise because of
    telemetry.
    """

    def __init__(
        self,
        *,
        concurrency: int | None = None,
        worker: int | None = None,
        socket: str | None = None,
        knobs: str | None = None,
    ) -> None:
        self._client = Client(socket)
        self._knobs = KnobsFile(knobs)
        self.enabled = self._client.enabled
        self._concurrency = concurrency
        self._worker = worker
        self._lock = threading.Lock()
        self._reporting = threading.Lock()
        self._stop = threading.Event()
        self._process: int | None = None
        self._acknowledgement: Acknowledgement | None = None
        self._reset()

    def start(self) -> None:
        """Starts reporting (``begin`` does it too). In a forked worker everything begins anew."""
        process = os.getpid()
        if not self.enabled or process == self._process:
            return
        with self._lock:
            if process == self._process:
                return
            if self._process is not None:  # forked: the counters and threads are the parent's
                self._reset()
                self._stop, self._reporting = threading.Event(), threading.Lock()
                self._client = Client(self._client.path)
            self._process = process
        if os.environ.get(GPU_VARIABLE) == "all":
            self._client.watch_gpus()
        threading.Thread(target=self._run, name="bottleneck-report", daemon=True).start()

    def begin(self) -> Request:
        """A request has arrived."""
        self.start()
        request = Request(self, time.perf_counter())
        with self._lock:
            self._arrivals += 1
            self._in_flight += 1
        return request

    @contextmanager
    def service(self, requests: Sequence[Request] | None = None) -> Iterator[None]:
        """The time in which the model works on a batch of ``requests``, by default on the request
        of the present context alone."""
        if requests is None:
            current = _current.get()
            requests = () if current is None else (current,)
        self._start_service(requests)
        try:
            yield
        finally:
            self._end_service(requests)

    def close(self) -> None:
        """Sends a last report and ends the thread."""
        if self.enabled and not self._stop.is_set():
            self._stop.set()
            self._report()

    def _reset(self) -> None:
        self._epoch = new_epoch()
        self._requests = self._errors = self._arrivals = self._batches = 0
        self._in_flight = self._started = 0
        self._buckets = [0] * (len(LATENCY_BOUNDS_SECONDS) + 1)
        self._latency = self._queue = self._service = 0.0
        self._split = False
        """Whether anybody tells when the model begins; if not, the split is not measured."""

    def _start_service(self, requests: Sequence[Request]) -> None:
        now = time.perf_counter()
        with self._lock:
            started = [
                request
                for request in requests
                if request.service_started is None and not request.ended
            ]
            for request in started:
                request.service_started = now
            self._split = self._split or bool(started)
            self._started += len(started)
            self._batches += bool(started)

    def _end_service(self, requests: Sequence[Request]) -> None:
        now = time.perf_counter()
        with self._lock:
            for request in requests:
                if request.service_started is not None and request.service_ended is None:
                    request.service_ended = now

    def _end(self, request: Request, error: bool) -> None:
        now = time.perf_counter()
        latency = now - request.arrived
        with self._lock:
            if request.ended:
                return
            request.ended = True
            self._requests += 1
            self._errors += error
            self._in_flight = max(0, self._in_flight - 1)
            self._buckets[bisect_left(LATENCY_BOUNDS_SECONDS, latency)] += 1
            self._latency += latency
            started = request.service_started
            if started is not None:
                self._started -= 1
                self._queue += started - request.arrived
                self._service += (request.service_ended or now) - started

    def _run(self) -> None:
        stop = self._stop
        while not stop.is_set():
            self._follow_knobs()
            self._report()
            stop.wait(REPORT_SECONDS)

    def _follow_knobs(self) -> None:
        wish = self._knobs.poll()
        if wish is not None:
            message = wish.refusal or (
                "this server has no settings that can be changed while it runs"
                if wish.settings
                else ""
            )
            self._acknowledgement = Acknowledgement(
                wish.generation, "Refused" if message else "Unchanged", None, message
            )

    def _report(self) -> None:
        with self._reporting:  # an older report must not arrive after a newer one
            self._client.send(inference=self._counts())

    def _counts(self) -> InferenceServer:
        with self._lock:
            waiting = self._in_flight - self._started if self._split else None
            if waiting is None and self._concurrency is not None:
                waiting = self._in_flight - self._concurrency
            return InferenceServer(
                epoch=self._epoch,
                worker=self._number(),
                requests=self._requests,
                errors=self._errors,
                arrivals=self._arrivals,
                latency_buckets=list(self._buckets),
                latency_seconds=self._latency,
                queue_seconds=self._queue if self._split else None,
                service_seconds=self._service if self._split else None,
                in_flight=self._in_flight,
                queued=None if waiting is None else max(0, waiting),
                concurrency=self._concurrency,
                batches=self._batches if self._split else None,
                knobs={},
                settable=[],
                acknowledgement=self._acknowledgement,
            )

    def _number(self) -> int:
        if self._worker is not None:
            return self._worker
        try:
            return max(0, int(os.environ[WORKER_VARIABLE]))
        except (KeyError, ValueError):
            return os.getpid()


class TelemetryMiddleware:
    """ASGI middleware around ``app``: latency is from the call of the app to the last byte handed
    to the server. Answers of 500 and above, exceptions and missing answers count as errors.

    ``exclude`` are paths that are not counted. Keyword arguments go to ``ServerMonitor``, which is
    at hand as ``monitor``. Waiting in the server's own accept queue is not seen from here.
    """

    def __init__(
        self,
        app: App,
        concurrency: int | None = None,
        *,
        exclude: Collection[str] = HEALTH_PATHS,
        monitor: ServerMonitor | None = None,
        **options: Any,
    ) -> None:
        self.app = app
        self.monitor = monitor or ServerMonitor(concurrency=concurrency, **options)
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
        request = self.monitor.begin()
        status: int | None = None

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                request.end(error=status is None or status >= 500)

        token = _current.set(request)
        try:
            await self.app(scope, receive, watched)
            request.end(error=status is None or status >= 500)
        except Exception:
            request.end(error=True)
            raise
        finally:
            request.end()  # cancelled: the client has gone, which is not the server's error
            _current.reset(token)


def current() -> Request | None:
    """The request of the present context, to hand to a batching worker; None outside of one."""
    return _current.get()


@contextmanager
def service(requests: Sequence[Request] | None = None) -> Iterator[None]:
    """``ServerMonitor.service`` of the monitor that the requests belong to; nothing happens where
    there is no request. Within one, ``requests`` may be left out."""
    if requests is None:
        request = _current.get()
        requests = () if request is None else (request,)
    if not requests:
        yield
        return
    with requests[0]._monitor.service(requests):
        yield


_current: contextvars.ContextVar[Request | None] = contextvars.ContextVar(
    "bottleneck_request", default=None
)
