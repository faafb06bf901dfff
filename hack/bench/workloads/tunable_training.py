"""Trains one of three models that leave their steps to the SDK, so that all knobs can be changed.

    python -m hack.bench.workloads.tunable_training --model pictures --workers 0

``pictures`` waits for its loader, ``tiny`` pays for starting the work, and ``thumbnails`` for both
its loader and the arithmetic. Runs until it is stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib

import torch
from bottleneck_sidecar.training import StepMonitor
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

ENDLESS = 10**9
"""Samples of an epoch: more than any run takes."""

CLASSES = 10
SIDES = {"pictures": 512, "thumbnails": 256}
"""Pixels of a picture's side, for models that are trained on pictures."""

READ_SECONDS = 0.002
"""What a picture takes to come from where it is stored, while no CPU is needed."""

Sample = tuple[Tensor, int]


class Pictures(Dataset[Sample]):
    """Compressed pictures that are read, unpacked and shrunk one by one."""

    def __init__(self, features: int, side: int) -> None:
        self.side, self.small = side, int(features**0.5)
        generator = torch.Generator().manual_seed(7)
        noise = torch.randint(0, 64, (side, side), generator=generator, dtype=torch.uint8)
        self.packed = zlib.compress(noise.numpy().tobytes())

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> Sample:
        time.sleep(READ_SECONDS)
        raw = torch.frombuffer(bytearray(zlib.decompress(self.packed)), dtype=torch.uint8)
        picture = raw.view(1, self.side, self.side).float() / 255
        small = nn.functional.adaptive_avg_pool2d(picture, self.small)
        return small.flatten(), index % CLASSES


class Numbers(Dataset[Sample]):
    """Numbers that are in memory already."""

    def __init__(self, features: int) -> None:
        self.rows = torch.rand(256, features, generator=torch.Generator().manual_seed(7))

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> Sample:
        return self.rows[index % 256], index % CLASSES


FEATURES = {"pictures": 1024, "tiny": 32, "thumbnails": 1024}
WIDTHS = {"pictures": 1024, "tiny": 32, "thumbnails": 2048}
LAYERS = {"pictures": 1, "tiny": 2, "thumbnails": 6}


def train(args: argparse.Namespace) -> None:
    """The training loop."""
    monitor = StepMonitor()
    features, width = FEATURES[args.model], WIDTHS[args.model]
    side = SIDES.get(args.model)
    dataset = Numbers(features) if side is None else Pictures(features, side)
    loader = monitor.loader(
        DataLoader(dataset, batch_size=args.micro, num_workers=args.workers),
        accumulation=args.accumulation,
    )
    torch.manual_seed(args.seed)
    parts: list[nn.Module] = []
    for number in range(LAYERS[args.model]):
        parts += [nn.Linear(width if number else features, width), nn.ReLU()]
    network = nn.Sequential(*parts, nn.Linear(width, CLASSES))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for inputs, labels in loader:
        with monitor.forward():
            loss = nn.functional.cross_entropy(network(inputs), labels)
        monitor.backward(loss)
        monitor.optimizer_step(optimizer)


def main() -> None:
    """Trains until it is stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench.workloads.tunable_training",
        description="Train a small model whose knobs can all be changed while it runs.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--model", choices=sorted(FEATURES), default="pictures", help="what is trained")
    add("--seed", type=int, default=0, help="of the weights")
    add("--threads", type=int, default=1, help="of torch")
    add("--workers", type=int, default=0, help="loader processes")
    add("--micro", type=int, default=16, help="samples in a batch")
    add("--accumulation", type=int, default=1, help="batches in an optimizer step")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(args)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
