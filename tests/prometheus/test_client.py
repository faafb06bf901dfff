"""Servers that do not answer, answer something else, or never end: each is a problem in words."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from bottleneck_operator.observe import prometheus_session
from bottleneck_operator.observe.observation import NoData
from bottleneck_operator.observe.prometheus import Ask, Client

Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    """Starts a server that answers every GET so; gives its address."""
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with contextlib.suppress(OSError):
                    answer(self)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def say(status: int, body: bytes, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def problem(url: str) -> str:
    """What a look says; without an answer there is no figure, and none for the policy's query."""
    client = Client(url)
    found = client.look(Ask("ml", ("a-0",), ("a-0",), queries={"inference.latency": "x"}))
    client.close()
    assert found.replicas == {}
    signal = found.figures["inference.latency"].signal
    assert isinstance(signal, NoData)
    assert signal.reason == found.problem
    return found.problem


def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    assert problem(url) == f"Prometheus at {url} cannot be reached: Connection refused"


def test_no_such_name() -> None:
    assert "cannot be reached: " in problem("http://prometheus.invalid:9090")


def test_it_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus_session, "DEADLINE_SECONDS", 0.5)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        assert "did not answer within" in problem(url)


def test_it_never_ends(serve: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus_session, "DEADLINE_SECONDS", 0.5)
    stop = threading.Event()

    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        while not stop.wait(0.05):
            handler.wfile.write(b" ")

    assert "did not answer within" in problem(serve(trickle))
    stop.set()


def test_it_says_too_much(serve: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus_session, "MAX_ANSWER", 1 << 20)
    assert "an answer of more than 1 MiB" in problem(serve(say(200, b" " * (3 << 20))))


@pytest.mark.parametrize(
    "answer",
    [
        say(200, b"<html>a login page</html>"),
        say(200, b'{"status":"success"}'),
        say(200, b"[]"),
        say(404, b"<html>secret</html>"),
        say(403, b'{"error":"secret"}'),
    ],
    ids=["html", "another form", "a list", "404", "403"],
)
def test_it_is_no_prometheus(serve: Callable[[Answer], str], answer: Answer) -> None:
    said = problem(serve(answer))
    assert "as a Prometheus server does; check the url" in said
    # A policy must not be a window into whatever the operator can reach.
    assert "secret" not in said


def test_its_own_words_about_an_error(serve: Callable[[Answer], str]) -> None:
    body = b'{"status":"error","errorType":"execution","error":"query: too many samples"}'
    assert problem(serve(say(422, body))).endswith("answered 422: query: too many samples")


def test_redirects_are_not_followed(serve: Callable[[Answer], str]) -> None:
    asked = []

    def elsewhere(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        say(200, b"")(handler)

    target = serve(elsewhere)
    assert "answered 302" in problem(serve(say(302, b"", Location=target)))
    assert asked == []


def test_nothing_of_the_environment_goes_along(
    serve: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    headers: list[dict[str, str]] = []

    def keep(handler: BaseHTTPRequestHandler) -> None:
        headers.append(dict(handler.headers))
        say(200, b"{}")(handler)

    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    problem(serve(keep))
    assert headers
    assert not {"Authorization", "Cookie"} & set(headers[0])


def test_a_look_ends_in_time(
    serve: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline is for all requests of a look together, and not for each."""
    monkeypatch.setattr(prometheus_session, "DEADLINE_SECONDS", 1.0)
    asked = []

    def slow(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        time.sleep(0.3)
        clock = '{"status":"success","data":{"resultType":"scalar","result":[%d,"%d"]}}'
        names = b'{"status":"success","data":[]}'
        now = time.time()
        say(200, names if "label" in handler.path else (clock % (now, now)).encode())(handler)

    assert "did not answer within" in problem(serve(slow))
    assert 2 <= len(asked) <= 5
