"""Runs buildah with a storage of its own, and with this machine's ways to its package registry."""

import configparser
import os
import subprocess
from pathlib import Path

from localcluster import files
from localcluster.errors import ClusterError

CERTIFICATES = Path("/etc/ssl/certs")

# Settings of pip that tell where packages come from and whom to trust. An image build must get at
# packages the way this machine does, and none of it may stay in the image.
PIP_SETTINGS = ("index-url", "extra-index-url", "find-links", "trusted-host", "timeout", "proxy")


def build(
    context: Path, dockerfile: Path, tag: str, arguments: dict[str, str], scratch: Path, log: Path
) -> None:
    """Build a Dockerfile; steps that have not changed since they last ran are not run again."""
    pip = _pip_settings()
    configuration = scratch / "pip.conf"
    with configuration.open("w") as output:
        pip.write(output)
    pip_cache = files.cache_directory() / "pip"
    pip_cache.mkdir(parents=True, exist_ok=True)
    mounts = [f"{configuration}:/etc/pip.conf:ro", f"{pip_cache}:/root/.cache/pip:rw"]
    if CERTIFICATES.is_dir():
        mounts.append(f"{CERTIFICATES}:{CERTIFICATES}:ro")
    for place in pip["global"].get("find-links", "").split():
        if Path(place).is_dir():
            mounts.append(f"{place}:{place}:ro")
    run(
        "bud",
        "--isolation=chroot",
        "--layers",
        "--format=docker",
        *(f"--volume={mount}" for mount in mounts),
        *(f"--build-arg={name}={value}" for name, value in arguments.items()),
        f"--file={dockerfile}",
        f"--tag={tag}",
        str(context),
        log=log,
    )


def has_image(tag: str, log: Path) -> bool:
    """Whether an image is in buildah's storage, where builds look for their base."""
    try:
        run("inspect", "--type=image", tag, log=log)
    except ClusterError:
        return False
    return True


def run(*arguments: str, log: Path) -> None:
    """Run buildah; its output goes to a log, whose end is the error message when it fails."""
    storage = files.cache_directory() / "buildah"
    command = [
        "buildah",
        f"--root={storage / 'root'}",
        f"--runroot={storage / 'run'}",
        "--storage-driver=overlay",
        *arguments,
    ]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    if result.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
        raise ClusterError(f"`buildah {arguments[0]}` failed. The last lines of {log}:\n{tail}")


def _pip_settings() -> configparser.ConfigParser:
    """This machine's pip settings: its files', over which its environment goes, as pip has it."""
    found = configparser.RawConfigParser()
    home = Path.home()
    found.read(["/etc/pip.conf", home / ".pip/pip.conf", home / ".config/pip/pip.conf"])
    settings = configparser.RawConfigParser()
    settings["global"] = {"disable-pip-version-check": "true", "cert": _bundle()}
    for name in PIP_SETTINGS:
        value = os.environ.get(f"PIP_{name.upper().replace('-', '_')}")
        value = value or found.get("global", name, fallback=None)
        if value:
            settings["global"][name] = value
    return settings


def _bundle() -> str:
    return str(CERTIFICATES / "ca-certificates.crt")
