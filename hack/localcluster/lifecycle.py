"""Brings clusters up, takes them down, and tells how they are."""

import os
import shutil
import time
from pathlib import Path

from localcluster import (
    api,
    binaries,
    cluster,
    controlplane,
    images,
    imagestore,
    namespace,
    node,
    packages,
    pki,
    processes,
)
from localcluster.cluster import Cluster
from localcluster.errors import ClusterError
from localcluster.processes import Component
from localcluster.progress import Progress

CONTROL_PLANE = ("etcd", "kube-apiserver")
COMPONENTS = (
    *CONTROL_PLANE,
    "kube-controller-manager",
    "kube-scheduler",
    "containerd",
    "kubelet",
    "kube-proxy",
)


def up(
    name: str, options: binaries.Options, progress: Progress, control_plane_only: bool = False
) -> dict:
    """Bring a cluster up, or what is missing of it, and wait until it takes pods."""
    _require_root()
    started = time.monotonic()
    packages.ensure(packages.CLUSTER_PACKAGES, progress)
    programs = binaries.ensure(options, progress)
    with cluster.exclusive(name):
        this = cluster.find_or_create(name, control_plane_only)
        with progress.phase("certificates and namespaces"):
            pki.ensure(this)
            _link_programs(this, programs)
            namespace.start(this)
            namespace.connect(this)
            node.make_cgroups(this)
        runtime = None if this.control_plane_only else _prepare_node(this, progress)
        etcd, apiserver, *controllers = controlplane.components(this, programs)
        with progress.phase("control plane"):
            for component in (*filter(None, [runtime]), etcd, apiserver):
                processes.start(this, component)
            # The others give up on an API server that takes long, as on a busy machine.
            processes.wait_ready(this, apiserver)
        if runtime is not None:
            _start_node(this, [*controllers, *node.components(this, programs)], runtime, progress)
        result = status(name)
        result["seconds"] = {**progress.seconds, "total": round(time.monotonic() - started, 2)}
        progress.say(
            f"Cluster '{name}' is ready after {result['seconds']['total']:.1f} s "
            f"(Kubernetes {result['kubernetes']})."
        )
        return result


def _prepare_node(this: Cluster, progress: Progress) -> Component:
    """The container runtime, with the images that it finds when it starts."""
    images.ensure_pause(progress)
    with progress.phase("images unpacked before"):
        imagestore.clone_to(this)
    return node.containerd(this)


def _start_node(
    this: Cluster, rest: list[Component], runtime: Component, progress: Progress
) -> None:
    with progress.phase("images"):
        processes.wait_ready(this, runtime)
        images.load_built(this)
    with progress.phase("controllers and node"):
        for component in rest:
            processes.start(this, component)
        for component in rest:
            processes.wait_ready(this, component)


def down(name: str, progress: Progress) -> bool:
    """Take a cluster down and leave nothing of it; say whether there was one."""
    _require_root()
    with cluster.exclusive(name):
        this = cluster.find(name)
        if this is None:
            return False
        with progress.phase(f"cluster '{name}' down"):
            namespace.stop(this)
            node.remove_cgroups(this)
            cluster.delete_directory(this)
            cluster.when_none_is_left(namespace.remove_mount_points)
        return True


def restart(name: str, component: str, options: binaries.Options, progress: Progress) -> dict:
    """End one component and start it again."""
    if component not in COMPONENTS:
        raise ClusterError(f"no component '{component}': there are {', '.join(COMPONENTS)}.")
    processes.stop(cluster.get(name), component)
    return up(name, options, progress)


def status(name: str) -> dict:
    """How a cluster is, for people and for programs."""
    this = cluster.get(name)
    init = namespace.init_process(this)
    running = processes.pids(this) if init else {}
    wanted = CONTROL_PLANE if this.control_plane_only else COMPONENTS
    pids = {component: running.get(component) for component in wanted}
    takes_pods = this.control_plane_only or api.is_node_ready(this)
    return {
        "name": name,
        "ready": bool(all(pids.values()) and api.is_ready(this) and takes_pods),
        "kubernetes": binaries.kubernetes().version,
        "kubeconfig": str(this.kubeconfig),
        "bin": str(this.directory / "bin"),
        "logs": str(this.directory / "logs"),
        "server": this.server,
        "network": str(this.network),
        "node": this.node_name,
        "namespaceProcess": init,
        "components": pids,
        "images": imagestore.record(this),
    }


def _link_programs(this: Cluster, programs: dict[str, Path]) -> None:
    """Give the cluster a bin folder, so that its own kubectl and helm are at hand."""
    folder = this.directory / "bin"
    folder.mkdir(exist_ok=True)
    for name, program in programs.items():
        link = folder / name
        if not link.is_symlink() or link.readlink() != program:
            fresh = folder / f".{name}"
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(program)
            fresh.replace(link)


def can_run_here() -> bool:
    """Whether this user may run clusters, and not only build images."""
    return os.geteuid() == 0 and not packages.missing(packages.CLUSTER_PACKAGES)


def _require_root() -> None:
    if os.geteuid() != 0:
        raise ClusterError(
            "the built-in cluster needs root, for its namespaces and mounts: run this with sudo.\n"
            "With Docker and kind, `make kind-demo` needs no root."
        )
    if not shutil.which("nsenter"):
        raise ClusterError("nsenter is missing: install the package util-linux.")
