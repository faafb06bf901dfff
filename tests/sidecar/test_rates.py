"""A learning rate that is another one for the step alone: schedulers and checkpoints know nothing
of it, and it goes away without a trace."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bottleneck_sidecar import knobs
from bottleneck_sidecar.rates import ScaledRates
from bottleneck_sidecar.training import StepMonitor
from torch import nn

from .test_stepping import ACCUMULATION, MICRO, Network, Trainer, refused  # type: ignore[import-not-found]
from .test_stepping import three_lines as of_three_lines


@pytest.fixture(autouse=True)
def _always_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knobs, "LOOK_SECONDS", 0.0)
    for name in ("RANK", "WORLD_SIZE", "BOTTLENECK_SOCKET", "BOTTLENECK_KNOBS"):
        monkeypatch.delenv(name, raising=False)


def percent(value: int) -> dict[str, Any]:
    return {"optimizer": {"learningRatePercent": value}}


class Scheduled(Trainer):  # type: ignore[misc]
    """Its learning rate is what the scheduler makes of the last one."""

    def __init__(self, *arguments: Any, rate: float = 0.1, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scheduler = torch.optim.lr_scheduler.MultiplicativeLR(self.optimizer, lambda _: 0.9)
        self.rates: list[float] = []

    def ended(self, loss: float) -> None:
        self.scheduler.step()
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        super().ended(loss)


def test_under_a_scheduler_it_is_as_if_the_rate_had_been_another_one(tmp_path: Path) -> None:
    path = tmp_path / "knobs"
    path.write_text(json.dumps({"generation": 1} | percent(150)))
    scaled = Scheduled(path).run(2)
    plain = Scheduled(rate=0.15).run(2)
    torch.testing.assert_close(scaled.weights, plain.weights, rtol=1e-12, atol=1e-14)
    assert scaled.rates == Scheduled().run(2).rates, "the scheduler goes its own way"
    scaled.monitor.close()


def test_it_changes_with_the_batch_and_goes_back_exactly(tmp_path: Path) -> None:
    larger = {"batch": {"micro": 2 * MICRO, "accumulation": ACCUMULATION}} | percent(141)
    back = {"batch": {"micro": MICRO, "accumulation": ACCUMULATION}} | percent(100)
    trainer = Scheduled(tmp_path / "knobs", {1: larger, 4: back})
    seen: list[tuple[float, int]] = []

    def note(optimizer: Any, *_: Any) -> None:
        seen.append((optimizer.param_groups[0]["lr"], trainer.monitor._cursor.samples))

    trainer.optimizer.register_step_pre_hook(note)
    trainer.run(2)
    base = [0.1, *trainer.rates][: len(seen)]
    changed = [rate / own for (rate, _), own in zip(seen, base, strict=True)]
    assert [samples for _, samples in seen] == [12, 12, 12, 18, 24, 12, 12, 6]
    assert changed == pytest.approx([1, 1, 1, 1.41, 1.41, 1, 1, 1])
    assert [rate for rate, _ in seen[5:]] == base[5:], "to the last bit"
    trainer.monitor.close()


def test_a_checkpoint_of_meanwhile_holds_the_rate_of_the_script(tmp_path: Path) -> None:
    path = tmp_path / "knobs"
    path.write_text(json.dumps({"generation": 1} | percent(300)))
    trainer = Scheduled(path).run(1)
    file = io.BytesIO()
    torch.save(
        {
            "model": trainer.network.state_dict(),
            "optimizer": trainer.optimizer.state_dict(),
            "scheduler": trainer.scheduler.state_dict(),
        },
        file,
    )
    trainer.monitor.close()
    file.seek(0)
    state = torch.load(file)
    assert state["optimizer"]["param_groups"][0]["lr"] == pytest.approx(0.1 * 0.9**5)
    continued = []
    for knobs_path in (path, None):
        again = Scheduled(knobs_path)
        again.network.load_state_dict(state["model"])
        again.optimizer.load_state_dict(state["optimizer"])
        again.scheduler.load_state_dict(state["scheduler"])
        before = again.weights.clone()
        again.run(1)
        assert again.rates == pytest.approx([0.1 * 0.9 ** (6 + step) for step in range(5)])
        continued.append((again.weights - before).norm())
        again.monitor.close()
    assert continued[0] > continued[1], "where the file still asks for it, it is in force again"


@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_a_rate_comes_back_whatever_happens_in_the_step(kind: Any) -> None:
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([weight], lr=kind(0.1))
    given = optimizer.param_groups[0]["lr"]

    def broken() -> None:
        with ScaledRates([optimizer], 250):
            assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(0.25)
            raise LookupError

    with pytest.raises(LookupError):
        broken()
    assert optimizer.param_groups[0]["lr"] is given
    assert float(given) == float(kind(0.1))


def test_without_optimizer_step_it_is_refused_with_the_lines_to_write(tmp_path: Path) -> None:
    message = refused(tmp_path / "knobs", percent(200), of_three_lines)
    assert message.startswith("optimizer.learningRatePercent cannot be changed here: write loader")


def test_an_optimizer_that_keeps_its_rate_elsewhere_is_named(tmp_path: Path) -> None:
    class Own:
        def step(self) -> None:
            return

        def zero_grad(self) -> None:
            return

    def script(monitor: StepMonitor) -> None:
        network = Network()
        trainer = Trainer()
        loader = monitor.loader(trainer.loader._inner._loader, accumulation=2)
        (tmp_path / "knobs").write_text("")  # from the first step on it is known
        wished = False
        for values, target in loader:
            with monitor.forward(network):
                loss = nn.functional.mse_loss(network(values), target)
            monitor.backward(loss)
            if monitor.optimizer_step(Own()) and not wished:
                wished = True
                assert "optimizer.learningRatePercent" not in monitor._knobs.settable()
                (tmp_path / "knobs").write_text(json.dumps({"generation": 2} | percent(200)))

    assert "no param_groups with an 'lr' each" in refused(tmp_path / "knobs", {}, script)
