"""The model families: convolutions on images, a perceptron on numbers, a transformer on text; and
two to serve: a recurrent text generator and an image classifier."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .data import CLASSES, RECORD_FLOATS, SAMPLE_SIDE


class Convolutional(nn.Module):
    """Two convolutions and a linear layer on 32 x 32 images."""

    def __init__(self, width: float, layers: int) -> None:
        super().__init__()
        channels = max(4, int(32 * width))
        parts: list[nn.Module] = [nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        for _ in range(layers):
            parts += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()]
        parts += [nn.MaxPool2d(2), nn.Flatten()]
        self.layers = nn.Sequential(*parts, nn.Linear(channels * (SAMPLE_SIDE // 4) ** 2, CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class Perceptron(nn.Module):
    """Linear layers on 4,096 numbers."""

    def __init__(self, width: float, layers: int) -> None:
        super().__init__()
        size = max(8, int(384 * width))
        parts: list[nn.Module] = [nn.Linear(RECORD_FLOATS, size), nn.ReLU()]
        for _ in range(layers):
            parts += [nn.Linear(size, size), nn.ReLU()]
        self.layers = nn.Sequential(*parts, nn.Linear(size, CLASSES))

    def forward(self, values: Tensor) -> Tensor:
        return self.layers(values)


class Transformer(nn.Module):
    """An encoder on 64 tokens."""

    def __init__(self, width: float, layers: int) -> None:
        super().__init__()
        size = max(16, int(96 * width) // 4 * 4)
        self.embedding = nn.Embedding(128, size)
        layer = nn.TransformerEncoderLayer(size, 4, 2 * size, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(size, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(tokens)).mean(1))


TRAINED = {"cnn": Convolutional, "mlp": Perceptron, "transformer": Transformer}


class Generator(nn.Module):
    """Generates one token after the other with a recurrent network, for a batch at once."""

    def __init__(self, width: float) -> None:
        super().__init__()
        size = max(32, int(384 * width))
        self.embedding = nn.Embedding(128, size)
        self.cells = nn.ModuleList(nn.GRUCell(size, size) for _ in range(2))
        self.head = nn.Linear(size, 128)

    @torch.inference_mode()
    def answer(self, contexts: list[int], tokens: list[int]) -> list[int]:
        """The last token for each request; a batch takes as long as its longest answer."""
        token = torch.tensor(contexts) % 128
        states = [torch.zeros(len(contexts), self.head.in_features) for _ in self.cells]
        for _ in range(max(tokens)):
            value = self.embedding(token)
            for layer, cell in enumerate(self.cells):
                value = states[layer] = cell(value, states[layer])
            token = self.head(value).argmax(1)
        return token.tolist()


class Classifier(nn.Module):
    """Classifies images of 64 x 64 points; a batch takes as long as its images together."""

    def __init__(self, width: float) -> None:
        super().__init__()
        channels = max(4, int(32 * width))
        self.layers = nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(channels * 16, CLASSES),
        )

    @torch.inference_mode()
    def answer(self, contexts: list[int], tokens: list[int]) -> list[int]:
        """The class of each request's image; ``tokens`` (at least 1) are how many crops it has."""
        crops = [max(1, count // 8) for count in tokens]
        images = torch.rand(sum(crops), 3, 64, 64)
        best = self.layers(images).argmax(1).tolist()
        return best[: len(contexts)]


SERVED = {"generator": Generator, "classifier": Classifier}
