"""What two ranks answer when wishes overtake each other, workers fail, or the store goes away."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from bottleneck_sidecar import knobs, training_knobs
from bottleneck_sidecar.loader import AdjustableLoader
from bottleneck_sidecar.training import StepMonitor
from torch.utils.data import DataLoader, TensorDataset

DATA = TensorDataset(torch.zeros(600, 1))

_times = itertools.count(1)


@pytest.fixture(autouse=True)
def _always_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knobs, "LOOK_SECONDS", 0.0)
    for name in ("RANK", "WORLD_SIZE", "BOTTLENECK_SOCKET", "BOTTLENECK_KNOBS"):
        monkeypatch.delenv(name, raising=False)


class Optimizer:
    """Has no weights."""

    def step(self) -> None:
        return

    def zero_grad(self) -> None:
        return


class Rank:
    """Takes steps of whatever there is, and sees a file of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.monitor = StepMonitor(knobs=str(path))
        self.loader = self.monitor.loader(DataLoader(DATA, 2), accumulation=2)
        self.batches = iter(self.loader)
        self.told: list[tuple[int, str, int | None]] = []

    def step(self) -> None:
        taken = False
        while not taken:
            next(self.batches)
            with self.monitor.forward():
                pass
            taken = self.monitor.optimizer_step(Optimizer())
        answer = self.monitor._knobs.acknowledgement
        if answer is not None:
            told = (answer.generation, answer.result, answer.step)
            if told not in self.told:
                self.told.append(told)

    @property
    def promised(self) -> bool:
        agreement = self.monitor._knobs._agreement
        return agreement is not None and agreement.promised

    def wish(self, generation: int, wishes: dict[str, Any]) -> None:
        self.path.write_text(json.dumps({"generation": generation} | wishes))
        os.utime(self.path, ns=(0, next(_times)))


class Job:
    """Two ranks, one of which takes a step at a time."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store: Any = torch.distributed.HashStore()
        self.present = 0
        monkeypatch.setattr(training_knobs, "group", lambda: (self.store, self.present, 2))
        self.ranks = [Rank(folder / f"knobs-{rank}") for rank in range(2)]

    def step(self, rank: int) -> None:
        self.present = rank
        self.ranks[rank].step()

    def both(self, steps: int) -> None:
        for _ in range(steps):
            self.step(0)
            self.step(1)

    def wish(self, generation: int, wishes: dict[str, Any]) -> None:
        for rank in self.ranks:
            rank.wish(generation, wishes)

    @property
    def told(self) -> list[list[tuple[int, str, int | None]]]:
        return [rank.told for rank in self.ranks]

    def close(self) -> None:
        for rank in self.ranks:
            rank.monitor.close()


def batch(micro: int) -> dict[str, Any]:
    return {"batch": {"micro": micro, "accumulation": 4 // micro}}


@pytest.mark.parametrize(("on_gpu", "result"), [(True, "Applied"), (False, "Refused")])
def test_memory_is_pinned_only_where_there_is_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_gpu: bool, result: str
) -> None:
    monitor = StepMonitor(knobs=str(tmp_path / "knobs"))
    loader = monitor.loader(DataLoader(DATA, 2))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: on_gpu)
    (tmp_path / "knobs").write_text('{"generation": 1, "dataLoader": {"pinMemory": "on"}}')
    monitor.step()
    answer = monitor._knobs.acknowledgement
    monitor.close()
    assert answer is not None
    assert answer.result == result
    assert loader.knobs()["dataLoader.pinMemory"] == ("on" if on_gpu else "off")
    assert on_gpu or "leave dataLoader.pinMemory out" in answer.message


def test_a_newer_wish_waits_for_what_all_have_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(tmp_path, monkeypatch)
    job.wish(1, batch(4))
    job.both(2)
    assert all(rank.promised for rank in job.ranks)
    job.wish(2, batch(1))
    job.both(10)
    assert job.told[0] == job.told[1]
    assert [told[:2] for told in job.told[0]] == [(1, "Applied"), (2, "Applied")]
    assert job.told[0][0] == (1, "Applied", 4)
    assert [rank.loader.micro for rank in job.ranks] == [1, 1]
    job.close()


def test_a_newer_wish_replaces_one_that_not_all_have_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(tmp_path, monkeypatch)
    job.wish(1, batch(4))
    job.both(1)
    job.step(0)
    assert [rank.promised for rank in job.ranks] == [True, False]
    job.wish(2, batch(1))
    job.step(1)
    job.both(6)
    assert job.told[0] == job.told[1]
    assert [told[:2] for told in job.told[0]] == [(2, "Applied")]
    assert [rank.loader.micro for rank in job.ranks] == [1, 1]
    job.close()


def test_a_newer_wish_replaces_one_that_is_not_agreed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(tmp_path, monkeypatch)
    job.ranks[0].wish(1, batch(4))
    job.both(5)
    job.wish(2, {"dataLoader": {"prefetch": 3}})
    job.both(5)
    assert job.told == [[(2, "Applied", 6)]] * 2, "at once: the ranks need not agree on that"
    job.ranks[1].wish(3, batch(1))
    job.both(3)
    job.wish(4, {"precision": {"autocast": "bf16"}})
    job.both(5)
    assert job.told[0] == job.told[1]
    assert [told[:2] for told in job.told[0]] == [(2, "Applied"), (4, "Applied")]
    assert [rank.loader.micro for rank in job.ranks] == [2, 2]
    job.close()


def test_what_cannot_be_read_replaces_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(tmp_path, monkeypatch)
    job.ranks[0].wish(1, batch(4))
    job.both(3)
    job.wish(2, {"batch": {"micro": "many"}})
    job.both(3)
    assert job.told == [[(2, "Refused", 4)]] * 2
    assert [rank.monitor._knobs.pending for rank in job.ranks] == [None, None]
    job.close()


def test_a_rank_that_cannot_start_its_workers_keeps_to_what_was_agreed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(tmp_path, monkeypatch)
    inner = job.ranks[1].loader._inner
    start = AdjustableLoader._next

    def failing(loader: AdjustableLoader, feed: Any) -> Any:
        if loader is inner and loader.workers:
            raise BlockingIOError("no more processes")
        return start(loader, feed)

    monkeypatch.setattr(AdjustableLoader, "_next", failing)
    job.wish(1, batch(4) | {"dataLoader": {"workers": 1}})
    job.both(6)
    assert job.told[0] == job.told[1]
    assert [rank.loader.micro for rank in job.ranks] == [4, 4]
    assert [rank.loader.workers for rank in job.ranks] == [1, 0]
    answer = job.ranks[1].monitor._knobs.acknowledgement
    assert answer is not None
    assert answer.result == "Applied"
    assert answer.message == (
        "could not start 1 workers: no more processes; data is loaded in the training process"
    )
    job.close()


def test_a_store_that_has_gone_is_no_reason_to_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone:
        def __init__(self, *_: Any) -> None:
            return

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("Connection reset by peer")

    job = Job(tmp_path, monkeypatch)
    monkeypatch.setattr(torch.distributed, "PrefixStore", Gone)
    job.wish(1, batch(4))
    job.both(2)
    assert job.told == [[(1, "Refused", 1)]] * 2
    answer = job.ranks[0].monitor._knobs.acknowledgement
    assert answer is not None
    assert answer.message.endswith("the ranks could not agree: Connection reset by peer")
    assert [rank.loader.micro for rank in job.ranks] == [2, 2]
    job.close()


def test_a_loader_that_can_be_cut_answers_a_refused_wish_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(tmp_path, monkeypatch)
    loaders = []
    for rank in job.ranks:
        rank.monitor._knobs._loaders.clear()  # as if the first one had been made without
    job.wish(1, batch(4))
    job.both(5)
    assert [told[-1][:2] for told in job.told] == [(1, "Refused")] * 2
    for rank in job.ranks:
        loaders.append(rank.monitor.loader(DataLoader(DATA, 2), accumulation=2))
    job.both(5)
    assert job.told[0] == job.told[1]
    assert job.told[0][-1][:2] == (1, "Applied")
    assert [loader.micro for loader in loaders] == [4, 4]
    job.close()
