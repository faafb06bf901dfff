"""Kubernetes' programs and Helm: given, cached, downloaded, or built with Go.

Which versions is what hack/localcluster/binaries/{kubernetes,helm,kind}/go.mod say.
"""

import os
import platform
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from localcluster import download, files
from localcluster.errors import ClusterError
from localcluster.progress import Progress

MODULES = Path(__file__).parent / "binaries"
KUBERNETES = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
)
NAMES = (*KUBERNETES, "helm")
LOG_LINES = 15
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Options:
    """Where to look for the programs; see --help."""

    folder: Path | None = None
    mirror: str | None = None
    may_download: bool = True
    may_build: bool = True
    limits: download.Limits = field(default_factory=download.Limits)


@dataclass(frozen=True)
class Release:
    """A set of programs that are released, downloaded and built together."""

    project: str
    version: str
    names: tuple[str, ...]
    packages: tuple[str, ...]
    linker_variables: dict[str, str]
    official: str
    fetch: Callable[["Release", str, download.Limits, Path, Progress], None]

    @property
    def module(self) -> Path:
        """The Go module that pins the release and everything that it is built from."""
        return MODULES / self.project

    @property
    def cache(self) -> Path:
        """Where its programs are kept: another version, or another pin, is another folder."""
        pins = files.digest([self.module / "go.sum"])
        return files.cache_directory() / "binaries" / f"{self.project}-{self.version}-{pins}"


def kubernetes() -> Release:
    """The release of Kubernetes that go.mod pins."""
    version = _pinned_version("kubernetes", "k8s.io/kubernetes")
    major, minor, _ = version.removeprefix("v").split(".", 2)
    variables = {
        "gitVersion": version,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "unknown",
    }
    return Release(
        project="kubernetes",
        version=version,
        names=KUBERNETES,
        packages=tuple(f"k8s.io/kubernetes/cmd/{name}" for name in KUBERNETES),
        # Without its version neither kubectl nor the kubelet starts.
        linker_variables={f"k8s.io/component-base/version.{k}": v for k, v in variables.items()},
        official="https://dl.k8s.io",
        fetch=_fetch_kubernetes,
    )


def helm() -> Release:
    """The release of Helm that go.mod pins."""
    version = _pinned_version("helm", "helm.sh/helm/v4")
    return Release(
        project="helm",
        version=version,
        names=("helm",),
        packages=("helm.sh/helm/v4/cmd/helm",),
        linker_variables={"helm.sh/helm/v4/internal/version.version": version},
        official="https://get.helm.sh",
        fetch=_fetch_helm,
    )


def kind() -> Release:
    """The release of kind that go.mod pins: for `kind-up`, and to check kind-config.yaml."""
    return Release(
        project="kind",
        version=_pinned_version("kind", "sigs.k8s.io/kind"),
        names=("kind",),
        packages=("sigs.k8s.io/kind",),
        linker_variables={},
        official="https://kind.sigs.k8s.io",
        fetch=_fetch_kind,
    )


def ensure(options: Options, progress: Progress) -> dict[str, Path]:
    """Find or make every program; the answer says where each is."""
    found: dict[str, Path] = {}
    for release in (kubernetes(), helm()):
        given = _in_folder(options.folder, release.names) if options.folder else {}
        found |= given
        if len(given) < len(release.names):
            found |= {**ensure_release(release, options, progress), **given}
    return found


def ensure_release(release: Release, options: Options, progress: Progress) -> dict[str, Path]:
    """One release's programs from the cache, which is filled first where it is not yet."""

    def wait() -> None:
        progress.say(f"Another run is getting {release.project} {release.version}: waiting for it.")

    with files.lock(release.cache.parent / f".{release.cache.name}.lock", on_wait=wait):
        if not release.cache.exists():
            with files.scratch_directory(release.cache.parent) as scratch:
                complete = scratch / "bin"
                complete.mkdir()
                _obtain(release, options, complete, progress)
                # All at once: whoever finds the folder finds every program, whole.
                complete.rename(release.cache)
    return _in_folder(release.cache, release.names)


def _obtain(release: Release, options: Options, target: Path, progress: Progress) -> None:
    name = f"{release.project} {release.version}"
    if options.may_download:
        mirror = (options.mirror or release.official).rstrip("/")
        try:
            download.probe(mirror, options.limits)
            with progress.phase(f"{name}: download"):
                release.fetch(release, mirror, options.limits, target, progress)
            return
        except download.UnavailableError as error:
            for half in target.iterdir():
                half.unlink()
            progress.say(f"{name} cannot be downloaded: {error}")
    if not options.may_build:
        raise ClusterError(
            f"{name} is neither in the cache nor to be downloaded, and must not be built.\n"
            "Give a folder that holds its programs: --binaries DIR"
        )
    with progress.phase(f"{name}: build with Go"):
        _build(release, target, progress)


def _in_folder(folder: Path, names: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        raise ClusterError(f"{folder} is not a folder that holds programs.")
    return {name: (folder / name).resolve() for name in names if os.access(folder / name, os.X_OK)}


def _pinned_version(project: str, module: str) -> str:
    text = (MODULES / project / "go.mod").read_text()
    if match := re.search(rf"^\s*(?:require )?{re.escape(module)} (v\S+)", text, re.MULTILINE):
        return match[1]
    raise ClusterError(f"{MODULES / project / 'go.mod'} does not require {module}")


# --- downloads -------------------------------------------------------------------------------


def _fetch_kubernetes(
    release: Release, mirror: str, limits: download.Limits, target: Path, progress: Progress
) -> None:
    for name in release.names:
        url = f"{mirror}/{release.version}/bin/linux/{_architecture()}/{name}"
        download.file(url, f"{url}.sha256", target / name, limits, progress)
        (target / name).chmod(0o755)


def _fetch_helm(
    release: Release, mirror: str, limits: download.Limits, target: Path, progress: Progress
) -> None:
    folder = f"linux-{_architecture()}"
    url = f"{mirror}/helm-{release.version}-{folder}.tar.gz"
    archive = target / "helm.tar.gz"
    download.file(url, f"{url}.sha256sum", archive, limits, progress)
    with tarfile.open(archive) as tar, (target / "helm").open("wb") as helm_file:
        try:
            member = tar.extractfile(f"{folder}/helm")
        except KeyError:
            member = None
        if member is None:
            raise download.UnavailableError(f"{url} holds no {folder}/helm")
        shutil.copyfileobj(member, helm_file)
    archive.unlink()
    (target / "helm").chmod(0o755)


def _fetch_kind(
    release: Release, mirror: str, limits: download.Limits, target: Path, progress: Progress
) -> None:
    url = f"{mirror}/dl/{release.version}/kind-linux-{_architecture()}"
    download.file(url, f"{url}.sha256sum", target / "kind", limits, progress)
    (target / "kind").chmod(0o755)


def _architecture() -> str:
    return ARCHITECTURES.get(platform.machine(), platform.machine())


# --- builds ----------------------------------------------------------------------------------


def _build(release: Release, target: Path, progress: Progress) -> None:
    if not shutil.which("go"):
        raise ClusterError(
            f"{release.project} has to be built, and there is no Go here.\n"
            "Install Go 1.26 or newer, or give a folder that holds the programs: --binaries DIR"
        )
    started = time.monotonic()
    total = _count_packages(release, progress)
    variables = " ".join(f"-X {name}={value}" for name, value in release.linker_variables.items())
    # With -v, go names each package as it compiles it.
    compiling = _go(
        release,
        *("build", "-v", "-trimpath", f"-ldflags=-s -w {variables}", "-o", f"{target}/"),
        *release.packages,
    )
    for compiled, _ in enumerate(compiling, start=1):
        progress.update(f"{release.project}: compiling", compiled, total, started)
    absent = [name for name in release.names if not (target / name).exists()]
    if absent:
        raise ClusterError(f"go build succeeded and gave no {', '.join(absent)}.")


def _count_packages(release: Release, progress: Progress) -> int:
    """How many packages there are to compile; brings the modules here on the way."""
    started = time.monotonic()
    downloaded = packages = 0
    for line in _go(release, "list", "-deps", *release.packages):
        if line.startswith("go: downloading"):
            downloaded += 1
            progress.update(f"{release.project}: modules fetched", downloaded, 0, started)
        else:
            packages += 1
    return packages


def _go(release: Release, *arguments: str) -> Iterator[str]:
    """Run go in the release's module and yield its lines of output as they come."""
    process = subprocess.Popen(
        ["go", *arguments],
        cwd=release.module,
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    tail: list[str] = []
    with process:
        try:
            for line in process.stdout:
                tail = [*tail[-LOG_LINES:], line.rstrip()]
                yield line.rstrip()
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        joined = "\n".join(tail)
        raise ClusterError(f"`go {arguments[0]}` failed for {release.project}:\n{joined}")
