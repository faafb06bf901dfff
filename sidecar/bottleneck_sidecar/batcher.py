"""Forms batches of the requests of an asyncio server and runs the model on them in a thread."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Generic, TypeVar

from bottleneck_sidecar.batching import Batching
from bottleneck_sidecar.request import Request, current_request

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True)
class _Job(Generic[Item, Result]):
    """One item on its way to the model."""

    item: Item
    request: Request | None
    arrived: float
    answer: asyncio.Future[Result]


class Batcher(Generic[Item, Result]):
    """``await batcher(item)`` gives the model's answer to ``item``, found together with others'.

    ``model`` gets a list of items, in the order of their arrival, and returns as many results in
    the same order; an exception in place of one is raised for that item alone. It is called in one
    thread, one batch at a time. What it raises itself is raised for every item of the batch.

    A batch begins as soon as the model is free and either ``max_size`` items are there or the
    oldest has waited ``delay_seconds``; both are read from ``batching`` for each batch. With a
    delay of 0 (or none) nobody waits to be joined, and only what waited while the model was busy
    goes together.

    The model's time is told to the monitor of the requests that are being answered. A batcher
    belongs to the event loop that it is first called in.
    """

    def __init__(
        self,
        model: Callable[[list[Item]], Sequence[Result | Exception]],
        batching: Batching,
    ) -> None:
        if batching.max_size is None:
            raise ValueError("a batcher needs a limit: write Batching(max_size=8)")
        self.batching = batching
        self._model = model
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[_Job[Item, Result]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._working = False
        self._closed = False
        self._idle = asyncio.Event()

    async def __call__(self, item: Item, request: Request | None = None) -> Result:
        """The answer to ``item``. ``request`` is the one that is measured, by default the present
        one. Raises what the model raised, and ``RuntimeError`` once the batcher is closed."""
        if self._closed:
            raise RuntimeError("the batcher is closed")
        loop = self._enter(asyncio.get_running_loop())
        answer: asyncio.Future[Result] = loop.create_future()
        job = _Job(item, request or current_request.get(), loop.time(), answer)
        self._waiting.append(job)
        self._consider()
        return await answer

    @property
    def waiting(self) -> int:
        """Items for which the model has not begun, for instance to turn more away."""
        return sum(not job.answer.done() for job in self._waiting)

    async def close(self) -> None:
        """Takes no more items, answers those that wait without further delay, ends the thread."""
        self._closed = True
        self._enter(asyncio.get_running_loop())
        self._consider()
        while self._working or self._waiting:
            self._idle.clear()
            await self._idle.wait()
        self._worker.shutdown(wait=False)  # there is nothing left in it to wait for

    def _enter(self, loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
        if loop is not self._loop:
            if self._loop is not None and not self._loop.is_closed():
                raise RuntimeError("a batcher belongs to one event loop; make one for each")
            # That loop is gone, and with it all who waited in it.
            self._waiting.clear()
            self._loop, self._timer, self._working = loop, None, False
            self._idle = asyncio.Event()
        return loop

    def _consider(self) -> None:
        """Begins a batch if it is time for one, else makes sure to be called when it is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._working or self._loop is None:
            return
        waiting = self._waiting = deque(job for job in self._waiting if not job.answer.done())
        if not waiting:
            self._idle.set()
            return
        size, delay = self.batching.limits
        due = waiting[0].arrived + (delay or 0.0)
        if len(waiting) < (size or 1) and self._loop.time() < due and not self._closed:
            self._timer = self._loop.call_at(due, self._consider)
            return
        self._begin([waiting.popleft() for _ in range(min(size or 1, len(waiting)))])

    def _begin(self, batch: list[_Job[Item, Result]]) -> None:
        assert self._loop is not None
        self._working = True
        # Not the future itself but its end is waited for: nobody can cancel the batch.
        self._loop.run_in_executor(self._worker, self._answer, batch).add_done_callback(
            lambda answered: self._hand_out(batch, answered)
        )

    def _answer(self, batch: list[_Job[Item, Result]]) -> Sequence[Result | Exception]:
        """In the thread: the model's answers to one batch."""
        requests = [job.request for job in batch if job.request is not None]
        with requests[0]._monitor.service(requests) if requests else nullcontext():
            try:
                results = self._model([job.item for job in batch])
            except StopIteration as error:  # no future takes it: its waiting would never end
                raise RuntimeError(f"the model raised {error!r}") from error
        if len(results) != len(batch):
            raise ValueError(f"the model gave {len(results)} results for {len(batch)} items")
        return results

    def _hand_out(
        self,
        batch: list[_Job[Item, Result]],
        answered: asyncio.Future[Sequence[Result | Exception]],
    ) -> None:
        self._working = False
        error = answered.exception()
        results: Sequence[Result | BaseException] = (
            answered.result() if error is None else [error] * len(batch)
        )
        for job, result in zip(batch, results, strict=True):
            if job.answer.done():  # cancelled: its client has gone
                continue
            if isinstance(result, StopIteration):
                job.answer.set_exception(RuntimeError(f"the model gave {result!r}"))
            elif isinstance(result, BaseException):
                job.answer.set_exception(result)
            else:
                job.answer.set_result(result)
        self._consider()
