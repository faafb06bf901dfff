"""The adjustable loader gives what the untouched DataLoader gives, whatever is changed and when."""

from __future__ import annotations

import copy
import itertools
import multiprocessing
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from bottleneck_sidecar.loader import AdjustableLoader, NotAdjustableError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    WeightedRandomSampler,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:This DataLoader will create",
    "ignore:.pin_memory",
    # torch stumbles over its own half-built iterator when it is thrown away
    "ignore:Exception ignored in.*_MultiProcessingDataLoaderIter",
)


class Numbers(Dataset):  # type: ignore[type-arg]
    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return index


class Failing(Numbers):
    def __getitem__(self, index: int) -> int:
        if index == 13:
            raise LookupError("sample 13 is broken")
        return index


class Stream(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[int]:
        return iter(range(10))


class EagerBatches:
    """A batch sampler that draws its random numbers when asked for its iterator."""

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(20).tolist()
        return iter([order[i : i + 4] for i in range(0, 20, 4)])

    def __len__(self) -> int:
        return 5


def listed(items: list[int]) -> list[int]:
    return [-item for item in items]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


KINDS: dict[str, Any] = {
    "plain": lambda: {"batch_size": 4},
    "shuffled": lambda: {"batch_size": 4, "shuffle": True},
    "own generator": lambda: {"batch_size": 4, "shuffle": True, "generator": generator()},
    "last dropped": lambda: {"batch_size": 4, "shuffle": True, "drop_last": True},
    "collated": lambda: {"batch_size": 3, "shuffle": True, "collate_fn": listed},
    "unbatched": lambda: {"batch_size": None},
    "eager": lambda: {"batch_sampler": EagerBatches()},
    "replacing": lambda: {
        "batch_size": 4,
        "sampler": RandomSampler(Numbers(22), replacement=True, num_samples=22),
    },
    "weighted": lambda: {
        "batch_size": 4,
        "sampler": WeightedRandomSampler([1.0] * 22, 30, generator=generator()),
    },
    "distributed": lambda: {
        "batch_size": 4,
        "sampler": DistributedSampler(Numbers(22), num_replicas=2, rank=1, shuffle=True),
    },
    "persistent": lambda: {
        "batch_size": 4,
        "shuffle": True,
        "generator": generator(),
        "num_workers": 2,
        "persistent_workers": True,
    },
    "pinned": lambda: {"batch_size": 4, "num_workers": 1, "pin_memory": True},
}


def flat(batch: Any) -> Any:
    return batch.tolist() if isinstance(batch, torch.Tensor) else batch


def expected(kind: str, workers: int, epochs: int) -> list[list[Any]]:
    torch.manual_seed(1)
    loader = DataLoader(Numbers(22), **({"num_workers": workers} | KINDS[kind]()))
    passes = []
    for epoch in range(epochs):
        if hasattr(loader.sampler, "set_epoch"):
            loader.sampler.set_epoch(epoch)
        passes.append([flat(batch) for batch in loader])
    return passes


def adjusted(
    kind: str, workers: int, epochs: int, changes: dict[int, dict[str, Any]]
) -> list[list[Any]]:
    """The same with changes: position in the whole run → what ``configure`` takes."""
    torch.manual_seed(1)
    loader = AdjustableLoader(DataLoader(Numbers(22), **({"num_workers": workers} | KINDS[kind]())))
    passes, position = [], itertools.count()
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        if (change := changes.get(next(position))) is not None:
            loader.configure(**change)
        batches = []
        for batch in loader:
            batches.append(flat(batch))
            if (change := changes.get(next(position))) is not None:
                loader.configure(**change)
        assert len(batches) == len(loader)
        passes.append(batches)
    return passes


CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "workers": st.integers(0, 3),
        "prefetch": st.integers(1, 3),
        "pin": st.booleans(),
        "persistent": st.booleans(),
    },
)


@given(
    kind=st.sampled_from(sorted(KINDS)),
    workers=st.integers(0, 2),
    changes=st.dictionaries(st.integers(0, 18), CHANGES, max_size=5),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_changes_leave_every_batch_in_its_place(
    kind: str, workers: int, changes: dict[int, dict[str, Any]]
) -> None:
    assert adjusted(kind, workers, 3, changes) == expected(kind, workers, 3)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_untouched_and_changed_in_the_middle(kind: str) -> None:
    plain = expected(kind, 0, 2)
    assert adjusted(kind, 0, 2, {}) == plain
    given_workers = [(2, 2, 2), (4, 1, 3), (7, 0, 1), (8, 1, 1)]
    changes = {at: {"workers": count, "prefetch": ahead} for at, count, ahead in given_workers}
    assert adjusted(kind, 0, 2, changes) == plain


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("workers", [0, 1])
def test_workers_kept_from_epoch_to_epoch_and_pinned(kind: str, workers: int) -> None:
    """With and without workers to begin with: what random numbers are drawn differs there."""
    workers = KINDS[kind]().get("num_workers", workers)
    changes: dict[int, dict[str, Any]] = {
        1: {"persistent": True, "workers": 1},
        9: {"pin": True},
        21: {"persistent": False},
        26: {"persistent": True, "pin": False},
    }
    assert adjusted(kind, workers, 5, changes) == expected(kind, workers, 5)


def test_persistent_workers_are_started_once() -> None:
    loader = AdjustableLoader(DataLoader(Numbers(8), batch_size=2, num_workers=1))

    def workers() -> set[int | None]:
        found: set[int | None] = set()
        for _ in loader:
            found |= {child.pid for child in multiprocessing.active_children()} - before
        return found

    before: set[int | None] = {child.pid for child in multiprocessing.active_children()}
    first, second = workers(), workers()
    assert first.isdisjoint(second)
    assert loader.configure(persistent=True)
    assert not loader.configure(persistent=True), "already so"
    kept, again = workers(), workers()
    assert kept == again
    assert len(kept) == 1
    assert loader.configure(persistent=False)
    assert not multiprocessing.active_children() or kept.isdisjoint(
        {child.pid for child in multiprocessing.active_children()}
    ), "nobody waits for another epoch"
    assert workers().isdisjoint(kept)


def test_pinning_begins_with_the_next_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []
    build = AdjustableLoader._build

    def building(*arguments: Any, **options: Any) -> Any:
        loader = build(*arguments, **options)
        made.append(loader.pin_memory)
        return loader

    monkeypatch.setattr(AdjustableLoader, "_build", building)
    loader = AdjustableLoader(DataLoader(Numbers(8), batch_size=2))
    for position, _ in enumerate(loader):
        if position == 1:
            assert loader.configure(pin=True)
            assert not loader.configure(pin=True), "already so"
    assert made == [False, True]


def test_workers_are_really_changed_and_the_old_ones_end() -> None:
    before = len(multiprocessing.active_children())
    loader = AdjustableLoader(DataLoader(Numbers(40), batch_size=2, num_workers=1))
    running = []
    for position, _ in enumerate(loader):
        if position == 3:
            assert loader.configure(workers=3, prefetch=1)
            assert not loader.configure(workers=3), "already so"
        running.append(len(multiprocessing.active_children()) - before)
    assert running[0] == 1
    assert running[-2] == 3
    assert max(running) == 4, "the new ones start before the old ones' batches are used up"
    assert len(multiprocessing.active_children()) == before


def test_an_epoch_can_be_left_early() -> None:
    loader = AdjustableLoader(DataLoader(Numbers(40), batch_size=2, num_workers=1))
    for _ in loader:
        loader.configure(workers=2)
        break
    assert [flat(batch) for batch in loader] == [[i, i + 1] for i in range(0, 40, 2)]


def test_a_broken_sample_raises_as_it_would_have() -> None:
    loader = AdjustableLoader(DataLoader(Failing(40), batch_size=2))
    seen = []

    def run() -> None:
        for batch in loader:
            seen.append(flat(batch))
            loader.configure(workers=2)

    with pytest.raises(LookupError, match="sample 13"):
        run()
    assert seen == [[i, i + 1] for i in range(0, 12, 2)]


def test_when_workers_cannot_be_started_nothing_is_lost() -> None:
    class Context(type(multiprocessing.get_context("fork"))):  # type: ignore[misc]
        """Starts two processes and no more."""

        started = 0

        def Process(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802
            Context.started += 1
            if Context.started > 2:
                raise BlockingIOError("Resource temporarily unavailable")
            return super().Process(*args, **kwargs)

    loader = AdjustableLoader(
        DataLoader(Numbers(40), batch_size=2, num_workers=1, multiprocessing_context=Context())
    )
    seen = []
    for position, batch in enumerate(loader):
        seen.append(flat(batch))
        if position == 2:
            with pytest.raises(NotAdjustableError, match="could not start 3 workers"):
                loader.configure(workers=3)
    assert seen == [[i, i + 1] for i in range(0, 40, 2)]
    assert (loader.workers, len(loader)) == (1, 20)


def test_iterable_datasets_are_iterated_as_they_are() -> None:
    loader = AdjustableLoader(DataLoader(Stream(), batch_size=5))
    with pytest.raises(NotAdjustableError, match="IterableDataset"):
        loader.configure(workers=2)
    assert [flat(batch) for batch in loader] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_loaders_that_iterate_in_their_own_way_are_left_alone() -> None:
    class Own(DataLoader):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            return iter([1, 2, 3])

    loader = AdjustableLoader(Own(Numbers(3)))
    with pytest.raises(NotAdjustableError, match="Own overrides __iter__"):
        loader.configure(workers=2)
    assert list(loader) == [1, 2, 3]


def test_it_looks_like_the_loader_it_was_given() -> None:
    given_loader = DataLoader(Numbers(22), batch_size=4, shuffle=True)
    loader = AdjustableLoader(given_loader)
    assert len(loader) == len(given_loader) == 6
    assert loader.dataset is given_loader.dataset
    assert loader.batch_size == 4
    assert copy.copy(loader).sampler is given_loader.sampler
    with pytest.raises(AttributeError):
        _ = loader.nothing_like_it
