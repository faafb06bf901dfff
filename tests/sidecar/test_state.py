"""What the agent remembers and when it forgets; when a figure has moved; whose cgroup is whose."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bottleneck_sidecar import wire
from bottleneck_sidecar.agent.figures import figures, moved
from bottleneck_sidecar.agent.state import Identity, State
from bottleneck_sidecar.agent.workload import Finder
from bottleneck_sidecar.wire import Container, Report, Sample

from .conftest import rank, server  # type: ignore[import-not-found]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def state_of(clock: Clock, **finders: object) -> State:
    return State(Identity("a", "p", "n", "u"), monotonic=clock, **finders)  # type: ignore[arg-type]


def tell(state: State, **parts: object) -> bool:
    return state.receive(wire.encode(Report(wire.VERSION, 1.0, **parts)))  # type: ignore[arg-type]


def test_ages_grow_and_the_long_silent_are_forgotten(clock: Clock) -> None:
    state = state_of(clock)
    tell(state, training=rank())
    clock.now += 60
    assert state.sample().ages == {"e0": 60.0}, "a step may take a minute"
    clock.now += 600
    assert state.sample().training == []
    assert state.forgotten == 1


def test_a_restarted_process_takes_its_place_soon(clock: Clock) -> None:
    state = state_of(clock)
    tell(state, training=rank())
    tell(state, training=rank(epoch="new"))
    tell(state, training=rank(epoch="other", rank=1))
    clock.now += 6
    tell(state, training=rank(epoch="new"))
    assert [part.epoch for part in state.sample().training] == ["new", "other"]


def test_figures_once_told_stay_until_told_anew(clock: Clock) -> None:
    state = state_of(clock)
    tell(state, training=rank(), container=Container(cpu_seconds=1.0))
    tell(state, training=rank(steps=11))
    assert state.sample().container == Container(cpu_seconds=1.0)


def test_the_fallback_is_asked_once_a_second_and_only_if_needed(clock: Clock) -> None:
    asked: list[int] = []

    def find() -> Container:
        asked.append(1)
        return Container(cpu_seconds=9.0)

    state = state_of(clock, find_container=find, find_gpus=list)
    for _ in range(3):
        assert state.sample().container == Container(cpu_seconds=9.0)
    assert len(asked) == 1
    tell(state, training=rank(), container=Container(cpu_seconds=1.0))
    assert state.sample().container == Container(cpu_seconds=1.0)


def sample(time: float, **parts: object) -> Sample:
    fields: dict[str, object] = {
        "version": 1,
        "time": time,
        "sequence": 1,
        "agent": "a",
        "pod": "p",
        "namespace": "n",
        "uid": "u",
        "container": None,
        "gpus": [],
        "training": [],
        "inference": [],
        "ages": {},
        **parts,
    }
    return Sample(**fields)  # type: ignore[arg-type]


def after_steps(time: float, steps: int, seconds: float, data: float = 0.0) -> Sample:
    split = {"data": data, "forward": seconds - data}
    return sample(time, training=[rank(steps=steps, step_seconds=seconds, seconds=split)])


@pytest.mark.parametrize(
    ("steps", "seconds", "data", "expected"),
    [
        (1000, 10.5, 0.0, False),  # 5% slower
        (1000, 11.5, 0.0, True),  # 15% slower
        (10, 0.12, 0.0, False),  # 20% slower, but ten steps may be so by chance
        (10, 0.2, 0.0, True),  # twice as slow
        (1000, 10.0, 0.4, False),  # 4% of the step waits for data now
        (1000, 10.0, 1.0, True),  # 10%
        (0, 0.0, 0.0, False),  # no step: nothing to compare
    ],
)
def test_steps_move(steps: int, seconds: float, data: float, expected: bool) -> None:
    start, middle = after_steps(0, 0, 0.0), after_steps(10, 1000, 10.0)
    end = after_steps(20, 1000 + steps, 10.0 + seconds, data)
    assert moved(figures(start, middle), figures(middle, end)) is expected


@pytest.mark.parametrize(("arrivals", "expected"), [(100, False), (115, True), (92, False)])
def test_arrivals_move(arrivals: int, expected: bool) -> None:
    counts = [0, 100_000, 100_000 + arrivals * 1000]
    samples = [
        sample(10.0 * number, inference=[server(arrivals=count, requests=0, latency_seconds=0)])
        for number, count in enumerate(counts)
    ]
    assert moved(figures(*samples[:2]), figures(*samples[1:])) is expected


def test_coming_and_going_is_a_move() -> None:
    empty, one = sample(0), sample(1, training=[rank()])
    assert moved(figures(empty, one), figures(one, empty))
    assert not moved(figures(one, one), figures(one, one))


def process(proc: Path, pid: int, name: str, ticks: int, root: Path | None) -> None:
    directory = proc / str(pid)
    directory.mkdir(parents=True)
    (directory / "comm").write_text(f"{name}\n")
    fields = ["S", *["0"] * 10, str(ticks), "0", *["0"] * 10]
    (directory / "stat").write_text(f"{pid} (odd) name) {' '.join(fields)}\n")
    (directory / "cgroup").write_text("0::/../other\n")
    if root is not None:
        (directory / "root").symlink_to(root)


def container(directory: Path, usage: int) -> Path:
    tree = directory / "cg"
    tree.mkdir(parents=True)
    (tree / "cgroup.controllers").write_text("cpu\n")
    (tree / "cpu.stat").write_text(f"usage_usec {usage}\n")
    return directory


@pytest.mark.parametrize(("first", "found"), [("pause", 5.0), ("systemd", None)])
def test_the_workload_is_found_only_in_a_shared_process_namespace(
    tmp_path: Path, first: str, found: float | None
) -> None:
    proc = tmp_path / "proc"
    own = container(tmp_path / "own", 1_000_000)
    process(proc, 1, first, 0, container(tmp_path / "pause", 2_000_000))
    process(proc, 7, "bottleneck", 900, own)  # the agent's own: busier than all others
    process(proc, 8, "sh", 3, container(tmp_path / "sh", 4_000_000))
    process(proc, 9, "python", 50, container(tmp_path / "train", 5_000_000))
    process(proc, 10, "guarded", 5000, None)  # of another user: its root cannot be followed
    (proc / "self").symlink_to("7")
    # as the agent sees it: its own mount is the same directory as that of its /proc/PID/root
    root = os.path.join(own, "cg")
    for name in ("1", "8", "9"):
        target = (proc / name / "root").resolve()
        (target / root.lstrip("/")).parent.mkdir(parents=True)
        (target / root.lstrip("/")).symlink_to(target / "cg")
    (proc / "7" / "root").unlink()
    (proc / "7" / "root").symlink_to("/")
    figures_found = Finder(str(proc), root).read()
    assert (figures_found.cpu_seconds if figures_found else None) == found
