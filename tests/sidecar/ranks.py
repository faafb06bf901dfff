"""One rank of a real job over gloo, started by the tests: ``python ranks.py RANK PORT SLOW``.

Trains ``STEPS`` steps for each of ``KINDS``, every kind with a monitor of its own; rank 1 is slowed
in its backward pass by ``SLOW`` seconds. Prints a hash of the weights after each kind; what the
monitors measured goes to BOTTLENECK_SOCKET.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from typing import Any

import torch
from bottleneck_sidecar.training import StepMonitor
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

STEPS = 12

KINDS = ("ddp", "hooked", "named", "manual")
"""DistributedDataParallel as it is; with a communication hook of the user's; with backward in a
phase of the user's; and none, with all-reduces of the script's own."""


class Slow(torch.autograd.Function):
    """Hands everything on, and takes its time in the backward pass."""

    seconds = 0.0

    @staticmethod
    def forward(context: Any, values: torch.Tensor) -> torch.Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> torch.Tensor:
        time.sleep(Slow.seconds)
        return gradients[0]


class Network(nn.Module):
    """Slow in the middle, so that gradients come before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.norm = nn.BatchNorm1d(64)  # has buffers, which are sent before forward
        self.last = nn.Linear(64, 1)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        hidden = Slow.apply(self.norm(self.first(values)))
        return self.last(torch.relu(hidden)).mean()  # type: ignore[no-any-return]


def main(rank: int, port: int, slow: float) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    Slow.seconds = slow if rank == 1 else 0.0
    for kind in KINDS:
        train(kind, rank)
    distributed.destroy_process_group()
    # Without an orderly end of the interpreter: gloo's threads may still hold tensors then, and now
    # and then end the process with "terminate called without an active exception" (PyTorch's pull
    # request 179291). What is tested here has been reported by now.
    sys.stdout.flush()
    os._exit(0)


def train(kind: str, rank: int) -> None:
    torch.manual_seed(0)
    network: Any = Network()
    if kind != "manual":
        network = DistributedDataParallel(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    torch.manual_seed(rank)
    distributed.barrier()
    monitor = StepMonitor()
    if kind == "hooked":  # there can be only one, and it has to be the user's
        network.register_comm_hook(None, halved)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = network(torch.randn(8, 64))
        if kind == "named":
            with monitor.phase("backward"):
                loss.backward()
        else:
            loss.backward()
        if kind == "manual":
            average(network)
        optimizer.step()
        monitor.step(samples=8)
    monitor.close()
    weights = torch.cat([each.detach().flatten() for each in network.parameters()])
    print(kind, hashlib.sha256(weights.numpy().tobytes()).hexdigest(), flush=True)


def average(network: nn.Module) -> None:
    """A script's own averaging, without waiting until it has to."""
    gradients = [each.grad for each in network.parameters() if each.grad is not None]
    pending = [distributed.all_reduce(each, async_op=True) for each in gradients]
    for work, gradient in zip(pending, gradients, strict=True):
        work.wait()
        gradient /= 2


def halved(state, bucket):  # type: ignore[no-untyped-def] # torch looks at the annotations
    """A communication hook of the user's."""
    buffer = bucket.buffer().div_(2)
    future = distributed.all_reduce(buffer, async_op=True).get_future()
    return future.then(lambda done: done.value()[0])


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
