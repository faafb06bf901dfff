"""Locks, atomic writes and content hashes: what lets a run be interrupted at any time."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from localcluster.errors import ClusterError

REPOSITORY = Path(__file__).resolve().parents[2]


def cache_directory() -> Path:
    """Where everything that is dear to make and safe to delete is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "bottleneck"


@contextlib.contextmanager
def lock(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold an exclusive lock; the kernel frees it however this process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_atomically(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Write a file so that a reader finds the old content or the new, never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def scratch_directory(parent: Path) -> Iterator[Path]:
    """Give a folder on the same file system as `parent`'s files, gone afterwards.

    Call it under a lock: what killed runs left behind is swept first.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for leftover in parent.glob(".partial-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=".partial-", dir=parent))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def digest(parts: Iterable[str | bytes | Path]) -> str:
    """A short hash of strings and of the contents of files, in the order given."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            data = hashlib.sha256(part.read_bytes()).digest()
        else:
            data = hashlib.sha256(part.encode() if isinstance(part, str) else part).digest()
        total.update(data)
    return total.hexdigest()[:16]


def wait_until(
    condition: Callable[[], object],
    *,
    seconds: float,
    failure: Callable[[], str],
    interval: float = 0.05,
) -> None:
    """Wait for a condition to hold; past the deadline raise what `failure` says."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(failure())
        time.sleep(interval)
