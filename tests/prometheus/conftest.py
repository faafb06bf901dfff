"""A real Prometheus and small exporters for it, all on the loopback address."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

sys.path.insert(0, str(Path(__file__).parents[2] / "hack"))

from localcluster.packages import PROMETHEUS_PACKAGES, ensure
from localcluster.progress import Progress


class Exporter:
    """Serves what a system's /metrics would, and counts on by itself: ``text`` is rendered with the
    seconds since the first scrape, so that the rates of its counters are known exactly."""

    def __init__(self, text: Callable[[float], str], labels: dict[str, str]) -> None:
        self.text, self.labels = text, labels
        self.started: float | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.started = outer.started or time.time()
                body = outer.text(time.time() - outer.started).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.daemon = True
        self._thread.start()

    def stop(self) -> None:
        """As if it had died: nobody listens there any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass
class Server:
    """A Prometheus that scrapes once a second."""

    port: int
    folder: Path
    exporters: list[Exporter] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def scrape(
        self, text: str | Callable[[float], str], honor: bool = True, **labels: str
    ) -> Exporter:
        """Begins to scrape an exporter with these target labels. ``honor`` is honor_labels: without
        it labels of the exporter that clash get the prefix ``exported_``."""
        exporter = Exporter(text if callable(text) else lambda _: text, labels)
        self.exporters.append(exporter)
        target = {"targets": [exporter.address], "labels": labels}
        name = "honor" if honor else "clash"
        file = self.folder / name / f"{len(self.exporters)}.yaml"
        # Written beside and renamed: a half-written file would be read.
        half = file.with_suffix(".half")
        half.write_text(yaml.safe_dump([target]))
        half.rename(file)
        return exporter

    def again(self, exporter: Exporter) -> None:
        """Scrapes an exporter by the other job, too."""
        target = {"targets": [exporter.address], "labels": exporter.labels}
        (self.folder / "clash" / f"again-{id(exporter)}.yaml").write_text(yaml.safe_dump([target]))

    def ask(self, query: str) -> list[dict[str, Any]]:
        answer = requests.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=10)
        assert answer.ok, f"{query}: {answer.text}"
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def wait(self, query: str, seconds: float = 60.0) -> None:
        """Until the query gives something."""
        deadline = time.monotonic() + seconds
        while not self.ask(query):
            assert time.monotonic() < deadline, f"{query} gave nothing within {seconds:.0f}s"
            time.sleep(0.2)


@pytest.fixture(scope="session")
def binary() -> str:
    """The path of prometheus, installed from the distribution where it is missing and may be."""
    ensure(PROMETHEUS_PACKAGES, Progress(sys.stderr))
    found = shutil.which("prometheus")
    assert found
    return found


@pytest.fixture(scope="module")
def prometheus(binary: str) -> Iterator[Server]:
    """A Prometheus of this module's own, stopped in the end whatever happened."""
    folder = Path(tempfile.mkdtemp(prefix="bottleneck-prometheus-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    jobs = []
    for name in ("honor", "clash"):
        (folder / name).mkdir()
        jobs.append(
            {
                "job_name": name,
                "honor_labels": name == "honor",
                "file_sd_configs": [
                    {"files": [str(folder / name / "*.yaml")], "refresh_interval": "1s"}
                ],
            }
        )
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1m"},
        "scrape_configs": jobs,
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [
            binary,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=log,
        stderr=log,
        stdin=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"]},
    )
    server = Server(port, folder)
    try:
        _ready(server, process)
        yield server
    finally:
        for exporter in server.exporters:
            with contextlib.suppress(OSError):
                exporter.stop()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def _ready(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"{server.url}/-/ready", timeout=2).ok:
                return
        said = (server.folder / "log").read_text()[-2000:]
        assert process.poll() is None, f"prometheus ended: {said}"
        assert time.monotonic() < deadline, f"prometheus is not ready: {said}"
        time.sleep(0.1)
