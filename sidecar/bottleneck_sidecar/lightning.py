"""Telemetry and loader knobs of a training with Lightning:

    callback = StepCallback()
    trainer = Trainer(callbacks=[callback])
    trainer.fit(model, callback.loader(DataLoader(...)))

Lightning takes the optimizer steps itself, so batch and precision cannot be changed. Needs
``lightning``, which this package does not depend on.
"""

from __future__ import annotations

import functools
from typing import Any

from lightning.pytorch import Callback

from bottleneck_sidecar.script import batch_size
from bottleneck_sidecar.training import StepMonitor


class StepCallback(Callback):  # type: ignore[misc]
    """Tells a ``StepMonitor``, made with ``options``, what the Trainer does."""

    def __init__(self, **options: Any) -> None:
        self.monitor = StepMonitor(**options)
        self._optimizer_steps = self._samples = 0
        self._evaluating = False

    def loader(self, loader: Any) -> Any:
        """The loader to hand to ``Trainer.fit``; see ``StepMonitor.loader``. With several ranks
        build it with a DistributedSampler: Lightning puts one only into a DataLoader itself."""
        return self.monitor.loader(loader)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """The forward pass is ``training_step``, and checkpoints are more than ``torch.save``."""
        if not self.monitor.enabled:
            return
        self._optimizer_steps = trainer.global_step
        pl_module.training_step = _within(self.monitor.phase("forward"), pl_module.training_step)
        trainer.save_checkpoint = _within(self.monitor.checkpoint(), trainer.save_checkpoint)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        self._restore(trainer, pl_module)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.on_validation_end(trainer, pl_module)
        self._restore(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ends a step where an optimizer has made one since the last."""
        self._samples += batch_size(batch)
        if trainer.global_step == self._optimizer_steps:
            return
        self._optimizer_steps = trainer.global_step
        samples, self._samples = self._samples, 0
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        self.monitor.step(samples=samples, loss=loss)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        if not self._evaluating:
            self._evaluating = True
            self.monitor.evaluation().__enter__()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if self._evaluating:
            self._evaluating = False
            self.monitor.evaluation().__exit__()

    def _restore(self, trainer: Any, pl_module: Any) -> None:
        vars(pl_module).pop("training_step", None)
        vars(trainer).pop("save_checkpoint", None)


def _within(context: Any, function: Any) -> Any:
    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with context:
            return function(*args, **kwargs)

    return called
