"""The monitor of a script that knows nothing of it (see ``run``)."""

from __future__ import annotations

import functools
import weakref
from collections import deque
from collections.abc import Mapping
from threading import get_ident
from typing import Any

import torch
from torch.utils.data import DataLoader, dataloader

from bottleneck_sidecar import hooks
from bottleneck_sidecar.clock import CHECKPOINT, DATA, FORWARD
from bottleneck_sidecar.loader import DEFAULT_PREFETCH, PERSISTENT, PIN, PREFETCH, WORKERS
from bottleneck_sidecar.training import StepMonitor
from bottleneck_sidecar.wire import TrainingRank

TAKE_OVER_STEPS = 10
"""So many steps of other optimizers without one of the first: another one sets the pace now. And so
many batches of other loaders: another one is counted."""

MOST_AHEAD = 1024
"""Most batches that are fetched before the first of them is used (a step's, and one more)."""


class ScriptMonitor(StepMonitor):
    """Takes the steps from the optimizer and the samples from the batches."""

    stand_in = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._pace: weakref.ref[Any] | None = None
        self._others = 0
        self._counted: weakref.ref[Any] | None = None
        """The iterator whose batches are counted: of several that go side by side, the first."""
        self._batches: deque[int] = deque(maxlen=MOST_AHEAD)
        """Samples of those that it gave and no backward pass has used. The Trainer of Hugging Face
        fetches all batches of a step and one more before it begins with it."""
        self._not_counted = 0
        self._seen = 0
        """Samples of this step's batches."""
        self._other = (0.0, 0.0)
        """What belonged to no phase when the last one ended."""
        self._evaluating = False
        self._in_evaluation: weakref.ref[Any] | None = None
        """The model, once the script has called its ``eval()``."""
        self._loaders: weakref.WeakKeyDictionary[Any, weakref.ref[Any]] = (
            weakref.WeakKeyDictionary()
        )
        """Iterator → its DataLoader."""
        self._training_loaders: weakref.WeakSet[Any] = weakref.WeakSet()
        """Those with whose batches a backward pass was made."""
        self._settings: dict[str, float | str | bool] = {}
        if self.enabled:
            hooks.replace(DataLoader, "__iter__", _iter)
            hooks.replace(dataloader._BaseDataLoaderIter, "__next__", _next)
            hooks.replace(torch.nn.Module, "eval", _eval)

    def started(self, loader: Any, iterator: Any) -> None:
        """A DataLoader begins."""
        self._workers.watch(iterator)
        if type(loader).__hash__ is not None:
            self._loaders[iterator] = weakref.ref(loader)
        if torch.is_grad_enabled():
            prefetch = loader.prefetch_factor or DEFAULT_PREFETCH
            self._settings = {
                WORKERS: loader.num_workers,
                PREFETCH: prefetch,
                PIN: "on" if loader.pin_memory else "off",
                PERSISTENT: "on" if loader.persistent_workers else "off",
            }

    def fetch(self, iterator: Any, original: Any) -> Any:
        """The iterator's next batch."""
        self._evaluate(self._evaluates(iterator))
        self._begin_waiting()
        clock = self.clock
        clock.enter(DATA)
        try:
            batch = original(iterator)
        except StopIteration:
            clock.leave()
            if self._counted is not None and self._counted() is iterator:
                self._not_counted = TAKE_OVER_STEPS  # the next one takes over at once
            # A loader that fetches ahead, as accelerate's does, has the last batch still to give:
            # where the model is set to evaluate the next thing that is done tells the end.
            if self._in_evaluation is None:
                self._evaluate(False)
            raise
        except BaseException:
            clock.leave()
            raise
        clock.leave()
        if clock.slot < CHECKPOINT:
            self._other = clock.other()
            self._count(iterator, batch)
        return batch

    def _evaluates(self, iterator: Any) -> bool:
        """Whether a batch is fetched for an evaluation."""
        if not torch.is_grad_enabled():
            return True
        if self._in_evaluation is None:
            return False
        loader = self._loaders.get(iterator)
        if loader is not None and loader() in self._training_loaders:
            return False  # the Trainer of Hugging Face says train() only after it
        model = self._in_evaluation()
        if model is None or model.training:
            self._in_evaluation = None
            return False
        return True

    def _count(self, iterator: Any, batch: Any) -> None:
        counted = self._counted() if self._counted is not None else None
        if iterator is not counted:
            self._not_counted += 1
            if counted is not None and self._not_counted <= TAKE_OVER_STEPS:
                return
            self._counted = weakref.ref(iterator)
            self._batches.clear()
        self._not_counted = 0
        self._batches.append(batch_size(batch))

    def set_to_evaluate(self, model: Any) -> None:
        """``model.eval()`` was called: what is fetched before ``train()`` is for an evaluation, if
        this is the model that is trained, and not a part of it whose state is frozen."""
        optimizer = self._pace() if self._pace is not None else None
        if optimizer is None or get_ident() != self._thread:
            return
        trained = {
            id(parameter)
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.requires_grad
        }
        if trained and trained <= {id(parameter) for parameter in model.parameters()}:
            self._in_evaluation = weakref.ref(model)

    def _evaluate(self, evaluating: bool) -> None:
        if evaluating != self._evaluating:
            self._evaluating = evaluating
            context = self.evaluation()
            if evaluating:
                context.__enter__()
            else:
                context.__exit__()

    def _backward_begins(self) -> None:
        self._evaluate(False)
        if self._counted is None:
            return  # the script has its data from elsewhere
        clock = self.clock
        if clock.slot < CHECKPOINT and not clock.held:
            self._other = clock.name_other(self._other, FORWARD)
        if self._batches:  # none is left: a second backward pass through the same batch
            self._seen += self._batches.popleft()
            iterator = self._counted()
            known = None if iterator is None else self._loaders.get(iterator)
            loader = None if known is None else known()
            if loader is not None:
                self._training_loaders.add(loader)

    def _optimizer_begins(self, *arguments: Any) -> Any:
        if self.enabled and get_ident() == self._thread:
            self._evaluate(False)
        return super()._optimizer_begins(*arguments)

    def _optimizer_ended(self, optimizer: Any, *arguments: Any) -> None:
        super()._optimizer_ended(optimizer, *arguments)
        if not self.enabled or get_ident() != self._thread:
            return
        self._other = self.clock.other()
        pace = self._pace() if self._pace is not None else None
        if pace is not optimizer and pace is not None and self._others < TAKE_OVER_STEPS:
            self._others += 1  # the other half of a step: a discriminator's, an embedding's
            return
        if pace is not optimizer:
            self._pace = weakref.ref(optimizer)
        self._others = 0
        seen, self._seen = self._seen, 0
        self.step(samples=seen)

    def _counts(self) -> TrainingRank:
        self._other = self.clock.other()  # what has been told once keeps its name
        return super()._counts()

    def _knobs_in_force(self) -> tuple[dict[str, float | str | bool], list[str]]:
        return dict(self._settings), []


def _iter(original: Any) -> Any:
    @functools.wraps(original)
    def begin(loader: Any) -> Any:
        monitor = hooks.watched()
        if not isinstance(monitor, ScriptMonitor):
            return original(loader)
        monitor.clock.enter(DATA)
        try:
            iterator = original(loader)
        finally:
            monitor.clock.leave()
        monitor.started(loader, iterator)
        return iterator

    return begin


def _next(original: Any) -> Any:
    @functools.wraps(original)
    def fetch(iterator: Any) -> Any:
        monitor = hooks.watched()
        if not isinstance(monitor, ScriptMonitor):
            return original(iterator)
        return monitor.fetch(iterator, original)

    return fetch


def _eval(original: Any) -> Any:
    @functools.wraps(original)
    def evaluate(model: Any) -> Any:
        monitor = hooks.watched()
        if isinstance(monitor, ScriptMonitor):
            monitor.set_to_evaluate(model)
        return original(model)

    return evaluate


def batch_size(batch: Any, depth: int = 4) -> int:
    """Length of the first tensor in a batch; 0 if there is none."""
    if isinstance(batch, torch.Tensor):
        try:
            return batch.shape[0] if batch.dim() else 1
        except RuntimeError:  # a nested tensor has no shape
            return len(batch)
    if depth and isinstance(batch, Mapping):
        batch = list(batch.values())
    if depth and isinstance(batch, list | tuple):
        return next((size for item in batch[:8] if (size := batch_size(item, depth - 1))), 0)
    return 0
