"""Downloads that are checked, give up in time, and never leave a half file for a whole one."""

import hashlib
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from localcluster.errors import ClusterError
from localcluster.progress import Progress

CHUNK = 1 << 20


class UnavailableError(Exception):
    """The file is not to be had from there; another way may do."""


@dataclass(frozen=True)
class Limits:
    """How long to put up with a server."""

    answer_seconds: float = 4.0  # from the first request to its answer
    stall_seconds: float = 20.0  # without a byte
    total_seconds: float = 600.0  # for one file


def probe(mirror: str, limits: Limits) -> None:
    """Find out in seconds whether a server answers at all, so that a failed try is cheap."""
    outcome: list[Exception | None] = []

    def ask() -> None:
        try:
            with _open(f"{mirror}/", limits.answer_seconds):
                pass
            outcome.append(None)
        except urllib.error.HTTPError:
            outcome.append(None)  # an answer all the same
        except OSError as error:
            outcome.append(error)

    # In a thread, because looking up a name may take longer than any timeout that can be set.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(limits.answer_seconds)
    if not outcome:
        raise UnavailableError(f"{mirror} did not answer within {limits.answer_seconds:g} s")
    if outcome[0]:
        raise UnavailableError(f"{mirror} cannot be reached ({outcome[0]})")


def file(url: str, checksum_url: str, target: Path, limits: Limits, progress: Progress) -> None:
    """Download a file and check it; a wrong checksum is an error that nothing makes up for."""
    deadline = time.monotonic() + limits.total_seconds
    expected = _text(checksum_url, limits).split()[0].lower()
    total = hashlib.sha256()
    started = time.monotonic()
    try:
        with _open(url, limits.stall_seconds) as response, target.open("wb") as output:
            size = int(response.headers.get("Content-Length") or 0)
            while chunk := response.read1(CHUNK):
                if time.monotonic() > deadline:
                    raise UnavailableError(f"{url} took longer than {limits.total_seconds:g} s")
                output.write(chunk)
                total.update(chunk)
                progress.update(target.name, output.tell(), size, started)
            if size and output.tell() != size:
                raise UnavailableError(f"{url} broke off after {output.tell()} of {size} bytes")
    except OSError as error:
        raise UnavailableError(f"{url}: {error}") from error
    if total.hexdigest() != expected:
        target.unlink()
        raise ClusterError(
            f"{url} has the wrong checksum: {total.hexdigest()}, not {expected}. It was thrown "
            "away.\nUse another mirror (--mirror URL), or build from source (--no-download)."
        )


def _text(url: str, limits: Limits) -> str:
    try:
        with _open(url, limits.stall_seconds) as response:
            text = response.read(1024).decode(errors="replace").strip()
    except OSError as error:
        raise UnavailableError(f"{url}: {error}") from error
    if not text:
        raise UnavailableError(f"{url} is empty")
    return text


def _open(url: str, timeout: float):
    if not url.startswith(("http://", "https://")):
        raise ClusterError(f"a mirror's address starts with http:// or https://, not {url}")
    return urllib.request.urlopen(url, timeout=timeout)  # noqa: S310
