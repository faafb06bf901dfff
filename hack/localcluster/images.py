"""Builds the images from their Dockerfiles, keeps them, and loads them into clusters.

An image is built again only when something that goes into it has changed. What was built lies as
one uncompressed archive for each image in the cache.
"""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from localcluster import archive, files, namespace
from localcluster.binaries import ARCHITECTURES
from localcluster.cluster import Cluster
from localcluster.errors import ClusterError
from localcluster.node import PAUSE_IMAGE
from localcluster.progress import Progress

PROJECT_IMAGES = ("operator", "sidecar", "examples")
BASE_IMAGE = "localhost/bottleneck/base:bookworm"
PAUSE_SOURCE = Path(__file__).parent / "pause"


def reference(name: str) -> str:
    """What pods call an image of this project."""
    return f"bottleneck/{name}:dev"


def _cache() -> Path:
    return files.cache_directory() / "images"


# --- the pause image -------------------------------------------------------------------------


def ensure_pause(progress: Progress) -> None:
    """Make the pause image, once."""
    key = files.digest([PAUSE_SOURCE / "main.go", PAUSE_SOURCE / "go.mod", Path(archive.__file__)])
    with files.lock(_cache() / ".pause.lock"):
        if _archive("pause", key).exists():
            return
        if not shutil.which("go"):
            raise ClusterError("the pause image is built with Go: install Go 1.22 or newer.")
        with progress.phase("pause image"), files.scratch_directory(_cache() / "pause") as scratch:
            subprocess.run(
                ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", scratch / "pause", "."],
                cwd=PAUSE_SOURCE,
                env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"},
                check=True,
            )
            made = scratch / "pause.tar"
            archive.write_single_file_image(
                scratch / "pause",
                ARCHITECTURES.get(platform.machine(), platform.machine()),
                PAUSE_IMAGE,
                made,
            )
            _keep("pause", key, made)


# --- loading ---------------------------------------------------------------------------------


def built() -> dict[str, Path]:
    """The archives that have been built, by image name."""
    archives = _cache().glob("*/*.tar")
    return {path.parent.name: path for path in archives if not path.name.startswith(".")}


def load_built(cluster: Cluster, names: Iterable[str] | None = None) -> list[str]:
    """Load what has been built into a cluster, as far as it does not have it; tell what was."""
    record = loaded(cluster)
    available = built()
    fresh = []
    for name in sorted(available if names is None else names):
        if name not in available:
            raise ClusterError(
                f"image '{name}' has not been built. "
                f"Build it: python3 hack/localcluster images {name}"
            )
        image = available[name]
        if record.get(reference(name)) == image.stem:
            continue
        namespace.run(cluster, "ctr", "--namespace=k8s.io", "images", "import", str(image))
        record[reference(name)] = image.stem
        files.write_atomically(_record(cluster), json.dumps(record, indent=2))
        fresh.append(reference(name))
    return fresh


def loaded(cluster: Cluster) -> dict[str, str]:
    """The images that a cluster has been given, with the hash of what each was made from."""
    try:
        return json.loads(_record(cluster).read_text())
    except FileNotFoundError:
        return {}


def _record(cluster: Cluster) -> Path:
    return cluster.directory / "images.json"


def _archive(name: str, key: str) -> Path:
    return _cache() / name / f"{key}.tar"


def _keep(name: str, key: str, made: Path) -> None:
    """Put a finished archive in its place, and drop its predecessors."""
    target = _archive(name, key)
    made.rename(target)
    for other in target.parent.glob("*.tar"):
        if other != target:
            other.unlink()
