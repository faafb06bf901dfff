"""Measures what the gate costs a request; prints, asserts nothing.

``PYTHONPATH=sidecar python tests/sidecar/measure_gate.py``

The same small HTTP request on a connection of its own each time, to a server directly and through
the gate, in turn, one after the other: the difference of the medians is what the gate adds. Then
the request on one connection that is kept; then how much CPU a forwarded connection takes, how many
a second pass, and the gate's memory with nobody and with a thousand held.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

ROUNDS = 2000
HELD = 1000
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"

SERVER = f"""
import asyncio
class Answer(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data): self.transport.write({ANSWER!r})
async def main(port):
    server = await asyncio.get_running_loop().create_server(Answer, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()
import sys
asyncio.run(main(int(sys.argv[1])))
"""


def once(port: int) -> float:
    """Seconds from connecting to the answer."""
    begun = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as made:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.sendall(REQUEST)
        made.recv(4096)
        return time.perf_counter() - begun


def compare(name: str, direct: list[float], through: list[float]) -> None:
    def text(values: list[float]) -> str:
        cuts = statistics.quantiles(values, n=100)
        return f"median {cuts[49] * 1e6:.0f} µs, p99 {cuts[98] * 1e6:.0f} µs"

    added = statistics.median(through) - statistics.median(direct)
    print(f"{name}: direct {text(direct)}; gate {text(through)}; added {added * 1e6:.0f} µs")


def kept(port: int, rounds: int) -> list[float]:
    times = []
    with socket.create_connection(("127.0.0.1", port)) as made:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(rounds):
            begun = time.perf_counter()
            made.sendall(REQUEST)
            made.recv(4096)
            times.append(time.perf_counter() - begun)
    return times


def cpu_seconds(pid: int) -> float:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def resident(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


async def together(port: int, clients: int, each: int) -> float:
    """Requests a second of so many clients at once, on a connection for each request."""

    async def client() -> None:
        for _ in range(each):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST)
            await reader.readexactly(len(ANSWER))
            writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return clients * each / (time.perf_counter() - begun)


def main() -> None:
    print("load:", *os.getloadavg())
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        to = taken.getsockname()[1]
    begun = time.perf_counter()
    gate = subprocess.Popen(
        [
            *(sys.executable, "-m", "bottleneck_sidecar.gate", "--listen=127.0.0.1:0"),
            *(f"--to=127.0.0.1:{to}", "--linger=0", "--telemetry-port=0"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
    )
    assert gate.stderr is not None
    found = re.search(r":(\d+) to ", gate.stderr.readline())
    assert found
    front = int(found[1])
    print(f"start {time.perf_counter() - begun:.2f} s, {resident(gate.pid):.1f} MiB with nobody")
    held = [socket.create_connection(("127.0.0.1", front)) for _ in range(HELD)]
    for made in held:
        made.sendall(REQUEST)
    time.sleep(2)
    before, begun = cpu_seconds(gate.pid), time.perf_counter()
    time.sleep(5)
    used = (cpu_seconds(gate.pid) - before) / (time.perf_counter() - begun)
    print(f"{HELD} held: {resident(gate.pid):.1f} MiB, {used:.1%} of a core")
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(to)])
    begun = time.perf_counter()
    for made in held:
        made.recv(4096)
    seconds = time.perf_counter() - begun
    print(f"all of them answered {seconds:.2f} s after the server was started")
    for made in held:
        made.close()
    for _ in range(100):
        once(to), once(front)
    pairs = [(once(to), once(front)) for _ in range(ROUNDS)]
    compare("own connection", [a for a, _ in pairs], [b for _, b in pairs])
    compare("kept connection", kept(to, ROUNDS), kept(front, ROUNDS))
    before = cpu_seconds(gate.pid)
    rate = asyncio.run(together(front, 32, 100))
    used = (cpu_seconds(gate.pid) - before) / 3200
    print(
        f"32 clients at once: {rate:.0f} connections/s, {used * 1e6:.0f} µs of the gate's CPU each"
    )
    print(f"32 clients directly: {asyncio.run(together(to, 32, 100)):.0f} connections/s")
    print(f"{resident(gate.pid):.1f} MiB afterwards")
    gate.terminate()
    print(f"exit {gate.wait()}")
    server.kill()
    server.wait()


if __name__ == "__main__":
    main()
