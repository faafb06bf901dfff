"""The batcher, with real event loops and threads: who is answered, with what, together with whom.
Where something must not happen yet, the model or the delay stands in its way for good."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
from bottleneck_sidecar.inference import (
    Batcher,
    Batching,
    Message,
    Receive,
    Scope,
    Send,
    ServerMonitor,
    TelemetryMiddleware,
)
from hypothesis import given, settings
from hypothesis import strategies as st

DEADLINE_SECONDS = 30.0
FOREVER = 3600.0


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(main(), DEADLINE_SECONDS)

    return asyncio.run(bounded())


async def settled() -> None:
    """Every task has run until it waits for something."""
    for _ in range(5):
        await asyncio.sleep(0)


class Model:
    """Doubles numbers; remembers the batches; works only while it is let."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.free = threading.Event()
        self.free.set()
        self.begun = threading.Event()

    def __call__(self, items: list[int]) -> list[int | Exception]:
        self.batches.append(items)
        self.begun.set()
        assert self.free.wait(DEADLINE_SECONDS)
        return [2 * item for item in items]

    async def is_busy(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, DEADLINE_SECONDS)


class BrokenError(Exception):
    """The model fails with a whole batch."""


class Watched(Batcher[Any, Any]):
    """Remembers how large each batch was and might have been when it was formed."""

    def __init__(self, model: Any, batching: Batching) -> None:
        super().__init__(model, batching)
        self.formed: list[tuple[int, int]] = []

    def _begin(self, batch: Any) -> None:
        self.formed.append((len(batch), self.batching.max_size or 0))
        super()._begin(batch)


actions = st.one_of(
    st.tuples(
        st.just("call"),
        st.lists(st.sampled_from(["well", "well", "well", "own", "all"]), min_size=1, max_size=12),
    ),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("limits"), st.integers(1, 5), st.integers(0, 3)),
    st.tuples(st.just("wait")),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(actions, max_size=20), st.integers(1, 5), st.integers(0, 3))
def test_everyone_is_answered_once_with_their_own_result(
    plan: list[tuple[Any, ...]], size: int, delay: int
) -> None:
    batches: list[list[tuple[int, str]]] = []

    def model(items: list[tuple[int, str]]) -> Sequence[Any]:
        batches.append(items)
        if any(kind == "all" for _, kind in items):
            raise BrokenError
        return [ValueError(n) if kind == "own" else ("answer", n) for n, kind in items]

    async def main() -> tuple[list[str], set[int], list[Any], Watched]:
        batching = Batching(size, delay / 1000, adjustable=True)
        batcher = Watched(model, batching)
        kinds: list[str] = []
        tasks: list[asyncio.Task[Any]] = []
        cancelled: set[int] = set()
        for action in plan:
            match action:
                case ("call", several):
                    for kind in several:
                        tasks.append(asyncio.create_task(batcher((len(kinds), kind))))
                        kinds.append(kind)
                case ("cancel", number) if number < len(tasks):
                    if tasks[number].cancel():
                        cancelled.add(number)
                case ("limits", most, longest):
                    batching.change({"batch.maxSize": most, "batch.delayMilliseconds": longest})
                case _:
                    await asyncio.sleep(0)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        await batcher.close()
        return kinds, cancelled, answers, batcher

    kinds, cancelled, answers, batcher = run(main)
    served = [number for batch in batches for number, _ in batch]
    assert served == sorted(set(served)), "in the order of arrival, and nobody twice"
    assert set(range(len(kinds))) - set(served) <= cancelled, "nobody was forgotten"
    assert [len(batch) for batch in batches] == [formed for formed, _ in batcher.formed]
    assert all(formed <= most for formed, most in batcher.formed)
    spoilt = {n for batch in batches if any(k == "all" for _, k in batch) for n, _ in batch}
    for number, (kind, answer) in enumerate(zip(kinds, answers, strict=True)):
        if number in cancelled and isinstance(answer, asyncio.CancelledError):
            continue
        if number in spoilt:
            assert isinstance(answer, BrokenError)
        elif kind == "own":
            assert isinstance(answer, ValueError)
            assert answer.args == (number,)
        else:
            assert answer == ("answer", number)


def test_a_batch_waits_until_it_is_full() -> None:
    model = Model()

    async def main() -> None:
        batcher = Batcher(model, Batching(max_size=3, delay_seconds=FOREVER))
        tasks = [asyncio.create_task(batcher(n)) for n in range(2)]
        await settled()
        assert (model.batches, batcher.waiting) == ([], 2)
        assert await batcher(2) == 4
        assert await asyncio.gather(*tasks) == [0, 2]
        assert batcher.waiting == 0
        await batcher.close()

    run(main)
    assert model.batches == [[0, 1, 2]]


@pytest.mark.parametrize(
    "batching",
    [Batching(1, FOREVER), Batching(8, 0.0), Batching(8), Batching(8, 0.001)],
    ids=["size 1", "delay 0", "no delay", "a short delay"],
)
def test_who_comes_alone_is_served_alone(batching: Batching) -> None:
    model = Model()

    async def main() -> None:
        batcher = Batcher(model, batching)
        assert [await batcher(n) for n in range(3)] == [0, 2, 4]
        await batcher.close()

    run(main)
    assert model.batches == [[0], [1], [2]]


def test_new_limits_hold_from_the_next_batch_on() -> None:
    model = Model()
    model.free.clear()

    async def main() -> None:
        batching = Batching(max_size=4, delay_seconds=0.0, adjustable=True)
        batcher = Batcher(model, batching)
        tasks = [asyncio.create_task(batcher(0))]
        await model.is_busy()
        tasks += [asyncio.create_task(batcher(n)) for n in range(1, 12)]
        await settled()
        assert batching.change({"batch.maxSize": 2})
        await settled()
        assert model.batches == [[0]]
        model.free.set()
        await tasks[2]
        assert batching.change({"batch.maxSize": 5, "batch.delayMilliseconds": 10_000})
        assert await asyncio.gather(*tasks) == [2 * n for n in range(12)]
        await batcher.close()

    run(main)
    sizes = [len(batch) for batch in model.batches]
    assert sizes[:2] == [1, 2]
    assert max(sizes) <= 5
    assert sum(sizes) == 12


def test_a_cancelled_request_takes_nobody_with_it() -> None:
    model = Model()
    model.free.clear()

    async def main() -> None:
        batcher = Batcher(model, Batching(max_size=2))
        running = asyncio.create_task(batcher(0))
        await model.is_busy()
        waiting = [asyncio.create_task(batcher(n)) for n in range(1, 5)]
        await settled()
        running.cancel()
        waiting[1].cancel()
        await settled()
        assert batcher.waiting == 3
        model.begun.clear()
        model.free.set()
        assert await waiting[0] == 2
        assert await asyncio.gather(*waiting[2:]) == [6, 8]
        for task in (running, waiting[1]):
            with pytest.raises(asyncio.CancelledError):
                await task
        await batcher.close()

    run(main)
    assert model.batches == [[0], [1, 3], [4]]


def test_who_is_cancelled_in_a_batch_leaves_the_others_their_answers() -> None:
    model = Model()
    model.free.clear()

    async def main() -> None:
        batcher = Batcher(model, Batching(max_size=3, delay_seconds=FOREVER))
        tasks = [asyncio.create_task(batcher(n)) for n in range(3)]
        await model.is_busy()
        tasks[1].cancel()
        await settled()
        model.free.set()
        assert await asyncio.gather(tasks[0], tasks[2]) == [0, 4]
        await batcher.close()

    run(main)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (lambda items: 1 / 0, ZeroDivisionError, "division"),
        (lambda items: items[:-1], ValueError, "2 results for 3 items"),
        (lambda items: next(iter(())), RuntimeError, "StopIteration"),
        (lambda items: iter(items), TypeError, "len"),
    ],
)
def test_an_error_of_the_model_is_raised_in_each_request(
    model: Any, error: type[Exception], message: str
) -> None:
    async def main() -> None:
        broken = True

        def sometimes(items: list[int]) -> Any:
            return model(items) if broken else items

        batcher: Batcher[int, int] = Batcher(sometimes, Batching(3, FOREVER))
        answers = await asyncio.gather(*map(batcher, range(3)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [error] * 3
        assert message in str(answers[0])
        broken = False
        assert await asyncio.gather(*map(batcher, range(3))) == [0, 1, 2], "it goes on"
        await batcher.close()

    run(main)


def test_closing_answers_those_who_wait_and_takes_no_more() -> None:
    model = Model()

    async def main() -> None:
        batcher = Batcher(model, Batching(max_size=2, delay_seconds=FOREVER))
        model.free.clear()
        tasks = [asyncio.create_task(batcher(n)) for n in range(3)]
        await model.is_busy()
        closing = [asyncio.create_task(batcher.close()) for _ in range(2)]
        await settled()
        assert not any(task.done() for task in closing)
        with pytest.raises(RuntimeError, match="is closed"):
            await batcher(9)
        model.free.set()
        await asyncio.gather(*closing)
        assert await asyncio.gather(*tasks) == [0, 2, 4]
        await batcher.close()

    run(main)
    assert model.batches == [[0, 1], [2]]
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("model")]
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()


def test_one_that_was_never_used_closes_too() -> None:
    async def main() -> None:
        await Batcher(Model(), Batching(max_size=2)).close()

    run(main)


def test_it_belongs_to_one_event_loop_at_a_time() -> None:
    batcher = Batcher(Model(), Batching(max_size=2, delay_seconds=FOREVER))
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        lost = first.create_task(batcher(1))
        first.run_until_complete(settled())
        with pytest.raises(RuntimeError, match="one event loop"):
            second.run_until_complete(batcher(2))
        lost.cancel()
        first.run_until_complete(settled())
        first.close()

        async def both() -> list[int]:
            return await asyncio.gather(batcher(3), batcher(4))

        assert second.run_until_complete(both()) == [6, 8]
        second.run_until_complete(batcher.close())
    finally:
        first.close()
        second.close()


def test_it_needs_a_limit() -> None:
    with pytest.raises(ValueError, match="write Batching"):
        Batcher(Model(), Batching(delay_seconds=0.1))


@pytest.fixture
def monitor() -> Iterator[ServerMonitor]:
    running = ServerMonitor(worker=1, socket="/nonexistent/agent.sock")
    yield running
    running.close()


def test_the_models_time_is_told_for_each_batch(monitor: ServerMonitor) -> None:
    model = Model()
    batcher = Batcher(model, Batching(max_size=3, delay_seconds=FOREVER))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        answer = await batcher(scope["number"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % answer})

    async def main() -> list[Message]:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        wrapped: Any = TelemetryMiddleware(app, monitor=monitor)
        scopes = [{"type": "http", "path": "/", "number": number} for number in range(6)]
        await asyncio.gather(*(wrapped(scope, None, send) for scope in scopes))
        by_hand = [monitor.begin() for _ in range(2)]
        await asyncio.gather(
            *(batcher(n, request) for n, request in enumerate(by_hand)), batcher(7)
        )
        for request in by_hand:
            request.end()
        await batcher.close()
        return sent

    sent = run(main)
    bodies = {message["body"] for message in sent if "body" in message}
    assert bodies == {b"0", b"2", b"4", b"6", b"8", b"10"}
    report = monitor._counts(None, None)
    assert (report.requests, report.batches, report.errors, report.queued) == (8, 3, 0, 0)
    assert report.busy_seconds is not None
    assert report.service_seconds is not None
    assert 0 < report.busy_seconds < report.service_seconds, "what three share counts once"
