"""The control plane under test: etcd and the API server of the built-in cluster, no node."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMESPACE = "chaos"


@dataclass(frozen=True)
class ControlPlane:
    """One that runs."""

    name: str
    directory: Path
    server: str
    ran_before: bool

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.directory / "kubeconfig"

    @property
    def pki(self) -> Path:
        """Folder of its certificates."""
        return self.directory / "pki"

    @property
    def audit(self) -> Path:
        """Its audit log."""
        return self.directory / "logs" / "audit.log"

    async def restart_apiserver(self) -> None:
        """Ends the API server and starts it again; politely, so that its audit log is whole."""
        await asyncio.to_thread(
            _localcluster, "restart", "--name", self.name, "-o", "json", "kube-apiserver"
        )

    def down(self) -> None:
        """Takes it down, unless it ran before."""
        if not self.ran_before:
            _localcluster("down", "--name", self.name)


def up(name: str) -> ControlPlane:
    """Brings it up, with the CRDs and a namespace."""
    ran_before = name in json.loads(_localcluster("list", "-o", "json"))
    state = json.loads(_localcluster("up", "--name", name, "--control-plane-only", "-o", "json"))
    directory = Path(state["kubeconfig"]).parent
    plane = ControlPlane(name, directory, state["server"], ran_before)
    try:
        _kubectl(plane, "apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
        _kubectl(plane, "wait", "--for=condition=Established", "-f", str(ROOT / "crds"))
        # Without a controller manager nobody else makes these.
        for words in (("namespace", NAMESPACE), ("serviceaccount", "default", "-n", NAMESPACE)):
            made = _kubectl(plane, "create", *words, "--dry-run=client", "-o", "json")
            _kubectl(plane, "apply", "-f", "-", text=made)
    except BaseException:
        plane.down()
        raise
    return plane


def _localcluster(*arguments: str) -> str:
    command = [sys.executable, str(ROOT / "hack" / "localcluster"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"localcluster {arguments[0]} failed:\n{done.stderr}")
    return done.stdout


def _kubectl(plane: ControlPlane, *arguments: str, text: str | None = None) -> str:
    command = [str(plane.directory / "bin" / "kubectl"), "--kubeconfig", str(plane.kubeconfig)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, input=text)
    if done.returncode:
        raise RuntimeError(f"kubectl {arguments[0]} failed:\n{done.stderr}")
    return done.stdout
