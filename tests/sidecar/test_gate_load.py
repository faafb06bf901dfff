"""No request is lost or sent twice: the load generator against servers that come and go.

The gate runs in the test's own event loop here, so that an endpoint can be withdrawn as a Service
does it: first nobody is led to the pod any more, and it ends when it has answered those it had.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path

from bottleneck_sidecar.gate.backend import Address, Backend
from bottleneck_sidecar.gate.proxy import Gate, Limits

from examples.loadgen.__main__ import Replay
from examples.loadgen.client import resolve, send
from examples.loadgen.trace import Request

from .conftest import DEADLINE_SECONDS, eventually  # type: ignore[import-not-found]
from .test_gate import (  # type: ignore[import-not-found]
    Gate as Process,
)
from .test_gate import Servers, free_port, gates, servers  # noqa: F401 - fixtures

RATE, SECONDS = 150, 4.0


class Recorder(Replay):
    """A replay that keeps which requests failed, and how."""

    failed: dict[int, str]

    async def _send(self, request: Request, due: float) -> None:
        if error := await send(self.target, request, self.timeout_seconds):
            self.failed[request.context] = error
        self._count(0.0, error)


class Service:
    """A gate in front of the endpoints that are listed here."""

    def __init__(self, started: Servers) -> None:
        self.servers = started
        self.endpoints: list[tuple[int, Address]] = []
        self.backend = Backend("service", 80, self._resolve)
        self.gate = Gate(self.backend, Limits(), log=lambda text: None)

    async def _resolve(self) -> list[tuple[int, Address]]:
        return list(self.endpoints)

    async def start(self) -> subprocess.Popen[bytes]:
        """A new pod, listed when it is ready."""
        port = free_port()
        process = self.servers.start(port, 0.02)
        await until(lambda: listens(port))
        self.endpoints.append((socket.AF_INET, ("127.0.0.1", port)))
        return process

    async def withdraw(self) -> None:
        """No endpoints; returns when those that were led to one have their answer."""
        self.endpoints.clear()
        self.backend.forget()
        await until(lambda: self.gate.counts.in_flight == 0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110 - processes set no events
            await asyncio.sleep(0.005)


async def answered(replay: Recorder, more: int) -> None:
    """Returns when so many more requests have been answered."""
    wanted = len(replay.total.latencies) + more
    await until(lambda: len(replay.total.latencies) >= wanted)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def under_load(
    service: Service, disturb: Callable[[Recorder], Coroutine[None, None, None]]
) -> Recorder:
    """Sends numbered requests through the gate while ``disturb`` runs."""

    async def run() -> Recorder:
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
            serving = asyncio.create_task(service.gate.serve(listener))
            target = resolve(f"http://127.0.0.1:{listener.getsockname()[1]}/")
            replay = Recorder(target, timeout_seconds=DEADLINE_SECONDS)
            replay.failed = {}
            count = int(RATE * SECONDS)
            requests = [Request(number / RATE, number, 1) for number in range(count)]
            await asyncio.gather(replay.run(requests), disturb(replay))
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving
            await service.gate.drained()
            return replay

    return asyncio.run(run())


def test_none_is_lost_or_sent_twice_however_often_the_pods_go(servers: Servers) -> None:  # noqa: F811
    service = Service(servers)

    async def come_and_go(replay: Recorder) -> None:
        for _ in range(3):
            await until(lambda: service.gate.counts.held >= 10)
            process = await service.start()
            await answered(replay, 50)
            await service.withdraw()
            process.terminate()
            process.wait()
        await service.start()

    replay = under_load(service, come_and_go)
    assert replay.failed == {}
    counted = Counter(map(int, servers.asked))
    assert counted == Counter(range(int(RATE * SECONDS)))
    figures = service.gate.counts.figures()
    assert figures.holds >= 30
    assert (figures.held, figures.in_flight, figures.refused) == (0, 0, 0)


def test_a_killed_server_takes_only_what_it_had_and_nothing_is_sent_twice(
    servers: Servers,  # noqa: F811
) -> None:
    """What a server had when it was killed may or may not have been done, so it is not repeated."""
    service = Service(servers)

    async def kill(replay: Recorder) -> None:
        for _ in range(3):
            process = await service.start()
            await answered(replay, 30)
            process.send_signal(signal.SIGKILL)
            process.wait()
            await until(lambda: service.gate.counts.held >= 10)
            service.endpoints.clear()
        await service.start()

    replay = under_load(service, kill)
    counted = Counter(map(int, servers.asked))
    assert max(counted.values()) == 1
    assert set(range(int(RATE * SECONDS))) - set(counted) <= set(replay.failed)
    assert len(replay.total.latencies) + len(replay.failed) == RATE * SECONDS
    # At most what came in within the moment that a process takes to die.
    assert len(replay.failed) < 0.2 * RATE * SECONDS


def test_the_load_generator_sees_a_late_server_as_a_slow_one(
    gates: list[Process],  # noqa: F811
    servers: Servers,  # noqa: F811
) -> None:
    gates.append(gate := Process())
    command = [sys.executable, "-m", "examples.loadgen", "--rate=50", "--seconds=2"]
    command.append(f"--target=http://127.0.0.1:{gate.front}/generate")
    repository = Path(__file__).parents[2]
    load = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ, cwd=repository)
    eventually(lambda: gate.metric("bottleneck_gate_holds_total") >= 10)
    servers.start(gate.to)
    output, _ = load.communicate(timeout=DEADLINE_SECONDS)
    end = json.loads(output.splitlines()[-1])
    assert end["errors"] == {}
    assert end["answered"] == len(servers.asked) > 10
