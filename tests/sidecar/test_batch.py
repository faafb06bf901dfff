"""Whatever is changed and when: every optimizer step sees the samples of the untouched run."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from bottleneck_sidecar.batch import Cursor
from bottleneck_sidecar.loader import AdjustableLoader, NotAdjustableError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from .test_loader import (  # type: ignore[import-not-found]
    KINDS,
    EagerBatches,
    Failing,
    Numbers,
    Stream,
    flat,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:This DataLoader will create",
    "ignore:.pin_memory",
    "ignore:Exception ignored in.*_MultiProcessingDataLoaderIter",
)

GLOBAL = 12
"""Samples of an optimizer step."""

SIZE = 43
"""Of the data set: no multiple of anything."""

CUT = sorted(set(KINDS) - {"unbatched", "eager"})

Change = tuple[int, int, int]
"""Workers, prefetch, samples in a batch."""


def built(kind: str, workers: int) -> DataLoader[Any]:
    return DataLoader(Numbers(SIZE), **({"num_workers": workers} | KINDS[kind]()))


def samples(batch: Any) -> list[int]:
    return [abs(sample) for sample in flat(batch)]


def untouched(kind: str, workers: int, epochs: int) -> list[list[list[int]]]:
    """Epochs of steps of samples, as a DataLoader gives them to one who accumulates."""
    torch.manual_seed(1)
    loader = built(kind, workers)
    passes = []
    for epoch in range(epochs):
        if hasattr(loader.sampler, "set_epoch"):
            loader.sampler.set_epoch(epoch)
        stream = [sample for batch in loader for sample in samples(batch)]
        passes.append([stream[at : at + GLOBAL] for at in range(0, len(stream), GLOBAL)])
    return passes


def changed(
    kind: str, workers: int, epochs: int, change: Callable[[AdjustableLoader, int], None]
) -> list[list[list[int]]]:
    """The same from the adjustable loader, ``change`` being called after each step."""
    torch.manual_seed(1)
    cursor, number = Cursor(), itertools.count()
    given_loader = built(kind, workers)
    assert given_loader.batch_size is not None
    loader = AdjustableLoader(given_loader, None, GLOBAL // given_loader.batch_size, cursor)
    passes = []
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        steps: list[list[int]] = []
        present: list[int] = []
        share = 0.0
        for batch in loader:
            found = samples(batch)
            present += found
            share += cursor.share
            assert len(found) <= loader.micro
            assert cursor.samples == len(present)
            if cursor.last:
                assert share == pytest.approx(1)
                steps.append(present)
                present, share = [], 0.0
                cursor.end()
                change(loader, next(number))
        assert present == [], "an epoch ends with a step"
        passes.append(steps)
    return passes


@given(
    kind=st.sampled_from(CUT),
    workers=st.integers(0, 2),
    changes=st.dictionaries(
        st.integers(0, 11),
        st.tuples(st.integers(0, 2), st.integers(1, 3), st.sampled_from([1, 2, 3, 4, 6, 12])),
        max_size=6,
    ),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_changes_with_the_same_global_batch_leave_every_step_as_it_was(
    kind: str, workers: int, changes: dict[int, Change]
) -> None:
    def change(loader: AdjustableLoader, step: int) -> None:
        if step in changes:
            more, prefetch, micro = changes[step]
            loader.configure(more, prefetch, micro, GLOBAL // micro)

    assert changed(kind, workers, 3, change) == untouched(kind, workers, 3)


@given(
    kind=st.sampled_from(CUT),
    changes=st.dictionaries(
        st.integers(0, 20),
        st.tuples(st.integers(0, 1), st.integers(1, 40), st.integers(1, 5)),
        max_size=6,
    ),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_the_global_batch_every_sample_comes_once_and_in_order(
    kind: str, changes: dict[int, Change]
) -> None:
    sizes = []

    def change(loader: AdjustableLoader, step: int) -> None:
        if step in changes:
            workers, micro, accumulation = changes[step]
            loader.configure(workers, None, micro, accumulation)
        sizes.append(loader.micro * (loader.accumulation or 0))

    found = changed(kind, 0, 2, change)
    expected = untouched(kind, 0, 2)
    for steps, plain in zip(found, expected, strict=True):
        assert list(itertools.chain(*steps)) == list(itertools.chain(*plain))
    full = [len(step) for steps in found for step in steps[:-1]]
    due = iter([GLOBAL, *sizes])
    sizes_due = [next(due) for steps in found for _ in steps]
    ends = set(itertools.accumulate(len(steps) for steps in found))
    assert full == [size for at, size in enumerate(sizes_due) if at + 1 not in ends]


@given(
    kind=st.sampled_from(CUT),
    workers=st.integers(0, 1),
    growths=st.dictionaries(st.integers(0, 7), st.sampled_from([4, 6, 12]), max_size=4),
    failures=st.sets(st.integers(0, 30), max_size=6),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_steps_that_run_out_of_memory_are_taken_again_with_the_same_samples(
    kind: str, workers: int, growths: dict[int, int], failures: set[int]
) -> None:
    """In whichever batch of a step it happens, the last one of an epoch included."""
    torch.manual_seed(1)
    given_loader, cursor = built(kind, workers), Cursor()
    assert given_loader.batch_size is not None
    loader = AdjustableLoader(given_loader, None, GLOBAL // given_loader.batch_size, cursor)
    number, passes = itertools.count(), []
    for epoch in range(2):
        loader.set_epoch(epoch)
        steps: list[list[int]] = []
        present: list[int] = []
        for batch in loader:
            if next(number) in failures and loader.micro > 1:
                smaller = next(size for size in (6, 4, 3, 2, 1) if size < loader.micro)
                cursor.take_back()
                loader.configure(micro=smaller, accumulation=GLOBAL // smaller)
                present = []
                continue
            present += samples(batch)
            assert cursor.samples == len(present)
            if cursor.last:
                steps.append(present)
                present = []
                cursor.end()
                if (micro := growths.get(len(steps))) is not None:
                    loader.configure(micro=micro, accumulation=GLOBAL // micro)
        assert present == []
        passes.append(steps)
    assert passes == untouched(kind, workers, 2)


@pytest.mark.parametrize("kind", CUT)
def test_untouched_it_gives_the_batches_of_the_loader(kind: str) -> None:
    torch.manual_seed(1)
    plain = [samples(batch) for batch in built(kind, 0)]
    torch.manual_seed(1)
    loader = AdjustableLoader(built(kind, 0), None, 3)
    assert [samples(batch) for batch in loader] == plain
    assert len(loader) == len(plain)


@pytest.mark.parametrize(("drop", "batches"), [(False, 8), (True, 7)])
def test_its_length_follows_and_what_is_dropped_stays_dropped(drop: bool, batches: int) -> None:
    """43 samples in batches of 4: with drop_last the last 3 are dropped, in batches of 6 too."""
    loader = AdjustableLoader(DataLoader(Numbers(SIZE), batch_size=4, drop_last=drop), None, 3)
    assert loader.configure(micro=6, accumulation=2)
    assert not loader.configure(micro=6), "already so"
    sizes = [len(batch) for batch in loader]
    assert sizes == ([6] * 7 + [1] if not drop else [6] * 6 + [4])
    assert len(loader) == batches == len(sizes)


@pytest.mark.parametrize("persistent", [False, True])
def test_the_workers_load_again_what_the_old_ones_held(persistent: bool) -> None:
    before = len(multiprocessing.active_children())
    cursor = Cursor()
    loader = AdjustableLoader(
        DataLoader(Numbers(48), batch_size=4, num_workers=2, persistent_workers=persistent),
        None,
        3,
        cursor,
    )
    sizes, seen, running = [], [], []
    for batch in loader:
        sizes.append(len(batch))
        seen += flat(batch)
        if len(seen) == GLOBAL:
            assert loader.configure(workers=1, micro=12, accumulation=1)
        running.append(len(multiprocessing.active_children()) - before)
    assert sizes == [4, 4, 4, 12, 12, 12], "from the next step on"
    assert seen == list(range(48))
    assert running[:4] == [2, 2, 1, 1], "the old ones end at once"


def test_when_workers_cannot_be_started_the_old_ones_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = AdjustableLoader(DataLoader(Numbers(48), batch_size=4, num_workers=1), None, 3)
    sizes, seen = [], []
    for batch in loader:
        sizes.append(len(batch))
        seen += flat(batch)
        if len(seen) == GLOBAL:
            with monkeypatch.context() as patch:
                patch.setattr(loader, "_next", lambda feed: [next(iter(feed)), 1 / 0])
                with pytest.raises(NotAdjustableError, match="could not start 2 workers"):
                    loader.configure(workers=2, micro=12, accumulation=1)
            assert (loader.workers, loader.micro, loader.accumulation) == (1, 4, 3)
    assert sizes == [4] * 12
    assert seen == list(range(48))


def test_a_broken_sample_raises_as_it_would_have() -> None:
    loader = AdjustableLoader(DataLoader(Failing(40), batch_size=2), None, 2)
    seen = []

    def run() -> None:
        for batch in loader:
            seen.append(flat(batch))
            loader.configure(micro=1 + len(seen) % 2)

    with pytest.raises(LookupError, match="sample 13"):
        run()
    assert list(itertools.chain(*seen)) == list(range(13))


def odd() -> Iterator[tuple[Any, str]]:
    yield DataLoader(Stream(), batch_size=5), "IterableDataset"
    yield DataLoader(Numbers(8), batch_size=None), r"does not batch \(batch_size=None\)"
    yield DataLoader(Numbers(20), batch_sampler=EagerBatches()), "cut by EagerBatches; build it"
    yield DataLoader(Numbers(8), batch_size=2, num_workers=1, in_order=False), "in any order"


@pytest.mark.parametrize(("loader", "reason"), list(odd()))
def test_what_cannot_be_cut_is_said_at_once(loader: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=f"cannot be accumulated over: .*{reason}"):
        AdjustableLoader(loader, None, 2)
    with pytest.raises(NotAdjustableError, match=r"accumulation=|IterableDataset"):
        AdjustableLoader(loader).configure(micro=2)
