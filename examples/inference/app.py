"""The server as an ASGI application: one model, one worker thread, first come first served.

    GET /generate?context=TOKENS&tokens=TOKENS   200 with the text
    GET /healthz                                 200 once the model is loaded

A request waits until the worker is free; the SDK's middleware reports that wait and the model's own
time, which is how the operator can tell queueing from slowness.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs

from bottleneck_sidecar.inference import TelemetryMiddleware, service

from .model import CharacterModel

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_WAITING = 256
"""Most requests that wait; later ones are turned away, which is better than a late answer."""


class BadRequestError(ValueError):
    """What the client should write instead."""


class App:
    """The application without telemetry."""

    def __init__(self, model: CharacterModel) -> None:
        self.model = model
        self.worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self.waiting = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            status, body = await self._answer(scope)
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": json.dumps(body).encode()})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                self.worker.shutdown()
                return

    async def _answer(self, scope: Message) -> tuple[int, dict[str, Any]]:
        if scope["path"] == "/healthz":
            return 200, {"waiting": self.waiting}
        if scope["path"] != "/generate":
            return 404, {"error": "there are /generate?context=..&tokens=.. and /healthz"}
        try:
            query = parse_qs(scope["query_string"].decode("ascii", "replace"))
            context, tokens = number(query, "context"), number(query, "tokens")
        except BadRequestError as error:
            return 400, {"error": str(error)}
        if self.waiting >= MAX_WAITING:
            return 503, {"error": f"{self.waiting} requests are waiting"}
        self.waiting += 1
        try:
            # The worker needs the request's context to find the request that it measures.
            run = contextvars.copy_context().run
            loop = asyncio.get_running_loop()
            text = await loop.run_in_executor(self.worker, run, self._generate, context, tokens)
        finally:
            self.waiting -= 1
        return 200, {"text": text}

    def _generate(self, context: int, tokens: int) -> str:
        with service():
            return self.model.generate(context, tokens)


def number(query: dict[str, list[str]], name: str) -> int:
    """A whole number from the query."""
    text = query.get(name, [""])[0]
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise BadRequestError(f"{name} must be a whole number, for instance {name}=16")
    return int(text)


def build(model: CharacterModel) -> TelemetryMiddleware:
    """The application as it is served."""
    return TelemetryMiddleware(App(model), concurrency=1)
