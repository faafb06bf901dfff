"""Reads the figures of one container from its cgroup files, version 1 and 2.

A figure whose file is missing, unreadable or garbled is ``None`` ("not measured"): never zero, and
never an exception, because telemetry must not harm the process that reads it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from bottleneck_sidecar import proc
from bottleneck_sidecar.wire import Container

ROOT = "/sys/fs/cgroup"

_UNLIMITED = 2**60
"""Version 1 writes "no limit" as a huge number of bytes (2**63 rounded down to a page)."""


@dataclass(frozen=True, slots=True)
class Cgroup:
    """Where the files of one container are: one directory per controller.

    ``unified`` is the cgroup v2 directory (the only one there is on a v2 machine)."""

    unified: str | None
    cpu: str | None = None
    cpuacct: str | None = None
    memory: str | None = None
    blkio: str | None = None

    @property
    def identity(self) -> str | None:
        """One life of the cgroup: a restarted container has another inode, and other counters."""
        for directory in (self.memory, self.cpu, self.unified):
            if directory is not None:
                try:
                    stat = os.stat(directory)
                except OSError:
                    continue
                return f"{stat.st_dev:x}-{stat.st_ino:x}"
        return None


def locate(root: str = ROOT, process: str = "/proc/self") -> Cgroup | None:
    """The cgroup of ``process`` (a directory of /proc) as mounted at ``root``.

    Inside a container the mount usually shows the container's own cgroup as its root; with the
    host's cgroup namespace the process's path leads from the mount's root to it.
    Returns None where there is no cgroup file system.
    """
    paths = _paths(process)
    if os.path.exists(os.path.join(root, "cgroup.controllers")):
        return Cgroup(unified=_descend(root, paths.get("")))
    found = {name: _controller(root, name, paths) for name in ("cpu", "cpuacct", "memory", "blkio")}
    if not any(found.values()):
        return None
    # Pressure exists only in v2. On a hybrid machine the unified root is the whole node's: its
    # pressure is not the container's, so only a directory below it counts.
    hybrid = os.path.join(root, "unified")
    unified = _descend(hybrid, paths.get(""))
    return Cgroup(unified=unified if unified != hybrid else None, **found)


def read(cgroup: Cgroup | None, cpus: int | None = None, node: str = "/proc") -> Container | None:
    """The figures of ``cgroup`` now, and of the node's CPUs; None where the cgroup has none.

    ``cpus`` is handed through: the number of CPUs that the workload may be scheduled on. ``node``
    is the directory of /proc, which shows the node's CPUs in containers too.
    """
    if cgroup is None:
        return None
    figures: dict[str, float | int | None] = (
        _read_v1(cgroup) if cgroup.memory or cgroup.cpu or cgroup.cpuacct else _read_v2(cgroup)
    )
    if all(value is None for value in figures.values()):
        return None
    node_cpus, node_busy_seconds = _node(proc.text(node, "stat"))
    return Container(
        **figures,  # type: ignore[arg-type]
        node_cpus=node_cpus,
        node_busy_seconds=node_busy_seconds,
        cpus=cpus,
        epoch=cgroup.identity,
    )


def own_cpus() -> int | None:
    """CPUs that this process may be scheduled on (cpusets and affinity; not the CPU quota)."""
    try:
        return len(os.sched_getaffinity(0))
    except (OSError, AttributeError):
        return os.cpu_count()


def _read_v2(cgroup: Cgroup) -> dict[str, float | int | None]:
    base = cgroup.unified
    cpu = _keyed(base, "cpu.stat")
    memory, events = _keyed(base, "memory.stat"), _keyed(base, "memory.events")
    return {
        "cpu_seconds": _scaled(cpu.get("usage_usec"), 1e6),
        "cpu_limit_cores": _quota(proc.text(base, "cpu.max")),
        "periods": cpu.get("nr_periods"),
        "throttled_periods": cpu.get("nr_throttled"),
        "throttled_seconds": _scaled(cpu.get("throttled_usec"), 1e6),
        "memory_bytes": _working_set(
            _number(proc.text(base, "memory.current")),
            memory.get("inactive_file"),
        ),
        "memory_limit_bytes": _limit(proc.text(base, "memory.max")),
        "oom_kills": events.get("oom_kill"),
        "memory_limit_hits": _sum([events.get("max"), events.get("high")]),
        "major_faults": memory.get("pgmajfault"),
        "read_bytes": _read_bytes_v2(proc.text(base, "io.stat")),
        **_pressures(base),
    }


def _read_v1(cgroup: Cgroup) -> dict[str, float | int | None]:
    cpu = _keyed(cgroup.cpu, "cpu.stat")
    memory = _keyed(cgroup.memory, "memory.stat")
    quota = proc.text(cgroup.cpu, "cpu.cfs_quota_us")
    period = proc.text(cgroup.cpu, "cpu.cfs_period_us")
    return {
        "cpu_seconds": _scaled(_number(proc.text(cgroup.cpuacct, "cpuacct.usage")), 1e9),
        "cpu_limit_cores": _quota(f"{quota} {period}" if quota and period else None),
        "periods": cpu.get("nr_periods"),
        "throttled_periods": cpu.get("nr_throttled"),
        "throttled_seconds": _scaled(cpu.get("throttled_time"), 1e9),
        "memory_bytes": _working_set(
            _number(proc.text(cgroup.memory, "memory.usage_in_bytes")),
            memory.get("total_inactive_file", memory.get("inactive_file")),
        ),
        "memory_limit_bytes": _limit(proc.text(cgroup.memory, "memory.limit_in_bytes")),
        "oom_kills": _keyed(cgroup.memory, "memory.oom_control").get("oom_kill"),
        "memory_limit_hits": _number(proc.text(cgroup.memory, "memory.failcnt")),
        "major_faults": memory.get("total_pgmajfault", memory.get("pgmajfault")),
        "read_bytes": _read_bytes_v1(cgroup.blkio),
        **_pressures(cgroup.unified),
    }


def _node(stat: str | None) -> tuple[int | None, float | None]:
    """Number of CPUs and the seconds in which they did work, from ``/proc/stat``."""
    lines = [line.split() for line in (stat or "").splitlines() if line.startswith("cpu")]
    cpus = sum(parts[0] != "cpu" for parts in lines) or None
    if not lines or lines[0][0] != "cpu" or len(lines[0]) < 9:
        return cpus, None
    # user, nice, system, irq, softirq, steal: not idle (4th) nor waiting for I/O (5th). The time of
    # guests (from the 9th on) is in user and nice already.
    ticks = _sum([_number(lines[0][column]) for column in (1, 2, 3, 6, 7, 8)])
    return cpus, _scaled(ticks, proc.TICKS_PER_SECOND)


def _paths(process: str) -> dict[str, str]:
    """Controller → path from the cgroup root; the key of v2 is the empty string."""
    paths: dict[str, str] = {}
    for line in (proc.text(process, "cgroup") or "").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                paths[controller] = parts[2]
    return paths


def _controller(root: str, name: str, paths: dict[str, str]) -> str | None:
    for mount in (name, "cpu,cpuacct", "cpuacct,cpu"):
        if mount == name or name in mount.split(","):
            directory = os.path.join(root, mount)
            if os.path.isdir(directory):
                return _descend(directory, paths.get(name))
    return None


def _descend(directory: str, path: str | None) -> str:
    """The directory of ``path`` below the mount where it is visible, else the mount's root.

    A path through ``..`` is one seen from another cgroup namespace: it leads nowhere here."""
    if path and ".." not in path:
        below = os.path.join(directory, path.strip("/"))
        if path.strip("/") and os.path.isdir(below):
            return below
    return directory


def _guarded(parse: Callable[[str], int]) -> Callable[[str | None], int | None]:
    def parsed(text: str | None) -> int | None:
        try:
            value = parse(text) if text is not None else -1
        except (ValueError, IndexError):
            return None
        return value if 0 <= value < 2**63 else None

    return parsed


_number = _guarded(int)


def _keyed(directory: str | None, name: str) -> dict[str, int]:
    """A flat-keyed file (``key value`` lines); lines of another form are left out."""
    found: dict[str, int] = {}
    for line in (proc.text(directory, name) or "").splitlines():
        parts = line.split()
        if len(parts) == 2 and (value := _number(parts[1])) is not None:
            found[parts[0]] = value
    return found


def _scaled(value: int | None, divisor: float) -> float | None:
    return None if value is None else value / divisor


def _quota(text: str | None) -> float | None:
    """``QUOTA PERIOD`` in microseconds as cores; None for "max", -1 and anything unreadable."""
    parts = (text or "").split()
    if len(parts) != 2:
        return None
    quota, period = _number(parts[0]), _number(parts[1])
    return quota / period if quota and period else None


def _limit(text: str | None) -> int | None:
    value = _number(text)
    return value if value is not None and value < _UNLIMITED else None


def _working_set(usage: int | None, inactive_file: int | None) -> int | None:
    """What the kubelet calls the working set. Plain usage counts the page cache too, which a
    data-loading job always grows up to its limit without being in any danger."""
    if usage is None or inactive_file is None:
        return None
    return max(0, usage - inactive_file)


def _pressures(directory: str | None) -> dict[str, float | int | None]:
    return {
        f"{name}_pressure_seconds": _pressure(proc.text(directory, f"{name}.pressure"))
        for name in ("cpu", "memory", "io")
    }


def _pressure(text: str | None) -> float | None:
    """The total of the ``some`` line (microseconds) in seconds."""
    for line in (text or "").splitlines():
        if line.startswith("some "):
            for part in line.split():
                if part.startswith("total="):
                    return _scaled(_number(part.removeprefix("total=")), 1e6)
    return None


def _read_bytes_v2(text: str | None) -> int | None:
    if text is None:
        return None
    values = [
        _number(part.removeprefix("rbytes="))
        for line in text.splitlines()
        for part in line.split()
        if part.startswith("rbytes=")
    ]
    if not values and text.strip():
        return None
    return _sum(values)


def _read_bytes_v1(directory: str | None) -> int | None:
    for name in (
        "blkio.throttle.io_service_bytes_recursive",
        "blkio.throttle.io_service_bytes",
    ):
        text = proc.text(directory, name)
        if text is not None and "Total" in text:
            lines = [line.split() for line in text.splitlines()]
            return _sum([_number(parts[-1]) for parts in lines if parts[1:2] == ["Read"]])
    return None


def _sum(values: list[int | None]) -> int | None:
    """The sum; None if one of the summands could not be read (half a sum is a wrong figure)."""
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total
