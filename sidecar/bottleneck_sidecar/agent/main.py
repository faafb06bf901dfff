"""``bottleneck-agent``: the sidecar's process."""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import stat
import sys
import threading
import time

from bottleneck_sidecar import cgroup, gpu
from bottleneck_sidecar.agent.record import Recorder
from bottleneck_sidecar.agent.server import (
    DEFAULT_INTERVAL,
    MAX_INTERVAL,
    MIN_INTERVAL,
    Server,
    listen,
)
from bottleneck_sidecar.agent.state import MAX_REPORT_BYTES, Identity, State
from bottleneck_sidecar.agent.workload import Finder
from bottleneck_sidecar.client import GPU_VARIABLE, SOCKET_VARIABLE
from bottleneck_sidecar.wire import PORT, WireError

SOCKET = "/var/run/bottleneck/agent.sock"

BURST, PAUSE_SECONDS = 64, 0.1
"""After so many datagrams without a pause the agent takes one: whoever floods the socket has to
wait (that is, drops), and the agent's share of the CPU stays small."""

COMPLAINT_SECONDS = 30.0
"""Least time between two lines in the log about bad datagrams."""

EXAMPLE = """example:
  bottleneck-agent --socket /tmp/agent.sock --port 9709 &
  curl --no-buffer 'http://localhost:9709/v1/stream?interval=2'
  bottleneck-agent --record incident.jsonl --interval 1

environment:
  POD_NAME, POD_NAMESPACE, POD_UID   which pod this is (downward API)
  BOTTLENECK_SOCKET                  default of --socket
  BOTTLENECK_GPU=all                 the same as --gpu
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT. Returns the exit status: 0, or 1 if it could not start."""
    options = _options(arguments)
    # Before anything that takes time: a pod that is deleted while starting must not have to wait.
    woken, waker = socket.socketpair()
    woken.setblocking(False)
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())

    reader = gpu.Reader() if options.gpu else None
    state = State(
        Identity.of_this_pod(),
        find_container=Finder(root=options.cgroup_root).read,
        find_gpus=reader.read if reader is not None else list,
    )
    try:
        inbox = _open_socket(options.socket)
    except OSError as error:
        return _complain(f"cannot open the socket {options.socket}: {error.strerror or error}")
    try:
        server = listen(options.host, options.port, state, options.interval)
    except (OSError, OverflowError) as error:
        _remove(options.socket)
        return _complain(f"cannot listen on port {options.port}: {error}")
    threading.Thread(target=server.serve_forever, args=(3600.0,), daemon=True).start()
    port = server.server_address[1]
    print(f"bottleneck-agent: socket {options.socket}, port {port}", file=sys.stderr, flush=True)
    recorder = None
    if options.record:
        limit = int(options.record_max_mb * 2**20)
        recorder = Recorder(options.record, state, server.hub, options.interval, limit)
    try:
        _receive(inbox, woken, stopping, state, server)
    finally:
        _remove(options.socket)
        if recorder is not None:
            recorder.close()
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bottleneck-agent",
        description="Gathers the telemetry of one pod and serves it on /v1/stream, /metrics and "
        "/healthz. Accepts no commands.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--socket",
        default=os.environ.get(SOCKET_VARIABLE) or SOCKET,
        metavar="PATH",
        help="datagram socket on which the SDK reports (default %(default)s)",
    )
    parser.add_argument(
        "--port", type=int, default=PORT, help="TCP port, 0 for any (default %(default)s)"
    )
    parser.add_argument(
        "--host", default="", metavar="ADDRESS", help="address to listen on (default: all)"
    )
    parser.add_argument(
        "--interval",
        type=_seconds,
        default=DEFAULT_INTERVAL,
        metavar="SECONDS",
        help="time between lines where the reader names none (default %(default)g)",
    )
    parser.add_argument(
        "--cgroup-root",
        default=cgroup.ROOT,
        metavar="PATH",
        help="where the cgroup file system is mounted (default %(default)s)",
    )
    parser.add_argument(
        "--gpu",
        action="store_true",
        default=os.environ.get(GPU_VARIABLE) == "all",
        help="read the visible GPUs; only where they are the workload's own",
    )
    parser.add_argument(
        "--record",
        metavar="FILE",
        help="also write every line to FILE, for `kubectl bottleneck diagnose FILE`",
    )
    parser.add_argument(
        "--record-max-mb",
        type=_megabytes,
        default=256.0,
        metavar="MIB",
        help="size at which the recording ends (default %(default)g)",
    )
    return parser.parse_args(arguments)


def _seconds(text: str) -> float:
    value = float(text)
    if not MIN_INTERVAL <= value <= MAX_INTERVAL:
        raise argparse.ArgumentTypeError(f"must be from {MIN_INTERVAL:g} to {MAX_INTERVAL:g}")
    return value


def _megabytes(text: str) -> float:
    value = float(text)
    if not 0 < value <= 2**20:
        raise argparse.ArgumentTypeError("must be above 0, for instance 256")
    return value


def _open_socket(path: str) -> socket.socket:
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)  # left over by an agent that was killed
    except FileNotFoundError:
        pass
    inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    inbox.bind(path)
    os.chmod(path, 0o666)  # noqa: S103 - the workload may run as any user
    return inbox


def _receive(
    inbox: socket.socket,
    woken: socket.socket,
    stopping: threading.Event,
    state: State,
    server: Server,
) -> None:
    poller = select.poll()
    poller.register(inbox, select.POLLIN)
    poller.register(woken, select.POLLIN)
    inbox.setblocking(False)
    complained_at = float("-inf")
    while not stopping.is_set():
        poller.poll()
        for _ in range(BURST):
            try:
                data = inbox.recv(MAX_REPORT_BYTES + 1)
            except BlockingIOError:
                break
            try:
                server.hub.reported(acknowledged=state.receive(data))
            except WireError as error:
                if time.monotonic() - complained_at >= COMPLAINT_SECONDS:
                    complained_at = time.monotonic()
                    _complain(f"refused a report ({state.bad_reports} so far): {_plain(error)}")
        else:
            stopping.wait(PAUSE_SECONDS)


def _plain(error: Exception) -> str:
    """The text of an error that quotes what a stranger has sent: one short line."""
    text = str(error).encode("ascii", "backslashreplace").decode()
    return "".join(sign if sign.isprintable() else "?" for sign in text)[:200]


def _complain(text: str) -> int:
    print(f"bottleneck-agent: {text}", file=sys.stderr, flush=True)
    return 1


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return


if __name__ == "__main__":
    sys.exit(main())
