"""The loader that ``StepMonitor.loader`` gives, and batches on their way to a device."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from bottleneck_sidecar.clock import CHECKPOINT, DATA
from bottleneck_sidecar.loader import (
    ACCUMULATION,
    LOADING,
    MICRO,
    PERSISTENT,
    PIN,
    PREFETCH,
    WORKERS,
    AdjustableLoader,
)

if TYPE_CHECKING:
    from bottleneck_sidecar.training import StepMonitor


class MonitoredLoader:
    """Iterates like the loader it was given, timed. With ``accumulation`` as AdjustableLoader does;
    raises ValueError where it cannot."""

    def __init__(self, monitor: StepMonitor, loader: Any, accumulation: int | None = None) -> None:
        self._monitor = monitor
        watch = monitor._workers.watch if monitor.enabled else None
        self._inner = loader
        if isinstance(loader, DataLoader):
            self._inner = AdjustableLoader(loader, watch, accumulation, monitor._cursor)
        elif accumulation is not None:
            raise ValueError("this loader cannot be accumulated over: it is no torch DataLoader")

    def __len__(self) -> int:
        return len(self._inner)

    def __getattr__(self, name: str) -> Any:
        if name == "_inner":  # not there yet: while being copied or unpickled
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __iter__(self) -> Iterator[Any]:
        monitor = self._monitor
        # In a thread of its own (some prefetch so) nothing waits: the training thread does, there.
        if not monitor.enabled or threading.get_ident() != monitor._thread:
            return iter(self._inner)
        return self._timed()

    def _timed(self) -> Iterator[Any]:
        monitor = self._monitor
        clock = monitor.clock
        monitor._begin_waiting()
        clock.enter(DATA)
        try:
            batches = iter(self._inner)
        finally:
            clock.leave()
        while True:
            around = clock.slot
            if around >= CHECKPOINT:  # an evaluation's time is its own, and no step reports in it
                monitor._begin_waiting()
                around = DATA
            else:
                clock.switch(DATA)
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                if around != DATA:
                    clock.switch(around)
            yield batch

    @property
    def accumulates(self) -> bool:
        """Whether the monitor cuts its batches."""
        return isinstance(self._inner, AdjustableLoader) and self._inner.accumulation is not None

    def obstacle(self) -> str | None:
        """Why it takes no knobs; None if it does."""
        if not isinstance(self._inner, AdjustableLoader):
            return "the loader is no torch DataLoader"
        return self._inner.obstacle

    def knobs(self) -> dict[str, float | str | bool]:
        """The settings in force."""
        inner = self._inner
        if not isinstance(inner, AdjustableLoader):
            return {}
        found: dict[str, float | str | bool] = {
            WORKERS: inner.workers,
            PREFETCH: inner.prefetch,
            PIN: _word(inner.pin),
            PERSISTENT: _word(inner.persistent),
        }
        if inner.accumulation is not None:
            found |= {MICRO: inner.micro, ACCUMULATION: inner.accumulation}
        return found

    def settable(self) -> list[str]:
        """The knobs that this loader takes."""
        if self.obstacle() is not None:
            return []
        # Pinned memory is for copies to a device: without one torch only warns.
        names = [name for name in LOADING if name != PIN or torch.cuda.is_initialized()]
        return [*names, MICRO, ACCUMULATION] if self.accumulates else names

    def configure(self, settings: dict[str, int | str]) -> bool:
        """Applies those knobs that it takes; False if nothing had to change. Raises
        ``NotAdjustableError``."""
        names = self.settable()
        if not names:
            return False
        wanted = {name: value for name, value in settings.items() if name in names}
        changed: bool = self._inner.configure(
            *(wanted.get(name) for name in (WORKERS, PREFETCH, MICRO, ACCUMULATION)),
            *(wanted[name] == "on" if name in wanted else None for name in (PIN, PERSISTENT)),
        )
        return changed


def _word(on: bool) -> str:
    return "on" if on else "off"


def moved(batch: Any, device: Any, non_blocking: bool) -> Any:
    """``batch`` with every tensor in it on ``device``, however deep."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=non_blocking)
    if isinstance(batch, dict):
        return {key: moved(value, device, non_blocking) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(moved(value, device, non_blocking) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(moved(value, device, non_blocking) for value in batch)
    return batch
