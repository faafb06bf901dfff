"""A DataLoader whose workers and prefetch can be changed between steps.

PyTorch fixes them when the iteration begins. So a change starts a *new* DataLoader over the batches
of the epoch that nobody has been asked for yet, and the old one first hands out those which its
workers already hold. Both draw from one stream of batch indices: nothing is lost or repeated, the
order stays, no loaded batch is thrown away, and a step waits for no more than the start of the
new workers.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

WORKERS = "dataLoader.workers"
PREFETCH = "dataLoader.prefetch"
DEFAULT_PREFETCH = 2
"""What PyTorch takes when a loader has workers and names no prefetch_factor."""


class NotAdjustableError(ValueError):
    """The loader cannot be changed while it is in use; the text says why."""


class AdjustableLoader:
    """Iterates like the DataLoader it is given: same batches, same order, same random numbers.

    Everything else (``len``, ``dataset``, ``sampler``, …) is the given loader's own. Where that one
    cannot be continued from the middle, it is iterated as it is, and ``obstacle`` says why.
    ``started`` is told of every iterator of PyTorch's that begins, with its workers.
    """

    def __init__(self, loader: Any, started: Callable[[Any], None] | None = None) -> None:
        self._loader = loader
        self._started = started
        self.obstacle: str | None = obstacle(loader)
        self.workers: int = loader.num_workers
        self.prefetch: int = loader.prefetch_factor or DEFAULT_PREFETCH
        self._persistent: bool = bool(loader.persistent_workers)
        self._kept: tuple[_Feed, Any] | None = None
        self._seeded = False
        self._epochs: weakref.WeakSet[_Epoch] = weakref.WeakSet()
        self._restarts = 0

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        if name == "_loader":  # not there yet: while being copied or unpickled
            raise AttributeError(name)
        return getattr(self._loader, name)

    def __iter__(self) -> Iterator[Any]:
        if self.obstacle is not None:
            iterator: Iterator[Any] = self._begun(iter(self._loader))
            return iterator
        epoch = _Epoch(self)
        self._epochs.add(epoch)
        return epoch

    def set_epoch(self, epoch: int) -> None:
        """Hands the epoch's number to the samplers that want it (DistributedSampler)."""
        for sampler in (self._loader.sampler, self._loader.batch_sampler):
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)

    def configure(self, workers: int | None = None, prefetch: int | None = None) -> bool:
        """Changes the number of workers and of batches that each prefetches, from now on.

        To be called between two batches, in the thread that iterates. False if that was already
        so. Raises ``NotAdjustableError`` (and changes nothing) where the loader has an
        ``obstacle`` or the new workers cannot be started.
        """
        if self.obstacle is not None:
            raise NotAdjustableError(self.obstacle)
        before = self.workers, self.prefetch
        wanted = (
            self.workers if workers is None else workers,
            self.prefetch if prefetch is None else prefetch,
        )
        if wanted == before:
            return False
        self.workers, self.prefetch = wanted
        if wanted[0] == before[0] == 0:
            return True  # nothing is prefetched without workers: it takes effect with the first
        try:
            for epoch in list(self._epochs):
                epoch.restart()
        except Exception as error:  # a fork refused, no shared memory left: go on with the old ones
            self.workers, self.prefetch = before
            raise NotAdjustableError(f"could not start {wanted[0]} workers: {error}") from error
        return True

    def _first(self) -> tuple[_Source, _Feed, Any]:
        """The iterator that begins an epoch, and what feeds it."""
        # PyTorch keeps persistent workers from epoch to epoch. To leave every shuffle as it would
        # have been, what random numbers are drawn depends on what the *given* loader would do.
        goes_on = self._persistent and self._seeded
        source = _Source(self._loader, 2 if self._loader.num_workers > 0 and not goes_on else 1)
        if self._kept is not None:
            feed, kept = self._kept
            if (kept.num_workers, kept.prefetch_factor) == (self.workers, self.prefetch):
                feed.follow(source)
                return source, feed, self._begun(iter(kept))
            self._kept = None  # the last reference: its workers end
        feed = _Feed(source)
        loader = self._build(feed, reseed=goes_on)
        self._seeded = True
        iterator = self._begun(iter(loader))
        source.finish_beginning()
        self._keep(feed, loader)
        return source, feed, iterator

    def _next(self, feed: _Feed) -> Any:
        """An iterator that continues an epoch."""
        loader = self._build(feed, reseed=True)
        iterator = self._begun(iter(loader))
        self._keep(feed, loader)
        return iterator

    def _begun(self, iterator: Any) -> Any:
        if self._started is not None:
            self._started(iterator)
        return iterator

    def _keep(self, feed: _Feed, loader: Any) -> None:
        self._kept = (feed, loader) if loader.persistent_workers else None

    def _build(self, feed: _Feed, reseed: bool) -> Any:
        given = self._loader
        generator = given.generator
        if reseed:
            # Worker seeds come from this generator. One of its own, so that a change neither moves
            # the given generator on nor repeats the augmentations of the workers before.
            self._restarts += 1
            generator = torch.Generator()
            generator.manual_seed(hash((torch.initial_seed(), self._restarts)) % 2**63)
        parallel: dict[str, Any] = {}
        if self.workers > 0:
            parallel = {
                "prefetch_factor": self.prefetch,
                "persistent_workers": self._persistent,
                "multiprocessing_context": given.multiprocessing_context,
                "timeout": given.timeout,
            }
        if given.batch_sampler is not None:
            parallel["batch_sampler"] = feed
        else:
            parallel["sampler"] = feed
            parallel["batch_size"] = None
        if given.pin_memory_device:
            parallel["pin_memory_device"] = given.pin_memory_device  # deprecated: not to be named
        return DataLoader(
            given.dataset,
            num_workers=self.workers,
            collate_fn=given.collate_fn,
            pin_memory=given.pin_memory,
            worker_init_fn=given.worker_init_fn,
            generator=generator,
            in_order=given.in_order,
            **parallel,
        )


class _Epoch(Iterator[Any]):
    """One pass over the loader: a queue of iterators, the last of which is being fed."""

    def __init__(self, loader: AdjustableLoader) -> None:
        self._adjustable = loader
        self._source, self._feed, iterator = loader._first()
        self._queue: deque[Any] = deque([iterator])

    def __next__(self) -> Any:
        while True:
            try:
                return next(self._queue[0])
            except StopIteration:
                if len(self._queue) == 1:
                    self._adjustable._epochs.discard(self)
                    raise
                self._queue.popleft()  # drained; with it go its workers

    def restart(self) -> None:
        """Starts workers anew for all batches that have not been asked for yet."""
        if self._source.exhausted():
            return  # all are on their way; the next epoch begins with the new settings
        feed = _Feed(self._source)
        feed.taken = []
        try:
            iterator = self._adjustable._next(feed)
        except BaseException:
            self._source.give_back(feed.taken)
            raise
        feed.taken = None
        self._feed.closed = True
        self._feed = feed
        self._queue.append(iterator)


class _Source:
    """The batch indices of one epoch, in order, each given out once."""

    def __init__(self, loader: Any, beginnings: int) -> None:
        self._sampler = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
        self._beginnings = beginnings
        self._indices: Iterator[Any] | None = None
        self._ahead: deque[Any] = deque()

    def begin(self) -> None:
        """Asks the sampler for its iterator, when and as often as the untouched DataLoader would:
        a sampler may draw random numbers there (with workers PyTorch asks twice)."""
        if self._beginnings > 0:
            self._beginnings -= 1
            self._indices = iter(self._sampler)

    def finish_beginning(self) -> None:
        while self._beginnings > 0:
            self.begin()

    def take(self) -> Any:
        if self._ahead:
            return self._ahead.popleft()
        assert self._indices is not None
        return next(self._indices)

    def exhausted(self) -> bool:
        if not self._ahead:
            try:
                self._ahead.append(self.take())
            except StopIteration:
                return True
        return False

    def give_back(self, taken: list[Any]) -> None:
        self._ahead.extendleft(reversed(taken))


class _Feed:
    """The sampler of one DataLoader: takes from the source until it is closed. While ``taken`` is
    a list it notes what it took, to be given back if the DataLoader cannot be started."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self.closed = False
        self.taken: list[Any] | None = None

    def follow(self, source: _Source) -> None:
        """Goes on with another epoch (a DataLoader with persistent workers goes from epoch to
        epoch with the sampler that it was built with)."""
        self._source = source
        self.closed = False

    def __iter__(self) -> Iterator[Any]:
        self._source.begin()
        return self._take(self._source)

    def _take(self, source: _Source) -> Iterator[Any]:
        while not self.closed:
            try:
                indices = source.take()
            except StopIteration:
                return
            if self.taken is not None:
                self.taken.append(indices)
            yield indices


def obstacle(loader: Any) -> str | None:
    """Why ``loader`` cannot be changed in the middle of an epoch; None if it can."""
    if isinstance(loader.dataset, IterableDataset):
        return "its dataset is an IterableDataset, which has no sampler to continue from"
    for name in ("__iter__", "_get_iterator"):
        if getattr(type(loader), name) is not getattr(DataLoader, name):
            return f"{type(loader).__name__} overrides {name}, so another loader cannot continue it"
    return None
