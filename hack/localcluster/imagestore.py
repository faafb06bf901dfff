"""Images unpacked once, for every cluster of this machine.

Unpacking gigabytes takes minutes, which no cluster should wait for. So the images are unpacked
where they are built, by a containerd that runs for just that, and a new cluster begins with hard
links to the result. That is safe because neither containerd nor a container ever writes to a file
of an image: it is replaced, or copied first.
"""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from localcluster import cluster, files, namespace, node, processes
from localcluster.cluster import Cluster
from localcluster.errors import ClusterError
from localcluster.progress import Progress


def add(archives: dict[str, Path], progress: Progress) -> None:
    """Unpack the archives (by image reference) that the store does not have yet."""
    with _exclusive() as store:
        missing = {
            reference: archive
            for reference, archive in archives.items()
            if record(store).get(reference) != archive.stem
        }
        if not missing:
            return
        store.directory.mkdir(parents=True, exist_ok=True)
        with progress.phase(f"unpack {', '.join(missing)}"):
            namespace.start(store)
            runtime = node.containerd(store)
            processes.start(store, runtime)
            processes.wait_ready(store, runtime)
            load(store, missing)
            # Ended politely, it leaves a database that is whole.
            processes.stop(store, runtime.name)


def clone_to(target: Cluster) -> None:
    """Give a new cluster the store's images; one that has a containerd folder keeps its own."""
    directory = target.directory / "containerd"
    if directory.exists():
        return
    with _exclusive() as store:
        source = store.directory / "containerd"
        if not source.exists():
            return
        with files.scratch_directory(target.directory) as scratch:
            copy = scratch / "containerd"
            command = ["cp", "--archive", "--link", str(source), str(copy)]
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode:
                raise ClusterError(f"copying the images failed:\n{result.stderr[-2000:]}")
            # The databases are the files that containerd does write to.
            for database in copy.glob("*/*.db"):
                own = database.with_suffix(".own")
                shutil.copyfile(database, own)
                own.replace(database)
            record_of_store = record(store)
            copy.rename(directory)
            write_record(target, record_of_store)


def load(target: Cluster, archives: dict[str, Path]) -> None:
    """Load archives into a containerd that runs, and note each when it is in."""
    for reference, archive in archives.items():
        namespace.run(target, "ctr", "--namespace=k8s.io", "images", "import", str(archive))
        write_record(target, {**record(target), reference: archive.stem})


def record(target: Cluster) -> dict[str, str]:
    """The images that a cluster has, with the hash of what each was made from."""
    try:
        return json.loads((target.directory / "images.json").read_text())
    except FileNotFoundError:
        return {}


def write_record(target: Cluster, images: dict[str, str]) -> None:
    """Note which images a cluster has."""
    files.write_atomically(target.directory / "images.json", json.dumps(images, indent=2))


def stop() -> None:
    """End what a killed run may have left running."""
    with _exclusive():
        pass


def delete() -> None:
    """Delete all unpacked images."""
    with _exclusive() as store:
        shutil.rmtree(store.directory, ignore_errors=True)


@contextlib.contextmanager
def _exclusive() -> Iterator[Cluster]:
    # As far as namespaces and containerd go the store is a cluster, of a name that none can have.
    store = Cluster(name=".images", slot=-1)
    with files.lock(cluster.state_root() / ".locks" / ".images"):
        namespace.stop(store)
        try:
            yield store
        finally:
            namespace.stop(store)
            cluster.when_none_is_left(namespace.remove_mount_points)
