"""A cgroup per pod, on version 1 and 2: limits, and an end for everything that is in it.

All of them lie below one folder that carries the harness's process id, so that what a killed
harness left behind can be told from what is in use, and removed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
FOLDER = "bottleneck-faults"
PERIOD_MICROSECONDS = 100_000
CONTROLLERS = ("cpu", "cpuacct", "memory", "blkio")
DEADLINE_SECONDS = 10.0
WEIGHT = 32
"""How many processes outside of the benchmark it takes to get as much CPU as all runs inside."""


class CgroupError(RuntimeError):
    """This machine does not let us limit processes; the text says what is missing."""


class Cgroup:
    """The cgroup of one pod. ``directories`` maps a controller to its directory; the key of
    version 2 is the empty string (on a hybrid machine it has only pressure)."""

    def __init__(self, name: str, root: Path = ROOT) -> None:
        self.unified = (root / "cgroup.controllers").exists()
        self.directories: dict[str, Path] = {}
        below = f"{FOLDER}/{os.getpid()}-{name}"
        try:
            if self.unified:
                self._enable(root, below)
                self.directories[""] = root / below
            else:
                for controller in (*CONTROLLERS, "unified"):
                    if (root / controller).is_dir():
                        key = "" if controller == "unified" else controller
                        self.directories[key] = root / controller / below
            if not self.directories:
                raise CgroupError(f"no cgroup file system at {root}")
            for directory in self.directories.values():
                directory.mkdir(parents=True, exist_ok=True)
            self._put_first()
        except OSError as error:
            raise CgroupError(f"cannot make a cgroup: {error}: this needs root") from None

    def _enable(self, root: Path, below: str) -> None:
        (root / below).parent.mkdir(exist_ok=True)
        for directory in (root, (root / below).parent):
            for controller in ("cpu", "memory", "io"):
                with contextlib.suppress(OSError):  # what is missing is told when it is needed
                    (directory / "cgroup.subtree_control").write_text(f"+{controller}")

    def _put_first(self) -> None:
        """All runs together weigh more than whatever else this machine does besides."""
        name, weight = ("cpu.weight", 100) if self.unified else ("cpu.shares", 1024)
        directory = self.directories.get("" if self.unified else "cpu")
        if directory is not None:
            with contextlib.suppress(OSError):
                (directory.parent / name).write_text(str(weight * WEIGHT))

    @property
    def entries(self) -> list[Path]:
        """The files that a process writes its id to in order to join."""
        return [directory / "cgroup.procs" for directory in self.directories.values()]

    def limit_cpu(self, cores: float) -> None:
        """At most that many cores of CPU time in each 100 ms."""
        quota = max(1000, int(cores * PERIOD_MICROSECONDS))
        if self.unified:
            self._write("", "cpu.max", f"{quota} {PERIOD_MICROSECONDS}")
        else:
            self._write("cpu", "cpu.cfs_period_us", str(PERIOD_MICROSECONDS))
            self._write("cpu", "cpu.cfs_quota_us", str(quota))

    def weigh(self, pods: int) -> None:
        """As much CPU as so many pods would get where they compete."""
        if self.unified:
            self._write("", "cpu.weight", str(min(10_000, 100 * pods)))
        else:
            self._write("cpu", "cpu.shares", str(1024 * pods))

    def kept_bytes(self) -> int:
        """What is charged to the cgroup now and cannot be dropped: all but the pages of files."""
        directory = self._directory("" if self.unified else "memory")
        name = "memory.current" if self.unified else "memory.usage_in_bytes"
        used = int((directory / name).read_text())
        lines = (directory / "memory.stat").read_text().splitlines()
        figures = dict(line.split() for line in lines)
        return used - int(figures["inactive_file"]) - int(figures["active_file"])

    def limit_memory(self, limit: int) -> None:
        """At most that many bytes, page cache included."""
        if self.unified:
            self._write("", "memory.max", str(limit))
        else:
            # Refused as long as the kernel cannot drop pages faster than they are read again.
            deadline = time.monotonic() + DEADLINE_SECONDS
            while True:
                try:
                    return self._write("memory", "memory.limit_in_bytes", str(limit))
                except CgroupError:
                    if time.monotonic() >= deadline:
                        raise
                    time.sleep(0.1)

    def limit_reads(self, bytes_per_second: int, folder: Path) -> None:
        """At most that much from the disk on which ``folder`` lies."""
        device = disk_of(folder)
        if self.unified:
            self._write("", "io.max", f"{device} rbps={bytes_per_second}")
        else:
            text = f"{device} {bytes_per_second}"
            self._write("blkio", "blkio.throttle.read_bps_device", text)

    def processes(self) -> set[int]:
        """Who is in it."""
        found: set[int] = set()
        for entry in self.entries:
            with contextlib.suppress(OSError):
                found |= {int(line) for line in entry.read_text().split()}
        return found

    def remove(self) -> None:
        """Ends every process in it and takes the cgroup away."""
        _clear(list(self.directories.values()))
        for directory in self.directories.values():
            with contextlib.suppress(OSError):  # while other runs are in it, it stays
                directory.parent.rmdir()

    def _directory(self, controller: str) -> Path:
        try:
            return self.directories[controller]
        except KeyError:
            raise CgroupError(f"this machine has no {controller} controller") from None

    def _write(self, controller: str, name: str, text: str) -> None:
        try:
            (self._directory(controller) / name).write_text(text)
        except OSError as error:
            raise CgroupError(f"cannot set {name} to {text!r}: {error}") from None


def disk_of(folder: Path) -> str:
    """``MAJOR:MINOR`` of the disk that holds ``folder`` (of the whole disk, not of a partition)."""
    number = os.stat(folder).st_dev
    name = f"{os.major(number)}:{os.minor(number)}"
    device = Path("/sys/dev/block", name)
    if not device.exists():
        raise CgroupError(
            f"{folder} lies on no disk that reads can be limited on (overlay, tmpfs): put it on"
            " one with --data"
        )
    real = device.resolve()
    return (real.parent / "dev").read_text().strip() if (real / "partition").exists() else name


def sweep(root: Path = ROOT) -> None:
    """Removes what harnesses that are dead have left behind."""
    for folder in [root / FOLDER, *(root / c / FOLDER for c in (*CONTROLLERS, "unified"))]:
        if not folder.is_dir():
            continue
        for directory in folder.iterdir():
            owner = directory.name.partition("-")[0]
            if directory.is_dir() and owner.isdigit() and not Path("/proc", owner).exists():
                _clear([directory])


def _clear(directories: list[Path]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    left = [directory for directory in directories if directory.is_dir()]
    while left and time.monotonic() < deadline:
        for directory in list(left):
            with contextlib.suppress(OSError):
                for line in (directory / "cgroup.procs").read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(line), signal.SIGKILL)
            with contextlib.suppress(OSError):
                directory.rmdir()
            if not directory.is_dir():
                left.remove(directory)
        if left:
            time.sleep(0.02)
