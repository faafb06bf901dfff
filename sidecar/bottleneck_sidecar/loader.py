"""A DataLoader whose workers, prefetch, pinning and batch size can be changed between steps.

PyTorch fixes them when the iteration begins. So a change starts a *new* DataLoader over the batches
of the epoch that nobody has been asked for yet, and the old one first hands out those which its
workers already hold. Both draw from one stream of indices: nothing is lost or repeated, the order
stays, no loaded batch is thrown away, and a step waits for no more than the start of the new
workers. Only where the size of the batches changes, those that the old workers hold are of no use:
the new ones load these samples again, so that the change holds from the next step on, whatever
``collate_fn`` has made of them.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from bottleneck_sidecar.batch import Cursor, Feed, Source, batch_obstacle

WORKERS = "dataLoader.workers"
PREFETCH = "dataLoader.prefetch"
MICRO = "batch.micro"
ACCUMULATION = "batch.accumulation"
PIN = "dataLoader.pinMemory"
PERSISTENT = "dataLoader.persistentWorkers"
LOADING = (WORKERS, PREFETCH, PIN, PERSISTENT)
"""What each rank changes for itself."""
DEFAULT_PREFETCH = 2
"""What PyTorch takes when a loader has workers and names no prefetch_factor."""


class NotAdjustableError(ValueError):
    """The loader cannot be changed while it is in use; the text says why."""


class AdjustableLoader:
    """Iterates like the DataLoader it is given: same batches, same order, same random numbers.

    Everything else (``len``, ``dataset``, ``sampler``, …) is the given loader's own. Where that one
    cannot be continued from the middle, it is iterated as it is, and ``obstacle`` says why.
    ``started`` is told of every iterator of PyTorch's that begins, with its workers.

    With ``accumulation``, the number of batches in an optimizer step, it tells ``cursor`` which
    part of a step each batch is, and the batch size can be changed too. Raises ValueError where
    that is not possible with this loader.
    """

    def __init__(
        self,
        loader: Any,
        started: Callable[[Any], None] | None = None,
        accumulation: int | None = None,
        cursor: Cursor | None = None,
    ) -> None:
        self._loader = loader
        self._started = started
        self.obstacle: str | None = obstacle(loader)
        if accumulation is not None:
            reason = self.obstacle or batch_obstacle(loader)
            if reason is not None:
                raise ValueError(f"this loader cannot be accumulated over: {reason}")
        self.accumulation = accumulation
        self.micro: int = loader.batch_size or 1
        self.cursor = cursor or Cursor()
        self.workers: int = loader.num_workers
        self.prefetch: int = loader.prefetch_factor or DEFAULT_PREFETCH
        self.pin: bool = bool(loader.pin_memory)
        self.persistent: bool = bool(loader.persistent_workers)
        self._kept: tuple[Feed, Any] | None = None
        self._seeded = False
        self._epochs: weakref.WeakSet[_Epoch] = weakref.WeakSet()
        self._restarts = 0

    def __len__(self) -> int:
        given = self._loader
        if self.accumulation is None or self.micro == given.batch_size:
            return len(given)
        samples = len(given) * given.batch_size if given.drop_last else len(given.sampler)
        return -(-samples // self.micro)

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

    def configure(
        self,
        workers: int | None = None,
        prefetch: int | None = None,
        micro: int | None = None,
        accumulation: int | None = None,
        pin: bool | None = None,
        persistent: bool | None = None,
    ) -> bool:
        """Changes the number of workers, of batches that each prefetches, of samples in a batch and
        of batches in an optimizer step, and whether batches come in pinned memory, from now on; and
        whether the workers of the next epoch are kept for those after it.

        To be called between two batches (``micro`` and ``accumulation`` between two optimizer
        steps), in the thread that iterates. False if that was already so. Raises
        ``NotAdjustableError`` (and changes nothing) where the loader has an ``obstacle``, where
        batches are wished for and it was made without ``accumulation``, or where the new workers
        cannot be started.
        """
        if self.obstacle is not None:
            raise NotAdjustableError(self.obstacle)
        if self.accumulation is None and (micro is not None or accumulation is not None):
            raise NotAdjustableError("it was made without accumulation=")
        before = self._settings()
        self.workers = self.workers if workers is None else workers
        self.prefetch = self.prefetch if prefetch is None else prefetch
        self.micro = self.micro if micro is None else micro
        self.accumulation = self.accumulation if accumulation is None else accumulation
        self.pin = self.pin if pin is None else pin
        self.persistent = self.persistent if persistent is None else persistent
        wanted = self._settings()
        if wanted == before:
            return False
        recut = self.micro != before[3]
        # Nothing is prefetched without workers, and how many batches a step has is counted here.
        restart = wanted[:3] != before[:3] and not (
            wanted[0] == before[0] == 0 and wanted[2] == before[2]
        )
        try:
            for epoch in list(self._epochs) if restart or recut else ():
                epoch.restart(recut)
        except Exception as error:  # a fork refused, no shared memory left: go on with the old ones
            self.workers, self.prefetch, self.pin, self.micro = before[:4]
            self.accumulation, self.persistent = before[4:]
            raise NotAdjustableError(f"could not start {wanted[0]} workers: {error}") from error
        if not self.persistent:
            self._kept = None  # the workers end with this epoch
        return True

    def _settings(self) -> tuple[int, int, bool, int, int | None, bool]:
        return (
            self.workers,
            self.prefetch,
            self.pin,
            self.micro,
            self.accumulation,
            self.persistent,
        )

    def _first(self) -> tuple[Source, Feed, Any]:
        """The iterator that begins an epoch, and what feeds it."""
        # PyTorch keeps persistent workers from epoch to epoch. To leave every shuffle as it would
        # have been, what random numbers are drawn depends on what the *given* loader would do.
        goes_on = self._loader.persistent_workers and self._seeded
        beginnings = 2 if self._loader.num_workers > 0 and not goes_on else 1
        size = None if self.accumulation is None else self.micro
        source = Source(self._loader, beginnings, size)
        if self._kept is not None:
            feed, kept = self._kept
            now = (self.workers, self.prefetch, self.pin)
            if (kept.num_workers, kept.prefetch_factor, kept.pin_memory) == now:
                feed.follow(source)
                if not goes_on:  # the given loader would start workers, and seed them
                    source.begin()
                    torch.empty((), dtype=torch.int64).random_(generator=self._loader.generator)
                return source, feed, self._begun(iter(kept))
            self._kept = None  # the last reference: its workers end
        feed = Feed(source)
        loader = self._build(feed, reseed=goes_on)
        self._seeded = True
        iterator = self._begun(iter(loader))
        source.finish_beginning()
        self._keep(feed, loader)
        return source, feed, iterator

    def _next(self, feed: Feed) -> Any:
        """An iterator that continues an epoch."""
        loader = self._build(feed, reseed=True)
        iterator = self._begun(iter(loader))
        self._keep(feed, loader)
        return iterator

    def _begun(self, iterator: Any) -> Any:
        if self._started is not None:
            self._started(iterator)
        return iterator

    def _keep(self, feed: Feed, loader: Any) -> None:
        self._kept = (feed, loader) if loader.persistent_workers else None

    def _build(self, feed: Feed, reseed: bool) -> Any:
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
                "persistent_workers": self.persistent,
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
            pin_memory=self.pin,
            worker_init_fn=given.worker_init_fn,
            generator=generator,
            in_order=given.in_order,
            **parallel,
        )


class _Epoch(Iterator[Any]):
    """One pass over the loader: a queue of iterators, the last of which is being fed."""

    def __init__(self, loader: AdjustableLoader) -> None:
        self._adjustable = loader
        self._source, feed, iterator = loader._first()
        self._queue: deque[tuple[Any, Feed]] = deque([(iterator, feed)])
        self._total = self._left = 0
        """Samples of the present optimizer step, and how many of them are to come."""

    def __next__(self) -> Any:
        accumulation = self._adjustable.accumulation
        if accumulation is not None and self._left <= 0:
            self._total = self._left = self._to_come(self._adjustable.micro * accumulation)
        while True:
            iterator, feed = self._queue[0]
            try:
                batch = next(iterator)
            except StopIteration:
                if len(self._queue) == 1:
                    self._adjustable._epochs.discard(self)
                    raise
                self._queue.popleft()  # drained; with it go its workers
                continue
            except Exception:  # a broken sample; who catches that may go on with the next batch
                self._handed_out(feed)
                raise
            self._handed_out(feed)
            return batch

    def _handed_out(self, feed: Feed) -> None:
        indices = feed.held.popleft() if feed.held else ()
        if self._adjustable.accumulation is not None:
            self._left -= len(indices)
            self._adjustable.cursor.handed_out(indices, self._left, self._total, self)

    def _to_come(self, limit: int) -> int:
        """How many samples are to come in this epoch, up to ``limit``."""
        held = sum(len(indices) for _, feed in self._queue for indices in feed.held)
        return min(limit, held + self._source.look_ahead(max(0, limit - held)))

    def take_back(self, batches: list[Any]) -> None:
        """Batches of the present step that come to nothing, to be handed out once more. To be
        followed by a ``restart`` that cuts anew."""
        self._queue[0][1].held.extendleft(reversed(batches))
        self._total = self._left = 0

    def restart(self, recut: bool) -> None:
        """Starts workers anew for all batches that have not been asked for yet; with ``recut`` also
        for those that the old workers hold, which have the old size: they are loaded again."""
        source, size = self._source, self._source.size
        again = [indices for _, feed in self._queue for indices in feed.held] if recut else []
        source.give_back(again)
        if recut:
            source.size = self._adjustable.micro
        if source.exhausted():
            return  # all are on their way; the next epoch begins with the new settings
        feed = Feed(source)
        try:
            iterator = self._adjustable._next(feed)
        except BaseException:
            source.give_back(feed.held)
            source.skip(sum(map(len, again)))
            source.size = size
            raise
        for _, each in self._queue:
            each.closed = True
        if recut:
            self._queue.clear()
        self._queue.append((iterator, feed))


def obstacle(loader: Any) -> str | None:
    """Why ``loader`` cannot be changed in the middle of an epoch; None if it can."""
    if isinstance(loader.dataset, IterableDataset):
        return "its dataset is an IterableDataset, which has no sampler to continue from"
    for name in ("__iter__", "_get_iterator"):
        if getattr(type(loader), name) is not getattr(DataLoader, name):
            return f"{type(loader).__name__} overrides {name}, so another loader cannot continue it"
    return None
