"""Stands between the operator and the API server, and does it harm.

It also keeps an operator to one namespace: what it asks of the whole cluster is asked of that one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

_WIDE = re.compile(
    r"^(/api/v1|/apis/bottleneck\.dev/v1alpha1)/(pods|bottleneckpolicies|bottleneckreports)$"
)
_ACTION = re.compile(r"/(bottleneckreports|scale|resize|pods/[^/]+)(/|$|\?)|/scale$")

REASONS = {409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError"}

Strike = Callable[[int], Awaitable[tuple[str, Callable[[], Awaitable[None]]] | None]]
"""Asked at the nth write of an action: what becomes of it, and what to do at that moment."""


async def _nothing(_: int) -> None:
    return None


@dataclass
class Proxy:
    """One for each round. ``strike`` is asked at each write of an action; ``agent`` is the name
    under which the audit log has the operator's writes."""

    server: str
    pki: Path
    namespace: str
    agent: str = "chaos-operator"
    strike: Strike = _nothing
    cut: bool = False
    delay: float = 0.0
    writes: int = 0
    requests: int = 0
    _watches: dict[int, tuple[web.StreamResponse, web.BaseRequest]] = field(default_factory=dict)
    _begun: set[asyncio.Task[Any]] = field(default_factory=set)
    _runner: web.ServerRunner | None = None
    _session: aiohttp.ClientSession | None = None
    port: int = 0

    async def start(self) -> None:
        """Listens on a free port of the loopback."""
        context = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))
        context.load_cert_chain(self.pki / "admin.crt", self.pki / "admin.key")
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        server = web.Server(self._handle, access_log=None, handler_cancellation=True)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Ends every connection."""
        self.drop_watches()
        if self._runner is not None:
            await self._runner.cleanup()
        await asyncio.gather(*self._begun)
        if self._session is not None:
            await self._session.close()

    def drop_watches(self) -> None:
        """Cuts every watch."""
        for _, request in list(self._watches.values()):
            _abort(request)

    async def expire_watches(self) -> None:
        """Tells every watch that its resource version is too old."""
        status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
        line = json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
        for response, request in list(self._watches.values()):
            with contextlib.suppress(OSError, RuntimeError):
                await response.write(line)
            _abort(request)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests += 1
        if self.cut:
            return _abort(request)
        if self.delay:
            await asyncio.sleep(self.delay)
        path = _WIDE.sub(rf"\1/namespaces/{self.namespace}/\2", request.path)
        body = await request.read()
        if "watch" in request.query:
            return await self._watch(request, path)
        then = None
        if request.method not in ("GET", "HEAD") and _ACTION.search(path):
            self.writes += 1
            then = await self.strike(self.writes)
        kind, act = then if then is not None else ("", None)
        if kind.startswith("answer-"):
            return _refusal(int(kind[7:]))
        if act is not None and kind.endswith("before-write"):
            await act()
            return _abort(request)
        # What was begun is finished, whoever waits for it no longer: of a request that is broken
        # off the audit log does not tell whether it was carried out.
        forward = asyncio.create_task(self._forward(request, path, body))
        self._begun.add(forward)
        forward.add_done_callback(self._begun.discard)
        status, kept, data = await asyncio.shield(forward)
        if act is not None and kind.endswith("after-write"):
            await act()
            return _abort(request)
        if kind == "lost-answer" or status == 0:
            return _abort(request)
        if kind == "half-answer":
            half = web.StreamResponse(status=status, headers=kept)
            half.content_length = len(data)
            await half.prepare(request)
            assert request.transport is not None
            request.transport.write(data[: len(data) // 2])
            return _abort(request)
        return web.Response(status=status, body=data, headers=kept)

    async def _forward(
        self, request: web.BaseRequest, path: str, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        assert self._session is not None
        try:
            async with self._session.request(
                request.method,
                self.server + path,
                params=list(request.query.items()),
                data=body or None,
                headers=self._headers(request),
            ) as answer:
                data = await answer.read()
                kind = answer.headers.get("Content-Type", "application/json")
                return answer.status, {"Content-Type": kind}, data
        except (aiohttp.ClientError, OSError):
            return 0, {}, b""

    async def _watch(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        assert self._session is not None
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        try:
            async with self._session.get(
                self.server + path,
                params=list(request.query.items()),
                headers=self._headers(request),
                timeout=aiohttp.ClientTimeout(total=None),
            ) as answer:
                response.set_status(answer.status)
                await response.prepare(request)
                self._watches[id(request)] = response, request
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
        except (aiohttp.ClientError, OSError, RuntimeError):
            return _abort(request)
        finally:
            self._watches.pop(id(request), None)
        return response

    def _headers(self, request: web.BaseRequest) -> dict[str, str]:
        wanted = ("Accept", "Content-Type")
        kept = {name: request.headers[name] for name in wanted if name in request.headers}
        return {**kept, "User-Agent": self.agent, "Accept-Encoding": "identity"}


def _abort(request: web.BaseRequest) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def _refusal(status: int) -> web.Response:
    headers = {"Retry-After": "1"} if status == 429 else {}
    document = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    document |= {"code": status, "reason": REASONS[status], "message": "so the plan wants it"}
    return web.json_response(document, status=status, headers=headers)
