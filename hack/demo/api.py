"""Reads the cluster's objects and logs, cheaply.

A kubectl for every look would take a fifth of a small machine from the workloads that are being
measured. So one `kubectl proxy` runs all the while, on a Unix socket that nobody else can open.
"""

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from demo.command import DemoError

START_SECONDS = 15.0
ANSWER_SECONDS = 10.0


class ApiError(Exception):
    """The API server did not answer, or said no."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Api:
    """A context in which the proxy runs."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._folder = tempfile.mkdtemp(prefix="bottleneck-demo-")  # only its owner may enter
        self._socket = str(Path(self._folder) / "api.sock")
        self._process = subprocess.Popen(
            ["kubectl", "proxy", f"--unix-socket={self._socket}"],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the demo, which still needs it to clean up
        )

    def __enter__(self) -> Self:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                self.get("/version")
                return self
            except ApiError as error:
                if self._process.poll() is not None or time.monotonic() > end:
                    self.__exit__()
                    said = self._process.stderr.read() if self._process.stderr else b""
                    raise DemoError(
                        f"the API server cannot be reached: {said.decode().strip() or error}"
                    ) from None
            time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def get(self, path: str, **query: str) -> Any:
        """An object or a list. Raises ``ApiError``."""
        return json.loads(self._read(path, query))

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        """The items of a list; none while it cannot be read."""
        try:
            found: list[dict[str, Any]] = self.get(path, **query)["items"]
            return found
        except ApiError:
            return []

    def log_lines(self, namespace: str, label: str, container: str) -> list[dict[str, Any]]:
        """The JSON lines that the pods with a label have printed; none while there are none."""
        lines = []
        pods = f"/api/v1/namespaces/{namespace}/pods"
        for pod in self.items(pods, labelSelector=f"app.kubernetes.io/name={label}"):
            try:
                text = self._read(f"{pods}/{pod['metadata']['name']}/log", {"container": container})
            except ApiError:
                continue  # not started yet
            for line in text.decode(errors="replace").splitlines():
                with contextlib.suppress(ValueError):  # a warning, or a line still being written
                    lines.append(json.loads(line))
        return [line for line in lines if isinstance(line, dict)]

    def _read(self, path: str, query: Mapping[str, str]) -> bytes:
        connection = _Connection(self._socket)
        try:
            connection.request("GET", f"{path}?{urlencode(query)}" if query else path)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(f"{path}: {error}") from None
        finally:
            connection.close()
        if response.status != 200:
            raise ApiError(f"{path}: {response.status} {body[:300].decode(errors='replace')}")
        return body
