"""Batches that do not fit into memory: tried beforehand where that can be done, and taken back
where a step has run out of it all the same. The allocator here is made up: it refuses batches by
their size."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from bottleneck_sidecar import knobs, training
from bottleneck_sidecar.training import StepMonitor
from bottleneck_sidecar.tryout import TryOut, _talks, out_of_memory
from torch import nn

from .test_stepping import ACCUMULATION, GLOBAL, MICRO, SAMPLES, Network, Trainer, plain  # type: ignore[import-not-found]

LARGER = {"batch": {"micro": 12, "accumulation": 1}}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knobs, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(training, "REPORT_SECONDS", 0.0)
    for name in ("RANK", "WORLD_SIZE", "BOTTLENECK_SOCKET", "BOTTLENECK_KNOBS"):
        monkeypatch.delenv(name, raising=False)


class Exhausted(torch.autograd.Function):
    """Has no room for the gradient."""

    @staticmethod
    def forward(context: Any, values: torch.Tensor) -> torch.Tensor:
        return values.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 12 GiB")


class Limited(nn.Module):
    """A network in a memory that holds ``fits`` samples, in forward or only in backward."""

    def __init__(self, inner: Network, fits: int, where: str) -> None:
        super().__init__()
        self.inner, self.fits, self.where = inner, fits, where
        self.calls: Counter[int] = Counter()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        self.calls[len(values)] += 1
        found: torch.Tensor = self.inner(values)
        if len(values) <= self.fits:
            return found
        if self.where == "backward":
            return Exhausted.apply(found)  # type: ignore[no-any-return]
        if self.where == "cpu":
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory"
            )
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 12 GiB")


class LimitedTrainer(Trainer):  # type: ignore[misc]
    """``hidden``: the model is not handed to ``forward``, so that nothing can be tried."""

    def __init__(
        self, path: Path, fits: int, where: str = "forward", hidden: bool = False, **options: Any
    ) -> None:
        super().__init__(path, **options)
        self.network = Limited(self.network, fits, where)
        self.hidden = hidden

    def run(self, epochs: int = 1) -> LimitedTrainer:
        loss, loss_of_step = torch.zeros(()), 0.0
        for _ in range(epochs):
            for values, target in self.loader:
                if self.monitor._cursor.samples == len(values):
                    loss_of_step = 0.0  # the first batch of a step, perhaps once more
                with self.monitor.forward(None if self.hidden else self.network):
                    loss = nn.functional.mse_loss(self.network(values), target)
                loss_of_step += loss.item() * self.monitor._cursor.share
                self.monitor.backward(loss)
                if self.monitor.optimizer_step(self.optimizer):
                    self.ended(loss_of_step)
        return self

    @property
    def answer(self) -> Any:
        return self.monitor._knobs.acknowledgement


def assert_untouched(trainer: LimitedTrainer, epochs: int) -> None:
    """The losses and the weights are those of a run in which nobody asked for anything."""
    losses, weights = plain(epochs)
    assert trainer.losses == pytest.approx(losses, rel=1e-12)
    torch.testing.assert_close(trainer.weights, weights, rtol=1e-12, atol=1e-14)
    assert (trainer.loader.micro, trainer.loader.accumulation) == (MICRO, ACCUMULATION)


@pytest.mark.parametrize("where", ["forward", "backward", "cpu"])
def test_a_batch_that_does_not_fit_is_refused_before_anything_is_changed(
    tmp_path: Path, where: str
) -> None:
    trainer = LimitedTrainer(tmp_path / "knobs", 8, where, wishes={1: LARGER}).run(2)
    assert trainer.answer.result == "Refused"
    assert "a try-out with batches of 12 samples ran out of memory: " in trainer.answer.message
    assert trainer.network.calls[12] == 1, "once, and never in a step"
    assert_untouched(trainer, 2)
    trainer.monitor.close()


def test_one_that_fits_is_tried_and_taken(tmp_path: Path) -> None:
    trainer = LimitedTrainer(tmp_path / "knobs", 12, wishes={1: LARGER}).run(2)
    assert trainer.answer.result == "Applied"
    assert trainer.loader.micro == 12
    losses, weights = plain(2)
    assert trainer.losses == pytest.approx(losses, rel=1e-12)
    torch.testing.assert_close(trainer.weights, weights, rtol=1e-12, atol=1e-14)
    trainer.monitor.close()


@pytest.mark.parametrize("where", ["forward", "backward", "cpu"])
def test_a_step_that_runs_out_of_memory_is_taken_again_in_smaller_batches(
    tmp_path: Path, where: str
) -> None:
    trainer = LimitedTrainer(tmp_path / "knobs", 8, where, hidden=True, wishes={1: LARGER}).run(2)
    assert trainer.answer.result == "Refused"
    assert "a step ran out of memory and was taken again" in trainer.answer.message
    assert trainer.network.calls[12] == 1
    assert trainer.steps == 2 * -(-SAMPLES // GLOBAL), "it counts once"
    assert_untouched(trainer, 2)
    trainer.monitor.close()


def test_with_it_goes_the_learning_rate_of_the_larger_batch(tmp_path: Path) -> None:
    grown = {"batch": {"micro": 12}, "optimizer": {"learningRatePercent": 170}}
    trainer = LimitedTrainer(tmp_path / "knobs", 8, hidden=True, wishes={1: grown}).run(2)
    assert trainer.answer.result == "Refused"
    assert_untouched(trainer, 2)
    trainer.monitor.close()


def test_in_batches_of_the_scripts_own_size_the_error_is_the_scripts(tmp_path: Path) -> None:
    trainer = LimitedTrainer(tmp_path / "knobs", MICRO - 1)
    with pytest.raises(torch.OutOfMemoryError):
        trainer.run()
    trainer.monitor.close()


def test_among_several_ranks_a_step_is_not_left_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = LimitedTrainer(tmp_path / "knobs", 8, hidden=True, wishes={1: LARGER})
    monkeypatch.setattr(training, "alone", lambda: False)
    with pytest.raises(torch.OutOfMemoryError):
        trainer.run()
    trainer.monitor.close()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("HIP out of memory. Tried"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
        (None, False),
    ],
)
def test_what_is_a_want_of_memory(error: BaseException | None, expected: bool) -> None:
    assert out_of_memory(error) is expected


# -- the try-out itself ----------------------------------------------------------------------------


class Moody(nn.Module):
    """Has buffers, random numbers of two kinds, and takes its arguments in all forms."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.last = nn.BatchNorm1d(4), nn.Linear(4, 2)
        self.sizes: list[int] = []

    def forward(self, batch: dict[str, Any], *, mask: torch.Tensor, rest: Any) -> Any:
        values = batch["values"]
        self.sizes.append(len(values))
        assert len(mask) == len(values) == len(rest[0])
        hidden = nn.functional.dropout(self.norm(values), 0.5) * random.random()
        return {"scores": self.last(hidden), "rest": [rest, None]}


def seen(model: nn.Module, samples: int, *arguments: Any, **options: Any) -> TryOut:
    tryout = TryOut()
    tryout.watch(model, samples)
    model(*arguments, **options)
    tryout.ended()
    return tryout


def test_it_leaves_no_trace() -> None:
    model = Moody()
    values, mask = torch.randn(3, 4), torch.ones(3, dtype=torch.bool)
    tryout = seen(model, 3, {"values": values}, mask=mask, rest=(torch.arange(3), "words"))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    numbers, others = torch.get_rng_state(), random.getstate()
    assert tryout.run(7) == ""
    assert model.sizes == [3, 7]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), numbers)
    assert random.getstate() == others
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model._forward_pre_hooks
    assert tryout.run(7) == "", "there is no example any more"
    assert model.sizes == [3, 7]


def test_what_fails_otherwise_would_fail_in_the_step_too() -> None:
    class Rigid(nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return values.reshape(2, 8)

    message = seen(Rigid(), 4, torch.ones(4, 4)).run(6)
    assert message.startswith("a try-out with batches of 6 samples failed: shape")


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpoints_are_no_reason_to_refuse(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = torch.utils.checkpoint.checkpoint(
                self.inner, values.requires_grad_(), use_reentrant=reentrant
            )
            return found

    assert seen(Checkpointed(), 4, torch.ones(4, 4)).run(6) == ""


@pytest.mark.parametrize(
    ("model", "samples", "argument"),
    [(nn.Linear(4, 4), 3, torch.ones(5, 4)), (nn.Identity(), 5, torch.ones(5, 4))],
    ids=["no argument has that many samples", "nothing to differentiate"],
)
def test_what_cannot_be_tried_is_not_refused(
    model: nn.Module, samples: int, argument: torch.Tensor
) -> None:
    assert seen(model, samples, argument).run(9) == ""
    assert TryOut().run(9) == ""


def test_what_would_wait_for_other_ranks_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    class Asking(nn.Module):
        """Asks the other ranks, when it is a try-out."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)
            self.asked = 0

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            if len(values) > 4:
                self.asked += 1
                torch.distributed.all_reduce(values)
                raise AssertionError("it waited for ranks that are elsewhere")
            found: torch.Tensor = self.inner(values)
            return found

    monitor = StepMonitor(knobs="/nowhere")
    model, tryout = Asking(), monitor._tryout
    tryout.watch(model, 4)
    model(torch.ones(4, 4))
    assert tryout.run(8) == ""
    assert model.asked == 1
    assert not tryout.running
    monitor.close()

    monkeypatch.setattr("bottleneck_sidecar.tryout._several", lambda: True)
    tryout = TryOut()
    tryout.watch(model, 4)
    assert not model._forward_pre_hooks, "not under DistributedDataParallel: perhaps it is sharded"
    assert _talks(nn.Sequential(nn.Linear(2, 2), nn.SyncBatchNorm(2)))
    assert not _talks(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
