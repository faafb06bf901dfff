"""Measures what agent and SDK cost; prints, asserts nothing. ``python tests/sidecar/measure.py``

The agent: a real process with one stream open and a training process of 10 steps a second. The SDK:
the CPU time of its calls around steps of real work, in turn with the same steps without it.
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
from pathlib import Path
from typing import Any

import torch
from bottleneck_sidecar.training import StepMonitor
from torch.utils.data import DataLoader, TensorDataset

SECONDS = 20.0


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


def sdk(directory: str) -> None:
    inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    inbox.bind(f"{directory}/inbox.sock")
    inbox.setblocking(False)
    torch.set_num_threads(1)
    knobs = Path(directory, "knobs")
    knobs.write_text('{"generation": 1}')
    monitor = StepMonitor(socket=f"{directory}/inbox.sock", knobs=str(knobs))
    plain = DataLoader(TensorDataset(torch.zeros(100_000, 1)), batch_size=None)
    batches: dict[bool, Any] = {True: iter(monitor.loader(plain)), False: iter(plain)}
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    optimizer = torch.optim.SGD([parameter], 0.0)
    matrix = torch.randn(400, 400)
    clock = time.thread_time

    def work() -> None:
        begun = clock()
        while clock() - begun < 0.005:
            matrix @ matrix

    def step(watched: bool) -> float:
        """CPU seconds beside the work."""
        monitor.enabled = watched
        begun, worked = clock(), 0.0
        next(batches[watched])
        for phase in ("forward", "backward"):
            if watched:
                with monitor.phase(phase):
                    worked -= clock()
                    work()
                    worked += clock()
            else:
                worked -= clock()
                work()
                worked += clock()
        optimizer.step()
        if watched:
            monitor.step(samples=1, loss=0.5)
        return clock() - begun - worked

    costs: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(20):
        for watched in (False, True):
            costs[watched].append(statistics.fmean(step(watched) for _ in range(50)))
            while True:
                try:
                    inbox.recv(65536)
                except BlockingIOError:
                    break
    extra = statistics.median(costs[True]) - statistics.median(costs[False])
    print(f"SDK: {extra * 1e6:.0f} µs, {extra / 0.010:.2%} of a step of 10 ms")
    print(f"(the same step without it: {statistics.median(costs[False]) * 1e6:.0f} µs)")


if __name__ == "__main__":
    print("load:", *os.getloadavg())
    with tempfile.TemporaryDirectory() as scratch:
        agent(scratch)
        sdk(scratch)
