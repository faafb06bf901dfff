"""A two-layer convolutional network for 32 x 32 digits."""

from __future__ import annotations

from torch import Tensor, nn

from .dataset import CLASSES, SAMPLE_SIZE

CHANNELS = (48, 96)


class DigitNet(nn.Module):
    """About half a millisecond to a millisecond per sample and training step on one CPU core."""

    def __init__(self) -> None:
        super().__init__()
        first, second = CHANNELS
        side = SAMPLE_SIZE // 4
        self.layers = nn.Sequential(
            nn.Conv2d(1, first, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(second * side * side, CLASSES),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)
