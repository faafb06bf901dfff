"""Trains the character model with torch and exports its weights for the server.

Done once, when the image is built (half a minute):

    python -m examples.inference.train --out /tmp/model.npz
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy
import torch
from torch import nn

from .text import ALPHABET, TEXT

HIDDEN = 160
"""So small that the weights stay in a core's own cache; replicas on one machine would otherwise
wait for the memory that they share, and two would hardly serve more than one."""
LAYERS = 2
SEQUENCE = 48
BATCH = 16
STEPS = 200


class CharacterNet(nn.Module):
    """Which character comes next."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(ALPHABET), hidden)
        self.gru = nn.GRU(hidden, hidden, num_layers=LAYERS, batch_first=True)
        self.head = nn.Linear(hidden, len(ALPHABET))

    def forward(self, characters: torch.Tensor) -> torch.Tensor:
        states, _ = self.gru(self.embedding(characters))
        return self.head(states)


def train(hidden: int = HIDDEN, steps: int = STEPS) -> tuple[CharacterNet, float]:
    """The trained network and its last loss; the same weights every time on the same machine."""
    torch.set_num_threads(1)
    torch.manual_seed(1863)
    network = CharacterNet(hidden)
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-3)
    characters = torch.tensor([ALPHABET.index(character) for character in TEXT])
    windows = characters.unfold(0, SEQUENCE + 1, 1)
    loss = torch.tensor(0.0)
    for _ in range(steps):
        batch = windows[torch.randint(len(windows), (BATCH,))]
        scores = network(batch[:, :-1])
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    return network, loss.item()


def export(network: CharacterNet, path: Path) -> None:
    """Writes the weights as plain arrays, under the names that torch gives them."""
    arrays = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    with path.open("wb") as file:
        numpy.savez(file, **arrays)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the character model.")
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    network, loss = train()
    export(network, out)
    print(f"{out}: {STEPS} steps, loss {loss:.2f}")
