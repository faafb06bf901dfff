"""Telemetry and knobs of a training script, in about three lines:

    monitor = StepMonitor()
    loader = monitor.loader(DataLoader(...))
    for batch in loader:
        ...                               # forward, backward, optimizer.step()
        monitor.step(samples=len(batch))

Time is split by the clock of the training thread. On a GPU, where kernels are only queued, waiting
for them shows up in the phase that synchronises.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.data import DataLoader

from bottleneck_sidecar.client import GPU_VARIABLE, REPORT_SECONDS, Client, new_epoch
from bottleneck_sidecar.knobs import KnobsFile, Wish
from bottleneck_sidecar.loader import PREFETCH, WORKERS, AdjustableLoader, NotAdjustableError
from bottleneck_sidecar.wire import PHASES, Acknowledgement, TrainingRank

_INDEX = {name: index for index, name in enumerate(PHASES)}
_OTHER = _INDEX["other"]
_EXCLUDED = len(PHASES)
"""Slot of the time that belongs to no step; it is not reported."""


class StepMonitor:
    """Counts one rank's steps and where their time goes, reports them, and applies knobs.

    ``rank`` and ``world_size`` default to RANK and WORLD_SIZE, else to torch.distributed, else to
    one rank. ``socket`` and ``knobs`` are paths, by default the ones the injector sets; without
    either the monitor does nothing. ``read_loss`` allows reading the loss from a device tensor,
    which waits for the device (at most twice a second).

    Nothing here raises into the training loop because of telemetry or knobs. All methods are for
    the training thread.
    """

    def __init__(
        self,
        *,
        rank: int | None = None,
        world_size: int | None = None,
        socket: str | None = None,
        knobs: str | None = None,
        read_loss: bool = False,
    ) -> None:
        self._client = Client(socket)
        self._knobs = KnobsFile(knobs)
        self.enabled = self._client.enabled or self._knobs.path is not None
        self._rank = rank
        self._world_size = world_size
        self._read_loss = read_loss
        self._epoch = new_epoch()
        self._process = os.getpid()
        self._thread = threading.get_ident()
        self._seconds = [0.0] * (len(PHASES) + 1)
        self._stack: list[int] = []
        self._slot = _OTHER
        self._mark: float | None = None
        self._steps = 0
        self._samples = 0
        self._last_step_at: float | None = None
        self._loss: Any = None
        self._loaders: list[weakref.ref[MonitoredLoader]] = []
        self._wish: Wish | None = None
        self._acknowledgement: Acknowledgement | None = None
        self._urgent = False
        self._reported_at = float("-inf")
        self._phases = {name: _Phase(self, index) for name, index in _INDEX.items()}
        self._excluded = _Phase(self, _EXCLUDED)
        self._gpus_known = False
        self._hooks: list[Any] = []
        if self.enabled:
            self._hooks = [
                register_optimizer_step_pre_hook(self._optimizer_begins),
                register_optimizer_step_post_hook(self._optimizer_ended),
            ]
            atexit.register(self.close)

    def loader(self, loader: Any) -> MonitoredLoader:
        """The loader to iterate instead of ``loader``: waiting for it counts as ``data``.

        A DataLoader over a map-style dataset becomes adjustable: the knobs ``dataLoader.workers``
        and ``dataLoader.prefetch`` take effect between steps, and every sample still comes exactly
        once and in the same order. Any other iterable is only timed.
        """
        monitored = MonitoredLoader(self, loader)
        if self.enabled:
            # Weakly: one that is replaced (say, each epoch) must not stay alive with its workers.
            self._loaders.append(weakref.ref(monitored))
            self._follow_knobs()
            if self._wish is not None and self._acknowledgement is not None:
                self._apply(self._wish)
        return monitored

    def phase(self, name: str) -> _Phase:
        """A context whose time counts as that phase (one of ``wire.PHASES``). Contexts can be
        nested: the inner one's time is its own. Raises ValueError for another name."""
        if name not in self._phases:
            raise ValueError(f"there is no phase {name!r}; the phases are {', '.join(PHASES)}")
        return self._phases[name]

    def excluded(self) -> _Phase:
        """A context whose time belongs to no step: evaluation, checkpoints."""
        return self._excluded

    def to_device(self, batch: Any, device: Any, non_blocking: bool = False) -> Any:
        """``batch`` with every tensor in it moved to ``device``; counts as ``transfer``.

        Goes into dicts, lists and tuples. With ``non_blocking`` only the start of the copy is
        counted.
        """
        with self._phases["transfer"]:
            return _moved(batch, device, non_blocking)

    def step(self, samples: int = 0, loss: Any = None) -> None:
        """Ends a step of ``samples`` samples (of this rank). Call it once per optimizer step.

        ``loss`` may be a number or a tensor; a tensor is looked at only when a report is sent, and
        one on a device only with ``read_loss``.
        """
        if not self.enabled:
            return
        now = self._switch(_OTHER)
        self._stack.clear()
        self._steps += 1
        self._samples += samples
        self._last_step_at = time.time()
        if loss is not None:
            self._loss = loss.detach() if isinstance(loss, torch.Tensor) else loss
        self._follow_knobs()
        if self._urgent or now - self._reported_at >= REPORT_SECONDS:
            self._report(now)

    def close(self) -> None:
        """Sends a last report and takes the hooks away; called at exit by itself."""
        if not self.enabled or os.getpid() != self._process:
            return
        self._report(time.perf_counter())
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._client.close()
        self.enabled = False
        atexit.unregister(self.close)

    # The clock: the time since the last mark belongs to the present slot, so that the slots add up
    # to the time that has passed, without gaps or overlaps.

    def _switch(self, slot: int) -> float:
        now = time.perf_counter()
        if self._mark is not None:
            self._seconds[self._slot] += now - self._mark
        self._mark = now
        self._slot = slot
        return now

    def _enter(self, slot: int) -> None:
        self._stack.append(self._slot)
        self._switch(slot)

    def _leave(self) -> None:
        # The stack is empty if the step ended within the phase.
        self._switch(self._stack.pop() if self._stack else _OTHER)

    def _optimizer_begins(self, *_: Any) -> None:
        if self.enabled and threading.get_ident() == self._thread:
            self._enter(_INDEX["optimizer"])

    def _optimizer_ended(self, *_: Any) -> None:
        if self.enabled and threading.get_ident() == self._thread:
            self._leave()

    def _begin_waiting(self) -> None:
        if self._reported_at == float("-inf"):  # so that the rank is known before its first step
            self._report(self._switch(self._slot))

    # Knobs

    def _follow_knobs(self) -> None:
        wish = self._knobs.poll()
        if wish is not None:
            if not wish.refusal:
                self._wish = wish
            self._apply(wish)

    def _apply(self, wish: Wish) -> None:
        result, message = "Unchanged", ""
        if wish.refusal:
            result, message = "Refused", wish.refusal
        elif wish.settings:
            try:
                with self._phases["data"]:  # starting workers is a cost of loading data
                    if self._configure(wish.settings):
                        result = "Applied"
            except NotAdjustableError as error:
                names = ", ".join(wish.settings)
                result, message = "Refused", f"{names} cannot be changed here: {error}"
        self._acknowledgement = Acknowledgement(wish.generation, result, self._steps, message)
        self._urgent = True

    def _configure(self, settings: dict[str, int]) -> bool:
        loaders = self._living_loaders()
        adjustable = [loader for loader in loaders if loader.settable()]
        if not loaders:
            raise NotAdjustableError("no loader has been handed to monitor.loader() yet")
        # With nothing adjustable, ask anyway: the loader knows why not.
        changed = [loader.configure(settings) for loader in adjustable or loaders]
        return any(changed)

    def _living_loaders(self) -> list[MonitoredLoader]:
        self._loaders = [reference for reference in self._loaders if reference() is not None]
        return [loader for reference in self._loaders if (loader := reference()) is not None]

    # Reports

    def _report(self, now: float) -> None:
        self._reported_at = now
        self._find_rank()
        self._find_gpus()
        seconds = dict(zip(PHASES, self._seconds, strict=False))
        loaders = self._living_loaders()
        loader = next((each for each in loaders if each.settable()), None)
        sent = self._client.send(
            training=TrainingRank(
                epoch=self._epoch,
                rank=self._rank or 0,
                world_size=self._world_size or 1,
                steps=self._steps,
                samples=self._samples,
                step_seconds=sum(seconds.values()),
                seconds=seconds,
                last_step_at=self._last_step_at,
                loss=self._finite_loss(),
                knobs=(loader or loaders[0]).knobs() if loaders else {},
                settable=loader.settable() if loader else [],
                acknowledgement=self._acknowledgement,
            )
        )
        # A lost acknowledgement is tried again at the next step, but not where nobody listens.
        self._urgent = self._urgent and not sent and self._client.enabled

    def _finite_loss(self) -> float | None:
        loss = self._loss
        if isinstance(loss, torch.Tensor) and loss.device.type != "cpu" and not self._read_loss:
            return None
        try:
            value = float(loss)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            return None
        return value if -1e300 < value < 1e300 else None

    def _find_rank(self) -> None:
        if self._rank is not None and self._world_size is not None:
            return
        rank, world = _number_of("RANK"), _number_of("WORLD_SIZE")
        distributed = torch.distributed
        if (rank is None or world is None) and distributed.is_available():
            if not distributed.is_initialized():
                return  # perhaps later
            rank, world = distributed.get_rank(), distributed.get_world_size()
        self._rank = rank if self._rank is None else self._rank
        self._world_size = world if self._world_size is None else self._world_size

    def _find_gpus(self) -> None:
        if self._gpus_known:
            return
        if os.environ.get(GPU_VARIABLE) == "all":
            self._gpus_known = True
            self._client.watch_gpus()
        elif torch.cuda.is_initialized():
            self._gpus_known = True
            properties = torch.cuda.get_device_properties(torch.cuda.current_device())
            if uuid := getattr(properties, "uuid", None):
                self._client.watch_gpus([str(uuid)])


class MonitoredLoader:
    """What ``StepMonitor.loader`` gives: iterates like the loader it was given, timed."""

    def __init__(self, monitor: StepMonitor, loader: Any) -> None:
        self._monitor = monitor
        self._inner = AdjustableLoader(loader) if isinstance(loader, DataLoader) else loader

    def __len__(self) -> int:
        return len(self._inner)

    def __getattr__(self, name: str) -> Any:
        if name == "_inner":  # not there yet: while being copied or unpickled
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __iter__(self) -> Iterator[Any]:
        if not self._monitor.enabled:
            return iter(self._inner)
        return self._timed()

    def _timed(self) -> Iterator[Any]:
        waiting = self._monitor.phase("data")
        self._monitor._begin_waiting()
        with waiting:
            batches = iter(self._inner)
        while True:
            with waiting:
                try:
                    batch = next(batches)
                except StopIteration:
                    return
            yield batch

    def knobs(self) -> dict[str, float | str | bool]:
        """The settings in force."""
        if not isinstance(self._inner, AdjustableLoader):
            return {}
        return {WORKERS: self._inner.workers, PREFETCH: self._inner.prefetch}

    def settable(self) -> list[str]:
        """The knobs that this loader takes."""
        inner = self._inner
        if not isinstance(inner, AdjustableLoader) or inner.obstacle is not None:
            return []
        return [WORKERS, PREFETCH]

    def configure(self, settings: dict[str, int]) -> bool:
        """Applies knobs; False if nothing had to change. Raises ``NotAdjustableError``."""
        if not isinstance(self._inner, AdjustableLoader):
            raise NotAdjustableError("the loader is no torch DataLoader")
        return self._inner.configure(settings.get(WORKERS), settings.get(PREFETCH))


class _Phase:
    """A reusable context for one slot of the clock."""

    __slots__ = ("_monitor", "_slot")

    def __init__(self, monitor: StepMonitor, slot: int) -> None:
        self._monitor = monitor
        self._slot = slot

    def __enter__(self) -> None:
        if self._monitor.enabled:
            self._monitor._enter(self._slot)

    def __exit__(self, *_: object) -> None:
        if self._monitor.enabled:
            self._monitor._leave()


def _moved(batch: Any, device: Any, non_blocking: bool) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=non_blocking)
    if isinstance(batch, dict):
        return {key: _moved(value, device, non_blocking) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_moved(value, device, non_blocking) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(_moved(value, device, non_blocking) for value in batch)
    return batch


def _number_of(variable: str) -> int | None:
    try:
        return max(0, int(os.environ[variable]))
    except (KeyError, ValueError):
        return None
