"""Cgroup files: trees of both versions as kernels write them, broken ones, and this machine's."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from bottleneck_sidecar import cgroup
from bottleneck_sidecar.wire import Container
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

V2 = {
    "cgroup.controllers": "cpuset cpu io memory pids\n",
    "cpu.stat": "usage_usec 98765432\nuser_usec 90000000\nsystem_usec 8765432\n"
    "nr_periods 1200\nnr_throttled 300\nthrottled_usec 45600000\nnr_bursts 0\nburst_usec 0\n",
    "cpu.max": "150000 100000\n",
    "memory.current": "2147483648\n",
    "memory.max": "4294967296\n",
    "memory.stat": "anon 1000000000\nfile 1100000000\ninactive_file 1000000000\nactive_file 5\n"
    "pgfault 900\npgmajfault 42\n",
    "memory.events": "low 0\nhigh 4\nmax 17\noom 2\noom_kill 1\noom_group_kill 0\n",
    "io.stat": "259:0 rbytes=4096000 wbytes=1 rios=10 wios=1 dbytes=0 dios=0\n"
    "253:1 rbytes=1000 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n",
    "cpu.pressure": "some avg10=12.34 avg60=5.00 avg300=1.00 total=7654321\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    "memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=11000\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=9000\n",
    "io.pressure": "some avg10=1.00 avg60=1.00 avg300=1.00 total=2500000\n"
    "full avg10=1.00 avg60=1.00 avg300=1.00 total=2000000\n",
}
V1 = {
    "cpu/cpu.stat": "nr_periods 1200\nnr_throttled 300\nthrottled_time 45600000000\n",
    "cpu/cpu.cfs_quota_us": "150000\n",
    "cpu/cpu.cfs_period_us": "100000\n",
    "cpuacct/cpuacct.usage": "98765432000\n",
    "memory/memory.usage_in_bytes": "2147483648\n",
    "memory/memory.limit_in_bytes": "4294967296\n",
    "memory/memory.stat": "cache 1\ninactive_file 1\npgmajfault 40\n"
    "total_inactive_file 1000000000\ntotal_pgmajfault 42\n",
    "memory/memory.failcnt": "21\n",
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
    "blkio/blkio.throttle.io_service_bytes_recursive": "259:0 Read 4096000\n259:0 Write 1\n"
    "259:0 Total 4096001\n253:1 Read 1000\nTotal 4097001\n",
}
EXPECTED = Container(
    cpu_seconds=98.765432,
    cpu_limit_cores=1.5,
    periods=1200,
    throttled_periods=300,
    throttled_seconds=45.6,
    memory_bytes=1147483648,
    memory_limit_bytes=4294967296,
    oom_kills=1,
    cpu_pressure_seconds=7.654321,
    memory_pressure_seconds=0.011,
    io_pressure_seconds=2.5,
    read_bytes=4097000,
    memory_limit_hits=21,
    major_faults=42,
    node_cpus=2,
    node_busy_seconds=17.64,
)
NODE = (
    "cpu  1000 200 300 9000 500 60 4 200 150 0\n"
    "cpu0 500 100 150 4500 250 30 2 100 75 0\n"
    "cpu1 500 100 150 4500 250 30 2 100 75 0\n"
    "intr 12345 0 0\nctxt 99\nbtime 1700000000\n"
)


def tree(root: Path, files: dict[str, str], **changes: str | None) -> Path:
    """Writes a tree; a change of None leaves that file out (``__`` for ``/``)."""
    named = {name.replace("__", "/").replace("-", "."): text for name, text in changes.items()}
    for name, text in {**files, **named}.items():
        if text is not None:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
    return root


def read(root: Path, process: str = "/nonexistent") -> Container | None:
    node = tree(root.parent / f"{root.name} node", {"stat": NODE})
    found = cgroup.read(cgroup.locate(str(root), process), node=str(node))
    return dataclasses.replace(found, epoch=None) if found else None


def test_version_2(tmp_path: Path) -> None:
    assert read(tree(tmp_path, V2)) == EXPECTED


def test_version_1_has_no_pressure(tmp_path: Path) -> None:
    assert read(tree(tmp_path, V1)) == dataclasses.replace(
        EXPECTED,
        cpu_pressure_seconds=None,
        memory_pressure_seconds=None,
        io_pressure_seconds=None,
    )


def test_version_1_with_joined_controllers(tmp_path: Path) -> None:
    joined = {
        name.replace("cpuacct/", "cpu,cpuacct/").replace("cpu/", "cpu,cpuacct/"): text
        for name, text in V1.items()
    }
    found = read(tree(tmp_path, joined))
    assert found is not None
    assert (found.cpu_seconds, found.throttled_periods) == (98.765432, 300)


def test_hybrid_takes_pressure_from_its_own_directory_only(tmp_path: Path) -> None:
    tree(tmp_path, V1)
    node = {name: text for name, text in V2.items() if "pressure" in name or "controllers" in name}
    tree(tmp_path / "unified", node)
    found = read(tmp_path)
    assert found is not None
    assert found.cpu_pressure_seconds is None, "the node's pressure is not the container's"
    tree(tmp_path / "unified" / "pod", {"cpu.pressure": "some avg10=0.00 total=1000000\n"})
    process = tree(tmp_path / "process", {"cgroup": "4:memory:/elsewhere\n0::/pod\n"})
    found = read(tmp_path, str(process))
    assert found is not None
    assert found.cpu_pressure_seconds == 1.0


def test_the_path_of_the_process_is_followed_where_it_is_visible(tmp_path: Path) -> None:
    tree(tmp_path, V2, **{"memory-max": "max\n"})
    tree(tmp_path / "pod" / "container", V2, **{"memory-max": "1000\n"})
    process = tmp_path / "process"
    limits = {}
    for path in ("/", "/pod/container", "/gone", "/../../pod/container"):
        tree(process, {"cgroup": f"0::{path}\n"})
        found = read(tmp_path, str(process))
        limits[path] = found.memory_limit_bytes if found else "nothing"
    assert limits == {
        "/": None,
        "/pod/container": 1000,
        "/gone": None,
        "/../../pod/container": None,
    }


@pytest.mark.parametrize(
    ("files", "change", "fields"),
    [
        (V2, {"cpu-max": "max 100000\n"}, "cpu_limit_cores"),
        (V2, {"cpu-max": "150000 0\n"}, "cpu_limit_cores"),
        (V2, {"cpu-max": "150000\n"}, "cpu_limit_cores"),
        (V2, {"memory-max": "max\n"}, "memory_limit_bytes"),
        (V2, {"memory-max": None}, "memory_limit_bytes"),
        (V2, {"memory-current": "-1\n"}, "memory_bytes"),
        (V2, {"memory-stat": None}, "memory_bytes major_faults"),
        (V2, {"memory-events": "oom_kill\n"}, "oom_kills memory_limit_hits"),
        (V2, {"memory-events": "max 3\noom_kill 1\n"}, "memory_limit_hits"),
        (V2, {"io-stat": "garbled\n"}, "read_bytes"),
        (V2, {"io-stat": "259:0 rbytes=x\n253:1 rbytes=5\n"}, "read_bytes"),
        (V2, {"cpu-pressure": "some avg10=1\n"}, "cpu_pressure_seconds"),
        (V2, {"cpu-pressure": ""}, "cpu_pressure_seconds"),
        (V1, {"cpu__cpu-cfs_quota_us": "-1\n"}, "cpu_limit_cores"),
        (V1, {"memory__memory-limit_in_bytes": "9223372036854771712\n"}, "memory_limit_bytes"),
        (V1, {"cpuacct__cpuacct-usage": "many\n"}, "cpu_seconds"),
    ],
)
def test_what_cannot_be_read_is_absent_and_the_rest_stays(
    tmp_path: Path, files: dict[str, str], change: dict[str, str | None], fields: str
) -> None:
    whole = read(tree(tmp_path / "whole", files))
    assert whole is not None
    assert read(tree(tmp_path / "broken", files, **change)) == dataclasses.replace(
        whole,
        **dict.fromkeys(fields.split()),  # type: ignore[arg-type]
    )


@given(st.sampled_from(sorted(V2)), st.binary(max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_garbage_never_raises(tmp_path: Path, name: str, garbage: bytes) -> None:
    (tree(tmp_path, V2) / name).write_bytes(garbage)
    read(tmp_path)


def test_no_cgroups_at_all(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    assert read(tmp_path / "missing") is None
    assert read(tree(tmp_path, {"cgroup.controllers": "\n"})) is None


@pytest.mark.parametrize(
    ("stat", "cpus", "busy"),
    [
        (None, None, None),
        ("cpu  1 2 3\ncpu0 1 2 3\n", 1, None),
        ("cpu  1 2 3 4 5 6 7 x\ncpu0 1\n", 1, None),
        ("garbled", None, None),
    ],
)
def test_what_the_node_does_not_tell(
    tmp_path: Path, stat: str | None, cpus: int | None, busy: float | None
) -> None:
    root = tree(tmp_path / "cgroup", V2)
    node = tree(tmp_path / "node", {"stat": stat} if stat else {})
    found = cgroup.read(cgroup.locate(str(root), "/none"), node=str(node))
    assert found is not None
    assert (found.node_cpus, found.node_busy_seconds) == (cpus, busy)
    assert found.cpu_seconds == 98.765432


def test_a_new_cgroup_is_another_epoch(tmp_path: Path) -> None:
    first, second = tree(tmp_path / "a", V2), tree(tmp_path / "b", V2)
    epochs = {cgroup.read(cgroup.locate(str(root), "/none")).epoch for root in (first, second)}  # type: ignore[union-attr]
    assert len(epochs) == 2


def test_this_machine() -> None:
    if not os.path.isdir(cgroup.ROOT):
        pytest.skip("no cgroup file system")
    found = cgroup.locate()
    before, work = cgroup.read(found, cgroup.own_cpus()), sum(range(3_000_000))
    after = cgroup.read(found, cgroup.own_cpus())
    assert work
    assert before is not None
    assert after is not None
    assert after.epoch == before.epoch
    assert (after.cpus or 0) >= 1
    for name in ("cpu_seconds", "memory_bytes"):
        assert (getattr(before, name) is None) == (getattr(after, name) is None)
    if before.cpu_seconds is not None and after.cpu_seconds is not None:
        assert after.cpu_seconds >= before.cpu_seconds > 0
