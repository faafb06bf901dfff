"""containerd, the kubelet and kube-proxy: the cluster's one node."""

import json
from pathlib import Path

from localcluster import api, files, namespace
from localcluster.cluster import Cluster
from localcluster.errors import ClusterError
from localcluster.processes import Component

PAUSE_IMAGE = "bottleneck/pause:dev"

# Standard places: /run is the cluster's own (see namespace.py).
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"

CONTAINERD_CONFIG = """\
version = 2
root = "{root}"
state = "/run/containerd"

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Where root lacks CAP_SYS_RESOURCE (containers, small VMs) no process may be given a better score
  # than containerd's own, and without this every sandbox would fail.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cni}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
"""


def components(cluster: Cluster, binaries: dict[str, Path]) -> list[Component]:
    """What runs on the node, in the order in which it starts."""
    return [
        _kubelet(cluster, binaries["kubelet"]),
        _kube_proxy(cluster, binaries["kube-proxy"]),
    ]


def containerd(cluster: Cluster) -> Component:
    """The container runtime: up before the API server, so that images can be loaded meanwhile."""
    config = cluster.directory / "containerd.toml"
    cni = cluster.directory / "cni"
    files.write_atomically(
        config,
        CONTAINERD_CONFIG.format(
            root=cluster.directory / "containerd",
            socket=CONTAINERD_SOCKET,
            pause=PAUSE_IMAGE,
            cni=cni,
        ),
    )
    files.write_atomically(cni / "10-bottleneck.conflist", json.dumps(_network(cluster), indent=2))
    return Component(
        "containerd",
        ("containerd", f"--config={config}", "--log-level=warn"),
        is_ready=lambda: _answers(cluster, "ctr", "version"),
    )


def _network(cluster: Cluster) -> dict:
    """Each pod has a cable of its own to the node, so that all its packets are routed there.

    With a bridge, what one pod sends to another would pass below kube-proxy's rules on machines
    without br_netfilter, and Service addresses would not work between pods.
    """
    return {
        "cniVersion": "1.0.0",
        "name": "bottleneck",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(cluster.directory / "addresses"),
                    "ranges": [[{"subnet": str(cluster.pods)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
        ],
    }


def _kubelet(cluster: Cluster, binary: Path) -> Component:
    pki = cluster.directory / "pki"
    resolv = cluster.directory / "resolv.conf"
    files.write_atomically(resolv, "")
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "0.0.0.0",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki / "kubelet.crt"),
        "tlsPrivateKeyFile": str(pki / "kubelet.key"),
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup_name(cluster),
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "resolvConf": str(resolv),
        "maxPods": 250,
        # An image that was thrown away could not be pulled again, and a disk that is nearly full
        # is for its owner to look after.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%"},
    }
    path = cluster.directory / "kubelet.json"
    files.write_atomically(path, json.dumps(config, indent=2))
    return Component(
        "kubelet",
        (
            str(binary),
            f"--config={path}",
            f"--kubeconfig={cluster.directory / 'kubelet.kubeconfig'}",
            f"--hostname-override={cluster.node_name}",
            f"--node-ip={cluster.node_address}",
        ),
        is_ready=lambda: api.is_node_ready(cluster),
    )


def _kube_proxy(cluster: Cluster, binary: Path) -> Component:
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(cluster.directory / "kube-proxy.kubeconfig")},
        "clusterCIDR": str(cluster.pods),
        "hostnameOverride": cluster.node_name,
        "oomScoreAdj": 0,
        # Zero leaves the machine's own limits, which the namespace may not change.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }
    path = cluster.directory / "kube-proxy.json"
    files.write_atomically(path, json.dumps(config, indent=2))
    return Component(
        "kube-proxy",
        (str(binary), f"--config={path}"),
        is_ready=lambda: _answers(cluster, "nft", "list", "table", "ip", "kube-proxy"),
    )


def _answers(cluster: Cluster, *command: str) -> bool:
    try:
        namespace.run(cluster, *command)
    except ClusterError:
        return False
    return True


# --- cgroups ---------------------------------------------------------------------------------


def cgroup_name(cluster: Cluster) -> str:
    """The cgroup below which all pods of the cluster run."""
    return f"/bottleneck-{cluster.name}"


def make_cgroups(cluster: Cluster) -> None:
    """Make the cluster's cgroup, in every hierarchy where this machine has cgroup v1."""
    for hierarchy in _hierarchies():
        cgroup = Path(f"{hierarchy}{cgroup_name(cluster)}")
        cgroup.mkdir(exist_ok=True)
        # A new cpuset is empty, and nothing can run in it before it has been given its share.
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (cgroup / name).exists() and (hierarchy / "cpuset.clone_children").exists():
                (cgroup / name).write_text((hierarchy / name).read_text())
        if (controllers := hierarchy / "cgroup.controllers").exists():
            enable = " ".join(f"+{name}" for name in controllers.read_text().split())
            if enable:
                (hierarchy / "cgroup.subtree_control").write_text(enable)
                (cgroup / "cgroup.subtree_control").write_text(enable)


def remove_cgroups(cluster: Cluster) -> None:
    """Remove the cluster's cgroups once their last process is gone."""
    for hierarchy in _hierarchies():
        cgroup = Path(f"{hierarchy}{cgroup_name(cluster)}")
        files.wait_until(
            lambda cgroup=cgroup: _remove_tree(cgroup),
            seconds=20,
            failure=lambda cgroup=cgroup: f"cgroup {cgroup} is still in use",
        )


def _hierarchies() -> list[Path]:
    """Where cgroups are made: one place with cgroup v2, one for each controller with v1."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(where) for _, where, kind, *_ in mounts if kind in ("cgroup", "cgroup2")]


def _remove_tree(cgroup: Path) -> bool:
    if not cgroup.exists():
        return True
    try:
        for child in cgroup.iterdir():
            if child.is_dir():
                _remove_tree(child)
        cgroup.rmdir()
    except OSError:
        return False
    return True
