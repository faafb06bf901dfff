"""A network namespace per rank, joined by a bridge; each rank's link can be made slow with tc.

Only ``tbf`` is used (a limit of bits per second): ``netem`` is missing from many kernels.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

PREFIX = "10.213.7."
PORT = 29471
INTERFACE = "eth0"


class NetworkError(RuntimeError):
    """The namespaces cannot be made; the text says what is missing."""


class Network:
    """Namespaces for ``ranks`` ranks, removed when ``stack`` is closed."""

    def __init__(self, ranks: int, stack: ExitStack) -> None:
        self.name = f"bnf{os.getpid()}"
        stack.callback(self._remove, ranks)
        hub = f"{self.name}-hub"
        self._ip("netns", "add", hub)
        self._ip("-n", hub, "link", "add", "br0", "type", "bridge")
        self._ip("-n", hub, "link", "set", "br0", "up")
        for rank in range(ranks):
            own = self.namespace(rank)
            self._ip("netns", "add", own)
            peer = f"veth{rank}"
            self._ip(
                *("link", "add", peer, "netns", hub, "type", "veth"),
                *("peer", "name", INTERFACE, "netns", own),
            )
            self._ip("-n", hub, "link", "set", peer, "master", "br0", "up")
            self._ip("-n", own, "addr", "add", f"{PREFIX}{rank + 1}/24", "dev", INTERFACE)
            self._ip("-n", own, "link", "set", INTERFACE, "up")
            self._ip("-n", own, "link", "set", "lo", "up")

    def namespace(self, rank: int) -> str:
        """The name of a rank's namespace."""
        return f"{self.name}-r{rank}"

    def prefix(self, rank: int) -> list[str]:
        """What to put before a command. Not ``ip netns exec``: that hides the cgroups."""
        return ["nsenter", f"--net=/run/netns/{self.namespace(rank)}"]

    def environment(self) -> dict[str, str]:
        """Where the ranks meet."""
        return {
            "MASTER_ADDR": f"{PREFIX}1",
            "MASTER_PORT": str(PORT),
            "GLOO_SOCKET_IFNAME": INTERFACE,
        }

    def shape(self, ranks: int, bits_per_second: int) -> None:
        """Limits what each rank can send."""
        # A bucket smaller than one segment of the network card's offload would let nothing through.
        burst = max(64 * 1024, bits_per_second // 8 // 100)
        for rank in range(ranks):
            _run(
                *("tc", "-n", self.namespace(rank), "qdisc", "replace", "dev", INTERFACE, "root"),
                *("tbf", "rate", f"{bits_per_second}bit", "burst", str(burst), "latency", "200ms"),
            )

    def _remove(self, ranks: int) -> None:
        names = [self.namespace(rank) for rank in range(ranks)] + [f"{self.name}-hub"]
        for name in names:
            if Path("/run/netns", name).exists():
                subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def _ip(self, *words: str) -> None:
        _run("ip", *words)


def sweep() -> None:
    """Removes the namespaces of harnesses that are dead."""
    folder = Path("/run/netns")
    for path in folder.glob("bnf*-*") if folder.is_dir() else ():
        owner = path.name.removeprefix("bnf").partition("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            subprocess.run(["ip", "netns", "del", path.name], check=False, capture_output=True)


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NetworkError(
            f"there is no {command[0]}: install the package iproute2 to run ranks in namespaces"
        ) from None
    if done.returncode:
        raise NetworkError(f"{' '.join(command)}: {done.stderr.strip()}: this needs root")
