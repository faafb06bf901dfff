"""Writes an image of one file without any image tool: the pause image, which no pod can do without.

The format is the one of `docker save`, with its layer uncompressed.
"""

import hashlib
import io
import json
import tarfile
from pathlib import Path


def write_single_file_image(program: Path, architecture: str, reference: str, target: Path) -> None:
    """Write an image that holds one program and runs it as an unprivileged user."""
    layer = _tar({program.name: program.read_bytes()}, mode=0o755)
    config = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Entrypoint": [f"/{program.name}"], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha256(layer)}"]},
        }
    ).encode()
    manifest = [
        {
            "Config": f"{_sha256(config)}.json",
            "RepoTags": [reference],
            "Layers": [f"{_sha256(layer)}/layer.tar"],
        }
    ]
    members = {
        f"{_sha256(layer)}/layer.tar": layer,
        f"{_sha256(config)}.json": config,
        "manifest.json": json.dumps(manifest).encode(),
    }
    target.write_bytes(_tar(members, mode=0o644))


def _tar(members: dict[str, bytes], mode: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)  # no times, no owner: the same file, the same hash
            member.size = len(content)
            member.mode = mode
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
