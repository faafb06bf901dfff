"""What is told of learning: losses, gradient norms, and a noise scale that is known beforehand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bottleneck_sidecar import knobs, learning, training
from bottleneck_sidecar.learning import Arriving, Learning, NoiseScale, norm_of
from bottleneck_sidecar.training import StepMonitor
from bottleneck_sidecar.wire import TrainingRank
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from .conftest import Inbox  # type: ignore[import-not-found]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step looks and reports, so that no test has to wait."""
    monkeypatch.setattr(knobs, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(training, "REPORT_SECONDS", 0.0)
    monkeypatch.setattr(learning, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(learning, "LOOK_SHARE", math.inf)
    for name in ("RANK", "WORLD_SIZE", "BOTTLENECK_SOCKET", "BOTTLENECK_KNOBS"):
        monkeypatch.delenv(name, raising=False)


def ended(inbox: Inbox, monitor: StepMonitor) -> TrainingRank:
    """The last report; the inbox holds ten."""
    inbox.read()
    monitor.close()
    report: TrainingRank = inbox.read()[-1]
    return report


class Device:
    """Stands for ``cuda:0``: what it computes arrives when the test says so."""

    type = "cuda"


class Distant:
    """A tensor on a device. Reading it would wait, so that is an error."""

    device = Device()
    dtype = torch.float32

    def __init__(self, value: float) -> None:
        self.value = torch.tensor([value])
        self.shape = self.value.shape

    def tolist(self) -> list[float]:
        raise AssertionError("waited for the device")

    __float__ = item = cpu = tolist


class Cuda:
    """As much of ``torch.cuda`` as a look needs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done = False
        self.events = 0
        monkeypatch.setattr(torch.cuda, "device", lambda device: _Nothing())
        monkeypatch.setattr(torch.cuda, "Event", lambda: self)
        empty = torch.empty
        monkeypatch.setattr(torch, "empty", lambda *a, pin_memory, **k: Host(empty(*a, **k)))

    def record(self) -> None:
        self.events += 1

    def query(self) -> bool:
        return self.done


class Host:
    """Pinned memory."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    def copy_(self, other: Distant, non_blocking: bool) -> None:
        assert non_blocking
        self.values.copy_(other.value)

    def tolist(self) -> list[float]:
        found: list[float] = self.values.tolist()
        return found


class _Nothing:
    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        return


def test_what_is_on_a_gpu_is_read_once_it_has_arrived_and_never_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda, arriving = Cuda(monkeypatch), Arriving()
    found: list[list[float]] = []
    for value in range(learning.PENDING + 3):
        arriving.read(Distant(float(value)), found.append)  # type: ignore[arg-type]
        arriving.settle()
    assert found == []
    assert cuda.events == learning.PENDING, "what is too much is left out"
    cuda.done = True
    arriving.settle()
    assert found == [[float(value)] for value in range(learning.PENDING)]
    arriving.read(torch.ones(2), found.append)
    assert found[-1] == [1.0, 1.0], "what is in the host's memory is read at once"


def test_other_devices_are_read_only_with_leave() -> None:
    class Metal(Distant):
        device = type("Metal", (), {"type": "mps"})()

        def tolist(self) -> list[float]:
            found: list[float] = self.value.tolist()
            return found

    found: list[list[float]] = []
    arriving = Arriving()
    arriving.read(Metal(3.0), found.append)  # type: ignore[arg-type]
    assert found == []
    arriving.read(Metal(3.0), found.append, wait=True)  # type: ignore[arg-type]
    assert found == [[3.0]]


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        ([1.5, torch.tensor(0.5)], (2, 2.0, 0, 0.5)),
        ([2.0, float("nan"), torch.tensor(float("inf"))], (3, 2.0, 2, 2.0)),
        ([-3.0], (1, -3.0, 0, -3.0)),
        ([1e30], (1, 1e9, 0, 1e18)),
        ([torch.ones(2), object(), "much"], (0, 0.0, 0, None)),
        ([], (0, 0.0, 0, None)),
    ],
)
def test_losses_are_counted_and_those_that_are_no_number_apart(
    inbox: Inbox, losses: list[Any], told: tuple[int, float, int, float | None]
) -> None:
    monitor = StepMonitor(socket=inbox.path)
    for loss in losses:
        monitor.step(samples=1, loss=loss)
    monitor.step(samples=1)
    last = ended(inbox, monitor)
    assert (last.losses, last.loss_sum, last.nonfinite_losses, last.loss) == told
    assert last.skipped_steps is None, "not known of a script that takes its own steps"


class Pair(nn.Module):
    """Two layers of a few weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 1)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.last(torch.tanh(self.first(values)))
        return found


def steps(
    monitor: StepMonitor, accumulation: int, factor: Callable[[int], float] = lambda _: 1.0
) -> Iterator[torch.Tensor]:
    """Trains; gives after each backward pass that ends a step the norm that there is then."""
    network, number = Pair(), 0
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    torch.manual_seed(1)
    data = TensorDataset(torch.randn(240, 4), torch.randn(240, 1))
    for values, target in monitor.loader(DataLoader(data, 4), accumulation=accumulation):
        with monitor.forward(network):
            loss = nn.functional.mse_loss(network(values), target) * factor(number)
        monitor.backward(loss)
        if monitor.ends_step:
            number += 1
            yield torch.cat([each.grad.flatten() for each in network.parameters()]).norm()  # type: ignore[union-attr]
        monitor.optimizer_step(optimizer)


def test_the_norm_of_the_gradients_is_that_of_the_whole_step(inbox: Inbox) -> None:
    monitor = StepMonitor(socket=inbox.path)
    norms = list(steps(monitor, 3))
    last = ended(inbox, monitor)
    assert last.gradient_norm == pytest.approx(norms[-1].item())
    assert last.nonfinite_gradient_norms == last.nonfinite_losses == last.skipped_steps == 0
    assert last.losses == 20


def test_a_gradient_that_is_no_number_is_counted_and_the_last_good_norm_stays(
    inbox: Inbox,
) -> None:
    monitor = StepMonitor(socket=inbox.path)
    norms = list(steps(monitor, 1, lambda step: 1.0 if step < 5 else math.inf))
    last = ended(inbox, monitor)
    assert last.nonfinite_gradient_norms == last.nonfinite_losses == len(norms) - 5
    assert last.gradient_norm == pytest.approx(norms[4].item())


def test_steps_that_fp16_leaves_out_are_counted_apart(inbox: Inbox) -> None:
    monitor = StepMonitor(socket=inbox.path, autocast="fp16")
    overflowing = {3, 7, 8}
    list(steps(monitor, 1, lambda step: 1e30 if step in overflowing else 1.0))
    last = ended(inbox, monitor)
    assert last.skipped_steps == len(overflowing)
    assert last.nonfinite_gradient_norms == 0, "that is how fp16 finds its scale"


def test_what_takes_long_to_look_at_is_looked_at_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    now, took = [0.0], 0.02
    monkeypatch.setattr(learning, "LOOK_SECONDS", 1.0)
    monkeypatch.setattr(learning, "LOOK_SHARE", 0.01)
    monkeypatch.setattr(learning.time, "perf_counter", lambda: now[0])

    def slow(optimizers: Any) -> None:
        now[0] += took

    monkeypatch.setattr(learning, "norm_of", slow)
    told, looks = Learning(), []
    for _ in range(80):
        told.begin(now[0])
        if told.looking:
            looks.append(round(now[0]))
            told.norm_of([])
        now[0] += 0.1
    assert looks == [0, 2, 4, 6], "20 ms in two seconds each, and not in each second"


def test_gradients_are_looked_at_in_one_step_a_second(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    monkeypatch.setattr(learning, "LOOK_SECONDS", 1e6)
    monkeypatch.setattr(learning, "norm_of", lambda found: looks.append(1) or norm_of(found))
    monitor = StepMonitor(socket=inbox.path)
    list(steps(monitor, 1))
    assert len(looks) == 1


def test_where_nobody_listens_nothing_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "norm_of", None)
    monkeypatch.setattr(Learning, "take_loss", None)
    assert len(list(steps(StepMonitor(), 2))) == 30


# -- the noise scale -------------------------------------------------------------------------------


class Drawn(nn.Module):
    """A loss whose gradient is ``mean`` plus the sample: noise of a known variance."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values @ self.weight


SIZE, LENGTH, DEVIATION = 400, 2.0, 1.0
"""True gradient: (LENGTH/√SIZE, …); each of SIZE components of a sample's deviates by DEVIATION."""

NOISE = SIZE * DEVIATION**2 / LENGTH**2


def drawn(count: int, seed: int = 3) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(count, SIZE, generator=generator) * DEVIATION + LENGTH / SIZE**0.5
    return TensorDataset(samples)


@pytest.mark.parametrize(("micro", "accumulation"), [(4, 8), (16, 2), (2, 50)])
def test_the_noise_scale_is_the_one_that_the_data_has(
    inbox: Inbox, tmp_path: Path, micro: int, accumulation: int
) -> None:
    """Whatever the sizes of the batches, and though they change on the way."""
    path = tmp_path / "knobs"
    monitor = StepMonitor(socket=inbox.path, knobs=str(path))
    model = Drawn(SIZE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    loader = monitor.loader(DataLoader(drawn(9600), micro), accumulation=accumulation)
    taken = 0
    for (values,) in loader:
        with monitor.forward(model):
            loss = model(values).mean()
        monitor.backward(loss)
        taken += monitor.optimizer_step(optimizer)
        if taken == 40:
            wish = {"micro": micro * 2, "accumulation": max(2, accumulation // 2)}
            path.write_text(json.dumps({"generation": 1, "batch": wish}))
    last = ended(inbox, monitor)
    assert last.gradient_square is not None
    assert last.gradient_variance is not None
    # Over the last 25 looks of such samples; of one another in all seeds that were tried.
    assert last.gradient_variance == pytest.approx(SIZE * DEVIATION**2, rel=0.15)
    assert last.gradient_variance / last.gradient_square == pytest.approx(NOISE, rel=0.5)


def test_without_parts_of_a_step_it_is_not_known(inbox: Inbox) -> None:
    monitor = StepMonitor(socket=inbox.path)
    list(steps(monitor, 1))
    last = ended(inbox, monitor)
    assert last.gradient_norm is not None
    assert (last.gradient_square, last.gradient_variance) == (None, None)


@given(
    square=st.floats(1e-3, 1e3),
    variance=st.floats(1e-3, 1e3),
    sizes=st.lists(st.tuples(st.integers(1, 64), st.integers(2, 64)), min_size=20, max_size=40),
)
def test_from_norms_without_scatter_follows_what_made_them(
    square: float, variance: float, sizes: list[tuple[int, int]]
) -> None:
    noise = NoiseScale()
    for part, times in sizes:
        whole = part * times
        norms = [(square + variance / size) ** 0.5 for size in (part, whole)]
        assert (noise.figures() is None) == (noise.looks < NoiseScale.LOOKS)
        noise.take(norms[0], part, norms[1], whole)
    found = noise.figures()
    assert found is not None
    assert found == (pytest.approx(square, rel=1e-6), pytest.approx(variance, rel=1e-6))


@pytest.mark.parametrize(
    "norms", [(1.0, 4, 1.0, 4), (math.nan, 1, 1.0, 4), (1.0, 1, math.inf, 4), (1.0, 0, 1.0, 4)]
)
def test_what_tells_nothing_of_noise_is_left_out(norms: tuple[float, int, float, int]) -> None:
    noise = NoiseScale()
    noise.take(*norms)
    assert noise.looks == 0


def test_an_estimate_that_is_not_above_zero_is_no_figure() -> None:
    noise = NoiseScale()
    for _ in range(2 * NoiseScale.LOOKS):
        noise.take(4.0, 1, 1.0, 4)  # all noise, and even less is left than that would leave
    assert noise.figures() is None


def test_gradients_that_are_spread_over_the_ranks_have_no_norm_here() -> None:
    class Spread(torch.Tensor):
        """As FSDP's gradients are: a norm of them would wait for the other ranks."""

    model = Drawn(3)
    model.weight.grad = torch.ones(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert norm_of([optimizer]) == pytest.approx(3**0.5)
    model.weight.grad = torch.ones(3).as_subclass(Spread)
    assert norm_of([optimizer]) is None
    assert norm_of([object()]) is None


def test_no_figure_is_too_large_for_the_wire() -> None:
    told = Learning()
    for _ in range(NoiseScale.LOOKS):
        told.begin(0.0)
        told.looking = True
        told.take_first(torch.tensor(3e30), 1.0, 1)
        told.take_whole(torch.tensor(2e30), 4, skipped=False)
    assert told.gradient_norm == learning.LARGEST < 2**63
    assert told.noise.looks == NoiseScale.LOOKS
    assert told.noise.figures() is None
