"""The weights of a model that is served, in a type that can be changed while it serves.

    weights = Weights(model)
    app = TelemetryMiddleware(app, weights=weights)

and, where the model is called:

    with service(), weights.use() as model:
        answer = model(x)
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import nn

from bottleneck_sidecar.server_knobs import PRECISION
from bottleneck_sidecar.shared_lock import BusyError, SharedLock

TYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}

PATIENCE_SECONDS = 10.0
"""How long a change waits for a moment between two forward passes without holding any up."""

HOLD_SECONDS = 5.0
"""How long it then holds new ones up, until those which run are through."""


class NotChangedError(RuntimeError):
    """The weights are as they were; the text says why."""


@dataclass(frozen=True, slots=True)
class Served:
    """The model as it is for one use. Called, it casts floating-point tensors in the arguments
    (within lists, tuples and dicts too) to the type of the weights, and results of that type back
    to the type in which the model was loaded; with that one in force nothing is touched.

    Through ``module`` the model is called in other ways, with inputs that fit ``dtype``.
    """

    module: Any
    dtype: torch.dtype | None
    """The type of the weights; None if they have several."""
    loaded: torch.dtype | None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.dtype == self.loaded:
            return self.module(*args, **kwargs)
        found = self.module(*_cast(args, self.dtype), **_cast(kwargs, self.dtype))
        return _cast(found, self.loaded, only=self.dtype)


@dataclass(slots=True)
class _Tensor:
    """One parameter or buffer, with its content as it was loaded."""

    tensor: torch.Tensor
    original: torch.Tensor
    version: int = 0


class Weights:
    """The parameters and the floating-point buffers of ``model``, whose type the knob
    ``precision.weights`` changes between two forward passes. The model stays the same object.

    Each forward pass goes through ``use``. ``example`` are arguments for one: with them the model
    is tried in its new type before a request meets it, and put back if it fails or gives NaN.

    While another type than the loaded one is in force, what was loaded is kept in the memory of the
    host, so that coming back gives the very same bits. A change needs room for both on the device.
    Weights that somebody else writes meanwhile are not changed any more.
    """

    def __init__(self, model: nn.Module, example: Sequence[Any] | None = None) -> None:
        self._model = model
        self._example = example
        self._users = SharedLock()
        self._changing = threading.Lock()
        self._kept: list[_Tensor] = []
        """What was loaded, while another type is in force."""
        self.obstacle = _obstacle(model)
        """Why the type cannot be changed; empty if it can."""
        dtype = None if self.obstacle else next(_floating(model.parameters())).dtype
        self._served = Served(model, dtype, dtype)

    @contextmanager
    def use(self) -> Iterator[Served]:
        """The model, whose weights stay as they are until the end of the ``with``. Waits while they
        are being changed. In any thread; around ``await`` only if nothing there takes long."""
        users = self._users
        inside = users.enter()
        try:
            yield self._served
        finally:
            users.leave(inside)

    @property
    def precision(self) -> str | None:
        """The type in force: ``fp32``, ``bf16`` or ``fp16``; None if it is none of them."""
        dtype = self._served.dtype
        return next((name for name, each in TYPES.items() if each == dtype), None)

    def knobs(self) -> dict[str, float | str | bool]:
        """As knobs in force."""
        return {} if self.precision is None else {PRECISION: self.precision}

    def settable(self) -> list[str]:
        """The knobs that can be changed."""
        return [] if self.obstacle else [PRECISION]

    def refusal(self, precision: str) -> str:
        """Why this type cannot be had, and what to write; empty if it can."""
        if self.obstacle:
            return f"{PRECISION} cannot be changed here: {self.obstacle}"
        if precision == "fp16" and any(each.device.type == "cpu" for each in _all(self._model)):
            return f"{PRECISION} fp16 is for GPUs, and this model is on a CPU: write bf16 or fp32"
        return ""

    def change(self, precision: str, meanwhile: Callable[[], None] = lambda: None) -> bool:
        """Gives the weights this type, for ``refusal`` had nothing against it; False if they have
        it. Raises ``NotChangedError``, and what torch raises for want of memory; then they are as
        they were.

        The new weights are made beside the old ones while forward passes go on; only to exchange
        them (and to try ``example``) it waits until none is running. ``meanwhile`` is called while
        it waits.
        """
        with self._changing:
            served = self._served
            dtype = TYPES[precision]
            if dtype == served.dtype:
                return False
            kept = self._kept or [
                _Tensor(each, each.data.cpu(), _version(each))
                for each in _all(self._model)
                if each.dtype == served.dtype
            ]
            self._check_unwritten(kept)
            # From what was loaded, never from a lower type; where it is still there, without the
            # way back from the host.
            sources = [each.original if self._kept else each.tensor.data for each in kept]
            new = [
                source.to(each.tensor.device, dtype)
                for source, each in zip(sources, kept, strict=True)
            ]
            sources.clear()
            after = Served(self._model, dtype, served.loaded)

            def exchange() -> None:
                self._check_unwritten(kept)
                self._synchronize()
                old = _swap(kept, new)
                try:
                    self._flatten()
                    self._try(after)
                    for each in kept:
                        each.version = _version(each.tensor)
                except BaseException:
                    _swap(kept, old)
                    raise
                self._served = after
                self._kept = [] if dtype == served.loaded else kept

            try:
                self._users.alone(exchange, PATIENCE_SECONDS, HOLD_SECONDS, meanwhile)
            except BusyError as error:
                raise NotChangedError(f"the model was never idle: {error}") from None
            return True

    def forked(self) -> None:
        """This is a new process: nobody is in a forward pass, and nothing is being changed."""
        self._users, self._changing = SharedLock(), threading.Lock()

    def _check_unwritten(self, kept: Sequence[_Tensor]) -> None:
        """Raises ``NotChangedError`` if others have written the weights since they were kept:
        going on would bring back what they have replaced."""
        there = {id(each) for each in _all(self._model)}
        for each in kept:
            if id(each.tensor) not in there or _version(each.tensor) != each.version:
                raise NotChangedError(
                    "the weights have been written since they were loaded or changed; write them "
                    "before Weights(model), with the model in eval mode, and restart the server"
                )

    def _synchronize(self) -> None:
        """A forward pass that has returned may still be running on its GPU."""
        for device in {each.device for each in _all(self._model) if each.device.type == "cuda"}:
            torch.cuda.synchronize(device)

    def _flatten(self) -> None:
        """Recurrent layers want all their weights in one piece of a GPU's memory."""
        for module in self._model.modules():
            if isinstance(module, nn.RNNBase):
                module.flatten_parameters()

    def _try(self, served: Served) -> None:
        if self._example is None:
            return
        try:
            with torch.no_grad():
                found = served(*self._example)
        except Exception as error:
            raise NotChangedError(f"the model fails with {served.dtype}: {error}") from error
        if _has_nan(found):
            raise NotChangedError(f"with {served.dtype} the model gives NaN for the example")


def _all(model: nn.Module) -> list[torch.Tensor]:
    """Every floating-point parameter and buffer once."""
    return list(_floating(chain(model.parameters(), model.buffers())))


def _floating(tensors: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    return (each for each in tensors if each.is_floating_point())


def _obstacle(model: nn.Module) -> str:
    if any(each.is_inference() for each in _all(model)):
        return "the model was made in inference mode; make it outside of it, and call it within"
    types = {each.dtype for each in _floating(model.parameters())}
    if len(types) == 1 and types <= set(TYPES.values()):
        return ""
    names = ", ".join(sorted(map(str, types))) or "no floating-point numbers"
    return (
        f"the model's parameters are {names}; load it with all of them in one of fp32, bf16, fp16"
    )


def _version(tensor: torch.Tensor) -> int:
    """Counts writes in place."""
    return int(tensor._version)


def _swap(kept: Sequence[_Tensor], contents: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Gives each tensor new content, or none of them; returns the old one. The objects stay, and
    with them whatever refers to them."""
    old: list[torch.Tensor] = []
    try:
        for each, content in zip(kept, contents, strict=True):
            old.append(each.tensor.data)
            each.tensor.data = content
    except BaseException:
        for each, content in zip(kept, old, strict=False):
            each.tensor.data = content
        raise
    return old


def _cast(value: Any, dtype: Any, only: Any = None) -> Any:
    """``value`` with every floating-point tensor in it (of type ``only``, if given) as ``dtype``,
    however deep in lists, tuples and mappings."""
    if isinstance(value, torch.Tensor):
        fits = value.is_floating_point() if only is None else value.dtype == only
        return value.to(dtype) if fits else value
    if isinstance(value, MutableMapping):
        result = copy.copy(value)  # whatever class it is, as those of transformers
        for key, item in value.items():
            result[key] = _cast(item, dtype, only)
        return result
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_cast(item, dtype, only) for item in value))
    if type(value) in (list, tuple):
        return type(value)(_cast(item, dtype, only) for item in value)
    return value


def _has_nan(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.is_floating_point() and bool(value.isnan().any())
    if isinstance(value, MutableMapping):
        return any(map(_has_nan, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_nan, value))
    return isinstance(value, float) and math.isnan(value)
