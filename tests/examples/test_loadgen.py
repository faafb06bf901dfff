"""The load generator: reads traces strictly, keeps time, and aims at one's own machines only."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.loadgen import __main__ as loadgen
from examples.loadgen.client import TargetError, resolve, send
from examples.loadgen.figures import Figures, percentile
from examples.loadgen.trace import Request, TraceError, cut, read, schedule

ROOT = Path(__file__).parents[2]
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def trace(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text)
    return path


def test_reads_the_trace_that_comes_with_it() -> None:
    requests = read(loadgen.TRACE)
    assert len(requests) == 484
    assert requests[0] == Request(0.0, 1266, 13)
    assert 60 < requests[-1].at < 180


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line must be TIMESTAMP"),
        ("a,b,c\n", "first line must be TIMESTAMP"),
        (HEADER, "no requests"),
        (HEADER + "2023-11-16 18:00:00.0000000,1\n", "line 2"),
        (HEADER + "yesterday,1,2\n", "line 2"),
        (HEADER + "2023-11-16 18:00:00.0000000,1,many\n", "line 2"),
        (HEADER + "2023-11-16 18:00:00.0000000,1,-2\n", "line 2: a number of tokens is negative"),
        (
            HEADER + "2023-11-16 18:00:01.0000000,1,2\n2023-11-16 18:00:00.0000000,1,2\n",
            "line 3: earlier than the line before",
        ),
    ],
)
def test_a_bad_trace_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        read(trace(tmp_path, text))


def test_a_missing_trace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot be read"):
        read(tmp_path / "none.csv")


def test_a_slice_without_requests_is_refused() -> None:
    with pytest.raises(TraceError, match="it lasts 5 s"):
        cut([Request(0, 1, 1), Request(5, 1, 1)], 7, 10)


def test_the_schedule_repeats_the_slice_faster() -> None:
    laps = list(schedule([Request(0, 1, 7), Request(4, 2, 8)], lap=10, speed=2, seconds=8))
    assert [(request.at, request.tokens) for request in laps] == [(0, 7), (2, 8), (5, 7), (7, 8)]


@given(st.lists(st.floats(0, 100), min_size=1), st.integers(1, 99))
def test_percentiles_are_numpys(values: list[float], percent: int) -> None:
    assert percentile(values, percent) == pytest.approx(
        float(numpy.percentile(values, percent)), abs=1e-9
    )


def test_figures_count_errors_apart() -> None:
    figures = Figures()
    figures.add(0.5, "")
    figures.add(9.0, "timeout")
    line = figures.summary(2.0)
    assert (line["answered"], line["errors"], line["rps"], line["p95"]) == (
        1,
        {"timeout": 1},
        0.5,
        0.5,
    )
    assert "p95" not in Figures().summary(1.0)


@pytest.mark.parametrize(
    "url",
    [
        "http://1.1.1.1/generate",
        "http://169.254.169.254/latest",
        "http://[2606:4700::1111]:80/",
        "http://0.0.0.0:80/",
        "https://127.0.0.1/",
        "ftp://127.0.0.1/",
        "127.0.0.1:8000",
        "http://127.0.0.1:notaport/",
    ],
)
def test_foreign_and_malformed_targets_are_refused(url: str) -> None:
    with pytest.raises(TargetError):
        resolve(url)


@pytest.mark.parametrize("host", ["127.0.0.1", "10.96.0.7", "172.18.0.2", "192.168.1.2", "[::1]"])
def test_own_targets_are_accepted(host: str) -> None:
    assert resolve(f"http://{host}:8000/generate").port == 8000


def serve(answer: bytes, delay: float = 0.0) -> str:
    """What ``send`` says of a server that answers so."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(delay)
        writer.write(answer)
        writer.close()

    async def talk() -> str:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            target = resolve(f"http://127.0.0.1:{port}/generate")
            return await send(target, Request(0, 10, 2), timeout_seconds=0.3)

    return asyncio.run(talk())


def test_what_is_not_an_answer_is_an_error() -> None:
    assert serve(b"HTTP/1.1 200 OK\r\n\r\n{}") == ""
    assert serve(b"HTTP/1.1 503 Service Unavailable\r\n\r\n") == "status 503"
    assert serve(b"") == "no answer"
    assert serve(b"SSH-2.0-OpenSSH\r\n") == "not HTTP"
    assert serve(b"HTTP/1.1 200 OK\r\n\r\n", delay=5) == "timeout"


def test_the_command_refuses_a_foreign_target_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.loadgen", "--target", "http://1.1.1.1/generate"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("loadgen: 1.1.1.1 is 1.1.1.1, neither loopback nor a private")
    assert done.stdout == ""


def test_a_replay_prints_every_latency_and_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n{}")
        writer.close()

    async def replay() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            target = resolve(f"http://127.0.0.1:{port}/generate")
            run = loadgen.Replay(target, timeout_seconds=5)
            await run.run([Request(at / 10, 10, 2) for at in range(15)])
            print(json.dumps(run.total.summary(1.0)))

    asyncio.run(replay())
    *seconds, total = map(json.loads, capsys.readouterr().out.splitlines())
    assert total["answered"] == 15
    assert seconds[0]["answered"] == len(seconds[0]["latencies"]) > 0
