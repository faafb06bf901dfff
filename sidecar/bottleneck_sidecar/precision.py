"""Mixed precision that can be switched on and off between optimizer steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from bottleneck_sidecar.knobs import WORDS

AUTOCAST = "precision.autocast"
OFF, BF16, FP16 = WORDS[AUTOCAST]
TYPES = {BF16: torch.bfloat16, FP16: torch.float16}


class Precision:
    """What ``precision.autocast`` says, and the scaling of gradients that ``fp16`` needs.

    Raises ValueError for a ``mode`` that is none of its words.
    """

    def __init__(self, mode: str = OFF) -> None:
        if mode not in WORDS[AUTOCAST]:
            raise ValueError(f"autocast must be one of {', '.join(WORDS[AUTOCAST])}, not {mode!r}")
        self.mode = mode
        self.device: str | None = None
        """Type of the device that the model works on; None before the first forward pass."""
        self.scale: float | None = None if mode == FP16 else 1.0
        """Times what the gradients of the present step are too large; None where only the device
        knows."""
        self.norm: torch.Tensor | None = None
        """Norm of the last step's gradients before they were clipped, where somebody asked."""
        self._scaler: Any = None
        self._state: dict[str, Any] = {}

    def autocast(self, model: Any, mode: str | None = None) -> Any:
        """The context around a forward pass in ``mode``, by default the one in force; None while
        it is off."""
        if self.device is None:
            self.device = _device(model)
        mode = mode or self.mode
        return None if mode == OFF else torch.autocast(self.device, TYPES[mode])

    def refusal(self, mode: str) -> str:
        """Why this device cannot work so; empty if it can."""
        device = self.device or _device(None)
        if mode == OFF:
            return ""
        if device not in ("cpu", "cuda"):
            return f"on a device of type {device} only {OFF} is known to work"
        if mode == FP16 and device == "cpu":
            return f"{FP16} needs a CUDA device; on a CPU write {BF16} or {OFF}"
        if mode == BF16 and device == "cuda" and torch.cuda.get_device_capability() < (8, 0):
            return f"{BF16} needs CUDA compute capability 8.0; on this GPU write {FP16} or {OFF}"
        return ""

    def change(self, mode: str) -> bool:
        """To be called between two optimizer steps. False if it was already so."""
        changed, self.mode = mode != self.mode, mode
        self.scale = None if mode == FP16 else 1.0
        return changed

    def scaled(self, loss: Any) -> Any:
        """The loss from which gradients may be computed in this precision."""
        return self._used_scaler().scale(loss) if self.mode == FP16 else loss

    def step(
        self,
        optimizers: Sequence[Any],
        max_norm: float | None,
        norm_of: Callable[[Sequence[Any]], torch.Tensor | None] | None = None,
    ) -> bool:
        """Steps every optimizer, with the gradients of all together clipped to ``max_norm``. False
        where ``fp16`` met a gradient that is not finite: no weight moves, and it scales less. With
        ``norm_of`` the ``norm`` is known afterwards."""
        scaler = self._used_scaler() if self.mode == FP16 else None
        if scaler is not None:
            for optimizer in optimizers:
                scaler.unscale_(optimizer)
        if max_norm is not None:
            parameters = [p for each in optimizers for g in each.param_groups for p in g["params"]]
            self.norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        else:
            self.norm = norm_of(optimizers) if norm_of is not None else None
        if scaler is None:
            for optimizer in optimizers:
                optimizer.step()
            return True
        before = scaler.get_scale()
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
        self.scale = float(scaler.get_scale())
        return bool(self.scale >= before)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: how ``fp16`` scales. Empty if it was never in force."""
        return self._scaler.state_dict() if self._scaler is not None else dict(self._state)

    def load(self, state: dict[str, Any]) -> None:
        """Takes what ``state`` gave."""
        self._state = dict(state)
        self._scaler = None

    def _used_scaler(self) -> Any:
        if self._scaler is None:
            self._scaler = torch.amp.GradScaler(self.device or _device(None))
            if self._state:
                self._scaler.load_state_dict(self._state)
        return self._scaler


def _device(model: Any) -> str:
    parameters = getattr(model, "parameters", None)
    first = next(iter(parameters()), None) if parameters is not None else None
    if first is not None:
        return str(first.device.type)
    return "cuda" if torch.cuda.is_initialized() else "cpu"
