"""One rank of a DDP job whose batches and precision change while it runs, started by the tests:
``python batch_ranks.py RANK PORT FOLDER``.

Trains ``EPOCHS`` epochs for each of ``KINDS``, every kind with a monitor and a knobs file of its
own, which each rank finds written after another step. Prints a JSON line for each kind.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from bottleneck_sidecar import knobs, learning
from bottleneck_sidecar.precision import Precision
from bottleneck_sidecar.training import StepMonitor
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

EPOCHS, SAMPLES, MICRO, ACCUMULATION = 4, 90, 4, 3

BATCH = {"batch": {"micro": 2, "accumulation": 6}}

GROWN = {"batch": {"micro": 8}, "optimizer": {"learningRatePercent": 200}}

LARGER = {"batch": {"micro": 12, "accumulation": 1}}

KINDS: dict[str, list[dict[str, Any] | None]] = {
    "untouched": [None, None],
    "batch": [BATCH, BATCH],
    "workers": [BATCH | {"dataLoader": {"workers": 1}}] * 2,
    "precision": [BATCH | {"precision": {"autocast": "bf16"}}] * 2,
    "refused": [BATCH | {"precision": {"autocast": "bf16"}}] * 2,
    "unseen": [BATCH, None],
    "grown": [GROWN, GROWN],
    "exhausted": [LARGER, LARGER],
}
"""What the two ranks are asked for. In ``refused`` rank 1 cannot, and in ``exhausted`` its memory
holds no batch of more than ``FITS`` samples."""

FITS = 6

NOISE = {"parts": 3, "single": 1}
"""Batches of a step of those that measure the noise scale."""

SIZE, MEAN = 200, 0.1
"""Components of a sample's gradient, each of this mean and a deviation of 1."""

SEEN_AFTER = (2, 5)
"""Steps after which the ranks find their wish."""


class Network(nn.Sequential):
    """Notes in which precision it works."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
        self.double()
        self.types: list[str] = []
        self.fits = SAMPLES

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if len(values) > self.fits:
            raise torch.OutOfMemoryError(f"Tried to allocate {len(values)} GiB")
        # float64 keeps out of autocast, and shows sums that are not the same
        self.types.append(str(self[0](values).dtype))
        hidden = self[1](nn.functional.linear(values.float(), self[0].weight.float()))
        self.types[-1] = str(hidden.dtype)
        return super().forward(values)  # type: ignore[no-any-return]


def main(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    knobs.LOOK_SECONDS = learning.LOOK_SECONDS = 0.0
    learning.LOOK_SHARE = float("inf")
    distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    for generation, (kind, wishes) in enumerate(KINDS.items(), 1):
        wish = wishes[rank]
        if kind == "refused" and rank == 1:
            Precision.refusal = lambda *_: "its arithmetic is slow"  # type: ignore[method-assign]
        fits = FITS if kind == "exhausted" and rank == 1 else SAMPLES
        found = train(rank, folder / f"{kind}-{rank}", generation, wish, fits)
        print(json.dumps(found), flush=True)
    for kind, accumulation in NOISE.items():
        print(json.dumps({"kind": kind} | noise(rank, accumulation)), flush=True)
    distributed.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # see ranks.py


def train(
    rank: int, path: Path, generation: int, wish: dict[str, Any] | None, fits: int
) -> dict[str, Any]:
    """One kind; what came of it."""
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(SAMPLES, 8).double(), torch.randn(SAMPLES, 1).double())
    network = Network()
    network.fits = fits
    model = DistributedDataParallel(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    monitor = StepMonitor(knobs=str(path))
    sampler: Any = DistributedSampler(data, shuffle=True)
    loader = monitor.loader(DataLoader(data, MICRO, sampler=sampler), accumulation=ACCUMULATION)
    settings: list[Any] = []
    """After each step: micro, accumulation, workers, precision of the next."""
    reduced = 0
    rates: list[float] = []
    """The learning rate of each step."""
    optimizer.register_step_pre_hook(lambda *_: rates.append(optimizer.param_groups[0]["lr"]))

    def counting(state: Any, bucket: Any) -> Any:
        nonlocal reduced
        reduced += bucket.is_last()
        buffer = bucket.buffer().div_(2)
        return (
            distributed.all_reduce(buffer, async_op=True)
            .get_future()
            .then(lambda done: done.value()[0])
        )

    counting.__annotations__ = {}
    model.register_comm_hook(None, counting)
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        for values, target in loader:
            with monitor.forward(model):
                loss = nn.functional.mse_loss(model(values), target)
            monitor.backward(loss)
            if monitor.optimizer_step(optimizer):
                inner = loader._inner
                settings.append(
                    [inner.micro, inner.accumulation, inner.workers, monitor._precision.mode]
                )
                if wish is not None and len(settings) == SEEN_AFTER[rank]:
                    path.write_text(json.dumps({"generation": generation} | wish))
    answer = monitor._knobs.acknowledgement
    monitor.close()
    return {
        "settings": settings,
        "answer": answer and [answer.generation, answer.result, answer.step, answer.message],
        "types": network.types,
        "reduced": reduced,
        "rates": rates,
        "weights": [each.tolist() for each in network.parameters()],
    }


class Drawn(nn.Module):
    """A loss whose gradient is the sample."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(SIZE))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values @ self.weight


def noise(rank: int, accumulation: int) -> dict[str, Any]:
    """What the noise scale comes out as, of samples in which it is known."""
    torch.manual_seed(rank)
    data = TensorDataset(torch.randn(960, SIZE) + MEAN)
    model = DistributedDataParallel(Drawn())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    monitor = StepMonitor(knobs="/nowhere")
    loader = monitor.loader(DataLoader(data, 8), accumulation=accumulation)
    for (values,) in loader:
        with monitor.forward(model):
            loss = model(values).mean()
        monitor.backward(loss)
        monitor.optimizer_step(optimizer)
    measured = monitor._learning.noise
    monitor.close()
    return {"figures": measured.figures(), "looks": measured.looks}


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
