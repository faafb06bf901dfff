"""The agent as a process: what comes in on its socket comes out on its port, and nothing else."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from bottleneck_sidecar import wire
from bottleneck_sidecar.client import Client
from bottleneck_sidecar.wire import (
    Acknowledgement,
    Container,
    Gpu,
    InferenceServer,
    Report,
    TrainingRank,
)

from .conftest import Agent, eventually, rank, server  # type: ignore[import-not-found]


def send(agent: Agent, **parts: object) -> None:
    """A report made by hand, container and GPUs included."""
    report = Report(wire.VERSION, 1.0, **parts)  # type: ignore[arg-type]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.sendto(wire.encode(report), agent.socket)


def test_first_line_at_once_and_then_what_is_reported(agent: Agent, client: Client) -> None:
    stream = agent.stream(interval=0.2)
    first = stream.read()
    assert (first.pod, first.namespace, first.sequence) == ("trainer-0", "ml", 1)
    assert (first.training, first.inference, first.ages) == ([], [], {})
    assert first.container is None, "the agent's own cgroup is not the workload's"
    assert client.send(training=rank())
    assert client.send(inference=server())
    sample = stream.until(lambda sample: sample.training and sample.inference)
    assert sample.training == [rank()]
    assert sample.inference == [server()]
    assert sample.agent == first.agent
    assert set(sample.ages) == {"e0", "s0"}
    assert sample.container is not None
    stream.close()


def test_an_acknowledgement_comes_at_once(agent: Agent, client: Client) -> None:
    stream = agent.stream(interval=60)
    stream.read()
    for number in (1, 2, 3):
        answer = Acknowledgement(number, "Applied", 5, "")
        client.send(training=rank(acknowledgement=answer))
        client.send(training=rank(acknowledgement=answer))  # repeated: no news
        assert stream.read().training[0].acknowledgement == answer
    stream.close()


def test_a_move_comes_before_its_time(agent: Agent, client: Client) -> None:
    stream = agent.stream(interval=60)
    stream.read()
    client.send(training=rank())
    assert stream.read().training == [rank()], "a process has come"
    stream.close()


def test_the_newest_report_of_each_process_counts(agent: Agent, client: Client) -> None:
    for steps in (1, 2, 3):
        client.send(training=rank(steps=steps))
        client.send(training=rank(steps=steps * 10, epoch="e1", rank=1))
    eventually(lambda: agent.metric("bottleneck_agent_reports_total") == 6)
    stream = agent.stream()
    assert [(part.rank, part.steps) for part in stream.read().training] == [(0, 3), (1, 30)]
    stream.close()


def test_containers_and_gpus_of_several_processes(agent: Agent) -> None:
    for number, cpu in ((0, 5.0), (1, 6.0)):  # two ranks in one container, reading in turn
        send(
            agent,
            training=rank(epoch=f"e{number}", rank=number),
            container=Container(cpu_seconds=cpu, epoch="here"),
            gpus=[Gpu(1 - number, f"u{1 - number}")],
        )
    send(agent, inference=server(), container=Container(cpu_seconds=1.0, epoch="beside"))
    eventually(lambda: agent.metric("bottleneck_agent_reports_total") == 3)
    stream = agent.stream()
    sample = stream.read()
    stream.close()
    # "inference" sorts before "training": the first process decides whose container it is
    assert sample.container == Container(cpu_seconds=1.0, epoch="beside")
    assert [gpu.index for gpu in sample.gpus] == [0, 1]


def test_garbage_is_counted_and_survived(agent: Agent, client: Client) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        for data in (b"", b"\xff" * 100, b"{}", b'{"version": 1}', b"[" * 9000, b"x" * 60_000):
            out.sendto(data, agent.socket)
    client.send(training=rank())
    eventually(lambda: agent.metric("bottleneck_agent_reports_total") == 1)
    assert agent.metric("bottleneck_agent_bad_reports_total") == 6
    assert agent.stop() == 0
    assert len([line for line in agent.log if "refused" in line]) == 1, "not a line for each"


def test_many_processes_are_bounded(agent: Agent) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        for number in range(200):
            part = rank(epoch=f"e{number}", rank=number, knobs={"k" * 3000: 1.0})
            out.sendto(wire.encode(Report(1, 1.0, training=part)), agent.socket)
    eventually(lambda: agent.metric("bottleneck_agent_reports_total") == 200)
    stream = agent.stream()
    sample = stream.read()
    stream.close()
    assert 5 < len(sample.training) <= 64
    assert sample.training[-1].rank == 199


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/healthz", 200, "ok"),
        ("GET", "/", 404, "/v1/stream"),
        ("GET", "/v1/knobs", 404, "/metrics"),
        ("POST", "/v1/stream", 405, "only GET"),
        ("PUT", "/metrics", 405, "only GET"),
        ("HACK", "/healthz", 405, "only GET"),
        ("GET", "/v1/stream?interval=0", 400, "from 0.2 to 60, for instance"),
        ("GET", "/v1/stream?interval=61", 400, "number of seconds"),
        ("GET", "/v1/stream?interval=nan", 400, "number of seconds"),
        ("GET", "/v1/stream?interval=", 400, "number of seconds"),
        ("GET", "/v1/stream?interval=soon", 400, "number of seconds"),
    ],
)
def test_answers(agent: Agent, method: str, path: str, status: int, text: str) -> None:
    answer = agent.get(path, method)
    assert answer[0] == status
    assert text in answer[1]


def test_what_is_no_http(agent: Agent) -> None:
    for data in (b"hello\r\n\r\n", b"\x16\x03\x01\x00\r\n\r\n", b"\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", agent.port), timeout=30) as connection:
            connection.sendall(data)
            assert connection.recv(100).startswith(b"HTTP/1.1 400")
    with socket.create_connection(("127.0.0.1", agent.port), timeout=30) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 5000)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(100) == b"", "a head without end is not read to its end"
    assert agent.get("/healthz")[0] == 200


def test_streams_and_connections_are_bounded_and_given_back(agent: Agent) -> None:
    streams = [agent.stream() for _ in range(8)]
    status, text = agent.get("/v1/stream")
    assert status == 503
    assert "8 streams" in text
    for stream in streams:
        stream.close()
    eventually(lambda: agent.metric("bottleneck_agent_streams") == 0)
    idle = [socket.create_connection(("127.0.0.1", agent.port)) for _ in range(40)]
    for connection in idle:
        connection.close()
    eventually(lambda: _answers(agent))


def _answers(agent: Agent) -> bool:
    try:
        return bool(agent.get("/healthz")[0] == 200)
    except OSError:
        return False


def test_a_slow_reader_blocks_nobody(agent: Agent, client: Client) -> None:
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    slow.connect(("127.0.0.1", agent.port))
    slow.sendall(b"GET /v1/stream?interval=0.2 HTTP/1.1\r\n\r\n")  # and never reads
    quick = agent.stream(interval=0.2)
    for number in range(1, 30):
        answer = Acknowledgement(number, "Refused", None, "x" * 8000)
        client.send(training=rank(acknowledgement=answer))
        quick.until(lambda sample, number=number: _generation(sample) == number)
    quick.close()
    slow.close()


def _generation(sample: wire.Sample) -> int:
    answer = sample.training[0].acknowledgement if sample.training else None
    return answer.generation if answer else 0


def test_metrics_are_well_formed(agent: Agent, client: Client) -> None:
    odd = 'a"b\\c\nd'
    client.send(training=rank(knobs={odd: 2.0, "text": "no"}, loss=-1.5))
    client.send(inference=server(queue_seconds=0.5, in_flight=2))
    eventually(lambda: agent.metric("bottleneck_agent_reports_total") == 2)
    text = agent.get("/metrics")[1]
    label = r'[a-z_]+="(?:[^"\\\n]|\\\\|\\"|\\n)*"'
    series = re.compile(rf"bottleneck_[a-z_]+(?:\{{{label}(?:,{label})*\}})? -?[0-9.e+-]+$")
    seen, kinds = set(), {}
    for line in text.splitlines():
        if line.startswith("# TYPE"):
            _, _, name, kind = line.split()
            assert name not in kinds, "declared once"
            kinds[name] = kind
        elif not line.startswith("#"):
            assert series.match(line), line
            name = line.rpartition(" ")[0]
            assert name not in seen, "each series once"
            seen.add(name)
            family = re.sub(r"(_bucket|_sum|_count)$", "", name.partition("{")[0])
            assert (family in kinds) or (name.partition("{")[0] in kinds)
    assert all(
        kind in ("counter", "histogram") or not name.endswith("_total")
        for name, kind in kinds.items()
    )
    assert 'bottleneck_knob{rank="0",name="a\\"b\\\\c\\nd"} 2.0' in text
    assert agent.metric('bottleneck_training_steps_total{rank="0"}') == 10
    assert agent.metric('bottleneck_inference_latency_seconds_bucket{worker="1",le="+Inf"}') == 3
    assert agent.metric('bottleneck_inference_latency_seconds_count{worker="1"}') == 3
    assert agent.metric('bottleneck_inference_service_seconds_total{worker="1"}') is None


def test_every_figure_of_a_process_has_its_metric(agent: Agent, client: Client) -> None:
    """Each field gets a number of its own, which is then looked for."""
    told = {}
    for key, part, make in (
        ("training", TrainingRank, rank),
        ("inference", InferenceServer, server),
    ):
        numbers = {
            field.name: 1000.5 + number
            for number, field in enumerate(dataclasses.fields(part))
            if field.type in ("float | None", "dict[str, float] | None")
        }
        changes = {
            name: {"data": value} if name in ("cpu_seconds", "dependencies") else value
            for name, value in numbers.items()
        }
        client.send(**{key: make(**changes)})
        told[key] = set(numbers.values())
    eventually(lambda: agent.metric("bottleneck_agent_reports_total") == 2)
    text = agent.get("/metrics")[1]
    for name, numbers_of_it in told.items():
        missing = [number for number in numbers_of_it if f" {number}\n" not in text]
        assert missing == [], name


def test_long_phases_and_capabilities_in_metrics(agent: Agent, client: Client) -> None:
    client.send(training=rank(phase="checkpoint", capabilities=["bf16"], low_precision_steps=3))
    client.send(inference=server(retries=2))
    eventually(lambda: agent.metric("bottleneck_agent_reports_total") == 2)
    assert agent.metric('bottleneck_training_long_phase{rank="0"}') == 1
    assert agent.metric('bottleneck_capability{rank="0",name="bf16"}') == 1
    assert agent.metric('bottleneck_training_low_precision_steps_total{rank="0"}') == 3
    assert agent.metric('bottleneck_inference_retries_total{worker="1"}') == 2
    client.send(training=rank(phase="step"))
    eventually(lambda: agent.metric('bottleneck_training_long_phase{rank="0"}') == 0)
    client.send(training=rank())
    eventually(lambda: agent.metric('bottleneck_training_long_phase{rank="0"}') is None)


def test_a_restarted_rank_is_one_series(agent: Agent, client: Client) -> None:
    client.send(training=rank(steps=50))
    client.send(training=rank(steps=1, epoch="after the restart"))
    eventually(lambda: agent.metric("bottleneck_agent_reports_total") == 2)
    assert agent.metric('bottleneck_training_steps_total{rank="0"}') == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_once_with_a_stream_open(agent: Agent, number: int) -> None:
    stream = agent.stream()
    stream.read()
    assert agent.stop(number) == 0
    assert not os.path.exists(agent.socket)


def test_anybody_may_write_to_the_socket(agent: Agent) -> None:
    assert stat.S_IMODE(os.stat(agent.socket).st_mode) == 0o666


def test_a_socket_left_over_by_a_killed_agent_is_replaced(tmp_path: Path) -> None:
    first = Agent(tmp_path)
    first.stop(signal.SIGKILL)
    assert os.path.exists(first.socket)
    second = Agent(tmp_path)
    assert Client(second.socket).send(training=rank())
    assert second.stop() == 0


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bottleneck_sidecar.agent", *options],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_what_cannot_be_started_says_why(agent: Agent, tmp_path: Path) -> None:
    taken = run("--socket", str(tmp_path / "b.sock"), "--port", str(agent.port))
    assert (taken.returncode, "Address already in use" in taken.stderr) == (1, True)
    assert not (tmp_path / "b.sock").exists()
    (tmp_path / "file").write_text("precious")
    file = run("--socket", str(tmp_path / "file"))
    assert (file.returncode, "cannot open the socket" in file.stderr) == (1, True)
    assert (tmp_path / "file").read_text() == "precious"
    assert "cannot open the socket" in run("--socket", str(tmp_path / ("x" * 200))).stderr
    assert "must be from 0.2 to 60" in run("--interval", "0").stderr
    assert "curl" in run("--help").stdout


def test_it_starts_light() -> None:
    heavy = "torch, asyncio, ssl, email, http.client, pynvml, logging"
    program = (
        "import sys, bottleneck_sidecar.agent.main\n"
        f"print([name for name in '{heavy}'.split(', ') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr


def test_many_readers_at_once(agent: Agent, client: Client) -> None:
    client.send(training=rank())
    eventually(lambda: agent.metric("bottleneck_agent_reports_total") == 1)
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(agent.get("/metrics")[0])) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 16
