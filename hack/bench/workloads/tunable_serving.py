"""Serves one of two models whose batches and weights can be changed while it serves.

    python -m hack.bench.workloads.tunable_serving --model recurrent --port 8000

``recurrent`` takes many small operations for an answer, which a batch shares; ``wide`` a few large
ones. Answers ``GET /generate?context=N&tokens=N``. Runs until it is stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import parse_qs

import torch
import uvicorn
from bottleneck_sidecar.batcher import Batcher
from bottleneck_sidecar.batching import Batching
from bottleneck_sidecar.inference import TelemetryMiddleware
from bottleneck_sidecar.weights import Weights
from torch import Tensor, nn

Message = MutableMapping[str, Any]
WIDTH = 2048
ROWS = 4
"""Rows that one request to ``wide`` brings."""


class Recurrent(nn.Module):
    """Words one after the other, through two small recurrent cells."""

    def __init__(self, words: int, size: int = 128) -> None:
        super().__init__()
        self.words = words
        self.first, self.second = nn.GRUCell(size, size), nn.GRUCell(size, size)
        self.size = size

    def forward(self, values: Tensor) -> Tensor:
        one = two = torch.zeros_like(values)
        for _ in range(self.words):
            one = self.first(values, one)
            two = self.second(one, two)
            values = values + two
        return values

    def inputs(self, contexts: list[int]) -> Tensor:
        """What the requests of a batch ask, a row each."""
        return torch.tensor(contexts, dtype=torch.float32)[:, None].expand(-1, self.size) / 4096


class Wide(nn.Module):
    """Large linear layers."""

    def __init__(self, layers: int = 4) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for _ in range(layers):
            parts += [nn.Linear(WIDTH, WIDTH), nn.ReLU()]
        self.layers = nn.Sequential(*parts)

    def forward(self, values: Tensor) -> Tensor:
        found: Tensor = self.layers(values)
        return found

    def inputs(self, contexts: list[int]) -> Tensor:
        """What the requests of a batch ask, ``ROWS`` rows each."""
        rows = torch.tensor(contexts, dtype=torch.float32).repeat_interleave(ROWS)
        return rows[:, None].expand(-1, WIDTH) / 4096


class App:
    """The application without telemetry."""

    def __init__(self, args: argparse.Namespace, batching: Batching) -> None:
        torch.manual_seed(args.seed)
        wide = args.model == "wide"
        self.model = (Wide() if wide else Recurrent(args.words)).eval()
        self.waiting = args.waiting
        self.weights = Weights(self.model, example=(self.model.inputs([1]),))
        for size in (1, args.max_size):
            self.run([1] * size)  # the first call is slow: nobody shall wait for it
        self.batcher: Batcher[int, float] = Batcher(self.run, batching)

    def run(self, contexts: list[int]) -> list[float]:
        """The answers to one batch."""
        with torch.inference_mode(), self.weights.use() as model:
            found = model(self.model.inputs(contexts))
            return found.float().view(len(contexts), -1).mean(1).tolist()  # type: ignore[no-any-return]

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                if message["type"] == "lifespan.shutdown":
                    await self.batcher.close()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        query = parse_qs(scope["query_string"].decode("ascii", "replace"))
        status, answer = 503, 0.0
        if self.batcher.waiting < self.waiting:
            status, answer = 200, await self.batcher(int(query["context"][0]))
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


def main() -> None:
    """Serves until it is stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench.workloads.tunable_serving",
        description="Serve a small model whose knobs can all be changed while it serves.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--port", type=int, default=8000, help="on the loopback interface")
    add("--model", choices=["recurrent", "wide"], default="recurrent", help="what is served")
    add("--words", type=int, default=24, help="recurrent: steps that an answer takes")
    add("--seed", type=int, default=0, help="of the weights")
    add("--threads", type=int, default=1, help="of torch")
    add("--max-size", type=int, default=1, help="most requests in a batch")
    add("--delay", type=float, default=0.0, help="seconds that a batch waits to be full")
    add("--waiting", type=int, default=64, help="most that wait; more are turned away (503)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    batching = Batching(args.max_size, args.delay, adjustable=True)
    app = App(args, batching)
    watched = TelemetryMiddleware(app, concurrency=1, batching=batching, weights=app.weights)
    uvicorn.run(watched, host="127.0.0.1", port=args.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
