"""Builds the images from their Dockerfiles, keeps them, and loads them into clusters.

An image is built again only when something that goes into it has changed. What was built lies as
one uncompressed archive for each image in the cache.
"""

import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from localcluster import archive, buildah, files, imagestore, packages
from localcluster.binaries import ARCHITECTURES
from localcluster.cluster import Cluster
from localcluster.errors import ClusterError
from localcluster.files import REPOSITORY
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


# --- building --------------------------------------------------------------------------------


def build(
    names: Iterable[str], progress: Progress, base_image: str | None = None
) -> dict[str, Path]:
    """Build images where something that goes into them has changed; tell where each lies."""
    packages.ensure(packages.IMAGE_PACKAGES, progress)
    base = base_image or BASE_IMAGE
    result = {}
    with files.lock(
        _cache() / ".build.lock",
        on_wait=lambda: progress.say("Another run is building images: waiting for it."),
    ):
        base_key = base_image or _ensure_base(progress)
        for name in names:
            if name == "base":
                result[name] = _archive("base", _ensure_base(progress))
            else:
                result[name] = _ensure_image(name, base, base_key, progress)
    return result


def unpack_built(progress: Progress) -> None:
    """Unpack what has been built, so that new clusters begin with it."""
    ensure_pause(progress)
    available = {name: path for name, path in built().items() if name in ("pause", *PROJECT_IMAGES)}
    imagestore.add({reference(name): path for name, path in available.items()}, progress)


def _ensure_base(progress: Progress) -> str:
    """Make the base image from Debian's packages, once; return the hash of what makes it."""
    source = REPOSITORY / "images" / "base"
    key = files.digest([source / "mmdebstrap.sh", source / "Dockerfile"])
    log = _cache() / "base.log"
    if _archive("base", key).exists() and buildah.has_image(BASE_IMAGE, log):
        return key
    log.unlink(missing_ok=True)
    with progress.phase("image base"), files.scratch_directory(_cache() / "base") as scratch:
        with log.open("w") as output:
            command = [source / "mmdebstrap.sh", scratch / "rootfs.tar"]
            result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        if result.returncode:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
            raise ClusterError(f"mmdebstrap failed. The last lines of {log}:\n{tail}")
        buildah.build(scratch, source / "Dockerfile", BASE_IMAGE, {}, scratch, log)
        _export("base", key, BASE_IMAGE, scratch, log)
    return key


def _ensure_image(name: str, base: str, base_key: str, progress: Progress) -> Path:
    dockerfile = REPOSITORY / "images" / name / "Dockerfile"
    if not dockerfile.exists():
        raise ClusterError(f"there is no {dockerfile}: no such image as '{name}'.")
    inputs = copied_files(dockerfile)
    paths = (str(path.relative_to(REPOSITORY)) for path in inputs)
    key = files.digest([base_key, dockerfile, *paths, *inputs])
    if (done := _archive(name, key)).exists():
        return done
    log = _cache() / f"{name}.log"
    log.unlink(missing_ok=True)
    with progress.phase(f"image {name}"), files.scratch_directory(_cache() / name) as scratch:
        tag = f"localhost/{reference(name)}"
        buildah.build(REPOSITORY, dockerfile, tag, {"BASE_IMAGE": base}, scratch, log)
        _export(name, key, tag, scratch, log)
    return done


def _export(name: str, key: str, tag: str, scratch: Path, log: Path) -> None:
    made = scratch / "image.tar"
    # This format's layers are not compressed: they are read here and nowhere else.
    buildah.run("push", tag, f"docker-archive:{made}:{reference(name)}", log=log)
    _keep(name, key, made)


def copied_files(dockerfile: Path) -> list[Path]:
    """The files of the repository that a Dockerfile copies into its image."""
    text = dockerfile.read_text().replace("\\\n", " ")
    sources: set[str] = set()
    for line in text.splitlines():
        instruction, _, rest = line.strip().partition(" ")
        if instruction.upper() not in ("COPY", "ADD"):
            continue
        words = shlex.split(rest)
        if any(word.startswith("--from=") for word in words):
            continue  # from another stage, not from the repository
        sources |= set([word for word in words if not word.startswith("--")][:-1])
    found = {path for source in sources for path in _repository_files(source)}
    return sorted(found)


def _repository_files(source: str) -> list[Path]:
    """What a COPY source stands for, without what git ignores (caches, builds)."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", source],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    if listing.returncode == 0:
        names = listing.stdout.split("\0")
        paths = [REPOSITORY / name for name in names if name]
    else:  # not a git checkout: a released source archive
        matches = REPOSITORY.glob(source)
        paths = [
            path
            for match in matches
            for path in (match.rglob("*") if match.is_dir() else [match])
            if "__pycache__" not in path.parts
        ]
    return [path for path in paths if path.is_file()]


# --- loading ---------------------------------------------------------------------------------


def built() -> dict[str, Path]:
    """The archives that have been built, by image name."""
    archives = _cache().glob("*/*.tar")
    return {path.parent.name: path for path in archives if not path.name.startswith(".")}


def load_built(cluster: Cluster, names: Iterable[str] | None = None) -> list[str]:
    """Load what has been built into a cluster, as far as it does not have it; tell what was."""
    available = built()
    if names is None:
        names = [name for name in ("pause", *PROJECT_IMAGES) if name in available]
    has = imagestore.record(cluster)
    missing = {}
    for name in names:
        if name not in available:
            raise ClusterError(
                f"image '{name}' has not been built. "
                f"Build it: python3 hack/localcluster images {name}"
            )
        if has.get(reference(name)) != available[name].stem:
            missing[reference(name)] = available[name]
    imagestore.load(cluster, missing)
    return list(missing)


def _archive(name: str, key: str) -> Path:
    return _cache() / name / f"{key}.tar"


def _keep(name: str, key: str, made: Path) -> None:
    """Put a finished archive in its place, and drop its predecessors."""
    target = _archive(name, key)
    made.rename(target)
    for other in target.parent.glob("*.tar"):
        if other != target:
            other.unlink()
