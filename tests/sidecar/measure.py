"""Measures what agent and SDK cost; prints, asserts nothing. ``python tests/sidecar/measure.py``

The agent: a real process with one stream open and a training process of 10 steps a second. The SDK:
the CPU time of a training loop with it, in turn with the same loop without it. What others do on
the machine makes every figure larger: see how long the bare step takes beside its work.
"""

from __future__ import annotations

import http.client
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bottleneck_sidecar import hooks, training
from bottleneck_sidecar.training import StepMonitor
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.data import DataLoader, TensorDataset

SECONDS = 10.0


def agent(directory: str) -> None:
    path = f"{directory}/agent.sock"
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "bottleneck_sidecar.agent", f"--socket={path}", "--port=0"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
    )
    assert process.stderr is not None
    port = int(process.stderr.readline().rpartition(" ")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/v1/stream?interval=10")
    connection.getresponse().readline()
    print(f"agent: start to first line {time.perf_counter() - begun:.2f} s")
    monitor = StepMonitor(socket=path)
    before, begun = _cpu_seconds(process.pid), time.perf_counter()
    while time.perf_counter() - begun < SECONDS:
        time.sleep(0.1)
        monitor.step(samples=32, loss=0.5)
    used = (_cpu_seconds(process.pid) - before) / (time.perf_counter() - begun)
    status = Path(f"/proc/{process.pid}/status").read_text()
    kilobytes = int(status.partition("VmRSS:")[2].split()[0])
    print(f"agent: {used:.2%} of a core, {kilobytes / 1024:.1f} MiB resident")
    monitor.close()
    begun = time.perf_counter()
    process.terminate()
    print(f"agent: exit {process.wait()} after {time.perf_counter() - begun:.2f} s")


def _cpu_seconds(pid: int) -> float:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


STEP_SECONDS = 0.010
PART_STEPS, PARTS, PAIRS = 10, 5, 16
"""A pair is half a second of such steps with the monitor and as many without it: one report in
them, and the container's figures in every other, as it would be if nobody else used the CPU. The
two take turns every 0.1 s, each first as often as the other, so that what changes on the machine
meets both."""


class Inbox:
    """Takes what is sent and throws it away, as an agent would without costing its CPU."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self._socket.setblocking(False)

    def empty(self) -> int:
        """Number of messages that were there."""
        count = 0
        while True:
            try:
                self._socket.recv(65536)
            except BlockingIOError:
                return count
            count += 1


def sdk(directory: str) -> None:
    """The same training loop with and without the monitor, in turn: the CPU time of the training
    thread for a step, without the matrix products that make a step 10 ms long."""
    inbox = Inbox(f"{directory}/inbox.sock")
    torch.set_num_threads(1)
    knobs = Path(directory, "knobs")
    knobs.write_text('{"generation": 1}')
    dataset = TensorDataset(torch.zeros(1_000_000, 1))
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    matrix = torch.randn(400, 400)
    clock = time.thread_time
    worked, length = 0.0, STEP_SECONDS

    def work() -> None:
        nonlocal worked
        begun = clock()
        while clock() - begun < length / 2:
            matrix @ matrix
        worked += clock() - begun

    def part(batches: Any, monitor: StepMonitor | None, container: bool | None = None) -> float:
        """CPU seconds of a step beside the work. A report falls into it where it is said whether
        the container's figures are in that."""
        nonlocal worked
        for number in range(PART_STEPS + 1):
            if number == 1:  # the one before found the functions of torch exchanged
                worked, begun = 0.0, clock()
            if number == PART_STEPS // 2 and monitor is not None and container is not None:
                monitor._due = monitor._reported_at = -1e9
                monitor._client._container_at = -1e9 if container else 1e9
            (batch,) = next(batches)
            work()
            if monitor is not None:
                with monitor.phase("forward"):
                    loss = model(batch).mean()
            else:
                loss = model(batch).mean()
            loss.backward()
            work()
            optimizer.step()
            optimizer.zero_grad()
            if monitor is not None:
                monitor.step(samples=1, loss=loss)
        return (clock() - begun - worked) / PART_STEPS

    def plain(workers: int) -> Any:
        return DataLoader(dataset, batch_size=1, num_workers=workers)

    for workers, length in ((0, 0.0), (0, STEP_SECONDS), (2, STEP_SECONDS)):
        costs: dict[bool, list[float]] = {True: [], False: []}
        reports = 0
        training.REPORT_SECONDS = 1e6
        bare = iter(plain(workers))
        monitor = StepMonitor(socket=inbox.path, knobs=str(knobs))
        seen = iter(monitor.loader(plain(workers)))
        next(seen)
        monitor.close()
        for pair in range(PAIRS + 1):
            costs_now = {True: 0.0, False: 0.0}
            for number in range(PARTS):
                for watched in ((pair + number) % 2 == 0, (pair + number) % 2 == 1):
                    if not watched:
                        costs_now[False] += part(bare, None) / PARTS
                        continue
                    # Opened and closed each time, so that without it nothing of it is there.
                    close = _opened(monitor)
                    container = pair % 2 == 1 if number == 1 else None
                    costs_now[True] += part(seen, monitor, container) / PARTS
                    close()
            reports += inbox.empty()
            if pair:  # the first one warms up
                for watched, cost in costs_now.items():
                    costs[watched].append(cost)
        extra = [a - b for a, b in zip(costs[True], costs[False], strict=True)]
        quarter = statistics.quantiles(extra, n=4)
        print(
            f"SDK, {workers} workers, {length * 1e3:g} ms of work: "
            f"{quarter[1] * 1e6:.0f} µs a step ({quarter[0] * 1e6:.0f} to "
            f"{quarter[2] * 1e6:.0f} in the middle half of {PAIRS} pairs), "
            f"{quarter[1] / STEP_SECONDS:.2%} of 10 ms; {reports} reports in {PAIRS + 1} pairs; "
            f"the bare step beside its work {statistics.median(costs[False]) * 1e6:.0f} µs"
        )


def _opened(monitor: StepMonitor) -> Callable[[], None]:
    """Lets a closed monitor watch again, as if no time had passed, until what is returned is
    called."""
    monitor.enabled = True
    watch = monitor.clock
    away = time.perf_counter() - watch.mark
    watch.mark += away
    watch._begun += away
    hooks.begin(monitor)
    held = [
        register_optimizer_step_pre_hook(monitor._optimizer_begins),
        register_optimizer_step_post_hook(monitor._optimizer_ended),
    ]

    def close() -> None:
        monitor.enabled = False
        hooks.end(monitor)
        for each in held:
            each.remove()

    return close


if __name__ == "__main__":
    print("load:", *os.getloadavg())
    with tempfile.TemporaryDirectory() as scratch:
        agent(scratch)
        sdk(scratch)
