"""Fixtures of the whole suite: a real cluster for each worker of the run, a fresh namespace for
each test. In which order tests run, and which of them have the machine for themselves."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parent.parent
LOCKS = ROOT / "build" / "test-locks"
LOCALCLUSTER = [sys.executable, str(ROOT / "hack" / "localcluster")]
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
"""Which worker of pytest-xdist this process is, empty where it is the only one."""
NAME = "-".join(filter(None, (os.environ.get("BOTTLENECK_TEST_CLUSTER", "test"), WORKER)))

# How long an example takes is a matter of what else the machine does.
settings.register_profile("parallel", deadline=None)
settings.load_profile("parallel")

TOGETHER = ("tests/loop/test_reach.py",)
"""Files of tests/loop with a fixture for the module, which takes long to make."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs no cluster comes first: meanwhile the cluster's programs and images are made. Then
    the longest, which are those of tests/loop; and last what has the machine for itself, when
    nobody is left to wait for it."""

    def place(item: pytest.Item) -> tuple[bool, bool, bool]:
        cluster = "cluster" in item.keywords
        return "alone" in item.keywords, cluster, cluster and item.path.parent.name != "loop"

    items.sort(key=place)


class Scheduling(LoadScopeScheduling):
    """A file's tests stay with one worker, which has its module's fixtures. Those of tests/loop
    wait most of the time and share none, so that they are dealt out one by one."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, _ = nodeid.partition("::")
        return nodeid if file.startswith("tests/loop/") and file not in TOGETHER else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    config.option.loadscopereorder = False
    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """While a test marked ``alone`` runs, no other worker runs one: it measures what processes
    really do, and the machine is small."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    with (LOCKS / "turn").open("a") as turn, (LOCKS / "machine").open("a") as machine:
        # Whoever waits for the machine holds the turn, so that those who come later wait as well.
        fcntl.flock(turn, fcntl.LOCK_EX)
        fcntl.flock(machine, fcntl.LOCK_EX if "alone" in item.keywords else fcntl.LOCK_SH)
        fcntl.flock(turn, fcntl.LOCK_UN)
        try:
            return (yield)
        finally:
            # Closing is not enough: a process that the test forked may have the file open, too.
            fcntl.flock(machine, fcntl.LOCK_UN)


@dataclass(frozen=True)
class Cluster:
    """The built-in cluster of this run, with the project's images in it."""

    name: str
    kubeconfig: Path
    bin: Path
    server: str

    @property
    def env(self) -> dict[str, str]:
        """The environment in which kubectl and helm speak to this cluster and no other."""
        path = f"{self.bin}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return os.environ | {"KUBECONFIG": str(self.kubeconfig), "PATH": path}

    def run(self, *command: str, input: str | None = None, check: bool = True) -> str:
        """Runs a command in that environment and gives its output; a failure shows both streams."""
        done = subprocess.run(
            command,
            input=input,
            env=self.env,
            text=True,
            capture_output=True,
            check=False,
            timeout=600,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout if check else done.stdout + done.stderr

    def kubectl(self, *arguments: str, input: str | None = None, check: bool = True) -> str:
        """Runs kubectl; with ``check=False`` gives both streams of a command that may fail."""
        return self.run(str(self.bin / "kubectl"), *arguments, input=input, check=check)

    @cached_property
    def api(self) -> requests.Session:
        """A client of the API server. A run of kubectl takes a tenth of a second of CPU, and a test
        that waits looks hundreds of times."""
        session, pki = requests.Session(), self.kubeconfig.parent / "pki"
        session.trust_env = False  # no proxy lies between us and it
        session.verify = str(pki / "ca.crt")
        session.cert = (str(pki / "admin.crt"), str(pki / "admin.key"))
        return session

    def read(self, path: str) -> dict[str, Any]:
        """A document of the API by its path, empty where there is none."""
        answer = self.api.get(f"{self.server}/{path}", timeout=60)
        if answer.status_code == 404:
            return {}
        answer.raise_for_status()
        document: dict[str, Any] = answer.json()
        return document

    def helm(self, *arguments: str, check: bool = True) -> str:
        """Runs helm."""
        return self.run(str(self.bin / "helm"), *arguments, check=check)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster, brought up once and taken down in the end.

    One that runs already (see BOTTLENECK_TEST_CLUSTER) is used as it is, its images included, and
    left running: that makes a second run of one test quick.
    """
    state = _state("status")
    ran_before = bool(state.get("ready"))
    try:
        if not ran_before:
            # Images first: a new cluster starts with all that are built, without importing them.
            subprocess.run([*LOCALCLUSTER, "images"], check=True, stdout=subprocess.PIPE)
            state = _state("up")
        yield Cluster(NAME, Path(state["kubeconfig"]), Path(state["bin"]), state["server"])
    finally:
        if not ran_before:
            subprocess.run([*LOCALCLUSTER, "down", "--name", NAME], check=False)


def _state(command: str) -> dict[str, Any]:
    done = subprocess.run(
        [*LOCALCLUSTER, command, "--name", NAME, "-o", "json"],
        stdout=subprocess.PIPE,
        text=True,
        check=command == "up",
    )
    state: dict[str, Any] = json.loads(done.stdout or "{}")
    return state


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A fresh namespace, deleted in the end without waiting for it."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", check=False)


@pytest.fixture(scope="session")
def crds(cluster: Cluster) -> None:
    """The CRDs. They stay until the cluster goes: taking them away between suites would have to
    wait for whatever a test left behind, and a policy whose operator was killed keeps its
    finalizer until the next operator sees it."""
    folder = str(ROOT / "crds")
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", folder)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", folder)
