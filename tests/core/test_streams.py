"""Telemetry at its real boundary: what a pod may say on its port, and what is made of it."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from bottleneck_operator.observe import streams as module
from bottleneck_operator.observe.history import History
from bottleneck_operator.observe.pods import Pod, pod_of
from bottleneck_operator.observe.streams import Pace, Refusal, Streams
from bottleneck_operator.report import metrics
from bottleneck_sidecar import wire
from prometheus_client import REGISTRY

from .builders import NOW, sample
from .objects import pod as pod_object

Say = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"


def speaker(**changes: Any) -> Pod:
    """The pod that the API server names; its lines come from the loopback address here."""
    return replace(pod_of(pod_object("pod-0")), ip="127.0.0.1", **changes)


def line(sequence: int = 1, **changes: Any) -> bytes:
    """A line of that pod's own agent, unless something is changed about it."""
    own = {"pod": "pod-0", "namespace": "ml", "uid": "uid-pod-0"}
    return wire.encode(sample(NOW + sequence, sequence, **(own | changes))) + b"\n"


def spoilt(**changes: Any) -> bytes:
    """A line with fields that no agent would write."""
    return json.dumps(json.loads(line()) | changes).encode() + b"\n"


@asynccontextmanager
async def port(say: Say, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[bytes]]:
    """A server in place of a pod's agent; gives the requests that came."""
    asked: list[bytes] = []
    writers = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        try:
            await say(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    monkeypatch.setattr(wire, "PORT", server.sockets[0].getsockname()[1])
    try:
        yield asked
    finally:
        server.close()
        for writer in writers:
            writer.close()


def saying(*parts: bytes) -> Say:
    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
        await writer.drain()

    return say


def follow(
    say: Say,
    monkeypatch: pytest.MonkeyPatch,
    until: Callable[[Streams, History], bool],
    pod: Pod | None = None,
) -> tuple[Streams, History, list[bytes]]:
    """Follows one pod until something is so."""
    monkeypatch.setattr(module, "BACKOFF_SECONDS", (0.01, 0.02))
    followed = pod or speaker()

    async def run() -> tuple[Streams, History, list[bytes]]:
        streams = Streams()
        async with port(say, monkeypatch) as asked, asyncio.timeout(20):
            history = streams.follow("p", [followed], lambda: None)[followed.name]
            while not until(streams, history):  # noqa: ASYNC110 (nothing tells of it)
                await asyncio.sleep(0.005)
            await streams.close()
            return streams, history, asked

    return asyncio.run(run())


def refused(reason: Refusal) -> Callable[[Streams, History], bool]:
    return lambda streams, _: streams.refused[reason] > 0


def test_a_pod_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    say = saying(OK, b"\r\n", line(1), line(2))
    streams, history, asked = follow(say, monkeypatch, lambda s, _: s.lines == 2)
    assert [each.sequence for _, each in history.samples] == [1, 2]
    assert asked[0].startswith(b"GET /v1/stream?interval=1 ")
    assert b"cookie" not in asked[0].lower()
    metrics.tell_of(streams)
    assert REGISTRY.get_sample_value("bottleneck_telemetry_lines") == 2


@pytest.mark.parametrize(
    "claim",
    [
        {"uid": "uid-of-another"},
        {"pod": "another"},
        {"namespace": "another"},
        {"uid": ""},
    ],
    ids=str,
)
def test_a_pod_speaks_for_itself_only(
    claim: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what is left of an address that has been handed to another pod."""
    say = saying(OK, b"\r\n", line(1, **claim))
    streams, history, _ = follow(say, monkeypatch, refused(Refusal.OTHER_POD))
    assert history.last is None
    metrics.tell_of(streams)
    counted = REGISTRY.get_sample_value(
        "bottleneck_telemetry_refused_lines", {"reason": "other pod"}
    )
    assert counted == streams.refused[Refusal.OTHER_POD]


NESTED = b'{"version":1,"time":' + b"[" * 30_000 + b"]" * 30_000 + b"}\n"
TWICE = line()[:-2] + b',"uid":"uid-of-another"}\n'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (NESTED, Refusal.MALFORMED),
        (spoilt(time=10**400), Refusal.MALFORMED),
        (line().replace(b'"sequence":1', b'"sequence":' + b"9" * 5000), Refusal.MALFORMED),
        (line().replace(b'"sequence":1', b'"sequence":NaN'), Refusal.MALFORMED),
        (line().replace(b'"sequence":1', b'"sequence":-Infinity'), Refusal.MALFORMED),
        (line().replace(b'"sequence":1', b'"sequence":1e999'), Refusal.MALFORMED),
        (spoilt(sequence=-1), Refusal.MALFORMED),
        (spoilt(version=2), Refusal.MALFORMED),
        (spoilt(training={"a": 1}), Refusal.MALFORMED),
        (spoilt(gpus=[{}] * 300), Refusal.MALFORMED),
        (spoilt(ages={str(i): 1.0 for i in range(300)}), Refusal.MALFORMED),
        (b"\xff\xfe\n", Refusal.MALFORMED),
        (b"x" * 60_000 + b"\n", Refusal.MALFORMED),
        (TWICE, Refusal.OTHER_POD),
        (b"x" * 400_000 + b"\n", Refusal.TOO_LONG),
    ],
    ids=[
        *("nested", "10^400", "5000 digits", "NaN", "Infinity", "1e999", "negative"),
        *("version", "type", "300 devices", "300 ages", "no text", "garbage"),
        *("a name twice", "no end"),
    ],
)
def test_hostile_lines(text: bytes, reason: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs the pod its line and nothing else: the next stream is read as if nothing were."""
    calls = 0

    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        writer.write(OK + b"\r\n" + (text if calls == 1 else line()))
        await writer.drain()

    streams, history, _ = follow(say, monkeypatch, lambda s, _: s.lines == 1)
    assert streams.refused[reason] == 1
    assert history.last is not None


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{port}/elsewhere\r\n",
        b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n",
        b"HTTP/1.1 500 Oops\r\nSet-Cookie: a=b\r\n",
    ],
    ids=["redirect", "asks for credentials", "error"],
)
def test_any_other_answer_leads_nowhere(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = head.replace(b"{port}", str(wire.PORT).encode())
        writer.write(there + b"Content-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()

    _, history, asked = follow(say, monkeypatch, lambda s, _: s.refused[Refusal.STATUS] >= 2)
    assert {request.split(b" ")[1] for request in asked} == {b"/v1/stream?interval=1"}
    assert not any(b"cookie" in each.lower() or b"authorization" in each.lower() for each in asked)
    assert history.last is None


def test_what_is_packed_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = gzip.compress(b"\n" * (64 << 20))
    say = saying(OK, b"Content-Encoding: gzip\r\n\r\n", bomb[:3000] + b"\n")
    streams, _, _ = follow(say, monkeypatch, refused(Refusal.MALFORMED))
    # Unpacked it would have been millions of empty lines.
    assert streams.refused[Refusal.MALFORMED] < 1000


@pytest.mark.parametrize("rest", ["half a line", "half a head", "informed for ever"])
def test_who_never_comes_to_an_end_is_given_up(rest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_SECONDS", 0.3)
    begin, trickle = {
        "half a line": (OK + b"\r\n", b"x"),
        "half a head": (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        "informed for ever": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    }[rest]

    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        while True:
            writer.write(trickle)
            await writer.drain()
            await asyncio.sleep(0.01)

    _, history, _ = follow(say, monkeypatch, refused(Refusal.TOO_SLOW))
    assert history.last is None


def test_a_flood_waits_in_the_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = 0

    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(OK + b"\r\n")
        while True:
            sent += 1
            writer.write(line(sent))
            await writer.drain()

    streams, _, _ = follow(say, monkeypatch, refused(Refusal.TOO_FAST))
    assert streams.lines <= module.LINES_PER_SECOND * module.BURST_SECONDS + 1


@pytest.mark.parametrize(
    ("size", "a_second"),
    [(500, module.LINES_PER_SECOND), (64 * 1024, module.BYTES_PER_SECOND / (64 * 1024))],
    ids=["short", "long"],
)
def test_as_much_is_read_as_is_allowed(size: int, a_second: float) -> None:
    pace, now, taken = Pace(), 1000.0, 0
    while now < 1100.0:
        now += pace.spend(size, now)
        taken += 1
    assert taken == pytest.approx((100 + module.BURST_SECONDS) * a_second, rel=0.03)


def test_a_quiet_pod_is_never_made_to_wait() -> None:
    pace = Pace()
    assert all(pace.spend(3000, float(second)) == 0 for second in range(1000))


# -- whom the operator dials -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        *("127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1", "0.0.0.0", "::"),
        *("224.0.0.1", "255.255.255.255", "10.0.0.1@127.0.0.1", "10.0.0.1:80/x?", "localhost", ""),
        *("fe80::1%eth0", "010.0.0.1", "2130706433"),
    ],
)
def test_no_address_that_is_no_pods(written: str) -> None:
    """Who may patch the status of a pod must not send the operator to itself or to its node."""
    assert pod_of(pod_object(podIP=written)).ip == ""


@pytest.mark.parametrize("written", ["10.0.0.7", "100.64.1.2", "fd00:10::5", "203.0.113.9"])
def test_addresses_of_pods(written: str) -> None:
    assert pod_of(pod_object(podIP=written)).ip == written


def test_a_pod_on_the_nodes_network_has_no_address_of_its_own() -> None:
    found = pod_object()
    found["spec"] = {"hostNetwork": True}
    assert pod_of(found).ip == ""


@pytest.fixture(autouse=True)
def _unset() -> Iterator[None]:
    yield
    metrics.tell_of(Streams())
