"""The Debian packages that the cluster and the image builds need."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from localcluster import files
from localcluster.errors import ClusterError
from localcluster.progress import Progress

# A file that each package brings, which tells that it is there however it was installed.
CLUSTER_PACKAGES = {
    "etcd-server": "etcd",
    "containerd": "containerd",
    "runc": "runc",
    "containernetworking-plugins": "/usr/lib/cni/ptp",
    "nftables": "nft",
    "conntrack": "conntrack",
    "iproute2": "ip",
    "openssl": "openssl",
}
IMAGE_PACKAGES = {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}
PROMETHEUS_PACKAGES = {"prometheus": "prometheus"}
"""For tests/prometheus, which start a server of their own."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

POLICY = Path("/usr/sbin/policy-rc.d")
POLICY_TEXT = """#!/bin/sh
# Written by hack/localcluster for the length of one apt-get install, so that no package starts a
# service. Safe to delete.
exit 101
"""


def missing(packages: dict[str, str]) -> list[str]:
    """Names of the packages whose file is not on this machine."""
    return [name for name, file in packages.items() if not shutil.which(file, path=SYSTEM_PATH)]


def ensure(packages: dict[str, str], progress: Progress, *, is_root: bool | None = None) -> None:
    """Install what is missing, or say what to install where this user may not."""
    absent = missing(packages)
    if not absent:
        return
    if not (os.geteuid() == 0 if is_root is None else is_root):
        raise ClusterError(
            f"these Debian packages are missing: {' '.join(absent)}\n"
            f"Install them: sudo apt-get install --no-install-recommends {' '.join(absent)}"
        )
    if not shutil.which("apt-get"):
        raise ClusterError(
            f"these programs are missing: {', '.join(packages[name] for name in absent)}\n"
            "There is no apt-get here: install them with this system's package manager."
        )
    # One run at a time: apt waits for others with dpkg's lock, but not with the one of its lists.
    with (
        files.lock(files.cache_directory() / ".packages.lock"),
        progress.phase(f"Debian packages ({', '.join(absent)})"),
        _no_services_started(),
    ):
        # The lists of a new machine are old or empty, and then nothing is found.
        _apt_get("update", "-qq")
        _apt_get("install", "-qq", "--no-install-recommends", *absent)
    _keep_services_off(absent)


def _apt_get(*arguments: str) -> None:
    command = ["apt-get", "-y", "-o", "DPkg::Lock::Timeout=300", *arguments]
    result = subprocess.run(
        command,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if result.returncode:
        tail = "\n".join((result.stdout + result.stderr).splitlines()[-15:])
        raise ClusterError(f"`{' '.join(command)}` failed:\n{tail}")


@contextlib.contextmanager
def _no_services_started() -> Iterator[None]:
    """Debian packages start their services on installation; the cluster starts its own."""
    if POLICY.exists() and POLICY.read_text() != POLICY_TEXT:
        yield  # the machine's owner has a policy: leave it alone
        return
    POLICY.write_text(POLICY_TEXT)
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def _keep_services_off(packages: list[str]) -> None:
    """Where systemd runs, keep freshly installed daemons from starting at the next boot."""
    if not Path("/run/systemd/system").exists():
        return
    units = {
        "etcd-server": "etcd.service",
        "containerd": "containerd.service",
        "prometheus": "prometheus.service",
    }
    for unit in (units[name] for name in packages if name in units):
        subprocess.run(["systemctl", "disable", "--quiet", unit], check=False)
