"""Telemetry of a training with the Trainer of Hugging Face:

    trainer = Trainer(model, args, train_dataset=..., callbacks=[StepCallback()])

The Trainer makes its own loader and takes its own steps, so no knob can be changed; a wish is
refused. Needs ``transformers``, which this package does not depend on.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback

from bottleneck_sidecar.script import ScriptMonitor, batch_size


class _TrainerMonitor(ScriptMonitor):
    """Listens to loaders; steps are told by the Trainer."""

    stand_in = False

    def _optimizer_ended(self, optimizer: Any, *arguments: Any) -> None:
        super(ScriptMonitor, self)._optimizer_ended(optimizer, *arguments)


class StepCallback(TrainerCallback):  # type: ignore[misc]
    """Tells a monitor, made with ``options`` as a ``StepMonitor`` is, what the Trainer does."""

    def __init__(self, **options: Any) -> None:
        self.monitor = _TrainerMonitor(**options)
        self._hooks: list[Any] = []
        self._samples = 0
        self._forward = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The forward pass is that of the model; what it gets are the samples."""
        model = kwargs.get("model")
        if self.monitor.enabled and model is not None:
            self._hooks = [
                model.register_forward_pre_hook(self._begins, with_kwargs=True),
                model.register_forward_hook(self._ended, always_call=True),
            ]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        samples, self._samples = self._samples, 0
        self.monitor.step(samples=samples)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.monitor._evaluate(False)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _begins(self, model: Any, args: Any, kwargs: Any) -> None:
        training = model.training and torch.is_grad_enabled()
        if self.monitor.enabled:
            self.monitor._evaluate(not training)
        if training:
            self._samples += batch_size([*args, kwargs])
            self._forward = True
            self.monitor.phase("forward").__enter__()

    def _ended(self, *_: Any) -> None:
        if self._forward:
            self._forward = False
            self.monitor.phase("forward").__exit__()
