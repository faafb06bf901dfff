"""One long-lived stream from each sidecar that a policy asks for."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import aiohttp
from aiohttp.http_exceptions import LineTooLong
from bottleneck_sidecar import wire

from .documents import clean
from .history import History
from .pods import Pod

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0
"""Wanted time between two lines of a stream: a bin of the judge's series."""

BACKOFF_SECONDS = (0.5, 5.0)
"""Shortest and longest wait before a lost stream is opened again."""

SILENCE_SECONDS = 30.0
"""A stream without a whole line for so long is opened anew: a cut cable sends no goodbye."""

LINES_PER_SECOND = 10.0
BYTES_PER_SECOND = 32 * 1024
"""As much as is read of one pod in the long run; a sidecar sends a line of 1 to 3 KiB a second,
and at most one more for each acknowledgement. What comes faster waits in the pod's own socket."""

BURST_SECONDS = 5.0
"""So much of it may come at once."""


class Refusal(StrEnum):
    """Why a line, or all of a stream, was not taken."""

    STATUS = "status"
    TOO_LONG = "too long"
    TOO_SLOW = "too slow"
    TOO_FAST = "too fast"
    """Read later than it came, not lost; counted once for each pause."""
    MALFORMED = "malformed"
    OTHER_POD = "other pod"
    OUT_OF_ORDER = "out of order"


@dataclass(slots=True)
class Pace:
    """How much is read of one pod: the generic cell rate algorithm, with lines and bytes as its
    cells."""

    paid: float = 0.0
    """Until when what was read is paid for, in seconds of a monotonic clock."""

    def spend(self, size: int, now: float) -> float:
        """Takes a line of so many bytes at ``now``; gives the seconds to wait before the next."""
        cost = max(1 / LINES_PER_SECOND, size / BYTES_PER_SECOND)
        self.paid = max(self.paid, now) + cost
        return max(0.0, self.paid - now - BURST_SECONDS)


@dataclass(slots=True)
class _Stream:
    pod: Pod
    task: asyncio.Task[None]
    history: History
    listeners: dict[str, Callable[[], None]] = field(default_factory=dict)


class Streams:
    """Histories of pods, filled by their sidecars. ``refused`` counts what was not taken, by
    reason; ``lines`` the lines that were."""

    def __init__(self) -> None:
        self._streams: dict[str, _Stream] = {}
        self._session: aiohttp.ClientSession | None = None
        self.lines = 0
        self.refused: dict[Refusal, int] = dict.fromkeys(Refusal, 0)

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
        wait, pace = shortest, Pace()
        while True:
            try:
                if await self._read(pod, history, pace):
                    wait = shortest
            except (aiohttp.ClientError, OSError):
                pass  # it is opened again
            except Exception:
                # One surprise must not be the last that is heard of a pod.
                log.exception("the stream of pod %s/%s failed", pod.namespace, pod.name)
            # Jitter, so that the sidecars of a node that came back are not dialled all at once.
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311
            wait = min(longest, wait * 2)

    async def _read(self, pod: Pod, history: History, pace: Pace) -> bool:
        """Reads one stream to its end; whether it said anything that could be used."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=wire.MAX_BYTES,
                # Packed, a small answer could become a large one.
                auto_decompress=False,
            )
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        url = f"http://{host}:{wire.PORT}/v1/stream?interval={INTERVAL_SECONDS:g}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=3, sock_read=SILENCE_SECONDS)
        useful = False
        try:
            # A deadline of its own: to send a byte now and then is no answer. And a redirect would
            # lead the operator away from the pod that the API server named.
            async with (
                asyncio.timeout(SILENCE_SECONDS) as deadline,
                self._session.get(url, timeout=timeout, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    self._refuse(Refusal.STATUS)
                    return False
                loop = asyncio.get_running_loop()
                while line := await response.content.readline():
                    useful = self._take(pod, history, line) or useful
                    pause = pace.spend(len(line), loop.time())
                    if pause > 0:
                        self._refuse(Refusal.TOO_FAST)
                        pause += 1.0  # not anew for each line
                    deadline.reschedule(loop.time() + pause + SILENCE_SECONDS)
                    await asyncio.sleep(pause)
        except LineTooLong:
            self._refuse(Refusal.TOO_LONG)
        except TimeoutError:
            if deadline.expired():
                self._refuse(Refusal.TOO_SLOW)
        return useful

    def _take(self, pod: Pod, history: History, line: bytes) -> bool:
        try:
            sample = wire.decode_sample(line)
        except wire.WireError as error:
            self._refuse(Refusal.MALFORMED)
            said = clean(str(error))
            log.debug("line of pod %s/%s refused: %s", pod.namespace, pod.name, said)
            return False
        if (sample.uid, sample.pod, sample.namespace) != (pod.uid, pod.name, pod.namespace):
            # An address can be handed to a new pod; its figures are not this pod's.
            self._refuse(Refusal.OTHER_POD)
            return False
        if not history.add(time.time(), sample):
            self._refuse(Refusal.OUT_OF_ORDER)
            return False
        self.lines += 1
        stream = self._streams.get(pod.uid)
        for wake in list(stream.listeners.values()) if stream else []:
            wake()
        return True

    def _refuse(self, reason: Refusal) -> None:
        self.refused[reason] += 1
