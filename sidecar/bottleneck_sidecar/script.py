"""The monitor of a script that knows nothing of it (see ``run``)."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, dataloader

from bottleneck_sidecar import hooks
from bottleneck_sidecar.clock import DATA
from bottleneck_sidecar.loader import DEFAULT_PREFETCH, PERSISTENT, PIN, PREFETCH, WORKERS
from bottleneck_sidecar.training import StepMonitor

TAKE_OVER_STEPS = 10
"""So many steps of other optimizers without one of the first: another one sets the pace now."""


class ScriptMonitor(StepMonitor):
    """Takes the steps from the optimizer and the samples from the batches."""

    stand_in = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._pace: weakref.ref[Any] | None = None
        self._others = 0
        self._batch = 0
        """Samples of the last batch that was fetched."""
        self._seen = 0
        """Samples of this step's batches."""
        self._evaluating = False
        self._settings: dict[str, float | str | bool] = {}
        if self.enabled:
            hooks.replace(DataLoader, "__iter__", _iter)
            hooks.replace(dataloader._BaseDataLoaderIter, "__next__", _next)

    def started(self, loader: Any, iterator: Any) -> None:
        """A DataLoader begins."""
        self._workers.watch(iterator)
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
        self._evaluate(not torch.is_grad_enabled())
        self._begin_waiting()
        self.clock.enter(DATA)
        try:
            batch = original(iterator)
        except StopIteration:
            self._batch = 0
            self.clock.leave()
            self._evaluate(False)
            raise
        except BaseException:
            self.clock.leave()
            raise
        self.clock.leave()
        self._batch = batch_size(batch)
        return batch

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
        self._seen += self._batch
        self._batch = 0  # a second backward pass through the same batch is no second batch

    def _optimizer_begins(self, *arguments: Any) -> None:
        if self.enabled and threading.get_ident() == self._thread:
            self._evaluate(False)
        super()._optimizer_begins(*arguments)

    def _optimizer_ended(self, optimizer: Any, *arguments: Any) -> None:
        super()._optimizer_ended(optimizer, *arguments)
        if not self.enabled or threading.get_ident() != self._thread:
            return
        pace = self._pace() if self._pace is not None else None
        if pace is not optimizer and pace is not None and self._others < TAKE_OVER_STEPS:
            self._others += 1  # the other half of a step: a discriminator's, an embedding's
            return
        if pace is not optimizer:
            self._pace = weakref.ref(optimizer)
        self._others = 0
        seen, self._seen = self._seen, 0
        self.step(samples=seen)

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
