"""Fake sidecars: the real protocol on a loopback address of each pod, made-up figures behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field

from bottleneck_sidecar import wire

from .clock import Clock
from .models import Server, Trainer

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n"


@dataclass
class Mischief:
    """What is wrong with the telemetry of a workload now."""

    cut: bool = False
    delay: float = 0.0
    """Seconds of the fast clock by which every line is late."""
    hostile: str = ""
    other: tuple[str, str] = ("", "")
    """Name and uid of the pod that its lines claim to be of."""
    replicas: int = 1


@dataclass
class Sidecar:
    """The sidecar of one pod."""

    pod: str
    namespace: str
    uid: str
    address: str
    model: Trainer | Server
    clock: Clock
    mischief: Mischief
    knobs: str = ""
    _sequence: int = 0
    _seen: float = 0.0
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _told: asyncio.Event = field(default_factory=asyncio.Event)
    _old: bytes = b""

    async def start(self) -> None:
        """Listens."""
        self._seen = self.clock.now()
        self._server = await asyncio.start_server(self._serve, self.address, wire.PORT)

    def stop(self) -> None:
        """Ends; whoever listens to it is cut off."""
        if self._server is not None:
            self._server.close()
        self.cut()

    def cut(self) -> None:
        """Cuts those who listen now."""
        for writer in list(self._writers):
            writer.transport.abort()

    def annotate(self, text: str) -> None:
        """What the kubelet would write into the knobs file."""
        if text and text != self.knobs:
            self.knobs = text
            self.model.wish(json.loads(text))
            self._told.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self.mischief.cut:
                return
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HEAD)
            while not self.mischief.cut:
                lines = self._lines()
                if self.mischief.delay:
                    await asyncio.sleep(self.clock.real(self.mischief.delay))
                for line in lines:
                    writer.write(line + b"\n")
                await writer.drain()
                self._told.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._told.wait(), self.clock.real(1.0))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # whoever listened has gone, or the run ends
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    def _lines(self) -> list[bytes]:
        now = self.clock.now()
        parts = self.model.advance(now - self._seen, now, self.mischief.replicas)
        self._seen, self._sequence = now, self._sequence + 1
        name, uid = (self.pod, self.uid)
        if self.mischief.hostile == "other-pod":
            name, uid = self.mischief.other
        sample = wire.Sample(
            version=wire.VERSION,
            time=now,
            sequence=self._sequence,
            agent=self.uid,
            pod=name,
            namespace=self.namespace,
            uid=uid,
            gpus=[],
            ages={},
            **parts,
        )
        line, old = wire.encode(sample), self._old
        self._old = line
        return _twisted(self.mischief.hostile, line, old)


def _twisted(how: str, line: bytes, old: bytes) -> list[bytes]:
    if how == "duplicate":
        return [line, line]
    if how == "reordered":
        return [line, old] if old else [line]
    values = {"nan": float("nan"), "negative": -1e6, "huge": 1e300, "reset": 0}
    if how not in values:
        return [line]
    document = json.loads(line)
    for process in (*document["training"], *document["inference"]):
        for name in ("steps", "samples", "step_seconds", "requests", "arrivals", "latency_seconds"):
            if name in process:
                process[name] = values[how]
    return [json.dumps(document).encode()]
