"""Optimizer steps of several batches, in a precision that may change from step to step:

    monitor = StepMonitor()
    loader = monitor.loader(DataLoader(..., batch_size=32), accumulation=4)
    for x, y in loader:
        with monitor.forward(model):
            loss = loss_of(model(x), y)
        monitor.backward(loss)
        if monitor.optimizer_step(optimizer):
            scheduler.step()

These lines work in the same way where nobody listens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from bottleneck_sidecar.batch import Cursor
from bottleneck_sidecar.learning import Learning, LocalGradients
from bottleneck_sidecar.phases import Nothing, Phase
from bottleneck_sidecar.precision import Precision
from bottleneck_sidecar.rates import UNCHANGED, ScaledRates, have_rates
from bottleneck_sidecar.tryout import TryOut, out_of_memory, release


class Stepping(ABC):
    """The part of the monitor that takes the optimizer steps."""

    def __init__(self, autocast: str, read_loss: bool = False) -> None:
        self._cursor = Cursor()
        self._precision = Precision(autocast)
        self._learning = Learning(read_loss)
        self._rate_percent = UNCHANGED
        """The learning rate, of what the script says."""
        self._rates_known = True
        """False once optimizers were seen that keep it in another way."""
        self._replicas: int | None = None
        """Ranks whose gradients DistributedDataParallel averages; None without it."""
        self._local: LocalGradients | None = None
        self._tryout = TryOut()
        self._failed = ""
        """Why the present step has come to nothing."""
        self._takes_steps = False
        """Whether the script leaves its optimizer steps to the monitor."""
        self._open: tuple[Any, ...] = ()
        """The optimizers that wait for the rest of their step."""
        self._last_loss: Any = None

    @abstractmethod
    def phase(self, name: str) -> Phase | Nothing:
        """A context whose time counts as that phase."""

    @abstractmethod
    def step(self, samples: int = 0, loss: Any = None) -> None:
        """Ends a step."""

    @abstractmethod
    def _can_go_back(self) -> bool:
        """Whether there are smaller batches to go back to, and nobody who waits for this rank."""

    @abstractmethod
    def _go_back(self, reason: str) -> None:
        """Goes back to them. The samples of the present step have been taken back."""

    def forward(self, model: Any = None) -> Forward:
        """A context for the forward pass, the loss included: in the precision in force, and counted
        as ``forward``.

        ``model``, where it is a DistributedDataParallel, exchanges gradients only in the last batch
        of an optimizer step. An autocast of your own within this context has the last word.
        """
        return Forward(self, model)

    def backward(self, loss: torch.Tensor, **options: Any) -> None:
        """Adds the gradients of one batch; instead of ``loss.backward(**options)``.

        ``loss`` is the mean over the samples of the batch. It is weighted with the share of the
        step's samples that are in this batch, so that the gradients add up to those of the mean
        over all samples of the step, an incomplete last one of an epoch included.
        """
        if self._failed:
            return
        cursor = self._cursor
        if cursor.abandoned:
            cursor.abandoned = False
            self._clear(self._open)
        self._last_loss = loss.detach()
        if cursor.share != 1.0:
            loss = loss * cursor.share
        try:
            self._precision.scaled(loss).backward(**options)
        except Exception as error:
            if not self._gives_up(error):
                raise

    @property
    def ends_step(self) -> bool:
        """Whether the batch in hand is the last one of its optimizer step. For what you do to the
        gradients yourself, between ``backward`` and ``optimizer_step``."""
        return self._cursor.last

    def optimizer_step(
        self, *optimizers: Any, samples: int = 0, max_norm: float | None = None
    ) -> bool:
        """Call it once after each batch: after the last one of a step it steps all ``optimizers``,
        clears their gradients, and ends the step (instead of ``monitor.step()``).

        True if the weights were changed: not within a step, and not where ``fp16`` met gradients
        that are not finite and left the step out, nor where a step ran out of memory and its
        samples come again in smaller batches. ``max_norm`` clips the norm of all gradients
        together. ``samples`` counts for a loader that was given without ``accumulation``, each
        batch of which is a step.
        """
        cursor, learning = self._cursor, self._learning
        if self._failed:
            self._begin_again(optimizers)
            return False
        if not cursor.last:
            if learning.looking and not self._open:  # the first batch of its step
                factor = cursor.share * (self._precision.scale or 0.0)
                learning.take_first(learning.norm_of(optimizers), factor, cursor.samples)
            self._open = optimizers
            return False
        samples = cursor.samples or samples
        if self._local is not None:
            local, self._local = self._local, None
            learning.take_local(local, self._precision.scale or 0.0, samples)
        with ScaledRates(optimizers, self._rate_percent):
            norm_of = learning.norm_of if learning.looking else None
            taken = self._precision.step(optimizers, max_norm, norm_of)
        learning.take_whole(self._precision.norm, self._of_all_ranks(samples), not taken)
        self._clear(optimizers)
        cursor.end()
        if not self._takes_steps:
            self._takes_steps, self._rates_known = True, have_rates(optimizers)
        loss, self._last_loss = self._last_loss, None
        self.step(samples=samples, loss=loss)
        return taken

    def state_dict(self) -> dict[str, Any]:
        """What belongs into a checkpoint beside model and optimizer: how ``fp16`` scales its
        gradients. Knobs do not: the file that asks for them is there after a restart too."""
        return {"scaler": self._precision.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what ``state_dict`` gave, whatever the precision was then and is now."""
        self._precision.load(state.get("scaler", {}))

    def _gives_up(self, error: BaseException | None) -> bool:
        """Whether an error in a step is a want of memory that smaller batches can end."""
        if not out_of_memory(error) or not self._can_go_back():
            return False
        self._failed = str(error) or type(error).__name__
        return True

    def _begin_again(self, optimizers: tuple[Any, ...]) -> None:
        """Leaves the present step, of which nothing remains, and takes its samples back."""
        reason, self._failed = self._failed, ""
        self._last_loss = None
        if self._local is not None:
            self._local.norm()
            self._local = None
        self._clear(optimizers)
        release()
        self._cursor.take_back()
        self._go_back(reason)

    def _of_all_ranks(self, samples: int) -> int | None:
        """Samples behind the gradients of a step, of which this rank had ``samples``; None where
        it is not known how the ranks put theirs together."""
        distributed = torch.distributed
        if not distributed.is_available() or not distributed.is_initialized():
            return samples
        if distributed.get_world_size() == 1:
            return samples
        return None if self._replicas is None else samples * self._replicas

    def _look(self, model: Any) -> None:
        """The forward pass of a step begins whose gradients are looked at."""
        model = _unwrapped(model)
        if not isinstance(model, DistributedDataParallel):
            return
        self._replicas = torch.distributed.get_world_size(model.process_group)
        cursor = self._cursor
        if cursor.last and cursor.share == 1.0 and self._replicas > 1 and self._local is None:
            self._local = LocalGradients(model.module)  # the only batch of its step

    def _clear(self, optimizers: tuple[Any, ...]) -> None:
        for optimizer in optimizers:
            optimizer.zero_grad()
        self._open = ()


class Forward:
    """The context of one forward pass."""

    __slots__ = ("_autocast", "_model", "_phase", "_stepping", "_synchronised")

    def __init__(self, stepping: Stepping, model: Any) -> None:
        self._stepping = stepping
        self._model = model
        self._phase = stepping.phase("forward")
        self._autocast: Any = None
        self._synchronised: Any = None

    def __enter__(self) -> None:
        stepping = self._stepping
        self._phase.__enter__()
        if not stepping._cursor.last:
            self._hold_back()
        stepping._tryout.possible = self._model is not None
        if stepping._learning.looking:
            stepping._look(self._model)
        if stepping._tryout.wanted:
            stepping._tryout.watch(self._model, stepping._cursor.count)
        self._autocast = stepping._precision.autocast(self._model)
        if self._autocast is not None:
            self._autocast.__enter__()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if self._autocast is not None:
            self._autocast.__exit__(kind, error, trace)
        if self._synchronised is not None:
            self._synchronised.require_backward_grad_sync = True
        self._stepping._tryout.ended()
        self._phase.__exit__()
        return error is not None and self._stepping._gives_up(error)

    def _hold_back(self) -> None:
        """What ``no_sync()`` does: the model looks at it in its forward pass only."""
        model = _unwrapped(self._model)
        if isinstance(model, DistributedDataParallel) and model.require_backward_grad_sync:
            model.require_backward_grad_sync = False
            self._synchronised = model


def _unwrapped(model: Any) -> Any:
    """What torch.compile has wrapped."""
    return getattr(model, "_orig_mod", model)
