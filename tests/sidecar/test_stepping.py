"""Optimizer steps through the monitor: gradients, precision, knobs, and words on mistakes."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bottleneck_sidecar import knobs, training, training_knobs
from bottleneck_sidecar.precision import Precision
from bottleneck_sidecar.training import StepMonitor
from bottleneck_sidecar.training_knobs import TrainingKnobs
from bottleneck_sidecar.wire import Acknowledgement, TrainingRank
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from .conftest import Inbox  # type: ignore[import-not-found]

SAMPLES, MICRO, ACCUMULATION = 54, 4, 3

GLOBAL = MICRO * ACCUMULATION


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step looks and reports, so that no test has to wait."""
    monkeypatch.setattr(knobs, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(training, "REPORT_SECONDS", 0.0)
    for name in ("RANK", "WORLD_SIZE", "BOTTLENECK_SOCKET", "BOTTLENECK_KNOBS"):
        monkeypatch.delenv(name, raising=False)


class Network(nn.Sequential):
    """Notes in which precision its hidden layer works."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
        self.to(dtype)
        self[0].register_forward_hook(self._note)
        self.types: list[torch.dtype] = []

    def _note(self, module: Any, arguments: Any, output: torch.Tensor) -> None:
        self.types.append(output.dtype)


def data(dtype: torch.dtype = torch.float64) -> TensorDataset:
    torch.manual_seed(1)
    return TensorDataset(torch.randn(SAMPLES, 6).to(dtype), torch.randn(SAMPLES, 1).to(dtype))


class Trainer:
    """A script as the documentation shows it. ``wishes``: step after which the file says so."""

    def __init__(
        self,
        path: Path | None = None,
        wishes: dict[int, dict[str, Any]] | None = None,
        dtype: torch.dtype = torch.float64,
        accumulation: int | None = ACCUMULATION,
        **options: Any,
    ) -> None:
        self.path, self.wishes = path, wishes or {}
        self.network = Network(dtype)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.1, momentum=0.9)
        self.monitor = StepMonitor(knobs=str(path) if path else None, **options)
        self.loader = self.monitor.loader(
            DataLoader(data(dtype), MICRO, shuffle=True, generator=torch.Generator()), accumulation
        )
        self.steps = 0
        self.losses: list[float] = []
        self.answers: list[Acknowledgement | None] = []
        self.seen: list[int] = []
        """Samples of each batch."""

    def run(self, epochs: int = 1) -> Trainer:
        loss_of_step = 0.0
        for _ in range(epochs):
            for values, target in self.loader:
                with self.monitor.forward(self.network):
                    loss = nn.functional.mse_loss(self.network(values), target)
                self.seen.append(len(values))
                loss_of_step += loss.item() * self.monitor._cursor.share
                self.monitor.backward(loss)
                if self.monitor.optimizer_step(self.optimizer):
                    self.ended(loss_of_step)
                    loss_of_step = 0.0
        return self

    def ended(self, loss: float) -> None:
        self.losses.append(loss)
        self.steps += 1
        self.answers.append(self.monitor._knobs.acknowledgement)
        if self.path is not None and self.steps in self.wishes:
            wish = {"generation": self.steps} | self.wishes[self.steps]
            self.path.write_text(json.dumps(wish))
            os.utime(self.path, ns=(0, self.steps))

    @property
    def weights(self) -> torch.Tensor:
        return torch.cat([each.detach().flatten() for each in self.network.parameters()])


def plain(epochs: int) -> tuple[list[float], torch.Tensor]:
    """Losses and last weights of a run in which nobody accumulates: batches are steps."""
    network, losses = Network(), []
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    loader = DataLoader(data(), GLOBAL, shuffle=True, generator=torch.Generator())
    for _ in range(epochs):
        for values, target in loader:
            loss = nn.functional.mse_loss(network(values), target)
            losses.append(loss.item())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return losses, torch.cat([each.detach().flatten() for each in network.parameters()])


WISHES = {
    2: {"batch": {"micro": 2, "accumulation": 6}},
    4: {"batch": {"micro": 12, "accumulation": 1}, "dataLoader": {"workers": 1}},
    7: {"batch": {"micro": 6, "accumulation": 2}, "dataLoader": {"workers": 2, "prefetch": 1}},
    9: {"batch": {"micro": 1, "accumulation": 12}},
    11: {"batch": {"micro": 4, "accumulation": 3}, "dataLoader": {"workers": 0}},
}


@pytest.mark.parametrize("wishes", [{}, WISHES])
def test_the_loss_curve_is_that_of_big_batches(
    tmp_path: Path, wishes: dict[int, dict[str, Any]]
) -> None:
    """54 samples in steps of 12: each epoch ends with a step of 6, in batches of 4 and 2."""
    trainer = Trainer(tmp_path / "knobs", wishes).run(3)
    losses, weights = plain(3)
    assert trainer.losses == pytest.approx(losses, rel=1e-12)
    torch.testing.assert_close(trainer.weights, weights, rtol=1e-12, atol=1e-14)
    assert len(set(trainer.seen)) > (4 if wishes else 1), "it really was cut otherwise"
    trainer.monitor.close()


def test_without_anybody_who_listens_it_trains_the_same() -> None:
    trainer = Trainer().run(3)
    assert not trainer.monitor.enabled
    losses, weights = plain(3)
    assert trainer.losses == pytest.approx(losses, rel=1e-12)
    torch.testing.assert_close(trainer.weights, weights, rtol=1e-12, atol=1e-14)


def test_what_is_reported(inbox: Inbox, tmp_path: Path) -> None:
    trainer = Trainer(tmp_path / "knobs", {1: WISHES[2]}, socket=inbox.path)
    reports: list[TrainingRank] = inbox.read()
    trainer.run()
    first, *_, last = reports + inbox.read()
    assert first.knobs is not None
    assert first.knobs["batch.micro"] == MICRO
    loading = ["dataLoader.workers", "dataLoader.prefetch", "dataLoader.persistentWorkers"]
    assert first.settable == loading, "not known yet"
    assert (last.steps, last.samples) == (5, SAMPLES)
    assert last.knobs == {
        "dataLoader.workers": 0,
        "dataLoader.prefetch": 2,
        "dataLoader.pinMemory": "off",
        "dataLoader.persistentWorkers": "off",
        "batch.micro": 2,
        "batch.accumulation": 6,
        "optimizer.learningRatePercent": 100,
        "precision.autocast": "off",
    }
    assert last.settable == [*loading, *list(last.knobs)[4:]], "no device to pin memory for"
    assert last.acknowledgement == Acknowledgement(1, "Applied", 2, "")
    assert last.loss is not None
    for phase in ("data", "forward", "backward", "optimizer"):
        assert last.seconds[phase] > 0, phase
    trainer.monitor.close()


def test_bf16_is_switched_on_and_off_between_steps(inbox: Inbox, tmp_path: Path) -> None:
    wishes = {1: {"precision": {"autocast": "bf16"}}, 3: {"precision": {"autocast": "off"}}}
    trainer = Trainer(tmp_path / "knobs", wishes, torch.float32, socket=inbox.path).run()
    off, on = [torch.float32] * 3, [torch.bfloat16] * 3
    assert trainer.network.types == [*off, *off, *on, *on, *off[:2]]
    assert inbox.read()[-1].low_precision_steps == 2
    assert [answer and answer.step for answer in trainer.answers] == [None, 2, 2, 4, 4]
    assert all(each.dtype == torch.float32 for each in trainer.network.parameters())
    trainer.monitor.close()


def test_the_script_says_in_which_precision_it_begins() -> None:
    trainer = Trainer(dtype=torch.float32, autocast="bf16").run()
    assert set(trainer.network.types) == {torch.bfloat16}
    with pytest.raises(ValueError, match="autocast must be one of off, bf16, fp16, not 'fp32'"):
        StepMonitor(autocast="fp32")


@pytest.mark.parametrize(
    ("device", "capability", "mode", "reason"),
    [
        ("cpu", None, "bf16", ""),
        ("cpu", None, "fp16", "fp16 needs a CUDA device; on a CPU write bf16 or off"),
        ("cuda", (8, 0), "bf16", ""),
        ("cuda", (7, 5), "bf16", "bf16 needs CUDA compute capability 8.0; on this GPU write fp16"),
        ("cuda", (7, 5), "fp16", ""),
        ("mps", None, "bf16", "of type mps only off is known"),
        ("mps", None, "off", ""),
    ],
)
def test_which_device_takes_which_precision(
    monkeypatch: pytest.MonkeyPatch, device: str, capability: Any, mode: str, reason: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    precision = Precision()
    precision.device = device
    assert reason in precision.refusal(mode)
    assert bool(reason) == bool(precision.refusal(mode))


def test_fp16_scales_and_leaves_out_steps_that_overflow(inbox: Inbox) -> None:
    trainer = Trainer(dtype=torch.float32, autocast="fp16", socket=inbox.path)
    monitor, network = trainer.monitor, trainer.network
    before = trainer.weights.clone()
    batches = iter(trainer.loader)
    taken = []
    for factor in [1.0] * 3 + [1.0, 1e9, 1.0] + [1.0] * 3:
        values, target = next(batches)
        with monitor.forward(network):
            loss = nn.functional.mse_loss(network(values), target)
        monitor.backward(loss * factor * 1e30 if factor > 1 else loss)
        taken.append(monitor.optimizer_step(trainer.optimizer))
        if len(taken) == 3:
            after = trainer.weights.clone()
            assert not torch.equal(after, before)
        if len(taken) == 6:
            assert torch.equal(trainer.weights, after), "left out"
            assert all(each.grad is None for each in network.parameters())
    assert taken == [False, False, True, False, False, False, False, False, True]
    assert set(network.types) == {torch.float16}
    assert inbox.read()[-1].steps == 3, "one that was left out is a step"
    state = monitor.state_dict()
    assert state["scaler"]["scale"] == 2**15, "half of what it begins with"
    again = StepMonitor(autocast="fp16")
    again.load_state_dict(state)
    assert again.state_dict() == state, "before it is used"
    again._precision.scaled(torch.ones(()))
    assert again.state_dict() == state
    again.load_state_dict({})
    assert StepMonitor().state_dict() == {"scaler": {}}
    monitor.close()


def test_gradients_are_clipped_together() -> None:
    trainer = Trainer()
    moved = []
    for _ in trainer.loader:
        before = trainer.weights.clone()
        total = torch.stack([each.sum() for each in trainer.network.parameters()]).sum()
        trainer.monitor.backward(1000 * total)
        if trainer.monitor.optimizer_step(trainer.optimizer, max_norm=2.0):
            moved.append((trainer.weights - before).norm().item())
    assert moved[0] == pytest.approx(0.1 * 2.0)


def test_several_optimizers_step_together() -> None:
    trainer = Trainer()
    first, last = (torch.optim.SGD(trainer.network[i].parameters(), lr=0.1) for i in (0, 2))
    for values, target in trainer.loader:
        before = trainer.weights
        trainer.monitor.backward(nn.functional.mse_loss(trainer.network(values), target))
        if trainer.monitor.optimizer_step(first, last):
            assert (trainer.weights != before).all()
            return


def test_a_step_that_was_left_in_the_middle_leaves_no_gradient_behind() -> None:
    def batches(trainer: Trainer, number: int) -> Iterator[tuple[Any, Any]]:
        yield from (batch for batch, _ in zip(trainer.loader, range(number), strict=False))

    trainer = Trainer()
    network = trainer.network
    for values, target in batches(trainer, 2):  # a step has three
        trainer.monitor.backward(nn.functional.mse_loss(network(values), target))
        trainer.monitor.optimizer_step(trainer.optimizer)
    left = [each.grad for each in network.parameters()]
    assert all(each is not None for each in left)
    trainer.loader.generator.manual_seed(3)
    taken = []
    for values, target in batches(trainer, 3):
        trainer.monitor.backward(nn.functional.mse_loss(network(values), target))
        taken.append(trainer.monitor.optimizer_step(trainer.optimizer))
    assert taken == [False, False, True]
    fresh = Trainer()
    fresh.loader.generator.manual_seed(3)
    for values, target in batches(fresh, 3):
        fresh.monitor.backward(nn.functional.mse_loss(fresh.network(values), target))
        fresh.monitor.optimizer_step(fresh.optimizer)
    assert torch.equal(trainer.weights, fresh.weights)


def test_a_checkpoint_of_before_a_change_is_taken_up_after_it(tmp_path: Path) -> None:
    """Saved at the end of an epoch in fp32 and batches of 4, loaded under another wish."""
    trainer = Trainer(tmp_path / "knobs").run()
    file = io.BytesIO()
    state = {
        "model": trainer.network.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "monitor": trainer.monitor.state_dict(),
        "sampler": trainer.loader.generator.get_state(),
    }
    torch.save(state, file)
    file.seek(0)
    trainer.monitor.close()
    wish = {"generation": 3, "batch": {"micro": 6, "accumulation": 2}}
    (tmp_path / "knobs").write_text(json.dumps(wish))
    restored = Trainer(tmp_path / "knobs")
    assert restored.loader.micro == 6, "alone, it need not agree with anybody: from the first batch"
    state = torch.load(file)
    restored.network.load_state_dict(state["model"])
    restored.optimizer.load_state_dict(state["optimizer"])
    restored.monitor.load_state_dict(state["monitor"])
    restored.loader.generator.set_state(state["sampler"])
    restored.run(2)
    losses, weights = plain(3)
    assert restored.losses == pytest.approx(losses[5:], rel=1e-12)
    torch.testing.assert_close(restored.weights, weights, rtol=1e-12, atol=1e-14)
    restored.monitor.close()


def test_a_loader_that_comes_later_takes_what_stands(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path / "knobs", {1: WISHES[4]}).run()
    later = trainer.monitor.loader(DataLoader(data(), MICRO), accumulation=ACCUMULATION)
    assert (later.micro, later.accumulation, later.workers) == (12, 1, 1)
    evaluation = trainer.monitor.loader(DataLoader(data(), MICRO))
    assert (evaluation.workers, len(next(iter(evaluation))[0])) == (1, MICRO)
    trainer.monitor.close()


def refused(path: Path, wish: dict[str, Any], script: Any) -> str:
    path.write_text(json.dumps({"generation": 1} | wish))
    monitor = StepMonitor(knobs=str(path))
    script(monitor)
    answer = monitor._knobs.acknowledgement
    assert answer is not None
    assert answer.result == "Refused"
    assert monitor._knobs.pending is None
    monitor.close()
    return answer.message


def three_lines(monitor: StepMonitor) -> None:
    for values, _ in monitor.loader(DataLoader(data(), MICRO)):
        monitor.step(samples=len(values))


def promised_and_not_kept(monitor: StepMonitor) -> None:
    for _ in monitor.loader(DataLoader(data(), MICRO), accumulation=2):
        monitor.step()


def without_forward(monitor: StepMonitor) -> None:
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for values, _ in monitor.loader(DataLoader(data(), MICRO), accumulation=2):
        monitor.backward(network(values).mean())
        monitor.optimizer_step(optimizer)


def complete(monitor: StepMonitor) -> None:
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for values, _ in monitor.loader(DataLoader(data(), MICRO), accumulation=2):
        with monitor.forward(network):
            loss = network(values).mean()
        monitor.backward(loss)
        monitor.optimizer_step(optimizer)


@pytest.mark.parametrize(
    ("wish", "script", "message"),
    [
        (
            {"batch": {"micro": 2}},
            three_lines,
            r"^batch.micro cannot .*: write loader = monitor.lo",
        ),
        ({"batch": {"accumulation": 2}}, three_lines, r"accumulation=K\), and monitor.backward\("),
        ({"precision": {"autocast": "bf16"}}, three_lines, "write `with monitor.forward"),
        ({"precision": {"autocast": "bf16"}}, promised_and_not_kept, "write `with monitor.forw"),
        ({"precision": {"autocast": "bf16"}}, without_forward, "write `with monitor.forward"),
        ({"precision": {"autocast": "fp16"}}, complete, "fp16 needs a CUDA device; on a CPU write"),
        ({"batch": {"maxSize": 4}}, complete, "batch.maxSize: a knob of model servers"),
        ({"precision": {"weights": "bf16"}}, complete, "precision.weights: a knob of model serv"),
        (
            {"batch": {"micro": 2}, "precision": {"autocast": "fp16"}},
            complete,
            "^batch.micro, precision.autocast cannot be changed here: fp16 needs",
        ),
    ],
)
def test_what_is_refused_and_in_which_words(
    tmp_path: Path, wish: dict[str, Any], script: Any, message: str
) -> None:
    assert re.search(message, refused(tmp_path / "knobs", wish, script))


def test_ranks_that_have_no_process_group_cannot_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = refused(tmp_path / "knobs", {"batch": {"micro": 2}}, complete)
    assert "several ranks and no torch.distributed process group" in message


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(torch.ones(8, 6, dtype=torch.float64))


def test_loaders_that_cannot_be_cut_are_told_so_and_their_batches_are_steps(inbox: Inbox) -> None:
    monitor = StepMonitor(socket=inbox.path)
    with pytest.raises(ValueError, match="cannot be accumulated over: its dataset is an Iterab"):
        monitor.loader(DataLoader(Endless(), batch_size=2), accumulation=2)
    with pytest.raises(ValueError, match="it is no torch DataLoader"):
        monitor.loader([1, 2], accumulation=2)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        monitor.loader(DataLoader(data(), MICRO), accumulation=0)
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for values in monitor.loader(DataLoader(Endless(), batch_size=2)):
        with monitor.forward(network):
            loss = network(values).mean()
        monitor.backward(loss)
        assert monitor.optimizer_step(optimizer, samples=len(values))
    report = inbox.read()[-1]
    assert (report.steps, report.samples) == (4, 8)
    assert report.settable == ["precision.autocast"]
    monitor.close()


def test_nothing_is_done_while_nothing_is_wished_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(tmp_path / "knobs")
    monkeypatch.setattr(TrainingKnobs, "follow", None)
    monkeypatch.setattr(training_knobs, "group", None)
    assert trainer.run().steps == 5
    trainer.monitor.close()
