"""Replays a trace against a server: open loop, so that a slow server meets no mercy.

    python -m examples.loadgen --target http://127.0.0.1:8000/generate --speed 2 --seconds 60

Prints one JSON line per second (requests that ended in it, with every latency) and a summary.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from .client import Target, TargetError, resolve, send
from .figures import Figures
from .trace import Request, TraceError, cut, read, schedule

TRACE = Path(__file__).with_name("azure-llm-2023.csv")
PROBES = 40
MAX_IN_FLIGHT = 512


class Replay:
    """Sends a schedule and keeps count."""

    def __init__(self, target: Target, timeout_seconds: float) -> None:
        self.target = target
        self.timeout_seconds = timeout_seconds
        self.second = Figures()
        self.total = Figures()
        self.tasks: set[asyncio.Task[None]] = set()
        self.stopped = asyncio.Event()

    async def run(self, requests: list[Request]) -> float:
        """Sends every request at its time; returns the seconds it took."""
        begin = time.monotonic()
        printer = asyncio.create_task(self._print_every_second(begin))
        for request in requests:
            delay = begin + request.at - time.monotonic()
            if delay > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.stopped.wait(), delay)
            if self.stopped.is_set():
                break
            if len(self.tasks) >= MAX_IN_FLIGHT:
                self._count(0.0, "too many in flight")
                continue
            task = asyncio.create_task(self._send(request, begin + request.at))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        await asyncio.gather(*self.tasks)
        printer.cancel()
        return time.monotonic() - begin

    async def _send(self, request: Request, due: float) -> None:
        error = await send(self.target, request, self.timeout_seconds)
        # From when it was due, not from when it was sent: a late start is waiting, too.
        self._count(time.monotonic() - due, error)

    def _count(self, seconds: float, error: str) -> None:
        self.second.add(seconds, error)
        self.total.add(seconds, error)

    async def _print_every_second(self, begin: float) -> None:
        for second in range(1, 10**9):
            await asyncio.sleep(max(0.0, begin + second - time.monotonic()))
            figures, self.second = self.second, Figures()
            line = {"time": round(time.time(), 3), "second": second, **figures.summary(1.0)}
            line |= {"inFlight": len(self.tasks), "latencies": _rounded(figures.latencies)}
            print(json.dumps(line), flush=True)


def _rounded(latencies: list[float]) -> list[float]:
    return [round(latency, 4) for latency in latencies]


async def measure_service_time(
    target: Target, requests: list[Request], timeout_seconds: float
) -> float:
    """Mean seconds of a request that waits for nobody: a sample of the slice, one at a time.

    The better of two passes counts: what else happens on the machine can only make them slower."""
    probes = requests[:: max(1, len(requests) // PROBES)]
    means = []
    for _ in range(2):
        begin = time.monotonic()
        for request in probes:
            if error := await send(target, request, timeout_seconds):
                raise TargetError(f"{target.host}: a single request failed: {error}")
        means.append((time.monotonic() - begin) / len(probes))
    return min(means)


def positive(text: str) -> float:
    """An argument that must be a number above zero."""
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise ValueError
    return value


def arguments() -> argparse.Namespace:
    """The command line."""
    number: Callable[[str], float] = positive
    parser = argparse.ArgumentParser(
        prog="python -m examples.loadgen",
        description="Replay a trace of a language model service against a server of your own.",
    )
    parser.add_argument(
        "--target", required=True, help="http://HOST:PORT/PATH, loopback or private"
    )
    parser.add_argument(
        "--trace", type=Path, default=TRACE, help="CSV with " + TRACE.name + "'s columns"
    )
    parser.add_argument("--start", type=float, default=0.0, help="trace seconds to leave out (0)")
    parser.add_argument("--duration", type=number, default=30.0, help="trace seconds of a lap (30)")
    parser.add_argument("--seconds", type=number, default=60.0, help="how long to send (60)")
    parser.add_argument("--timeout", type=number, default=10.0, help="seconds for one request (10)")
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument("--speed", type=number, help="how many times as fast as the trace (1)")
    pace.add_argument("--rate", type=number, help="mean requests per second instead")
    pace.add_argument(
        "--utilization",
        type=number,
        help=f"mean share of one server's time instead, measured with {2 * PROBES} requests first:"
        " the same strain on a slow machine and on a fast one",
    )
    return parser.parse_args()


async def main(args: argparse.Namespace) -> None:
    """Runs the whole replay."""
    requests = cut(read(args.trace), args.start, args.duration)
    target = resolve(args.target)
    speed = args.speed or 1.0
    begin = {"event": "begin", "target": args.target, "trace": args.trace.name}
    if args.utilization:
        service = await measure_service_time(target, requests, args.timeout)
        args.rate = args.utilization / service
        begin["serviceSeconds"] = round(service, 4)
    if args.rate:
        speed = args.rate * args.duration / len(requests)
    begin |= {"speed": round(speed, 3), "lapSeconds": round(args.duration / speed, 3)}
    print(json.dumps(begin), flush=True)
    replay = Replay(target, args.timeout)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, replay.stopped.set)
    seconds = await replay.run(list(schedule(requests, args.duration, speed, args.seconds)))
    print(json.dumps({"event": "end", **replay.total.summary(seconds)}), flush=True)


if __name__ == "__main__":
    try:
        asyncio.run(main(arguments()))
    except (TraceError, TargetError) as error:
        sys.exit(f"loadgen: {error}")
