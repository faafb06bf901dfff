"""Starts, finds and stops the components of a cluster."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from localcluster import files, namespace
from localcluster.cluster import Cluster
from localcluster.errors import ClusterError
from localcluster.packages import SYSTEM_PATH

LOG_TAIL_LINES = 20


@dataclass(frozen=True)
class Component:
    """A daemon of the cluster, how to start it and when it is ready."""

    name: str
    command: tuple[str, ...]
    is_ready: Callable[[], object] = field(repr=False)
    deadline: float = 60.0


def pids(cluster: Cluster) -> dict[str, int]:
    """Process numbers of what runs on the node, by program name."""
    # A component's child looks like it until it runs another program; the component is the older.
    found = sorted(namespace.processes(cluster).items(), reverse=True)
    return {Path(command[0]).name: pid for pid, command in found if command and command[0]}


START_SECONDS = 2.0
"""Longest that a started component may not be seen yet."""


def start(cluster: Cluster, component: Component) -> None:
    """Start a component unless it runs already."""
    if component.name in pids(cluster):
        return
    log = cluster.log(component.name)
    log.parent.mkdir(exist_ok=True)
    with log.open("ab") as output:
        # setsid --fork leaves it to the namespace's first process, so that it outlives this one.
        subprocess.run(
            namespace.enter(cluster, "setsid", "--fork", *component.command),
            env={"PATH": SYSTEM_PATH, "HOME": "/root"},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=True,
        )


def wait_ready(cluster: Cluster, component: Component) -> None:
    """Wait until a component is ready; say what it said last when it ends or takes too long."""
    began = time.monotonic()

    def ready() -> bool:
        # Asked first: a component that is ready may well have been alive all the time.
        if component.is_ready():
            return True
        # On a busy machine a moment passes between its start and its name in the process table.
        if component.name not in pids(cluster) and time.monotonic() - began > START_SECONDS:
            raise ClusterError(f"{component.name} ended.\n{log_tail(cluster, component.name)}")
        return False

    files.wait_until(
        ready,
        seconds=component.deadline,
        failure=lambda: (
            f"{component.name} was not ready within {component.deadline:.0f} s.\n"
            + log_tail(cluster, component.name)
        ),
    )


def stop(cluster: Cluster, name: str, seconds: float = 20.0) -> None:
    """End one component, politely first."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        pid = pids(cluster).get(name)
        if pid is None:
            return
        os.kill(pid, number)
        try:
            files.wait_until(
                lambda: name not in pids(cluster),
                seconds=seconds,
                failure=lambda: f"{name} does not end",
            )
        except ClusterError:
            if number == signal.SIGKILL:
                raise


def log_tail(cluster: Cluster, name: str) -> str:
    """The last lines of a component's log, with where to find the rest."""
    log = cluster.log(name)
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    tail = "\n".join(f"  {line}" for line in lines[-LOG_TAIL_LINES:])
    return f"The last lines of {log}:\n{tail}"
