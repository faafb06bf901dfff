"""The ASGI middleware and the recorder under it, driven as servers drive them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from bottleneck_sidecar import inference, knobs, wire
from bottleneck_sidecar.inference import (
    Message,
    Receive,
    Scope,
    Send,
    ServerMonitor,
    TelemetryMiddleware,
    current,
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


async def call(app: Any, path: str = "/predict", kind: str = "http") -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": kind, "path": path}, receive, send)
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
    monkeypatch.setattr(inference.time, "perf_counter", lambda: now[0])
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
    assert "no settings" in answer.message
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
