"""Which samples make up a batch, and which batches make up an optimizer step.

The sampler of an epoch is gone through once, and each of its samples is handed out once, in its
order. How the samples are cut into batches is decided only when a batch is asked for. So a batch
size that changes between two optimizer steps moves no sample to another step.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch.utils.data import BatchSampler


class Cursor:
    """Where in its optimizer step the batch is that was handed out last: ``share`` of the step's
    samples that it holds (0..1), whether it is the ``last`` one, and ``samples``, how many the step
    has had with it, ``count`` of them in this batch. Without such a batch a step consists of
    whatever comes next."""

    __slots__ = ("_from", "_given", "abandoned", "count", "last", "samples", "share")

    def __init__(self) -> None:
        self.abandoned = False
        """Whether a step was begun and never ended: the script has left the loop within it."""
        self.share, self.last, self.samples, self.count = 1.0, True, 0, 0
        self._given: list[Any] = []
        """The batches of indices that the step has had."""
        self._from: Callable[[], Any] = _nowhere

    def handed_out(self, indices: Any, left: int, total: int, epoch: Any) -> None:
        """A batch of these samples, of a step of ``total``, ``left`` of which are to come, of an
        ``epoch`` that can ``take_back`` batches."""
        count = len(indices)
        before = total - left - count
        if before <= 0:
            self.abandoned = self.abandoned or self.samples > 0
            self.samples = 0
            self._given = []
            self._from = weakref.ref(epoch)
        self._given.append(indices)
        self.samples += count
        self.count = count
        self.share = count / total if total else 1.0
        self.last = left <= 0

    def end(self) -> None:
        """The step has ended."""
        self.share, self.last, self.samples = 1.0, True, 0
        self._given = []

    def take_back(self) -> None:
        """The step has come to nothing: its samples are handed out again, before all others, as
        soon as the batch size has been changed (and only then)."""
        epoch, given = self._from(), self._given
        self.end()
        if epoch is not None and given:
            epoch.take_back(given)


def _nowhere() -> None:
    """Where the batches of a step come from before there are any."""


class Source:
    """The indices of one epoch, in order, each given out once: as the sampler of the loader gives
    them, or, with a ``size``, as lists of so many samples (the last of them may be shorter)."""

    def __init__(self, loader: Any, beginnings: int, size: int | None = None) -> None:
        self._sampler = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
        self._beginnings = beginnings
        self._indices: Iterator[Any] = iter(())
        self._ahead: deque[Any] = deque()
        """Without a size what the sampler gave, with one the samples out of it."""
        self.size = size

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
        """The next batch of indices. Raises StopIteration after the last one."""
        if self.size is None:
            return self._ahead.popleft() if self._ahead else next(self._indices)
        count = self.look_ahead(self.size)
        if not count:
            raise StopIteration
        return [self._ahead.popleft() for _ in range(count)]

    def look_ahead(self, count: int) -> int:
        """How many there are still to take (samples, where there is a size), up to ``count``."""
        while len(self._ahead) < count:
            try:
                indices = next(self._indices)
            except StopIteration:
                break
            if self.size is None:
                self._ahead.append(indices)
            else:
                self._ahead.extend(indices)
        return min(count, len(self._ahead))

    def exhausted(self) -> bool:
        return not self.look_ahead(1)

    def give_back(self, batches: Iterable[Any]) -> None:
        """Takes back what was given out, to give it out again."""
        items = list(batches)
        if self.size is not None:
            items = [sample for batch in items for sample in batch]
        self._ahead.extendleft(reversed(items))

    def skip(self, count: int) -> None:
        """Leaves out the next ``count`` of those that were given back."""
        for _ in range(count):
            self._ahead.popleft()


class Feed:
    """The sampler of one DataLoader: takes from the source until it is closed. ``held`` are the
    batches of indices that the DataLoader has asked for and not handed out."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.closed = False
        self.held: deque[Any] = deque()

    def follow(self, source: Source) -> None:
        """Goes on with another epoch (a DataLoader with persistent workers goes from epoch to
        epoch with the sampler that it was built with)."""
        self._source = source
        self.closed = False
        self.held.clear()

    def __iter__(self) -> Iterator[Any]:
        self._source.begin()
        return self._take(self._source)

    def _take(self, source: Source) -> Iterator[Any]:
        while not self.closed:
            try:
                indices = source.take()
            except StopIteration:
                return
            self.held.append(indices)
            yield indices


def batch_obstacle(loader: Any) -> str | None:
    """Why the batch size of a DataLoader that can be continued from the middle cannot be changed;
    None if it can."""
    if loader.batch_sampler is None:
        return "it does not batch (batch_size=None)"
    if type(loader.batch_sampler) is not BatchSampler:
        name = type(loader.batch_sampler).__name__
        return f"its batches are cut by {name}; build it with batch_size=..."
    if not loader.in_order:
        return "its batches come in any order (in_order=False)"
    return None
