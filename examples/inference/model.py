"""Runs the character model: the arithmetic of torch's GRU, in numpy.

The server needs only this, so that a new replica answers within a second of its start; importing
torch takes four to five on one core, most of the time in which a scaled-out replica is missed.
"""

from __future__ import annotations

from pathlib import Path

import numpy
from numpy.typing import NDArray

from .text import ALPHABET, TEXT

Array = NDArray[numpy.float32]

CHARACTERS_PER_TOKEN = 4
"""About what a token of a language model stands for in English; the trace counts tokens."""

MAX_PROMPT = 128
"""Most characters of the prompt that are read: the network forgets what lies further back."""

MAX_TOKENS = 48
"""Most tokens that one request gets."""


def sigmoid(values: Array) -> Array:
    return 1 / (1 + numpy.exp(-values))


class CharacterModel:
    """Generates text, one character after the other; time is proportional to their number."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(
                f"no model at {path}: run python -m examples.inference.train --out {path}"
            )
        with numpy.load(path) as arrays:
            self.weights: dict[str, Array] = {name: arrays[name] for name in arrays.files}
        self.layers = sum(name.startswith("gru.weight_hh") for name in self.weights)
        self.hidden = self.weights["embedding.weight"].shape[1]

    def generate(self, context: int, tokens: int) -> str:
        """``tokens`` tokens' worth of text that follows a prompt of ``context`` tokens."""
        length = context * CHARACTERS_PER_TOKEN
        end = length % len(TEXT) or len(TEXT)
        prompt = TEXT[max(0, end - min(length, MAX_PROMPT)) : end] or TEXT[:1]
        states = [numpy.zeros(self.hidden, numpy.float32) for _ in range(self.layers)]
        for character in prompt[:-1]:
            self._step(ALPHABET.index(character), states)
        output, last = [], ALPHABET.index(prompt[-1])
        for _ in range(min(tokens, MAX_TOKENS) * CHARACTERS_PER_TOKEN):
            top = self._step(last, states)
            scores = self.weights["head.weight"] @ top + self.weights["head.bias"]
            last = int(scores.argmax())
            output.append(ALPHABET[last])
        return "".join(output)

    def _step(self, character: int, states: list[Array]) -> Array:
        """Advances every layer's state by one character; returns the top one."""
        value = self.weights["embedding.weight"][character]
        for layer in range(self.layers):
            state = states[layer]
            weights, suffix = self.weights, f"_l{layer}"
            by_input = weights["gru.weight_ih" + suffix] @ value + weights["gru.bias_ih" + suffix]
            by_state = weights["gru.weight_hh" + suffix] @ state + weights["gru.bias_hh" + suffix]
            reset_in, update_in, new_in = numpy.split(by_input, 3)
            reset_by, update_by, new_by = numpy.split(by_state, 3)
            reset, update = sigmoid(reset_in + reset_by), sigmoid(update_in + update_by)
            new = numpy.tanh(new_in + reset * new_by)
            value = states[layer] = (1 - update) * new + update * state
        return value
