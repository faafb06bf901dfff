"""Fixtures of the whole suite: one real cluster for the run, a fresh namespace for each test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
LOCALCLUSTER = [sys.executable, str(ROOT / "hack" / "localcluster")]
NAME = os.environ.get("BOTTLENECK_TEST_CLUSTER", "test")


@dataclass(frozen=True)
class Cluster:
    """The built-in cluster of this run, with the project's images in it."""

    name: str
    kubeconfig: Path
    bin: Path

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
        yield Cluster(NAME, Path(state["kubeconfig"]), Path(state["bin"]))
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
