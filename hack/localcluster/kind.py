"""The same cluster where Docker is: kind makes it, from kind-config.yaml."""

import shutil
import subprocess
from pathlib import Path

from localcluster import binaries, files
from localcluster.cluster import check_name
from localcluster.errors import ClusterError
from localcluster.images import PROJECT_IMAGES, reference
from localcluster.progress import Progress


def up(name: str, options: binaries.Options, progress: Progress) -> dict:
    """Make a kind cluster unless it is there, build the images and load them into it."""
    check_name(name)
    _require_docker()
    program = _program(options, progress)
    # A file of its own, so that ~/.kube/config stays as it is.
    kubeconfig = files.cache_directory() / "kind" / f"{name}.kubeconfig"
    kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    if name not in _run(program, "get", "clusters").split():
        with progress.phase("kind cluster"):
            config = files.REPOSITORY / "kind-config.yaml"
            _run(
                *(program, "create", "cluster", "--name", name, "--wait=120s"),
                *("--config", config, "--kubeconfig", kubeconfig),
            )
    else:
        _run(program, "export", "kubeconfig", "--name", name, "--kubeconfig", kubeconfig)
    tags = [reference(image) for image in PROJECT_IMAGES]
    for image, tag in zip(PROJECT_IMAGES, tags, strict=True):
        with progress.phase(f"image {image}"):
            dockerfile = files.REPOSITORY / "images" / image / "Dockerfile"
            _run("docker", "build", "--file", dockerfile, "--tag", tag, files.REPOSITORY)
    with progress.phase("images"):
        _run(program, "load", "docker-image", "--name", name, *tags)
    return {"name": name, "provider": "kind", "kubeconfig": str(kubeconfig)}


def down(name: str, options: binaries.Options, progress: Progress) -> None:
    """Delete a kind cluster and its kubeconfig."""
    check_name(name)
    _require_docker()
    program = _program(options, progress)
    kubeconfig = files.cache_directory() / "kind" / f"{name}.kubeconfig"
    with progress.phase(f"kind cluster '{name}' down"):
        _run(program, "delete", "cluster", "--name", name, "--kubeconfig", kubeconfig)
        kubeconfig.unlink(missing_ok=True)


def _require_docker() -> None:
    instead = "Without Docker: `make demo` uses the built-in cluster, as root on Linux."
    if not shutil.which("docker"):
        raise ClusterError(f"kind needs Docker, and there is no `docker` here.\n{instead}")
    answer = subprocess.run(["docker", "version"], capture_output=True, text=True)
    if answer.returncode:
        said = answer.stderr.strip()
        raise ClusterError(f"kind needs Docker, which does not answer: {said}\n{instead}")


def _program(options: binaries.Options, progress: Progress) -> Path:
    if found := shutil.which("kind"):
        return Path(found)
    return binaries.ensure_release(binaries.kind(), options, progress)["kind"]


def _run(*command: str | Path) -> str:
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if result.returncode:
        tail = "\n".join(result.stderr.splitlines()[-20:])
        raise ClusterError(f"`{' '.join(map(str, command[:4]))}` failed:\n{tail}")
    return result.stdout
