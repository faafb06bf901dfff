"""The namespaces that a cluster lives in: its own processes, mounts and network.

Everything of a cluster runs below one process, the first of a PID namespace. When that one ends,
the kernel ends all others, and with them go the mounts, the interfaces and the nft tables. So a
cluster can neither leave anything behind nor meet another one: each has its own loopback, its own
/run and its own kube-proxy rules.

`python3 -m localcluster.namespace DIRECTORY` is that process; the rest is called by others.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from localcluster import files
from localcluster.cluster import Cluster
from localcluster.errors import ClusterError

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x8000000, 0x20000000, 0x40000000
MS_REC, MS_PRIVATE, MS_SHARED, MS_BIND = 0x4000, 0x40000, 0x100000, 0x1000

# The kubelet sets these, and they are the whole machine's. In the namespace each is a plain file,
# so that the machine keeps its own values.
KUBELET_SYSCTLS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)

# Where the kubelet, CNI and containerd write whatever they are told: each cluster sees its own.
OWN_FOLDERS = (Path("/var/log"), Path("/var/lib/kubelet"), Path("/var/lib/cni"))

_libc = ctypes.CDLL(None, use_errno=True)


# --- called by `up` and `down` ---------------------------------------------------------------


def init_process(cluster: Cluster) -> int | None:
    """The namespace's first process, as the host numbers it; None when it is not running.

    That process holds a lock for as long as it lives, so a number that the kernel has given to
    another process meanwhile is never taken for it.
    """
    try:
        with _lock_file(cluster.directory).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0) or None
    except FileNotFoundError:
        pass
    return None


def start(cluster: Cluster) -> None:
    """Make the namespaces, unless they are there."""
    ready = cluster.directory / "namespace-ready"
    if not init_process(cluster):
        ready.unlink(missing_ok=True)
        log = cluster.log("namespace")
        log.parent.mkdir(exist_ok=True)
        with log.open("w") as output:
            subprocess.run(
                [sys.executable, "-m", "localcluster.namespace", str(cluster.directory)],
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                check=False,
            )
        files.wait_until(
            lambda: init_process(cluster) and ready.exists(),
            seconds=20,
            failure=lambda: f"no namespace for the cluster:\n{log.read_text()}",
        )


def stop(cluster: Cluster) -> None:
    """End every process of the cluster, and with them its mounts and its network."""
    pid = init_process(cluster)
    if pid:
        os.kill(pid, signal.SIGKILL)
        files.wait_until(
            lambda: _is_gone(pid),
            seconds=60,
            failure=lambda: f"process {pid} of cluster '{cluster.name}' does not end",
        )
    # The kernel removes a dead network namespace's interfaces a little later; not to wait for it:
    _ip("link", "delete", cluster.host_interface, check=False)


def remove_mount_points() -> None:
    """Remove the empty folders that were made to mount on; call it when no cluster is left."""
    for place in OWN_FOLDERS:
        with contextlib.suppress(OSError):  # somebody else's, or not empty
            place.rmdir()


def enter(cluster: Cluster, *command: str) -> list[str]:
    """A command line that runs a command inside the cluster's namespaces."""
    pid = init_process(cluster)
    if not pid:
        raise ClusterError(
            f"cluster '{cluster.name}' is not running. "
            f"Start it: python3 hack/localcluster up --name {cluster.name}"
        )
    return ["nsenter", f"--target={pid}", "--mount", "--ipc", "--net", "--pid", *command]


def run(cluster: Cluster, *command: str) -> str:
    """Run a command inside the cluster's namespaces and return what it printed."""
    result = subprocess.run(
        enter(cluster, *command), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if result.returncode:
        raise ClusterError(f"`{' '.join(command)}` failed:\n{result.stderr.strip()}")
    return result.stdout


def processes(cluster: Cluster) -> dict[int, list[str]]:
    """Command lines of the processes on the node, outside pods, by the host's process number."""
    pid = init_process(cluster)
    if not pid:
        return {}
    namespace = os.stat(f"/proc/{pid}/ns/pid").st_ino
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if os.stat(entry / "ns/pid").st_ino == namespace:
                command = (entry / "cmdline").read_bytes()
                found[int(entry.name)] = command.decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended while we looked, or is better protected than any of ours
    return found


def connect(cluster: Cluster) -> None:
    """Lay the cable between host and node, with a route for each side."""
    links = {link["ifname"] for link in json.loads(_ip("-json", "link", "show"))}
    if cluster.host_interface not in links:
        peer = ("peer", "name", "node", "netns", str(init_process(cluster)))
        _ip("link", "add", cluster.host_interface, "type", "veth", *peer)
    # `replace` does nothing to what is already so.
    _ip("address", "replace", f"{cluster.host_address}/30", "dev", cluster.host_interface)
    _ip("link", "set", cluster.host_interface, "up")
    run(cluster, "ip", "link", "set", "lo", "up")
    run(cluster, "ip", "address", "replace", f"{cluster.node_address}/30", "dev", "node")
    run(cluster, "ip", "link", "set", "node", "up")
    # A default route that leads to the host and no further: the host forwards nothing. kube-proxy
    # needs one to translate the Service addresses that pods dial.
    run(cluster, "ip", "route", "replace", "default", "via", cluster.host_address)
    _ip("route", "replace", str(cluster.network), "via", cluster.node_address)


def _ip(*arguments: str, check: bool = True) -> str:
    result = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if check and result.returncode:
        raise ClusterError(f"`ip {' '.join(arguments)}` failed: {result.stderr.strip()}")
    return result.stdout


def _is_gone(pid: int) -> bool:
    """Whether a process has ended: for the first of a namespace, after all the others have."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def _lock_file(directory: Path) -> Path:
    return directory / "namespace.pid"


# --- the process itself ----------------------------------------------------------------------


def main(directory: Path) -> None:
    """Become the parent of the namespace's first process, tell its number, and leave."""
    lock = _lock_file(directory).open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # an `up` that was killed had started one, which is on its way
    lock.truncate(0)
    _check(_libc.unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET), "unshare")
    told, tell = os.pipe()
    child = os.fork()
    if child:
        lock.write(str(child))
        lock.flush()
        os.write(tell, b".")
        return  # the lock is the child's as well, and stays
    os.close(tell)
    # Ended before it wrote the number down, the parent leaves a process that nobody could find.
    if os.read(told, 1):
        _be_init(directory)


def _be_init(directory: Path) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    # Nothing mounted here may reach the host; the kubelet wants what it mounts to reach pods.
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    _mount(None, "/", None, MS_REC | MS_SHARED)
    _mount("proc", "/proc", "proc")
    _mount("tmpfs", "/run", "tmpfs", data="mode=755")
    for place in OWN_FOLDERS:
        own = directory / "node" / place.relative_to("/")
        own.mkdir(parents=True, exist_ok=True)
        place.mkdir(parents=True, exist_ok=True)
        _mount(own, place, None, MS_BIND)
    for sysctl in KUBELET_SYSCTLS:
        real = Path("/proc/sys") / sysctl
        if real.exists():
            stand_in = directory / "sysctl" / sysctl
            files.write_atomically(stand_in, real.read_bytes())
            _mount(stand_in, real, None, MS_BIND)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    (directory / "namespace-ready").touch()
    while True:  # whoever loses its parent here becomes this process's child
        signal.sigwait({signal.SIGCHLD})
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _mount(
    source: str | Path | None, target: str | Path, kind: str | None, flags: int = 0, data: str = ""
) -> None:
    def text(value: str | Path | None) -> bytes | None:
        return None if value is None else os.fsencode(value)

    result = _libc.mount(
        text(source), text(target), text(kind), ctypes.c_ulong(flags), data.encode()
    )
    _check(result, f"mount {target}")


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
