"""The learning rate of an optimizer step, in per cent of what the script and its scheduler say.

It is another one only while the step is taken. So a scheduler goes on from its own figures, a
checkpoint holds them, and at 100 per cent nothing was ever touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

LEARNING_RATE = "optimizer.learningRatePercent"
UNCHANGED = 100


def have_rates(optimizers: Sequence[Any]) -> bool:
    """Whether every one of them has learning rates where those of torch.optim have them."""
    return all(
        groups and all("lr" in group for group in groups)
        for groups in (getattr(optimizer, "param_groups", None) for optimizer in optimizers)
    )


class ScaledRates:
    """A context in which the learning rates of ``optimizers`` are ``percent`` of what they were."""

    __slots__ = ("_changed", "_optimizers", "_percent")

    def __init__(self, optimizers: Sequence[Any], percent: int) -> None:
        self._optimizers = optimizers
        self._percent = percent
        self._changed: list[tuple[dict[str, Any], Any]] = []

    def __enter__(self) -> None:
        if self._percent == UNCHANGED:
            return
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                rate = group["lr"]
                if isinstance(rate, torch.Tensor):
                    # In place: a compiled step, or one in a CUDA graph, reads this very tensor.
                    self._changed.append((group, rate.clone()))
                    rate.mul_(self._percent / 100)
                else:
                    self._changed.append((group, rate))
                    group["lr"] = rate * self._percent / 100

    def __exit__(self, *_: object) -> None:
        for group, rate in self._changed:
            if isinstance(rate, torch.Tensor):
                group["lr"].copy_(rate)
            else:
                group["lr"] = rate
