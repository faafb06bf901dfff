"""The gate as a process, in front of servers that come late and go."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from bottleneck_sidecar import wire
from bottleneck_sidecar.agent.figures import figures, moved
from bottleneck_sidecar.agent.state import Identity, State
from bottleneck_sidecar.gate.counts import Counts
from bottleneck_sidecar.gate.main import main, parsed

from .conftest import (  # type: ignore[import-not-found]
    DEADLINE_SECONDS,
    Agent,
    Stream,
    eventually,
)

REQUEST = b"GET /?context=1 HTTP/1.1\r\nHost: x\r\n\r\n"


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return int(taken.getsockname()[1])


class Gate:
    """One gate process in front of ``to``, a port that may have nobody yet."""

    metric = Agent.metric
    get = Agent.get
    stop = Agent.stop

    def __init__(self, *options: str) -> None:
        self.to = free_port()
        self.log: list[str] = []
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "bottleneck_sidecar.gate"),
                *("--listen=127.0.0.1:0", f"--to=127.0.0.1:{self.to}", "--linger=0"),
                *("--telemetry-port=0", "--telemetry-host=127.0.0.1"),
                *options,
            ],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "POD_NAME": "gate-0", "POD_NAMESPACE": "ml", "POD_UID": "u"},
        )
        assert self.process.stderr is not None
        started = self.process.stderr.readline()
        found = re.search(r":(\d+) to .* port (\d+)$", started)
        assert found, started
        self.front, self.port = int(found[1]), int(found[2])

    def connect(self, says: bytes = b"") -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.front), DEADLINE_SECONDS)
        made.settimeout(DEADLINE_SECONDS)
        made.sendall(says)
        return made

    def ask(self, number: int = 1) -> tuple[int, str]:
        """Status and body of a request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.front, timeout=DEADLINE_SECONDS)
        with closing(connection):
            connection.request("GET", f"/?context={number}")
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def has(self, name: str, value: float) -> None:
        """Waits until a figure of ``/metrics`` has this value."""
        eventually(lambda: self.metric(f"bottleneck_gate_{name}") == value, f"{name} {value}")


@pytest.fixture
def gates() -> Iterator[list[Gate]]:
    running: list[Gate] = []
    yield running
    for gate in running:
        if gate.process.poll() is None:
            gate.process.kill()
            gate.process.wait()
        assert gate.process.stderr is not None
        gate.process.stderr.close()


class Servers:
    """Starts servers; ``asked`` is what all of them were asked, in order."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "asked"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, port: int, seconds: float = 0.0) -> subprocess.Popen[bytes]:
        script = Path(__file__).with_name("counting_server.py")
        command = [sys.executable, str(script), str(port), str(self.file), str(seconds)]
        self.processes.append(subprocess.Popen(command))
        return self.processes[-1]

    @property
    def asked(self) -> list[str]:
        return self.file.read_text().split() if self.file.exists() else []


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    started = Servers(tmp_path)
    yield started
    for process in started.processes:
        process.kill()
        process.wait()


def test_requests_wait_for_the_first_replica(gates: list[Gate], servers: Servers) -> None:
    gates.append(gate := Gate())
    stream = Stream(gate.port, 60.0)
    first = stream.read()
    assert (first.pod, first.namespace, first.uid) == ("gate-0", "ml", "u")
    assert first.gate is not None
    assert (first.gate.arrivals, first.gate.held, first.gate.in_flight) == (0, 0, 0)
    with ThreadPoolExecutor(5) as clients:
        answers = [clients.submit(gate.ask, number) for number in range(5)]
        told = stream.read()  # at once: the next one by the clock is a minute away
        assert told.gate is not None
        assert told.gate.held >= 1
        assert told.gate.idle_seconds == 0.0
        assert told.ages[told.gate.epoch] < 5
        gate.has("held", 5)
        assert servers.asked == []
        servers.start(gate.to)
        assert [answer.result() for answer in answers] == [(200, str(n)) for n in range(5)]
    stream.close()
    assert sorted(servers.asked) == [str(n) for n in range(5)]
    gate.has("in_flight", 0)
    assert gate.metric("bottleneck_gate_holds_total") == 5
    assert gate.metric("bottleneck_gate_longest_hold_seconds") > 0
    assert gate.ask(9) == (200, "9")
    assert gate.metric("bottleneck_gate_holds_total") == 5, "who finds a replica waits for nothing"
    eventually(lambda: gate.metric("bottleneck_gate_idle_seconds") > 0)
    assert gate.stop() == 0
    log = "\n".join(gate.log)
    assert f"no backend of 127.0.0.1:{gate.to} answers" in log
    assert "5 were held" in log


def test_more_than_may_wait_are_told_so(gates: list[Gate], servers: Servers) -> None:
    gates.append(gate := Gate("--most-held=2"))
    waiting = [gate.connect(REQUEST) for _ in range(2)]
    gate.has("held", 2)
    status, body = gate.ask()
    assert status == 503
    assert body == (
        f"2 connections wait for 127.0.0.1:{gate.to} already, the gate's limit (--most-held)\n"
    )
    other = gate.connect(b"\x00\x01 a protocol of its own")
    assert other.recv(100) == b"", "what is no HTTP gets no HTTP"
    gate.has("refused_total", 2)
    servers.start(gate.to)
    for client in waiting:
        assert client.recv(100).startswith(b"HTTP/1.0 200")
        client.close()
    other.close()


def test_who_waits_for_too_long_is_told_so(gates: list[Gate], servers: Servers) -> None:
    gates.append(gate := Gate("--longest-hold=0.3"))
    status, body = gate.ask()
    assert status == 503
    assert "was ready within 0.3 s, the gate's limit (--longest-hold)" in body
    servers.start(gate.to)
    eventually(lambda: gate.ask()[0] == 200)
    assert gate.stop() == 0
    assert any("turned away 1: no backend" in line for line in gate.log)


def test_a_name_that_nobody_knows_is_no_backend(gates: list[Gate]) -> None:
    gates.append(gate := Gate("--to=nobody.invalid:80", "--longest-hold=0.3"))
    assert gate.ask()[0] == 503


def test_a_client_that_hangs_up_is_forgotten(gates: list[Gate], servers: Servers) -> None:
    gates.append(gate := Gate())
    given_up, staying = gate.connect(REQUEST.replace(b"1 H", b"2 H")), gate.connect(REQUEST)
    gate.has("held", 2)
    given_up.close()
    gate.has("held", 1)
    servers.start(gate.to)
    assert staying.recv(100).startswith(b"HTTP/1.0 200")
    staying.close()
    assert servers.asked == ["1"]


def test_a_probe_that_says_nothing_wakes_nobody(gates: list[Gate]) -> None:
    gates.append(gate := Gate())
    silent, speaking = gate.connect(), gate.connect(REQUEST)
    gate.has("arrivals_total", 1)
    assert gate.metric("bottleneck_gate_held") == 1
    for client in (silent, speaking):
        client.close()
    gate.has("held", 0)
    assert gate.metric("bottleneck_gate_arrivals_total") == 1


def echo(listener: socket.socket, connections: int) -> None:
    """Sends back what it hears, slowly at first, and hangs up when the other one is through."""
    for _ in range(connections):
        client, _ = listener.accept()
        with client:
            while data := client.recv(65536):
                client.sendall(data)


def test_any_protocol_passes_whole_both_ways(gates: list[Gate]) -> None:
    """More than the buffers on the way hold, so each end has to be slowed down by the other."""
    gates.append(gate := Gate())
    said = os.urandom(1 << 20) * 16
    client = gate.connect(said[:1])
    gate.has("held", 1)
    with socket.create_server(("127.0.0.1", gate.to)) as listener:
        server = threading.Thread(target=echo, args=(listener, 1))
        server.start()
        speaking = threading.Thread(
            target=lambda: (client.sendall(said[1:]), client.shutdown(socket.SHUT_WR))
        )
        speaking.start()
        heard = bytearray()
        while data := client.recv(1 << 20):
            heard += data
        assert heard == said
        for thread in (speaking, server):
            thread.join()
    client.close()
    gate.has("in_flight", 0)


def test_a_connection_that_its_server_has_left_does_not_count(gates: list[Gate]) -> None:
    gates.append(gate := Gate())
    with socket.create_server(("127.0.0.1", gate.to)) as listener:
        pooled = gate.connect(REQUEST)
        server, _ = listener.accept()
        server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        server.close()
        assert pooled.recv(100).startswith(b"HTTP/1.1 200")
        gate.has("in_flight", 0)
        pooled.close()


def test_a_gate_that_ends_answers_those_it_holds(gates: list[Gate], servers: Servers) -> None:
    gates.append(gate := Gate())
    waiting = gate.connect(REQUEST)
    gate.has("held", 1)
    gate.process.send_signal(signal.SIGTERM)
    eventually(lambda: _refused(gate.front), "no new connection")
    servers.start(gate.to)
    assert waiting.recv(100).startswith(b"HTTP/1.0 200")
    waiting.close()
    assert gate.process.wait(DEADLINE_SECONDS) == 0


def test_a_second_signal_ends_it_at_once(gates: list[Gate]) -> None:
    gates.append(gate := Gate())
    waiting = gate.connect(REQUEST)
    gate.has("held", 1)
    gate.process.send_signal(signal.SIGTERM)
    eventually(lambda: _refused(gate.front), "no new connection")
    assert gate.stop() == 0
    waiting.close()


def _refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "required: --to"),
        (["--to", "ranker"], "write a host and a port, for instance ranker:8000"),
        (["--to", "ranker:http"], "write a host and a port"),
        (["--to", "ranker:70000"], "write a host and a port"),
        (["--to", "ranker:80", "--most-held", "0"], "a whole number from 1 to 100000"),
        (["--to", "ranker:80", "--longest-hold", "-1"], "from 0 to 86400"),
        (["--to", "ranker:80", "--longest-hold", "2m"], "invalid _seconds value: '2m'"),
    ],
)
def test_bad_arguments(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert text in capsys.readouterr().err


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        assert main([f"--listen=127.0.0.1:{taken.getsockname()[1]}", "--to=a:1"]) == 1
    assert "cannot listen on 127.0.0.1:" in capsys.readouterr().err


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_what_is_counted() -> None:
    clock = Clock()
    counts = Counts(clock)
    clock.now += 5
    assert counts.figures().idle_seconds == 5
    counts.arrived()
    counts.hold("a")
    clock.now += 2
    counts.arrived()
    seen = counts.figures()
    assert (seen.arrivals, seen.held, seen.in_flight, seen.holds) == (2, 1, 1, 1)
    assert (seen.hold_seconds, seen.longest_hold_seconds, seen.idle_seconds) == (2, 2, 0)
    counts.ended()
    clock.now += 1
    counts.release("a")
    clock.now += 1
    assert counts.figures().idle_seconds == 0, "one is in flight"
    counts.ended()
    clock.now += 7
    seen = counts.figures()
    assert (seen.held, seen.in_flight, seen.idle_seconds) == (0, 0, 7)
    assert (seen.hold_seconds, seen.longest_hold_seconds) == (3, 3)


def test_the_figures_go_over_the_wire() -> None:
    state, counts = State(Identity("a", "p", "n", "u")), Counts()
    before = state.sample(1)
    assert before.gate is None
    counts.arrived()
    state.tell(counts.figures())
    quiet = state.sample(2)
    assert wire.decode_sample(wire.encode(quiet)) == quiet
    counts.hold("a")
    state.tell(counts.figures())
    assert not moved(figures(before, before), figures(before, quiet))
    assert moved(figures(before, quiet), figures(quiet, state.sample(3))), "somebody waits: news"


def test_the_example_is_one_that_the_gate_and_the_operator_understand() -> None:
    path = Path(__file__).parents[2] / "examples" / "inference" / "gate.yaml"
    service, deployment = yaml.safe_load_all(path.read_text())
    pod = deployment["spec"]["template"]
    labels, (container,) = pod["metadata"]["labels"], pod["spec"]["containers"]
    assert labels.items() >= service["spec"]["selector"].items()
    assert labels["bottleneck.dev/gate-for"] == "characters"
    assert labels["bottleneck.dev/injected"] == "true"
    options = parsed(container["command"][1:])
    assert options.to == ("$(CHARACTERS_SERVICE_HOST)", 8000)
    assert options.listen[1] == container["ports"][0]["containerPort"]
    assert options.longest_hold < pod["spec"]["terminationGracePeriodSeconds"]
    assert {each["name"] for each in container["env"]} == {"POD_NAME", "POD_NAMESPACE", "POD_UID"}
