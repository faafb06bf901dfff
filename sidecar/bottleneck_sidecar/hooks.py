"""Where torch is listened to while a monitor watches: backward, saves, collectives, autocast.

Functions of torch are replaced by ones that do the same with the clock in the right slot. Each
acts only in the thread of a monitor; everywhere else, and after the last monitor has been closed,
it passes on to the original, which is put back unless somebody has wrapped it in the meantime.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any

import torch
from torch.compiler import is_dynamo_compiling
from torch.utils.data import dataloader

from bottleneck_sidecar import workers
from bottleneck_sidecar.clock import BACKWARD, CHECKPOINT, COLLECTIVE, Clock
from bottleneck_sidecar.tryout import NotAloneError

if TYPE_CHECKING:
    from bottleneck_sidecar.training import StepMonitor

COLLECTIVES = (
    "all_gather",
    "all_gather_into_tensor",
    "all_reduce",
    "all_to_all",
    "all_to_all_single",
    "barrier",
    "broadcast",
    "gather",
    "monitored_barrier",
    "recv",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_tensor",
    "scatter",
    "send",
    "_broadcast_coalesced",  # DistributedDataParallel sends its buffers with it, before forward
)

LOW_PRECISION = (torch.float16, torch.bfloat16)

_watching: dict[int, StepMonitor] = {}
"""Thread → the monitor that watches it, the newest one where there are several."""

_lock = threading.Lock()
_undo: list[tuple[Any, str, Any, Any]] = []


def begin(monitor: StepMonitor) -> None:
    """Listens for this monitor, in the thread that calls."""
    with _lock:
        if not _watching:
            _install()
        _watching[get_ident()] = monitor


def end(monitor: StepMonitor) -> None:
    """Stops listening for this monitor."""
    with _lock:
        for thread, each in list(_watching.items()):
            if each is monitor:
                del _watching[thread]
        if not _watching:
            _remove()


def watched() -> StepMonitor | None:
    """The monitor of the present thread."""
    return _watching.get(get_ident())


def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replaces an attribute by what ``make`` makes of it, until the last monitor is closed. An
    attribute that this release of torch does not have is left out."""
    original = vars(owner).get(name)
    if original is None:
        return
    made = make(original)
    try:
        setattr(owner, name, made)
    except (AttributeError, TypeError):
        return
    _undo.append((owner, name, original, made))


def _install() -> None:
    replace(torch.autograd, "backward", _backward)
    saves = _once(_save)
    replace(torch.serialization, "save", saves)
    replace(torch, "save", saves)
    replace(torch.autocast, "__enter__", _autocast)
    replace(dataloader._MultiProcessingDataLoaderIter, "_shutdown_workers", _shutdown)
    distributed = torch.distributed
    if distributed.is_available():
        for name in COLLECTIVES:
            collective = _once(_collective)
            replace(distributed.distributed_c10d, name, collective)
            replace(distributed, name, collective)
        replace(distributed.Work, "wait", _wait)


def _remove() -> None:
    while _undo:
        owner, name, original, made = _undo.pop()
        if vars(owner).get(name) is made:
            setattr(owner, name, original)


def _once(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``make`` that gives the same for the same: a function known under two names stays one, so
    that it can still be pickled by its name."""
    return functools.lru_cache(make)


def _backward(original: Any) -> Any:
    @functools.wraps(original)
    def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
        monitor = None if is_dynamo_compiling() else _watching.get(get_ident())
        if monitor is None:
            return original(tensors, *args, **kwargs)
        clock = monitor.clock
        if monitor.stand_in:
            monitor._backward_begins()
        # A phase that the user has opened is his word on what this is.
        named = clock.held > 0
        if not named:
            clock.enter(BACKWARD)
        gradients = _LastGradient(tensors) if monitor._several_ranks else None
        try:
            return original(tensors, *args, **kwargs)
        finally:
            if gradients is not None:
                gradients.settle(clock)
            if not named:
                clock.leave()

    return backward


class _LastGradient:
    """Tells when a backward pass has computed its last gradient.

    DistributedDataParallel reduces gradients while backward goes on and waits for the rest at its
    end, in a callback of the autograd engine that it queues with the last gradient. A callback
    queued before, with the *first* gradient, runs just before that one: what follows it is the
    exposed part of the all-reduce. Neither the reduction nor anybody's communication hook is
    touched by that.
    """

    def __init__(self, roots: Any) -> None:
        self.at: float | None = None
        self.cpu: float | None = None
        self._thread = get_ident()
        self._hooks: list[Any] = []
        compiled = sys.modules.get("torch._dynamo.compiled_autograd")
        if getattr(compiled, "compiled_autograd_enabled", False):
            return  # it would compile the graph anew for each new hook
        # Not through any other iterable: it could be gone through once only.
        for root in roots if isinstance(roots, list | tuple) else (roots,):
            try:
                if isinstance(root, torch.Tensor) and root.requires_grad:
                    self._hooks.append(root.register_hook(self._begun))
            except Exception:  # a tensor of another kind: no hook, no figure
                return

    def _begun(self, gradient: Any) -> None:
        torch.autograd.Variable._execution_engine.queue_callback(self._ended)

    def _ended(self) -> None:
        if self.at is None:
            if get_ident() == self._thread:
                self.cpu = time.thread_time()
            self.at = time.perf_counter()

    def settle(self, clock: Clock) -> None:
        """Once backward has returned: what came after the last gradient was a collective."""
        for hook in self._hooks:
            hook.remove()
        if self.at is not None:
            clock.since(self.at, self.cpu, COLLECTIVE)


def several_ranks() -> bool:
    """Whether there is a process group of more than one."""
    distributed = torch.distributed
    return bool(
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def _save(original: Any) -> Any:
    @functools.wraps(original)
    def save(*args: Any, **kwargs: Any) -> Any:
        monitor = watched()
        if monitor is None:
            return original(*args, **kwargs)
        with monitor._long[CHECKPOINT]:
            return original(*args, **kwargs)

    return save


def _collective(original: Any) -> Any:
    @functools.wraps(original)
    def collective(*args: Any, **kwargs: Any) -> Any:
        monitor = None if is_dynamo_compiling() else watched()
        if monitor is not None and monitor._tryout.running:
            raise NotAloneError
        if monitor is None or kwargs.get("async_op"):  # of which the waiting counts
            return original(*args, **kwargs)
        return _counted(monitor.clock, original, args, kwargs)

    return collective


def _wait(original: Any) -> Any:
    def wait(work: Any, *args: Any, **kwargs: Any) -> Any:
        monitor = None if is_dynamo_compiling() else watched()
        if monitor is None:
            return original(work, *args, **kwargs)
        return _counted(monitor.clock, original, (work, *args), kwargs)

    return wait


def _counted(clock: Clock, function: Any, args: Any, kwargs: Any) -> Any:
    clock.enter(COLLECTIVE)
    try:
        return function(*args, **kwargs)
    finally:
        clock.leave()


def _autocast(original: Any) -> Any:
    @functools.wraps(original)
    def enter(context: Any) -> Any:
        monitor = None if is_dynamo_compiling() else watched()
        if monitor is not None and _low_precision(context):
            monitor._low_precision_used()
        return original(context)

    return enter


def _low_precision(context: Any) -> bool:
    enabled = getattr(context, "_enabled", False)
    return bool(enabled and getattr(context, "fast_dtype", None) in LOW_PRECISION)


def _shutdown(original: Any) -> Any:
    @functools.wraps(original)
    def shutdown(iterator: Any) -> Any:
        try:
            workers.last_look(iterator)
        except Exception:  # while the interpreter goes down anything may be missing
            return original(iterator)
        return original(iterator)

    return shutdown


def _forked() -> None:
    """A child (a loader's worker) is not the process that is watched."""
    for monitor in _watching.values():
        monitor.enabled = False
    _watching.clear()
    workers.forget()


os.register_at_fork(after_in_child=_forked)
