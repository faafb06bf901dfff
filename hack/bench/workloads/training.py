"""Trains one of three model families; every fault of training can be told to it by an option.

    python -m hack.bench.workloads.training --data build/bench/data --model cnn --workers 1

With RANK and WORLD_SIZE set it is one rank of several, over gloo. Runs until it is stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from bottleneck_sidecar.training import StepMonitor
from torch import distributed, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from .data import Images, Sample, Table, Text, prepare
from .models import TRAINED


class Stuck(Dataset[Sample]):
    """Hands out samples until a moment has come, then waits for a byte that nobody will write."""

    def __init__(self, inner: Dataset[Sample], after: float) -> None:
        self.inner = inner
        self.moment = time.monotonic() + after
        self.pipe = os.pipe()

    def __len__(self) -> int:
        return len(self.inner)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Sample:
        if time.monotonic() >= self.moment:
            os.read(self.pipe[0], 1)
        return self.inner[index]


def dataset(args: argparse.Namespace) -> Dataset[Sample]:
    """What the model is trained on."""
    found: Dataset[Sample]
    if args.model == "cnn":
        found = Images(args.data, args.cold, args.cost)
    elif args.model == "mlp":
        found = Table(args.data, args.cold, args.cost, args.mapped)
    else:
        found = Text(args.data, args.cold, args.cost)
    return Stuck(found, args.hang_after) if args.hang == "loader" else found


def average(network: nn.Module, ballast: torch.Tensor, world: int) -> None:
    """Averages the gradients over all ranks, in one message."""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    message = torch.cat([g.flatten() for g in gradients] + [ballast])
    distributed.all_reduce(message)
    parts = message[: len(message) - len(ballast)].split([g.numel() for g in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient) / world)


class Faults:
    """What may go wrong between two steps."""

    def __init__(self, args: argparse.Namespace, monitor: StepMonitor) -> None:
        self.args = args
        self.monitor = monitor
        self.began = time.monotonic()
        self.kept: list[torch.Tensor] = []
        self.folder = Path(tempfile.mkdtemp(prefix="checkpoints-", dir=args.scratch))
        self.state = torch.rand(int(args.checkpoint_mb * 2**18))

    def late(self, after: float) -> bool:
        return time.monotonic() - self.began >= after

    def work(self) -> int:
        """How often this rank computes in this step."""
        args = self.args
        return args.work * (args.later_work if self.late(args.later_after) else 1)

    def after_step(self, number: int, network: nn.Module) -> None:
        args = self.args
        if args.checkpoint_every and number % args.checkpoint_every == 0:
            with self.monitor.checkpoint() if args.mark_checkpoints else contextlib.nullcontext():
                self.checkpoint(network)
        if args.leak_mb:
            self.kept.append(torch.ones(int(args.leak_mb * 2**18)))
        if self.late(args.crash_after):
            network(torch.zeros(1, 1))  # what a model says to data of another shape
        if args.hang == "lock" and self.late(args.hang_after):
            lock = threading.Lock()
            lock.acquire()
            lock.acquire()  # the classic: it already has it

    def checkpoint(self, network: nn.Module) -> None:
        path = self.folder / "checkpoint.pt"
        with path.open("wb") as file:
            torch.save({"network": network.state_dict(), "state": self.state}, file)
            file.flush()
            os.fsync(file.fileno())


def train(args: argparse.Namespace, rank: int, world: int) -> None:
    """The training loop."""
    monitor = StepMonitor()
    items = dataset(args)
    loader: Any = DataLoader(
        items,
        batch_size=args.batch,
        sampler=RandomSampler(items, replacement=True, num_samples=10**9),  # type: ignore[arg-type]
        num_workers=args.workers,
        prefetch_factor=2 if args.workers else None,
    )
    if args.in_memory:
        loader = itertools.cycle([next(iter(loader)) for _ in range(4)])
    loader = monitor.loader(loader)
    torch.manual_seed(args.seed)
    network = TRAINED[args.model](args.width, args.layers)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    ballast = torch.zeros(int(args.gradient_mb * 2**18))
    faults = Faults(args, monitor)
    for number, (inputs, labels) in enumerate(loader, start=1):
        optimizer.zero_grad()
        loss = torch.zeros(())
        for _ in range(faults.work()):
            half = torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16")
            with monitor.phase("forward"), half:
                loss = nn.functional.cross_entropy(network(inputs).float(), labels)
            with monitor.phase("backward"):
                loss.backward()
        if world > 1:
            if args.hang == "collective" and rank == world - 1 and faults.late(args.hang_after):
                threading.Event().wait()  # this rank never joins in: all others wait for it
            average(network, ballast, world)
        optimizer.step()
        if args.read_loss:
            loss.item()
        monitor.step(samples=len(labels), loss=loss)
        faults.after_step(number, network)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench.workloads.training",
        description="Train a small model, with whatever fault the options ask for.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, default=Path("build/bench/data"), help="folder of the data sets")
    add("--scratch", type=Path, default=None, help="folder for checkpoints")
    add("--model", choices=sorted(TRAINED), default="cnn", help="model family")
    add("--seed", type=int, default=0, help="of weights and order")
    add("--threads", type=int, default=1, help="of torch")
    add("--workers", type=int, default=1, help="loader processes")
    add("--batch", type=int, default=32, help="samples per step and rank")
    add("--cost", type=float, default=0.0, help="extra preprocessing per sample, in rounds")
    add("--cold", action="store_true", help="read every sample from the disk, not from the cache")
    add("--mapped", action="store_true", help="mlp: map the data set into memory")
    add("--in-memory", action="store_true", help="load four batches and use them over and over")
    add("--width", type=float, default=1.0, help="of the model")
    add("--layers", type=int, default=2, help="of the model")
    add("--precision", choices=["fp32", "bf16"], default="fp32", help="of the computing")
    add("--work", type=int, default=1, help="how often each step computes (a slow rank: more)")
    add("--later-work", type=int, default=1, help="the same, that many times over, later on")
    add("--later-after", type=float, default=1e9, help="seconds until --later-work")
    add("--gradient-mb", type=float, default=0.0, help="ranks: MB to average besides the model's")
    add("--read-loss", action="store_true", help="read the loss in every step")
    add("--checkpoint-every", type=int, default=0, help="steps between checkpoints; 0: none")
    add("--checkpoint-mb", type=float, default=16.0, help="MB in a checkpoint besides the model")
    add("--no-mark-checkpoints", dest="mark_checkpoints", action="store_false", help="untold")
    add("--leak-mb", type=float, default=0.0, help="MB of memory lost in every step")
    add("--crash-after", type=float, default=1e9, help="seconds until it fails")
    add("--hang", choices=["loader", "lock", "collective"], help="where it gets stuck")
    add("--hang-after", type=float, default=8.0, help="seconds until then")
    return parser.parse_args()


def main() -> None:
    """Runs one rank."""
    args = arguments()
    torch.set_num_threads(args.threads)
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    prepare(args.data)
    if world > 1:
        distributed.init_process_group("gloo")
    train(args, rank, world)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
