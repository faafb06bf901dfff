"""The ASGI middleware and the recorder under it, driven as servers drive them."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from bottleneck_sidecar import knobs, serving, wire
from bottleneck_sidecar.inference import (
    Batching,
    Message,
    Receive,
    Scope,
    Send,
    ServerMonitor,
    TelemetryMiddleware,
    current,
    dependency,
    service,
)
from bottleneck_sidecar.wire import InferenceServer

from .conftest import Agent, eventually  # type: ignore[import-not-found]


@pytest.fixture
def monitor(agent: Agent) -> Iterator[ServerMonitor]:
    running = ServerMonitor(concurrency=2, worker=4, socket=agent.socket)
    running.start()
    yield running
    running.close()


def told(agent: Agent, monitor: ServerMonitor) -> InferenceServer:
    """What the agent knows of the server after a fresh report."""
    monitor.close()
    stream = agent.stream(interval=0.2)
    sample = stream.until(
        lambda sample: (
            sample.inference
            and sample.inference[0].requests == monitor._requests
            and sample.inference[0].in_flight == monitor._in_flight
        )
    )
    stream.close()
    return sample.inference[0]


async def call(
    app: Any, path: str = "/predict", kind: str = "http", **headers: str
) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    pairs = [(key.replace("_", "-").encode(), text.encode()) for key, text in headers.items()]
    await app({"type": kind, "path": path, "headers": pairs}, receive, send)
    return sent


def answering(status: int = 200, parts: int = 1) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        for part in range(parts):
            more = part + 1 < parts
            await send({"type": "http.response.body", "body": b"x", "more_body": more})

    return app


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("the model is gone")


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    return


@pytest.mark.parametrize(
    ("app", "requests", "errors"),
    [
        (answering(), 1, 0),
        (answering(404), 1, 0),
        (answering(503), 1, 1),
        (answering(parts=3), 1, 0),
        (failing, 1, 1),
        (silent, 1, 1),
    ],
)
def test_answers_and_errors(
    agent: Agent, monitor: ServerMonitor, app: Any, requests: int, errors: int
) -> None:
    wrapped = TelemetryMiddleware(app, monitor=monitor)
    try:
        sent = asyncio.run(call(wrapped))
        assert sent == asyncio.run(call(app)), "the answer is not touched"
    except RuntimeError as error:
        assert app is failing, error  # noqa: PT017
    report = told(agent, monitor)
    assert (report.arrivals, report.requests, report.errors) == (1, requests, errors)
    assert sum(report.latency_buckets) == 1
    assert len(report.latency_buckets) == len(wire.LATENCY_BOUNDS_SECONDS) + 1
    assert (report.in_flight, report.queued, report.worker) == (0, 0, 4)
    assert (report.queue_seconds, report.batches) == (None, None), "nobody told when it began"


def test_what_is_not_counted(agent: Agent, monitor: ServerMonitor) -> None:
    wrapped = TelemetryMiddleware(answering(), monitor=monitor, exclude=("/alive",))
    asyncio.run(call(wrapped, "/alive"))
    asyncio.run(call(wrapped, kind="websocket"))
    asyncio.run(call(wrapped, kind="lifespan"))
    asyncio.run(call(wrapped, "/healthz"))
    assert told(agent, monitor).arrivals == 1


def test_a_client_that_goes_away_is_no_error(agent: Agent, monitor: ServerMonitor) -> None:
    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(call(TelemetryMiddleware(waiting, monitor=monitor)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    report = told(agent, monitor)
    assert (report.requests, report.errors, report.in_flight) == (1, 0, 0)


def test_queue_and_service_are_told_apart(
    agent: Agent, monitor: ServerMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(serving.time, "perf_counter", lambda: now[0])
    first, second, third = monitor.begin(), monitor.begin(), monitor.begin()
    now[0] += 2.0
    with monitor.service([first, second]):
        assert monitor._in_flight - monitor._started == 1
        now[0] += 0.5
    now[0] += 0.25
    first.end()
    second.end()
    second.end(error=True)  # a second end says nothing
    third.end(error=True)  # failed before the model began
    report = told(agent, monitor)
    assert (report.queue_seconds, report.service_seconds, report.batches) == (4.0, 1.0, 1)
    assert report.latency_seconds == 3 * 2.75
    assert (report.requests, report.errors, report.queued) == (3, 1, 0)
    index = report.latency_buckets.index(3)
    bounds = wire.LATENCY_BOUNDS_SECONDS
    assert bounds[index - 1] < 2.75 <= bounds[index]


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until it is moved."""
    reading = [100.0]
    monkeypatch.setattr(serving.time, "perf_counter", lambda: reading[0])
    return reading


def test_waiting_for_others_is_neither_queueing_nor_the_models_time(
    agent: Agent, monitor: ServerMonitor, now: list[float]
) -> None:
    request = monitor.begin()
    now[0] += 1.0  # queued
    with request.dependency("features"):
        now[0] += 2.0
        with request.dependency("users"):  # side by side with the former
            now[0] += 3.0
    request.start_service()
    now[0] += 0.5
    with request.dependency("cache"):  # in the middle of the model's work
        now[0] += 4.0
    request.end_service()
    with request.dependency("features"):
        now[0] += 0.25
    now[0] += 0.125
    request.end()
    report = told(agent, monitor)
    assert report.latency_seconds == 10.875
    assert (report.queue_seconds, report.service_seconds) == (1.0, 0.5)
    assert report.dependency_seconds == 9.25
    assert report.dependencies == {"features": 5.25, "users": 3.0, "cache": 4.0}
    assert report.busy_seconds == 4.5, "the model's place was taken all the time"


def test_a_dependency_that_goes_on_while_the_model_works(
    agent: Agent, monitor: ServerMonitor, now: list[float]
) -> None:
    request = monitor.begin()
    with request.dependency("features"):
        now[0] += 1.0
        request.start_service()
        now[0] += 2.0
        request.end_service()
        now[0] += 4.0
    request.end()
    report = told(agent, monitor)
    assert (report.queue_seconds, report.service_seconds) == (0.0, 0.0)
    assert (report.dependency_seconds, report.dependencies) == (7.0, {"features": 7.0})


def test_who_waits_for_others_is_not_queued(monitor: ServerMonitor) -> None:
    first, second = monitor.begin(), monitor.begin()
    first.start_service()
    assert monitor._counts(None, None).queued == 1
    with second.dependency("features"), second.dependency("users"):
        assert monitor._counts(None, None).queued == 0
    assert monitor._counts(None, None).queued == 1
    with second.dependency("features"):
        second.start_service()
        assert monitor._counts(None, None).queued == 0
    third = monitor.begin()
    with third.dependency("features"):
        third.end()
        assert monitor._counts(None, None).queued == 0
    assert monitor._counts(None, None).queued == 0
    first.end()
    second.end()
    assert (monitor._calling, monitor._in_flight, monitor._started) == (0, 0, 0)


def test_names_of_dependencies_are_bounded(agent: Agent, monitor: ServerMonitor) -> None:
    request = monitor.begin()
    for number in range(40):
        with request.dependency(f"{number:02d}" + "x" * 100):
            pass
    request.end()
    names = told(agent, monitor).dependencies
    assert names is not None
    assert (len(names), "other" in names) == (17, True)
    assert max(map(len, names)) == 64


def test_dependencies_in_async_code_belong_to_their_request(
    agent: Agent, monitor: ServerMonitor
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def one(name: str) -> None:
            with dependency(name):
                await asyncio.sleep(0.001)

        await asyncio.gather(one("a"), one("b"))
        await answering()(scope, receive, send)

    async def main() -> None:
        wrapped = TelemetryMiddleware(app, monitor=monitor)
        await asyncio.gather(*(call(wrapped) for _ in range(5)))

    with dependency("nobody's"):  # outside of any request
        asyncio.run(main())
    report = told(agent, monitor)
    assert report.dependencies is not None
    assert set(report.dependencies) == {"a", "b"}
    assert report.dependency_seconds is not None
    assert 0.005 <= report.dependency_seconds <= report.latency_seconds
    assert sum(report.dependencies.values()) > report.dependency_seconds, "they ran side by side"


def test_a_batch_is_busy_once(agent: Agent, monitor: ServerMonitor, now: list[float]) -> None:
    batch = [monitor.begin() for _ in range(4)]
    with monitor.service(batch):
        now[0] += 3.0
        batch[0].end()  # answered before the others
    for request in batch:
        request.end()
    alone = monitor.begin()
    alone.start_service()
    now[0] += 0.5
    alone.end()  # without saying that the model was done
    with monitor.service([]):
        now[0] += 9.0
    report = told(agent, monitor)
    assert (report.batches, report.requests) == (2, 5)
    assert (report.busy_seconds, report.service_seconds) == (3.5, 12.5)
    assert report.first_service_seconds == 3.0


@pytest.mark.parametrize(
    ("headers", "retries"),
    [
        ({}, 0),
        ({"x_retry_attempt": "1"}, 1),
        ({"x_retry_attempt": "0"}, 0),
        ({"x_retry_attempt": "again"}, 0),
        ({"x_envoy_attempt_count": "1"}, 0),
        ({"x_envoy_attempt_count": "3"}, 1),
        ({"grpc_previous_rpc_attempts": "2", "accept": "*/*"}, 1),
    ],
)
def test_retries(
    agent: Agent, monitor: ServerMonitor, headers: dict[str, str], retries: int
) -> None:
    asyncio.run(call(TelemetryMiddleware(answering(), monitor=monitor), **headers))
    assert told(agent, monitor).retries == retries


def test_what_the_process_says_about_itself(agent: Agent) -> None:
    before = time.time()
    wrapped = TelemetryMiddleware(
        answering(), socket=agent.socket, batching=Batching(max_size=8, delay_seconds=0.02)
    )
    wrapped.monitor.begin().end()
    report = told(agent, wrapped.monitor)
    assert report.knobs == {"batch.maxSize": 8.0, "batch.delayMilliseconds": 20.0}
    assert report.settable == []
    assert report.started_at is not None
    assert report.started_at < before, "the process, not the monitor"
    assert report.capabilities is not None
    assert (report.retries, report.dependencies, report.busy_seconds) == (None, None, None)
    assert (report.run_queue_seconds is None) == (not os.path.exists("/proc/self/schedstat"))


def test_service_in_threads_and_in_a_batching_worker(agent: Agent, monitor: ServerMonitor) -> None:
    together: list[Any] = []
    both = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        def model() -> None:
            with service():
                pass

        if scope["path"] == "/thread":
            await asyncio.to_thread(model)
        else:
            together.append(current())
            if len(together) == 2:
                both.set()
            await both.wait()
            if current() is together[0]:
                with service(together):
                    pass
        await answering()(scope, receive, send)

    async def main() -> None:
        wrapped = TelemetryMiddleware(app, monitor=monitor)
        await call(wrapped, "/thread")
        await asyncio.gather(call(wrapped, "/batch"), call(wrapped, "/batch"))

    asyncio.run(main())
    report = told(agent, monitor)
    assert (report.requests, report.batches, report.queued) == (3, 2, 0)
    with service():  # outside of any request
        assert current() is None


def test_an_idle_server_is_heard_of(agent: Agent, monitor: ServerMonitor) -> None:
    before = eventually(lambda: agent.metric("bottleneck_agent_reports_total"))
    eventually(lambda: agent.metric("bottleneck_agent_reports_total") > before)


def test_knobs_are_refused_in_words(agent: Agent, tmp_path: Any) -> None:
    (tmp_path / "knobs").write_text(knobs.EXAMPLE)
    monitor = ServerMonitor(socket=agent.socket, knobs=str(tmp_path / "knobs"))
    monitor.start()
    stream = agent.stream()
    sample = stream.until(lambda sample: sample.inference and sample.inference[0].acknowledgement)
    answer = sample.inference[0].acknowledgement
    assert answer is not None
    assert (answer.generation, answer.result) == (3, "Refused")
    assert "a model server does not take dataLoader.workers" in answer.message
    stream.close()
    monitor.close()


def test_a_forked_worker_counts_for_itself(agent: Agent) -> None:
    monitor = ServerMonitor(socket=agent.socket)
    monitor.begin().end()
    parent = monitor._epoch
    child = os.fork()
    if child == 0:
        monitor.begin().end()
        same = monitor._epoch == parent or monitor._requests != 1
        monitor.close()
        os._exit(int(same))
    assert os.waitpid(child, 0)[1] == 0
    stream = agent.stream(interval=0.2)
    stream.until(lambda sample: [part.requests for part in sample.inference] == [1, 1])
    stream.close()
    monitor.close()


def test_many_threads(agent: Agent, monitor: ServerMonitor) -> None:
    def requests() -> None:
        for _ in range(200):
            request = monitor.begin()
            with monitor.service([request]):
                pass
            request.end()

    threads = [threading.Thread(target=requests) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = told(agent, monitor)
    assert (report.requests, report.batches, sum(report.latency_buckets)) == (1600, 1600, 1600)


@pytest.mark.parametrize("path", [None, "/nonexistent/agent.sock"])
def test_nobody_listens(path: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BOTTLENECK_SOCKET", raising=False)
    wrapped = TelemetryMiddleware(answering(), socket=path)
    assert wrapped.monitor.enabled == (path is not None)
    assert [message["type"] for message in asyncio.run(call(wrapped))] == [
        "http.response.start",
        "http.response.body",
    ]
    wrapped.monitor.close()
