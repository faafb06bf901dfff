"""Serves one of two models over HTTP; every fault of serving can be told to it by an option.

    python -m hack.bench.workloads.serving --model classifier --port 8000

A request may first ask a dependency; then it waits for the model, which takes one batch at a time.
Answers ``GET /generate?context=N&tokens=N`` like ``examples.inference``. Runs until it is stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import lzma
import random
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import torch
import uvicorn
from bottleneck_sidecar.inference import (
    Batching,
    Request,
    TelemetryMiddleware,
    current,
    dependency,
    service,
)

from .models import SERVED

Message = MutableMapping[str, Any]
MAX_WAITING = 2048


@dataclass(eq=False)
class Job:
    """One request on its way to the model."""

    context: int
    tokens: int
    broken: bool
    request: Request | None
    done: asyncio.Future[int]


class Model:
    """The weights and what is done with them, in the one thread that may use them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.began = time.monotonic()
        self.network: Any = None
        self.kept: list[torch.Tensor] = []
        if not args.lazy:
            self.load()
            self.network.answer([1], [8])

    def load(self) -> None:
        """Unpacks the weights, as from a compressed archive: that is what a cold start does."""
        args = self.args
        torch.manual_seed(args.seed)
        if args.load_mb:
            for piece in range(int(args.load_mb)):
                packed = (Path(args.scratch) / "weights.xz").read_bytes()
                unpacked = bytearray(lzma.decompress(packed))
                unpacked[0] = piece % 256
                self.kept.append(torch.frombuffer(unpacked, dtype=torch.uint8))
        self.network = SERVED[args.model](args.width)

    def run(self, jobs: list[Job]) -> list[int | Exception]:
        """The answers to one batch."""
        args = self.args
        requests = [job.request for job in jobs if job.request is not None]
        with service(requests):
            if self.network is None:
                self.load()
            late = time.monotonic() - self.began >= args.later_after
            factor = args.cost * (args.later_cost if late else 1.0)
            sound = [job for job in jobs if not job.broken]
            tokens = [max(1, int(min(job.tokens, args.max_tokens) * factor)) for job in sound]
            found = self.network.answer([job.context for job in sound], tokens) if sound else []
            if args.leak_mb:
                self.kept.append(torch.ones(int(args.leak_mb * 2**18)))
            return [*found, *(self.fail(job) for job in jobs if job.broken)]

    def fail(self, job: Job) -> Exception:
        """What a request with features of the wrong shape meets: torch's own error."""
        try:
            torch.rand(3, 4) @ torch.rand(5, job.context % 7 + 1)
        except RuntimeError as error:
            return error
        raise AssertionError("these shapes do not fit")


def pack_weights(args: argparse.Namespace) -> None:
    """Writes the archive (one MB, unpacked as often as is asked for) that a cold start unpacks."""
    path = Path(args.scratch) / "weights.xz"
    if args.load_mb and not path.exists():
        weights = bytes(random.Random(7).choices(range(16), k=2**20))  # noqa: S311
        path.write_bytes(lzma.compress(weights))


class App:
    """The application without telemetry."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.model = Model(args)
        self.worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self.draw = random.Random(args.seed)  # noqa: S311
        self.jobs: asyncio.Queue[Job] = asyncio.Queue()
        self.collecting: asyncio.Task[None] | None = None

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            status, body = await self._answer(scope)
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": json.dumps(body).encode()})

    async def _lifespan(
        self, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.collecting = asyncio.create_task(self._collect())
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _answer(self, scope: Message) -> tuple[int, dict[str, Any]]:
        if scope["path"] == "/healthz":
            return 200, {}
        query = parse_qs(scope["query_string"].decode("ascii", "replace"))
        context, tokens = int(query["context"][0]), int(query["tokens"][0])
        if self.args.dependency_url:
            with dependency(self.args.dependency_name):
                await ask(self.args.dependency_url)
        if self.jobs.qsize() >= MAX_WAITING:
            return 503, {"error": "too many requests wait"}
        broken = self.draw.random() < self.args.error_rate
        job = Job(context, tokens, broken, current(), asyncio.get_running_loop().create_future())
        self.jobs.put_nowait(job)
        try:
            return 200, {"text": await job.done}
        except RuntimeError as error:
            return 500, {"error": str(error)}

    async def _collect(self) -> None:
        """Gathers batches: until one is full, or until its first request has waited long enough."""
        args, loop = self.args, asyncio.get_running_loop()
        while True:
            jobs = [await self.jobs.get()]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(args.batch_delay if args.batch_max > 1 else 0):
                    while len(jobs) < args.batch_max:
                        jobs.append(await self.jobs.get())
            while len(jobs) < args.batch_max and not self.jobs.empty():
                jobs.append(self.jobs.get_nowait())
            jobs.sort(key=lambda job: job.broken)
            answers = await loop.run_in_executor(self.worker, self.model.run, jobs)
            for job, answer in zip(jobs, answers, strict=True):
                if job.done.done():
                    continue
                if isinstance(answer, Exception):
                    job.done.set_exception(answer)
                else:
                    job.done.set_result(answer)


async def ask(url: str) -> None:
    """One request over HTTP, to the last byte."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(f"GET / HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        await reader.read(-1)
    finally:
        writer.close()


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench.workloads.serving",
        description="Serve a small model, with whatever fault the options ask for.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--port", type=int, default=8000, help="on the loopback interface")
    add("--scratch", default="build/bench", help="folder for the packed weights")
    add("--model", choices=sorted(SERVED), default="classifier", help="model family")
    add("--seed", type=int, default=0, help="of weights and errors")
    add("--threads", type=int, default=1, help="of torch")
    add("--width", type=float, default=1.0, help="of the model")
    add("--cost", type=float, default=1.0, help="tokens computed for each token asked for")
    add("--max-tokens", type=int, default=32, help="longest answer")
    add("--later-cost", type=float, default=1.0, help="the same, that many times over, later on")
    add("--later-after", type=float, default=1e9, help="seconds until --later-cost")
    add("--batch-max", type=int, default=1, help="most requests in a batch")
    add("--batch-delay", type=float, default=0.0, help="seconds that a batch waits to be full")
    add("--dependency-url", default="", help="asked by every request")
    add("--dependency-name", default="features", help="what it is called in the telemetry")
    add("--error-rate", type=float, default=0.0, help="share of requests that fail")
    add("--lazy", action="store_true", help="load the model with the first request")
    add("--load-mb", type=float, default=0.0, help="MB of weights to unpack while loading")
    add("--leak-mb", type=float, default=0.0, help="MB of memory lost with every batch")
    return parser.parse_args()


def main() -> None:
    """Runs the server until it is told to stop."""
    args = arguments()
    torch.set_num_threads(args.threads)
    pack_weights(args)
    batching = Batching(args.batch_max, args.batch_delay) if args.batch_max > 1 else None
    app = TelemetryMiddleware(App(args), concurrency=1, batching=batching)
    uvicorn.run(app, host="127.0.0.1", port=args.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
