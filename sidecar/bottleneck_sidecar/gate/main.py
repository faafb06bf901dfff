"""``bottleneck-gate``: the process. It speaks to the operator as the agent does."""

from __future__ import annotations

import argparse
import asyncio
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from bottleneck_sidecar.agent.server import DEFAULT_INTERVAL, Server, listen
from bottleneck_sidecar.agent.state import Identity, State
from bottleneck_sidecar.gate.backend import Backend
from bottleneck_sidecar.gate.proxy import BACKLOG, Gate, Limits
from bottleneck_sidecar.wire import PORT

FIGURES_SECONDS = 0.5
"""Time between two looks at the counters; they are told as often as the reader wants."""

EXAMPLE = """example:
  bottleneck-gate --listen 0.0.0.0:8080 --to ranker:8000

environment:
  POD_NAME, POD_NAMESPACE, POD_UID   which pod this is (downward API)
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT, and then until every connection is over; a second signal ends
    it at once. Returns the exit status: 0, or 1 if it could not start."""
    options = parsed(arguments)
    _raise_descriptor_limit()
    state = State(Identity.of_this_pod())
    try:
        listener = _open(*options.listen)
    except OSError as error:
        return _complain(f"cannot listen on {_text(options.listen)}: {error.strerror or error}")
    try:
        server = listen(options.telemetry_host, options.telemetry_port, state, DEFAULT_INTERVAL)
    except (OSError, OverflowError) as error:
        listener.close()
        return _complain(f"cannot listen on port {options.telemetry_port}: {error}")
    threading.Thread(target=server.serve_forever, args=(3600.0,), daemon=True).start()
    with listener:
        asyncio.run(_run(options, listener, state, server))
    return 0


async def _run(
    options: argparse.Namespace, listener: socket.socket, state: State, server: Server
) -> None:
    def tell() -> None:
        state.tell(gate.counts.figures())
        server.hub.reported(acknowledged=False)

    def holding() -> None:
        state.tell(gate.counts.figures())
        server.hub.reported(acknowledged=True)  # a line at once: somebody waits

    limits = Limits(options.most_held, options.longest_hold)
    gate = Gate(Backend(*options.to), limits, _log, changed=holding)
    tell()
    signals: asyncio.Queue[None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, None)
    serving = asyncio.create_task(gate.serve(listener))
    telling = asyncio.create_task(_every(FIGURES_SECONDS, tell))
    here, there = _text(listener.getsockname()), _text(options.to)
    _log(f"{here} to {there}, telemetry on port {server.server_address[1]}")

    await signals.get()
    _log(f"draining: {gate.counts.in_flight} in flight, {gate.counts.held} held")
    # Nodes go on sending for a moment, until they have heard that this pod ends.
    again = asyncio.create_task(signals.get())
    await asyncio.wait([again], timeout=options.linger)
    serving.cancel()
    gate.take_rest(listener)
    listener.close()
    drained = asyncio.create_task(gate.drained())
    await asyncio.wait([again, drained], return_when=asyncio.FIRST_COMPLETED)
    telling.cancel()


async def _every(seconds: float, call: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        call()


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="bottleneck-gate",
        description="Holds connections while the workload behind it has no replica, and forwards "
        "them as they are, whatever protocol they speak.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--listen",
        type=_address,
        default=("0.0.0.0", 8080),  # noqa: S104
        metavar="ADDRESS:PORT",
        help="where clients connect (default 0.0.0.0:8080)",
    )
    parser.add_argument(
        "--to",
        type=_address,
        required=True,
        metavar="HOST:PORT",
        help="the workload's own Service, which leads to ready pods only",
    )
    parser.add_argument(
        "--most-held",
        type=_count,
        default=Limits().most_held,
        metavar="N",
        help="connections that may wait for a backend at once (default %(default)d); more get "
        "a 503",
    )
    parser.add_argument(
        "--longest-hold",
        type=_seconds,
        default=Limits().longest_hold,
        metavar="SECONDS",
        help="longest wait (default %(default)g), longer than a replica takes to start; then a 503",
    )
    parser.add_argument(
        "--linger",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="how long new connections are taken after SIGTERM (default %(default)g)",
    )
    parser.add_argument(
        "--telemetry-port",
        type=int,
        default=PORT,
        metavar="PORT",
        help="for the operator and Prometheus (default %(default)s)",
    )
    parser.add_argument(
        "--telemetry-host",
        default="",
        metavar="ADDRESS",
        help="address to listen on for them (default: all)",
    )
    return parser.parse_args(arguments)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise argparse.ArgumentTypeError(
            f"{text!r}: write a host and a port, for instance ranker:8000 or [::]:8080"
        )
    return host, int(port)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 100_000):
        raise argparse.ArgumentTypeError("must be a whole number from 1 to 100000")
    return int(text)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 86400:
        raise argparse.ArgumentTypeError("must be a number of seconds from 0 to 86400, such as 120")
    return value


def _open(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::"  # one socket for both families
    return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both)


def _raise_descriptor_limit() -> None:
    """Two for each connection; what the container may have is more than what it begins with."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _text(address: tuple[Any, ...]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _log(text: str) -> None:
    print(f"bottleneck-gate: {text}", file=sys.stderr, flush=True)


def _complain(text: str) -> int:
    _log(text)
    return 1
