"""Whether a larger batch fits into memory: a forward and a backward pass of it, before the change.

A rank that runs out of memory within a step leaves the others waiting in theirs. So each rank tries
alone, between two steps, and tells the others what came of it as it tells them anything else that
keeps it from a change. The batch is the last one, its samples repeated; the loss is made up, of the
size of the output. Nothing of the training is touched: no gradient is kept or exchanged, buffers
and random numbers are put back. A model whose forward pass talks to other ranks (SyncBatchNorm,
sharded parameters) cannot be tried, since they would not answer.
"""

from __future__ import annotations

import contextlib
import gc
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

_ERRORS = (MemoryError, torch.OutOfMemoryError)
_WORDS = ("out of memory", "not enough memory", "can't allocate memory")
"""How allocators of devices and of the CPU say it in a RuntimeError."""

NO_GRADIENTS_OF_CHOICE = "Checkpointing is not compatible"
"""Begins what the older kind of activation checkpointing says to ``torch.autograd.grad``."""


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error is a want of memory, of whatever device."""
    if isinstance(error, _ERRORS):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


class NotAloneError(RuntimeError):
    """What is tried wants to talk to other ranks."""


@dataclass(frozen=True, slots=True)
class Example:
    """One call of the model, of ``samples`` samples."""

    module: torch.nn.Module
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    samples: int


class TryOut:
    """Sees what a forward pass is, once it is ``wanted``, and repeats it with more samples."""

    def __init__(self) -> None:
        self.wanted = False
        self.possible = False
        """Whether the last forward pass was of a model that is known."""
        self.running = False
        """Whether a collective would wait for ranks that are elsewhere (see ``hooks``)."""
        self._example: Example | None = None
        self._hook: Any = None

    def watch(self, model: Any, samples: int) -> None:
        """A forward pass of ``model`` begins."""
        inner = getattr(model, "_orig_mod", model)  # what torch.compile wraps
        module = inner.module if isinstance(inner, DistributedDataParallel) else model
        if not isinstance(module, torch.nn.Module) or samples < 1:
            return
        if _several() and (module is model or _talks(module)):
            return
        self.ended()

        def note(called: torch.nn.Module, arguments: Any, options: Any) -> None:
            self._example = Example(called, arguments, options, samples)
            self.ended()

        self._hook = module.register_forward_pre_hook(note, with_kwargs=True)

    def ended(self) -> None:
        """That forward pass has ended, whether the model was called in it or not."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def forget(self) -> None:
        """It is not wanted any more."""
        self.ended()
        self.wanted, self._example = False, None

    def run(self, size: int, autocast: Any = None) -> str:
        """Why batches of ``size`` samples do not do, in words; empty if they do, or if it cannot be
        tried: no model was handed to ``forward``, or nothing in its arguments has samples."""
        example = self._example
        self.forget()
        if example is None:
            return ""
        found = ""
        with _undisturbed(example.module):
            self.running = True
            try:
                _passes(example, size, autocast)
            except NotAloneError:
                return ""
            except Exception as error:  # what it was, the words say; the step was not in it
                found = str(error) or type(error).__name__
                lacking = out_of_memory(error)
            finally:
                self.running = False
        del example
        if not found or found.startswith(NO_GRADIENTS_OF_CHOICE):
            return ""
        release()
        what = "ran out of memory" if lacking else "failed"
        return f"a try-out with batches of {size} samples {what}: {found[:300]}"


def _several() -> bool:
    distributed = torch.distributed
    return bool(
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def _talks(module: torch.nn.Module) -> bool:
    """Whether a forward pass is known to talk to other ranks."""
    return any(isinstance(each, torch.nn.SyncBatchNorm) for each in module.modules())


def release() -> None:
    """Gives back what a failed pass has left behind."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _passes(example: Example, size: int, autocast: Any) -> None:
    count = 0

    def repeated(value: Any) -> Any:
        nonlocal count
        if isinstance(value, torch.Tensor):
            if value.dim() == 0 or value.shape[0] != example.samples:
                return value
            count += 1
            index = torch.arange(size, device=value.device) % example.samples
            return value.detach()[index]
        if isinstance(value, dict):
            return {key: repeated(item) for key, item in value.items()}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(repeated, value))
        if isinstance(value, list | tuple):
            return type(value)(map(repeated, value))
        return value

    arguments, options = repeated(example.arguments), repeated(example.options)
    if not count:
        return
    with torch.enable_grad():
        with autocast or contextlib.nullcontext():
            output = example.module(*arguments, **options)
            # In float32 and of every element, as most losses compute it.
            losses = [value.float().square().mean() for value in _tensors(output)]
        parameters = [each for each in example.module.parameters() if each.requires_grad]
        if losses and parameters:
            torch.autograd.grad(torch.stack(losses).sum(), parameters, allow_unused=True)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Those in an output from which gradients come."""
    if isinstance(value, torch.Tensor):
        if value.requires_grad and value.is_floating_point():
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


@contextlib.contextmanager
def _undisturbed(module: torch.nn.Module) -> Iterator[None]:
    """Puts the buffers of ``module`` and the random numbers back."""
    buffers = [
        (owner, name, buffer, buffer.detach().clone())
        for owner in module.modules()
        for name, buffer in owner._buffers.items()
        if buffer is not None
    ]
    numbers = random.getstate()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(numbers)
        with torch.no_grad():
            for owner, name, buffer, content in buffers:
                buffer.copy_(content)
                owner._buffers[name] = buffer
