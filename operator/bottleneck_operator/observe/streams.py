"""One long-lived stream from each sidecar that a policy asks for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
from bottleneck_sidecar import wire

from .history import History
from .pods import Pod

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0
"""Wanted time between two lines of a stream: a bin of the judge's series."""

BACKOFF_SECONDS = (0.5, 5.0)
"""Shortest and longest wait before a lost stream is opened again."""

SILENCE_SECONDS = 30.0
"""A stream without a line for so long is opened anew: a cut cable sends no goodbye."""


@dataclass(slots=True)
class _Stream:
    pod: Pod
    task: asyncio.Task[None]
    history: History
    listeners: dict[str, Callable[[], None]] = field(default_factory=dict)


class Streams:
    """Histories of pods, filled by their sidecars. ``refused`` counts lines that were not taken, by
    reason; ``lines`` those that were."""

    def __init__(self) -> None:
        self._streams: dict[str, _Stream] = {}
        self._session: aiohttp.ClientSession | None = None
        self.lines = 0
        self.refused: dict[str, int] = {}

    def follow(self, policy: str, pods: list[Pod], wake: Callable[[], None]) -> dict[str, History]:
        """Follows exactly these pods for a policy; gives their histories by pod name. ``wake`` is
        called whenever one of them said something."""
        wanted = {pod.uid: pod for pod in pods if pod.ip}
        for uid, stream in list(self._streams.items()):
            if policy in stream.listeners and uid not in wanted:
                self._leave(policy, uid)
        for uid, pod in wanted.items():
            if uid in self._streams and self._streams[uid].pod.ip != pod.ip:
                self._streams[uid].task.cancel()
                del self._streams[uid]
            if uid not in self._streams:
                history = History()
                task = asyncio.create_task(self._run(pod, history), name=f"stream {pod.name}")
                self._streams[uid] = _Stream(pod, task, history)
            self._streams[uid].listeners[policy] = wake
        return {pod.name: self._streams[uid].history for uid, pod in wanted.items()}

    def unfollow(self, policy: str) -> None:
        """Leaves all pods of a policy."""
        for uid in list(self._streams):
            self._leave(policy, uid)

    async def close(self) -> None:
        """Ends every stream."""
        tasks = [stream.task for stream in self._streams.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._streams.clear()
        if self._session is not None:
            await self._session.close()

    def _leave(self, policy: str, uid: str) -> None:
        stream = self._streams[uid]
        stream.listeners.pop(policy, None)
        if not stream.listeners:
            stream.task.cancel()
            del self._streams[uid]

    async def _run(self, pod: Pod, history: History) -> None:
        shortest, longest = BACKOFF_SECONDS
        wait = shortest
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                if await self._read(pod, history):
                    wait = shortest
            # Jitter, so that the sidecars of a node that came back are not dialled all at once.
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311
            wait = min(longest, wait * 2)

    async def _read(self, pod: Pod, history: History) -> bool:
        """Reads one stream to its end; whether it said anything that could be used."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                read_bufsize=wire.MAX_BYTES,
                auto_decompress=False,
            )
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        url = f"http://{host}:{wire.PORT}/v1/stream?interval={INTERVAL_SECONDS:g}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=3, sock_read=SILENCE_SECONDS)
        useful = False
        # A redirect would lead the operator away from the pod that the API server named.
        async with self._session.get(url, timeout=timeout, allow_redirects=False) as response:
            if response.status != 200:
                self._refuse("status")
                return False
            while True:
                try:
                    line = await response.content.readline()
                except ValueError:
                    self._refuse("too long")
                    return useful
                if not line:
                    return useful
                useful = self._take(pod, history, line) or useful

    def _take(self, pod: Pod, history: History, line: bytes) -> bool:
        try:
            sample = wire.decode_sample(line)
        except wire.WireError as error:
            self._refuse("malformed")
            log.debug("line of pod %s/%s refused: %s", pod.namespace, pod.name, error)
            return False
        if sample.uid != pod.uid:
            # An address can be handed to a new pod; its figures are not this pod's.
            self._refuse("other pod")
            return False
        if not history.add(time.time(), sample):
            self._refuse("out of order")
            return False
        self.lines += 1
        stream = self._streams.get(pod.uid)
        for wake in list(stream.listeners.values()) if stream else []:
            wake()
        return True

    def _refuse(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1
