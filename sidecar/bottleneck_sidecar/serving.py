"""Counts the requests of one server process and reports them; what ``inference`` is built on."""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bottleneck_sidecar import capabilities, proc
from bottleneck_sidecar.batching import Batching
from bottleneck_sidecar.client import GPU_VARIABLE, REPORT_SECONDS, Client, new_epoch
from bottleneck_sidecar.request import Request, present
from bottleneck_sidecar.server_knobs import AdjustableWeights, ServerKnobs
from bottleneck_sidecar.wire import LATENCY_BOUNDS_SECONDS, InferenceServer

WORKER_VARIABLE = "BOTTLENECK_WORKER"
"""Number of this server process among those of its pod; by default its process id."""

MAX_DEPENDENCIES = 16
"""Names of dependencies that are told apart; what comes later is ``other``."""

MAX_NAME = 64
"""Longest name of a dependency, in characters; longer ones are cut."""


class ServerMonitor:
    """Counts the requests of one server process and reports them every half second from a thread,
    also while idle: silence means dead.

    ``concurrency`` is how many requests the process serves at once, where that is known;
    ``batching`` how it forms batches of them, ``weights`` (a ``weights.Weights``) those of its
    model. What can be changed of these is changed, from the thread, as the knobs file asks.
    ``socket`` and ``knobs`` are paths, by default the ones the injector sets; without a socket the
    monitor does nothing. Its methods can be called from any thread and never raise because of
    telemetry.
    """

    def __init__(
        self,
        *,
        concurrency: int | None = None,
        batching: Batching | None = None,
        weights: AdjustableWeights | None = None,
        worker: int | None = None,
        socket: str | None = None,
        knobs: str | None = None,
    ) -> None:
        self._client = Client(socket)
        self._knobs = ServerKnobs(knobs, batching, weights)
        self.enabled = self._client.enabled
        self._concurrency = concurrency
        self._worker = worker
        self._lock = threading.Lock()
        self._reporting = threading.Lock()
        self._stop = threading.Event()
        self._process: int | None = None
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
                self._knobs.forked()
            self._process = process
        if os.environ.get(GPU_VARIABLE) == "all":
            self._client.watch_gpus()
        threading.Thread(target=self._run, name="bottleneck-report", daemon=True).start()

    def begin(self, retry: bool | None = None) -> Request:
        """A request has arrived; ``retry`` says whether it is a client's repeated attempt."""
        self.start()
        request = Request(self, time.perf_counter())
        with self._lock:
            self._arrivals += 1
            if retry is not None:
                self._tells_retries = True
                self._retries += retry
            self._in_flight += 1
        return request

    @contextmanager
    def service(self, requests: Sequence[Request] | None = None) -> Iterator[None]:
        """The time in which the model works on a batch of ``requests``, by default on the request
        of the present context alone."""
        if requests is None:
            requests = present()
        began = time.perf_counter()
        self._start_service(requests)
        try:
            yield
        finally:
            if requests:
                with self._lock:
                    self._worked(time.perf_counter() - began)
            self._end_service(requests)

    @contextmanager
    def dependency(self, name: str, requests: Sequence[Request] | None = None) -> Iterator[None]:
        """The time in which ``requests`` (by default the present one) wait for something outside
        of this process. It counts neither as queueing nor as the model's time."""
        if requests is None:
            requests = present()
        began = time.perf_counter()
        with self._lock:
            for request in requests:
                request._settle(began)
                self._calling += not request._depending and request._queued
                request._depending += 1
        try:
            yield
        finally:
            now = time.perf_counter()
            with self._lock:
                if requests:
                    self._depended = True
                for request in requests:
                    request._settle(now)
                    request._depending -= 1
                    self._calling -= not request._depending and request._queued
                    known = self._known(name)
                    request.called[known] = request.called.get(known, 0.0) + now - began

    def close(self) -> None:
        """Sends a last report and ends the thread."""
        if self.enabled and not self._stop.is_set():
            self._stop.set()
            self._report()

    def _reset(self) -> None:
        self._epoch = new_epoch()
        self._started_at = proc.started_at()
        self._run_queue = proc.ThreadsRunQueue()
        self._requests = self._errors = self._arrivals = self._batches = 0
        self._in_flight = self._started = 0
        self._buckets = [0] * (len(LATENCY_BOUNDS_SECONDS) + 1)
        self._latency = self._queue = self._service = 0.0
        self._split = False
        """Whether anybody tells when the model begins; if not, the split is not measured."""
        self._calling = 0
        """Requests that wait for a dependency before the model begins: not queued for the model."""
        self._busy = 0.0
        self._first_service: float | None = None
        self._retries = 0
        self._tells_retries = False
        self._depended = False
        self._dependency = 0.0
        self._dependencies: dict[str, float] = {}

    def _known(self, name: str) -> str:
        """The name under which a dependency is reported."""
        name = str(name)[:MAX_NAME]
        if name not in self._dependencies:
            if len(self._dependencies) >= MAX_DEPENDENCIES:
                return "other"
            self._dependencies[name] = 0.0
        return name

    def _worked(self, seconds: float) -> None:
        """The model has worked for so long on one batch. To be called with the lock held."""
        self._busy += seconds
        if self._first_service is None:
            self._first_service = seconds

    def _start_service(self, requests: Sequence[Request], alone: bool = False) -> None:
        now = time.perf_counter()
        with self._lock:
            started = [request for request in requests if request._queued]
            for request in started:
                request._settle(now)
                self._calling -= request._depending > 0
                request.service_started = now
                request._alone = alone
            self._split = self._split or bool(started)
            self._started += len(started)
            self._batches += bool(started)

    def _end_service(self, requests: Sequence[Request]) -> None:
        now = time.perf_counter()
        with self._lock:
            for request in requests:
                started = request.service_started
                if started is not None and request.service_ended is None and not request.ended:
                    request._settle(now)
                    request.service_ended = now
                    if request._alone:
                        self._worked(now - started)

    def _end(self, request: Request, error: bool) -> None:
        now = time.perf_counter()
        latency = now - request.arrived
        with self._lock:
            if request.ended:
                return
            request._settle(now)
            self._calling -= request._queued and request._depending > 0
            request.ended = True
            self._requests += 1
            self._errors += error
            self._in_flight = max(0, self._in_flight - 1)
            self._buckets[bisect_left(LATENCY_BOUNDS_SECONDS, latency)] += 1
            self._latency += latency
            before, within, after = request.waited
            self._dependency += before + within + after
            for name, seconds in request.called.items():
                self._dependencies[name] = self._dependencies.get(name, 0.0) + seconds
            started = request.service_started
            if started is not None:
                self._started -= 1
                self._queue += max(0.0, started - request.arrived - before)
                self._service += max(0.0, (request.service_ended or now) - started - within)
                if request._alone and request.service_ended is None:
                    self._worked(now - started)

    def _run(self) -> None:
        stop = self._stop
        while not stop.is_set():
            self._knobs.follow(meanwhile=self._report)
            self._report()
            stop.wait(REPORT_SECONDS)

    def _report(self) -> None:
        with self._reporting:  # an older report must not arrive after a newer one
            waited, device = self._run_queue.read(), capabilities.of_this_process()[0]
            self._client.send(inference=self._counts(waited, device))

    def _counts(self, waited: float | None, device: list[str] | None) -> InferenceServer:
        with self._lock:
            waiting = self._in_flight - self._started - self._calling if self._split else None
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
                started_at=self._started_at,
                busy_seconds=self._busy if self._split else None,
                first_service_seconds=self._first_service,
                dependency_seconds=self._dependency if self._depended else None,
                dependencies=dict(self._dependencies) if self._depended else None,
                retries=self._retries if self._tells_retries else None,
                run_queue_seconds=waited,
                capabilities=device,
                knobs=self._knobs.in_force(),
                settable=self._knobs.settable(),
                acknowledgement=self._knobs.acknowledgement,
            )

    def _number(self) -> int:
        if self._worker is not None:
            return self._worker
        try:
            return max(0, int(os.environ[WORKER_VARIABLE]))
        except (KeyError, ValueError):
            return os.getpid()
