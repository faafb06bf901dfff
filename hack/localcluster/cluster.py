"""What a cluster is on disk: its folder, its slot, and the addresses that follow from it."""

import contextlib
import ipaddress
import json
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from localcluster import files
from localcluster.errors import ClusterError

SLOTS = range(64)


def state_root() -> Path:
    """Where the clusters of this machine live."""
    return Path(os.environ.get("BOTTLENECK_STATE_DIR", "/var/lib/bottleneck"))


@dataclass(frozen=True)
class Cluster:
    """One cluster: a name, and a slot that no other cluster of this machine has.

    Slot n owns the network 10.(100+n).0.0/16 and the host interface bottleneck-n.
    """

    name: str
    slot: int
    control_plane_only: bool = False
    """Whether it is no more than etcd and the API server."""

    @property
    def directory(self) -> Path:
        """The folder that holds all of the cluster's state; without it the cluster is gone."""
        return state_root() / self.name

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.directory / "kubeconfig"

    @property
    def node_name(self) -> str:
        """Name of the cluster's one node."""
        return f"bottleneck-{self.name}"

    @property
    def network(self) -> ipaddress.IPv4Network:
        """All addresses of this cluster; the host has one route for it."""
        return ipaddress.ip_network(f"10.{100 + self.slot}.0.0/16")

    @property
    def pods(self) -> ipaddress.IPv4Network:
        """Addresses of the pods."""
        return next(self.network.subnets(prefixlen_diff=1))

    @property
    def services(self) -> ipaddress.IPv4Network:
        """Addresses of the Services."""
        return ipaddress.ip_network(f"10.{100 + self.slot}.128.0/18")

    @property
    def host_address(self) -> str:
        """The host's end of the cable between host and node."""
        return f"10.{100 + self.slot}.255.1"

    @property
    def node_address(self) -> str:
        """The node's end of that cable: where the API server and the kubelet listen."""
        return f"10.{100 + self.slot}.255.2"

    @property
    def host_interface(self) -> str:
        """Name of the host's end."""
        return f"bottleneck-{self.slot}"

    @property
    def server(self) -> str:
        """Address of the API server, from the host and from pods."""
        return f"https://{self.node_address}:6443"

    def log(self, component: str) -> Path:
        """Where a component's output goes."""
        return self.directory / "logs" / f"{component}.log"


def check_name(name: str) -> None:
    """Refuse a name that is no folder, node or cgroup name."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", name):
        raise ClusterError(
            f"'{name}' is not a cluster name: use up to 32 lower-case letters, digits and '-'."
        )


@contextlib.contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Let one `up` or `down` at a time work on a cluster."""
    check_name(name)
    with files.lock(state_root() / ".locks" / name):
        yield


def find(name: str) -> Cluster | None:
    """The cluster by that name, if it has been created and not taken down."""
    try:
        record = json.loads((state_root() / name / "cluster.json").read_text())
    except FileNotFoundError:
        return None
    return Cluster(
        name=record["name"],
        slot=record["slot"],
        control_plane_only=record.get("controlPlaneOnly", False),
    )


def get(name: str) -> Cluster:
    """The cluster by that name, or an error that says how to get one."""
    check_name(name)
    if cluster := find(name):
        return cluster
    raise ClusterError(
        f"there is no cluster '{name}'. Create it: python3 hack/localcluster up --name {name}"
    )


def find_or_create(name: str, control_plane_only: bool = False) -> Cluster:
    """The cluster by that name, with a slot of its own. One that is there stays what it is."""
    with files.lock(state_root() / ".locks" / ".slots"):
        if cluster := find(name):
            return cluster
        cluster = Cluster(name, _free_slot(), control_plane_only)
        cluster.directory.mkdir(parents=True, exist_ok=True)
        cluster.directory.chmod(0o700)  # it holds the private keys
        files.write_atomically(
            cluster.directory / "cluster.json",
            json.dumps(
                {
                    "name": cluster.name,
                    "slot": cluster.slot,
                    "controlPlaneOnly": cluster.control_plane_only,
                }
            ),
        )
        return cluster


def delete_directory(cluster: Cluster) -> None:
    """Delete the cluster's folder: gone at once for whoever looks, however long it takes."""
    trash = state_root() / f".deleted-{cluster.name}-{uuid.uuid4().hex}"
    if cluster.directory.exists():
        cluster.directory.rename(trash)
    # Also what a killed `down` left behind.
    for leftover in state_root().glob(f".deleted-{cluster.name}-{'?' * 32}"):
        shutil.rmtree(leftover)
    (state_root() / ".locks" / cluster.name).unlink(missing_ok=True)


def when_none_is_left(action: Callable[[], None]) -> None:
    """Do something if there is no cluster on this machine, and let none come meanwhile."""
    with files.lock(state_root() / ".locks" / ".slots"):
        if not names():
            action()


def _free_slot() -> int:
    records = state_root().glob("*/cluster.json")
    taken = {json.loads(record.read_text())["slot"] for record in records}
    networks = _host_networks()
    for slot in SLOTS:
        network = Cluster(name="", slot=slot).network
        if slot not in taken and not any(network.overlaps(other) for other in networks):
            return slot
    raise ClusterError(
        "no free network for another cluster: take one down (python3 hack/localcluster list)."
    )


def _host_networks() -> list[ipaddress.IPv4Network]:
    """Networks that the host already has routes to, so that no cluster hides one."""
    output = subprocess.run(
        ["ip", "-json", "-4", "route"], check=True, capture_output=True, text=True
    ).stdout
    destinations = (route["dst"] for route in json.loads(output))
    return [ipaddress.ip_network(dst) for dst in destinations if dst != "default"]


def names() -> list[str]:
    """All clusters of this machine."""
    return sorted(record.parent.name for record in state_root().glob("*/cluster.json"))
