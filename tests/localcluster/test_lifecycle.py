"""Clusters that come and go: interrupted, twice, two at a time, and without a trace."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from localcluster import cluster as clusters
from localcluster import namespace, processes
from localcluster.files import REPOSITORY

pytestmark = pytest.mark.cluster

COMMAND = [sys.executable, str(REPOSITORY / "hack" / "localcluster")]


def localcluster(*arguments: str) -> str:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def up(name: str) -> dict:
    return json.loads(localcluster("up", "--name", name, "-o", "json"))


def kubectl(state: dict, *arguments: str) -> str:
    kubeconfig = f"--kubeconfig={state['kubeconfig']}"
    done = subprocess.run(
        [f"{state['bin']}/kubectl", kubeconfig, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def descendants(root: int) -> set[tuple[int, str]]:
    """Every process below one, pods' included, with its start time to tell it from a successor."""
    parents, started = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        pid = int(stat.parent.name)
        parents[pid], started[pid] = int(fields[1]), fields[19]
    found, todo = set(), [root]
    while todo:
        pid = todo.pop()
        found.add((pid, started[pid]))
        todo += [child for child, parent in parents.items() if parent == pid]
    return found


def alive(seen: set[tuple[int, str]]) -> set[tuple[int, str]]:
    left = set()
    for pid, started in seen:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[19] == started and fields[0] not in "ZX":
            left.add((pid, started))
    return left


def of_the_host() -> dict[str, str]:
    """What of the host a cluster could leave something in. Other clusters may come and go."""
    listings = {
        "nft tables": ["nft", "list", "tables"],
        "network namespaces": ["ip", "netns", "list"],
        "sysctls": ["sysctl", "vm.overcommit_memory", "kernel.panic", "net.ipv4.ip_forward"],
        "mounts": ["cat", "/proc/self/mounts"],
    }
    return {
        name: subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for name, command in listings.items()
    }


def traces(cluster: clusters.Cluster) -> list[str]:
    """Where on the host a cluster's own name or number still stands."""
    places = [cluster.directory, clusters.state_root() / ".locks" / cluster.name]
    places += Path("/sys/fs/cgroup").rglob(f"bottleneck-{cluster.name}")
    places.append(Path("/sys/class/net") / cluster.host_interface)
    found = [str(place) for place in places if place.exists()]
    routes = subprocess.check_output(["ip", "-4", "route"], text=True)
    return found + [line for line in routes.splitlines() if str(cluster.network) in line]


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    """A cluster name of the test's own; the cluster is gone afterwards, whatever happened."""
    name = f"lifecycle-{os.getpid()}"
    yield name
    subprocess.run([*COMMAND, "down", "--name", name], check=False, capture_output=True)


def test_killed_at_any_point_up_goes_on_and_down_leaves_nothing(name):
    before = of_the_host()
    for marker in ("pki", "namespace.pid", "logs/kube-apiserver.log", "logs/kubelet.log"):
        run = subprocess.Popen(
            [*COMMAND, "up", "--name", name], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + 60
        while not (clusters.state_root() / name / marker).exists():
            assert run.poll() is None, run.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        run.send_signal(signal.SIGKILL)
        run.wait(30)

    state = up(name)
    kubectl(state, "run", "p", "--image=bottleneck/pause:dev", "--image-pull-policy=Never")
    kubectl(state, "wait", "pod/p", "--for=condition=Ready", "--timeout=60s")
    cluster = clusters.get(name)
    assert traces(cluster), "the test does not see what it looks for"
    everything = descendants(state["namespaceProcess"])
    assert len(everything) > 8

    localcluster("down", "--name", name)

    assert alive(everything) == set()
    assert traces(cluster) == []
    assert of_the_host() == before
    assert "There is no cluster" not in localcluster("list")


def test_up_twice_changes_nothing_and_heals_what_has_ended(name):
    first = up(name)
    again = up(name)
    assert again["components"] == first["components"]

    os.kill(first["components"]["kube-apiserver"], signal.SIGKILL)
    os.kill(first["components"]["kubelet"], signal.SIGKILL)
    healed = up(name)
    assert healed["ready"]
    assert healed["components"]["kube-apiserver"] != first["components"]["kube-apiserver"]
    assert healed["components"]["etcd"] == first["components"]["etcd"]

    restarted = json.loads(localcluster("restart", "--name", name, "kube-scheduler", "-o", "json"))
    assert restarted["components"]["kube-scheduler"] != first["components"]["kube-scheduler"]

    # All of it killed from outside: `down` has only the remains to clear away.
    os.kill(first["namespaceProcess"], signal.SIGKILL)
    cluster = clusters.get(name)
    localcluster("down", "--name", name)
    assert traces(cluster) == []


def test_a_component_that_ends_is_named_with_its_last_words(name):
    up(name)
    cluster = clusters.get(name)
    broken = processes.Component("false", ("sh", "-c", "echo so it goes; exit 1"), lambda: False)
    processes.start(cluster, broken)
    with pytest.raises(Exception, match=r"(?s)false ended.*so it goes"):
        processes.wait_ready(cluster, broken)


def test_two_clusters_live_side_by_side_and_leave_the_users_kubeconfig_alone(name):
    config = Path.home() / ".kube" / "config"
    before = config.read_bytes() if config.exists() else None
    other = f"{name}-b"
    try:
        one, two = up(name), up(other)
        assert one["kubeconfig"] != two["kubeconfig"]
        kubectl(one, "create", "namespace", "only-in-one")
        assert "only-in-one" in kubectl(one, "get", "namespaces")
        assert "only-in-one" not in kubectl(two, "get", "namespaces")

        localcluster("down", "--name", name)
        assert json.loads(localcluster("status", "--name", other, "-o", "json"))["ready"]
    finally:
        subprocess.run([*COMMAND, "down", "--name", other], check=False, capture_output=True)
    assert (config.read_bytes() if config.exists() else None) == before


def test_a_number_that_another_process_has_by_now_is_not_killed(tmp_path, monkeypatch):
    """The namespace's number lies in a file; without its lock the file means nothing."""
    monkeypatch.setenv("BOTTLENECK_STATE_DIR", str(tmp_path))
    cluster = clusters.Cluster(name="stale", slot=60)
    cluster.directory.mkdir()
    (cluster.directory / "namespace.pid").write_text(str(os.getpid()))
    assert namespace.init_process(cluster) is None
    namespace.stop(cluster)  # and this process lives on
