"""The inference example: numpy computes what torch does; the server answers or says why not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from examples.inference import app as server
from examples.inference.app import App, build
from examples.inference.model import CHARACTERS_PER_TOKEN, MAX_PROMPT, MAX_TOKENS, CharacterModel
from examples.inference.text import ALPHABET, TEXT
from examples.inference.train import CharacterNet, export, train


@pytest.fixture(scope="session")
def network() -> CharacterNet:
    return train(hidden=24, steps=40)[0]


@pytest.fixture(scope="session")
def model(network: CharacterNet, tmp_path_factory: pytest.TempPathFactory) -> CharacterModel:
    path = tmp_path_factory.mktemp("model") / "model.npz"
    export(network, path)
    return CharacterModel(path)


def test_numpy_generates_what_torch_does(network: CharacterNet, model: CharacterModel) -> None:
    characters = [ALPHABET.index(character) for character in TEXT[200 - MAX_PROMPT : 200]]
    with torch.no_grad():
        for _ in range(12):
            characters.append(int(network(torch.tensor([characters]))[0, -1].argmax()))
    expected = "".join(ALPHABET[character] for character in characters[MAX_PROMPT:])
    assert model.generate(context=50, tokens=3) == expected


@pytest.mark.parametrize("context", [0, 1, len(TEXT), 10**9 - 1])
def test_any_context_will_do(model: CharacterModel, context: int) -> None:
    assert len(model.generate(context, 3)) == 3 * CHARACTERS_PER_TOKEN


def test_the_work_is_bounded(model: CharacterModel) -> None:
    assert len(model.generate(10, 10**9 - 1)) == MAX_TOKENS * CHARACTERS_PER_TOKEN
    assert model.generate(10, 0) == ""


def test_a_missing_model_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"examples\.inference\.train --out"):
        CharacterModel(tmp_path / "none.npz")


async def get(app: Any, path: str, query: str = "") -> tuple[int, dict[str, Any]]:
    messages: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode()}
    await app(scope, None, send)
    return messages[0]["status"], json.loads(messages[1]["body"])


def test_it_answers(model: CharacterModel) -> None:
    status, body = asyncio.run(get(build(model), "/generate", "context=400&tokens=5"))
    assert (status, body) == (200, {"text": model.generate(400, 5)})
    assert asyncio.run(get(build(model), "/healthz")) == (200, {"waiting": 0})


@pytest.mark.parametrize("query", ["", "context=4", "context=a&tokens=1", "context=-1&tokens=1"])
def test_a_bad_request_is_told_what_to_write(model: CharacterModel, query: str) -> None:
    status, body = asyncio.run(get(build(model), "/generate", query))
    assert status == 400
    assert "must be a whole number" in body["error"]
    assert asyncio.run(get(build(model), "/elsewhere"))[0] == 404


def test_too_long_a_queue_turns_requests_away(
    model: CharacterModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_WAITING", 1)

    async def two() -> list[int]:
        app = App(model)
        calls = [get(app, "/generate", "context=4&tokens=64") for _ in range(2)]
        return [status for status, _ in await asyncio.gather(*calls)]

    assert asyncio.run(two()) == [200, 503]
