"""What loader workers do is counted from outside, while they live and after they have ended."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bottleneck_sidecar import proc, training, workers
from bottleneck_sidecar.training import StepMonitor
from bottleneck_sidecar.workers import LoaderWorkers
from torch.utils.data import DataLoader, Dataset, IterableDataset

from .conftest import Inbox, eventually  # type: ignore[import-not-found]

SAMPLE_SECONDS = 0.01


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "REPORT_SECONDS", 0.0)
    monkeypatch.setattr(workers, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(proc, "THRIFT", 0.0)


class Computed(Dataset):  # type: ignore[type-arg]
    """Every sample costs as much CPU time."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> int:
        begun = time.thread_time()
        while time.thread_time() - begun < SAMPLE_SECONDS:
            pass
        return index


class Stored(Computed):
    """Every sample takes as long, without a CPU."""

    def __getitem__(self, index: int) -> int:
        time.sleep(SAMPLE_SECONDS)
        return index


class Stream(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[int]:
        return (Computed()[index] for index in range(24))


def run(inbox: Inbox, monitor: StepMonitor, loader: Any) -> Any:
    """One pass; the last report."""
    for batch in loader:
        monitor.step(samples=len(batch))
        inbox.read()  # its queue is short
    monitor.step()
    return inbox.read()[-1]


@pytest.mark.parametrize("kind", ["adjustable", "persistent", "stream"])
def test_cpu_time_of_workers_that_have_ended_too(inbox: Inbox, kind: str) -> None:
    monitor = StepMonitor(socket=inbox.path)
    dataset = Stream() if kind == "stream" else Computed()
    given = DataLoader(
        dataset, batch_size=4, num_workers=1, persistent_workers=kind == "persistent"
    )
    loader = monitor.loader(given)
    reports = [run(inbox, monitor, loader) for _ in range(2)]
    for number, report in enumerate(reports, 1):
        worked = number * 24 * SAMPLE_SECONDS
        # /proc counts in hundredths of a second: at most one is missing for each life
        assert report.loader_cpu_seconds >= worked - 0.01 * number
        assert report.loader_seconds >= worked
        assert (report.loader_run_queue_seconds is None) == (
            not os.path.exists("/proc/self/schedstat")
        )
    assert reports[0].loader_seconds < reports[1].loader_seconds
    del loader, given
    gc.collect()
    monitor.step()
    last = inbox.read()[-1]
    assert last.loader_cpu_seconds >= reports[1].loader_cpu_seconds, "a counter never goes back"
    assert monitor._workers._living == {}
    monitor.close()


def test_waiting_is_no_cpu_time(inbox: Inbox) -> None:
    monitor = StepMonitor(socket=inbox.path)
    report = run(inbox, monitor, monitor.loader(DataLoader(Stored(), num_workers=2)))
    assert report.loader_seconds >= 24 * SAMPLE_SECONDS
    assert report.loader_cpu_seconds < 0.6 * report.loader_seconds
    monitor.close()


def test_workers_that_a_knob_started(inbox: Inbox) -> None:
    monitor = StepMonitor(socket=inbox.path)
    loader = monitor.loader(DataLoader(Computed(), batch_size=1))
    batches = iter(loader)
    next(batches)
    monitor.step(samples=1)
    before = inbox.read()[-1]
    assert (before.loader_seconds, before.loader_cpu_seconds) == (None, None)
    loader.configure({"dataLoader.workers": 2})
    for _ in batches:
        monitor.step(samples=1)
        inbox.read()
    monitor.step()
    after = inbox.read()[-1]
    assert after.loader_cpu_seconds >= 23 * SAMPLE_SECONDS - 0.02
    monitor.close()


def test_a_loader_that_is_thrown_away_takes_its_workers_along(inbox: Inbox) -> None:
    monitor = StepMonitor(socket=inbox.path)
    batches = iter(monitor.loader(DataLoader(Computed(), batch_size=1, num_workers=1)))
    next(batches)
    (pid,) = monitor._workers._living
    del batches
    gc.collect()
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), "the end of the worker")
    assert monitor._workers._living == {}
    assert (monitor._workers.read().cpu_seconds or 0) >= 0
    monitor.close()


class Fake:
    """An iterator with workers of any kind."""

    def __init__(self, *pids: int | None) -> None:
        self._workers = [type("Process", (), {"pid": pid})() for pid in pids]


def test_a_number_that_another_process_has_now(tmp_path: Path) -> None:
    def write(started: int, ticks: int) -> None:
        (tmp_path / "7").mkdir(exist_ok=True)
        fields = ["S", *["0"] * 10, str(ticks), "0", *["0"] * 6, str(started), "0"]
        (tmp_path / "7" / "stat").write_text(f"7 (a) (b) {' '.join(fields)}")
        (tmp_path / "7" / "schedstat").write_text("5 2000000000 1")

    counted = LoaderWorkers(str(tmp_path))
    assert counted.read() == workers.Totals()
    write(started=100, ticks=300)
    counted.watch(Fake(7, None))
    counted.watch(object())
    first = counted.read()
    assert (first.cpu_seconds, first.run_queue_seconds) == (3.0, 2.0)
    write(started=200, ticks=5000)
    assert counted.read().cpu_seconds == 3.0
    (tmp_path / "8").mkdir()
    (tmp_path / "8" / "stat").write_text("garbled")
    counted.watch(Fake(8))
    assert counted.read().cpu_seconds == 3.0


def test_a_kernel_that_does_not_tell_of_run_queues(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    fields = " ".join(["R", *["0"] * 10, "100", "50", *["0"] * 6, "9", "0"])
    (tmp_path / "7" / "stat").write_text(f"7 (python) {fields}")
    counted = LoaderWorkers(str(tmp_path))
    counted.watch(Fake(7))
    found = counted.read()
    assert (found.cpu_seconds, found.run_queue_seconds) == (1.5, None)


def test_threads_that_have_ended_stay_in_the_sum(tmp_path: Path) -> None:
    for name, waited in (("1", 1), ("2", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "schedstat").write_text(f"0 {waited}000000000 4")
    counted = proc.ThreadsRunQueue(str(tmp_path))
    assert counted.read() == 3.0
    (tmp_path / "2" / "schedstat").unlink()
    (tmp_path / "1" / "schedstat").write_text("0 1500000000 5")
    assert counted.read() == 3.5
    (tmp_path / "2" / "schedstat").write_text("0 250000000 1")  # a new thread of that number
    assert counted.read() == 3.75
    assert proc.ThreadsRunQueue(str(tmp_path / "none")).read() is None


def test_start_of_a_process() -> None:
    begun = time.time()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = proc.started_at(f"/proc/{child.pid}")
    child.communicate(b"\n")
    assert started is not None
    assert begun - 0.1 <= started <= time.time()
    assert proc.started_at("/proc/none") is None


def test_capabilities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bottleneck_sidecar import capabilities

    for flags, expected in (
        ("flags\t\t: fpu amx_bf16 sse", ["bf16"]),
        ("flags\t\t: fpu avx512_bf16x sse", []),
        ("Features\t: fp asimd bf16", ["bf16"]),
        ("model name\t: amx_bf16", None),
    ):
        directory = tmp_path / str(abs(hash(flags)))
        directory.mkdir()
        (directory / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
        assert capabilities.cpu(str(directory)) == expected
    assert capabilities.of_this_process()[1] is False
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    for capability, names in (((9, 0), ["bf16", "fp16"]), ((7, 5), ["fp16"]), ((6, 1), [])):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda now=capability: now)
        assert capabilities.of_this_process() == (names, True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: 1 / 0)
    assert capabilities.of_this_process() == (None, False)
