"""Servers that do not answer, answer something else, or never end: each is a problem in words."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from bottleneck_operator.observe import prometheus_address, prometheus_session
from bottleneck_operator.observe.observation import NoData
from bottleneck_operator.observe.prometheus import Ask, Client
from bottleneck_operator.observe.prometheus_address import in_a_cluster, named

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
    client = Client(url, (url,))
    found = client.look(Ask("ml", ("a-0",), ("a-0",), queries={"inference.latency": "x"}))
    client.close()
    assert found.replicas == {}
    signal = found.figures["inference.latency"].signal
    assert isinstance(signal, NoData)
    assert signal.reason == found.problem
    return found.problem


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:{port}", "http://localhost:{port}", "http://[::1]:{port}"),
        *("http://[::ffff:127.0.0.1]:{port}", "http://2130706433:{port}", "http://0.0.0.0:{port}"),
        *("http://127.1:{port}", "http://0177.0.0.1:{port}"),
        *("http://169.254.169.254", "http://[fd00:ec2::254]", "http://100.100.100.200"),
        *(
            "http://[fe80::1]",
            "http://8.8.8.8",
            "https://[2001:4860:4860::8888]",
            "http://224.0.0.1",
        ),
    ],
)
def test_a_policy_reaches_services_of_the_cluster_only(
    url: str, serve: Callable[[Answer], str]
) -> None:
    asked = []

    def keep(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        say(200, b"{}")(handler)

    port = serve(keep).rpartition(":")[2]
    client = Client(url.replace("{port}", port))
    said = client.look(Ask("ml", ("a-0",), ("a-0",))).problem
    client.close()
    assert "is not asked: " in said
    assert 'write the address of one, such as "http://prometheus.monitoring:9090"' in said
    assert asked == []


def test_a_name_is_what_it_was_checked_as(
    serve: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server may say one thing first and another then: it is asked once."""
    port = int(serve(say(200, b"{}")).rpartition(":")[2])
    resolve, told, asked = socket.getaddrinfo, iter(["127.0.0.1", "169.254.169.254"]), []

    def lying(host: str, *rest: Any, **options: Any) -> Any:
        if host == "two.faces":
            host = next(told)
            asked.append(host)
        return resolve(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lying)
    monkeypatch.setattr(prometheus_address, "in_a_cluster", lambda text: text == "127.0.0.1")
    client = Client(f"http://two.faces:{port}")
    said = client.look(Ask("ml", ("a-0",), ("a-0",))).problem
    client.close()
    assert "does not answer as a Prometheus server does" in said
    assert asked == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("address", "good"),
    [
        *(("10.96.0.10", True), ("172.20.0.1", True), ("192.168.1.1", True), ("fd00::1", True)),
        *(("100.64.0.1", True), ("::ffff:10.0.0.1", True), ("::ffff:169.254.1.1", False)),
        *(("2002:7f00:1::", False), ("240.0.0.1", False), ("::", False), ("203.0.114.1", False)),
    ],
)
def test_addresses_of_services(address: str, good: bool) -> None:
    assert in_a_cluster(address) == good


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("http://prometheus.monitoring:9090", True),
        ("http://PROMETHEUS.monitoring:9090/", True),
        ("https://mimir.example/prometheus", True),
        ("https://mimir.example:443/prometheus/", True),
        ("https://mimir.example/prometheus/tenant", True),
        ("https://mimir.example/prometheus-admin", False),
        ("https://mimir.example/prometheus/../admin", False),
        ("https://mimir.example", False),
        ("http://mimir.example/prometheus", False),
        ("http://prometheus.monitoring", False),
        ("http://prometheus.monitoring.evil.example:9090", False),
    ],
)
def test_where_the_operator_names_servers_there_are_no_others(url: str, good: bool) -> None:
    allowed = ("http://prometheus.monitoring:9090", "https://mimir.example/prometheus")
    assert named(url, allowed) == good
    if not good:
        client = Client(url, allowed)
        said = client.look(Ask("ml", ("a-0",), ("a-0",))).problem
        client.close()
        assert "write one of them: http://prometheus.monitoring:9090, https://mimir" in said


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
