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
    """The cluster, brought up once and taken down in the end; one that ran before is left up."""
    status = subprocess.run(
        [*LOCALCLUSTER, "status", "--name", NAME, "-o", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    ran_before = status.returncode == 0 and json.loads(status.stdout).get("ready", False)
    try:
        up = subprocess.run(
            [*LOCALCLUSTER, "up", "--name", NAME, "-o", "json"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        state = json.loads(up.stdout)
        subprocess.run([*LOCALCLUSTER, "images"], check=True, stdout=subprocess.PIPE)
        subprocess.run([*LOCALCLUSTER, "load", "--name", NAME], check=True, stdout=subprocess.PIPE)
        yield Cluster(NAME, Path(state["kubeconfig"]), Path(state["bin"]))
    finally:
        if not ran_before:
            subprocess.run([*LOCALCLUSTER, "down", "--name", NAME], check=False)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A fresh namespace, deleted in the end without waiting for it."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", check=False)
