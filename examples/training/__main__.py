"""Trains a small network on image files, on one rank or several.

    python -m examples.training --seconds 60
    torchrun --nproc-per-node 2 -m examples.training --seconds 60

Prints a JSON line every two seconds; ``samples`` counts those of all ranks since the start. Stops
with exit status 0 after ``--seconds``, after ``--epochs``, or on SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from bottleneck_sidecar.training import StepMonitor
from torch import distributed, nn
from torch.utils.data import DataLoader, RandomSampler, Subset

from .dataset import Digits, complete, write
from .model import DigitNet

LINE_SECONDS = 2.0


class Stop:
    """Asked for by a signal or by the clock; looked at between steps."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds
        self.signalled = False
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, *_: Any) -> None:
        self.signalled = True

    @property
    def wanted(self) -> bool:
        return self.signalled or time.monotonic() >= self.end


class Lines:
    """What is printed: throughput, loss and accuracy since the line before."""

    def __init__(self, world: int) -> None:
        self.world = world
        self.time, self.samples = time.time(), 0
        self.seen, self.right, self.loss, self.batches = 0, 0, 0.0, 0

    def add(self, scores: torch.Tensor, labels: torch.Tensor, loss: float) -> None:
        """Counts one batch of this rank."""
        self.seen += len(labels)
        self.right += int((scores.argmax(1) == labels).sum())
        self.loss += loss
        self.batches += 1
        now = time.time()
        if now - self.time >= LINE_SECONDS:
            self.print(now)

    def print(self, now: float) -> None:
        """Prints the line and begins the next."""
        samples = self.seen * self.world
        self.samples += samples
        line = {
            "time": round(now, 3),
            "samples": self.samples,
            "samplesPerSecond": round(samples / (now - self.time), 1),
            "loss": round(self.loss / self.batches, 4),
            "accuracy": round(self.right / self.seen, 4),
        }
        print(json.dumps(line), flush=True)
        self.time = now
        self.seen, self.right, self.loss, self.batches = 0, 0, 0.0, 0


def average(network: nn.Module, stop: bool, world: int) -> bool:
    """Averages the gradients over all ranks, in one message; True if any rank wants to stop.

    That wish travels with the gradients so that all ranks stop after the same step; one that left
    alone would leave the others waiting for it."""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    message = torch.cat([g.flatten() for g in gradients] + [torch.tensor([float(stop)])])
    distributed.all_reduce(message)
    parts = message[:-1].split([g.numel() for g in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient) / world)
    return bool(message[-1] > 0)


def train(args: argparse.Namespace, rank: int, world: int) -> None:
    """The training loop."""
    digits = Digits(args.data)
    share = Subset(digits, range(rank, len(digits) // world * world, world))
    # One long pass: an epoch's end would stop and start the loader's workers every few seconds.
    sampler = RandomSampler(share, num_samples=len(share) * args.epochs)
    monitor = StepMonitor()
    loader = monitor.loader(
        DataLoader(
            share,
            batch_size=args.batch,
            sampler=sampler,
            num_workers=args.workers,
            prefetch_factor=args.prefetch if args.workers else None,
        ),
        accumulation=args.accumulation,
    )
    torch.manual_seed(0)  # all ranks begin with the same weights ...
    network = DigitNet()
    torch.manual_seed(rank)  # ... and each goes through its own share in its own order
    optimizer = torch.optim.SGD(network.parameters(), lr=args.lr, momentum=0.9)
    stop, lines = Stop(args.seconds), Lines(world)
    last = False
    for images, labels in loader:
        with monitor.forward(network):
            scores = network(images)
            loss = nn.functional.cross_entropy(scores, labels)
        monitor.backward(loss)
        if monitor.ends_step:
            last = stop.wanted
            if world > 1:
                last = average(network, last, world)
        monitor.optimizer_step(optimizer)
        if rank == 0:
            lines.add(scores, labels, loss.item())
        if last:
            break
    if rank == 0 and lines.batches:
        lines.print(time.time())
    monitor.close()


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.training",
        description="Train a small network on image files, decoded and augmented sample by sample.",
    )
    default = Path(os.environ.get("DIGITS", "build/digits"))
    parser.add_argument("--data", type=Path, default=default, help=f"the digits ({default})")
    parser.add_argument("--workers", type=int, default=0, help="loader processes to begin with (0)")
    parser.add_argument("--prefetch", type=int, default=2, help="batches each prepares ahead (2)")
    parser.add_argument("--batch", type=int, default=32, help="samples per batch and rank (32)")
    parser.add_argument("--accumulation", type=int, default=1, help="batches per step (1)")
    parser.add_argument("--lr", type=float, default=0.02, help="learning rate (0.02)")
    parser.add_argument("--epochs", type=int, default=10_000, help="at most (10000)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="at most (no limit)")
    return parser.parse_args()


def main() -> None:
    """Runs one rank; torchrun, or whoever sets RANK and WORLD_SIZE, starts one process for each."""
    args = arguments()
    torch.set_num_threads(1)
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if not complete(args.data):
        write(args.data)
    if world > 1:
        distributed.init_process_group("gloo")
    train(args, rank, world)
    if world > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    try:
        main()
    except FileNotFoundError as error:
        sys.exit(f"training: {error}")
