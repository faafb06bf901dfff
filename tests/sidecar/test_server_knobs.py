"""Knobs of a model server: what changes, what is answered, and that a wish is granted as a whole
or not at all."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bottleneck_sidecar import knobs
from bottleneck_sidecar.inference import Batcher, Batching, TelemetryMiddleware
from bottleneck_sidecar.server_knobs import ServerKnobs
from bottleneck_sidecar.weights import Weights
from torch import nn

from .conftest import Agent, eventually  # type: ignore[import-not-found]


@pytest.fixture(autouse=True)
def _always_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knobs, "LOOK_SECONDS", 0.0)


def write(path: Path, generation: int, **groups: dict[str, Any]) -> None:
    """Replaces the file, as the downward API does."""
    news = path.with_suffix(".new")
    news.write_text(json.dumps({"generation": generation, **groups}))
    news.rename(path)


class Wishes:
    """One knobs file and who follows it."""

    def __init__(self, path: Path, batching: Batching | None, weights: Weights | None) -> None:
        self.path = path
        self.knobs = ServerKnobs(str(path), batching, weights)

    def ask(self, generation: int, **groups: dict[str, Any]) -> tuple[str, str]:
        """Result and message of the answer."""
        write(self.path, generation, **groups)
        self.knobs.follow(meanwhile=lambda: None)
        answer = self.knobs.acknowledgement
        assert answer is not None
        assert answer.generation == generation
        return answer.result, answer.message


def test_limits_change_and_are_answered(tmp_path: Path) -> None:
    batching = Batching(max_size=8, delay_seconds=0.02, adjustable=True)
    wishes = Wishes(tmp_path / "knobs", batching, None)
    assert wishes.knobs.settable() == ["batch.maxSize", "batch.delayMilliseconds"]
    assert wishes.knobs.in_force() == {"batch.maxSize": 8.0, "batch.delayMilliseconds": 20.0}
    assert wishes.ask(1, batch={"maxSize": 8, "delayMilliseconds": 20}) == ("Unchanged", "")
    before = batching.limits
    assert wishes.ask(2, batch={"maxSize": 16, "delayMilliseconds": 5}) == ("Applied", "")
    assert batching.limits == (16, 0.005)
    assert (batching.max_size, batching.delay_seconds) == (16, 0.005)
    assert before == (8, 0.02), "who reads both at once never gets one of each"
    assert wishes.knobs.in_force() == {"batch.maxSize": 16.0, "batch.delayMilliseconds": 5.0}
    assert wishes.ask(3, batch={"delayMilliseconds": 0}) == ("Applied", "")
    assert batching.limits == (16, 0.0)
    assert wishes.ask(4) == ("Unchanged", "")
    wishes.knobs.follow(meanwhile=lambda: None)
    assert wishes.knobs.acknowledgement.generation == 4  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("batching", "wish", "message"),
    [
        (
            Batching(max_size=4, delay_seconds=0.5),
            {"batch": {"maxSize": 2}},
            "batch.maxSize cannot be changed here: write Batching(max_size=4, delay_seconds=0.5, "
            "adjustable=True) where the server reads its limits from that object",
        ),
        (
            None,
            {"batch": {"maxSize": 2, "delayMilliseconds": 1}},
            "batch.maxSize, batch.delayMilliseconds cannot be changed here: write Batching(",
        ),
        (
            Batching(max_size=4, adjustable=True),
            {"batch": {"maxSize": 2, "delayMilliseconds": 1}},
            "batch.delayMilliseconds cannot be changed here: write Batching(max_size=4, delay_sec",
        ),
        (
            Batching(max_size=4, adjustable=True),
            {"batch": {"maxSize": 2}, "precision": {"weights": "bf16"}},
            "precision.weights cannot be changed here: write TelemetryMiddleware(app, weights=",
        ),
        (
            Batching(max_size=4, adjustable=True),
            {"batch": {"maxSize": 2, "micro": 4}, "dataLoader": {"workers": 2}},
            "a model server does not take batch.micro, dataLoader.workers: leave them to training",
        ),
        (
            Batching(max_size=4, adjustable=True),
            {"batch": {"maxSize": 2}, "precision": {"autocast": "bf16"}},
            "does not take precision.autocast",
        ),
        (
            Batching(max_size=4, adjustable=True),
            {"batch": {"maxSize": 5000}},
            "batch.maxSize must be a whole number from 1 to 4096, not 5000",
        ),
    ],
)
def test_a_wish_that_cannot_be_granted_is_answered_with_what_to_write(
    batching: Batching | None, wish: dict[str, Any], message: str, tmp_path: Path
) -> None:
    before = batching and batching.limits
    result, found = Wishes(tmp_path / "knobs", batching, None).ask(7, **wish)
    assert result == "Refused"
    assert message in found
    assert (batching and batching.limits) == before, "nor was any of it done"


def test_the_type_of_the_weights_changes(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    wishes = Wishes(tmp_path / "knobs", None, Weights(model))
    assert wishes.knobs.settable() == ["precision.weights"]
    assert wishes.ask(1, precision={"weights": "fp32"}) == ("Unchanged", "")
    assert wishes.ask(2, precision={"weights": "bf16"}) == ("Applied", "")
    assert model.weight.dtype == torch.bfloat16
    assert wishes.knobs.in_force() == {"precision.weights": "bf16"}
    result, message = wishes.ask(3, precision={"weights": "fp16"})
    assert (result, model.weight.dtype) == ("Refused", torch.bfloat16)
    assert "write bf16 or fp32" in message
    assert wishes.ask(4, precision={"weights": "fp32"}) == ("Applied", "")
    assert model.weight.dtype == torch.float32


def test_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    class Stubborn(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x + torch.ones(2))

    batching = Batching(max_size=4, delay_seconds=0.0, adjustable=True)
    model = Stubborn(2, 2)
    wishes = Wishes(tmp_path / "knobs", batching, Weights(model, example=(torch.ones(1, 2),)))
    for generation, precision, words in ((1, "fp16", "is for GPUs"), (2, "bf16", "fails with")):
        wish: dict[str, Any] = {"batch": {"maxSize": 9}, "precision": {"weights": precision}}
        result, message = wishes.ask(generation, **wish)
        assert result == "Refused"
        assert words in message
        assert (batching.limits, model.weight.dtype) == ((4, 0.0), torch.float32)
    result, _ = wishes.ask(3, batch={"maxSize": 9}, precision={"weights": "fp32"})
    assert (result, batching.limits) == ("Applied", (9, 0.0)), "the weights had it already"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_size": 0}, ValueError, "at least 1, not 0"),
        ({"max_size": 2.5}, TypeError, "integer"),
        ({"delay_seconds": -1.0}, ValueError, "from 0 on"),
        ({"delay_seconds": float("nan")}, ValueError, "from 0 on"),
        ({"adjustable": True}, ValueError, "write what is adjustable"),
    ],
)
def test_limits_that_make_no_sense(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Batching(**options)


def test_what_is_reported_of_limits() -> None:
    assert Batching().knobs() == {}
    assert Batching(max_size=4).knobs() == {"batch.maxSize": 4.0}
    assert Batching(delay_seconds=0.0003).knobs() == {"batch.delayMilliseconds": 0.3}
    assert Batching(max_size=4, adjustable=True).settable() == ["batch.maxSize"]
    assert Batching(max_size=4).settable() == []


def test_a_running_server_is_changed_through_its_knobs_file(agent: Agent, tmp_path: Path) -> None:
    """All of it together: agent, middleware, batcher and weights, while requests come in."""
    model = nn.Linear(4, 4).eval()
    batching = Batching(max_size=8, delay_seconds=0.0, adjustable=True)
    weights = Weights(model, example=(torch.rand(1, 4),))
    used: list[tuple[int, torch.dtype | None]] = []

    def run(items: list[torch.Tensor]) -> list[torch.Tensor | Exception]:
        with torch.inference_mode(), weights.use() as served:
            used.append((len(items), served.dtype))
            return list(served(torch.stack(items)))

    batcher = Batcher(run, batching)
    answers: list[torch.Tensor] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        answers.append(await batcher(scope["item"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    path = tmp_path / "knobs"
    wrapped = TelemetryMiddleware(
        app,
        concurrency=1,
        batching=batching,
        weights=weights,
        socket=agent.socket,
        knobs=str(path),
    )

    async def client(stop: asyncio.Event) -> None:
        async def send(message: Any) -> None:
            return

        scope = {"type": "http", "path": "/", "item": torch.ones(4)}
        while not stop.is_set():
            await wrapped(scope, None, send)  # type: ignore[arg-type]

    def wish() -> Any:
        stream = agent.stream(interval=0.2)
        told: Any = stream.until(lambda sample: sample.inference).inference[0]
        names = {"batch.maxSize", "batch.delayMilliseconds", "precision.weights"}
        assert set(told.settable) == set(told.knobs) == names
        write(path, 5, batch={"maxSize": 3}, precision={"weights": "bf16"})
        told = stream.until(
            lambda sample: sample.inference and sample.inference[0].acknowledgement
        ).inference[0]
        stream.close()
        after = len(used)
        eventually(lambda: len(used) > after + 20)
        return told, used[after + 1 :]  # the first may have been formed before

    async def main() -> Any:
        stop = asyncio.Event()
        clients = [asyncio.create_task(client(stop)) for _ in range(16)]
        try:
            return await asyncio.to_thread(wish)
        finally:
            stop.set()
            await asyncio.gather(*clients)
            await batcher.close()

    told, later = asyncio.run(main())
    wrapped.monitor.close()
    assert (told.acknowledgement.generation, told.acknowledgement.result) == (5, "Applied")
    assert told.knobs == {
        "batch.maxSize": 3.0,
        "batch.delayMilliseconds": 0.0,
        "precision.weights": "bf16",
    }
    assert {dtype for _, dtype in later} == {torch.bfloat16}
    assert {size for size, _ in later} <= {1, 2, 3}
    assert max(size for size, _ in used) > 3
    assert {each.dtype for each in answers} == {torch.float32}
