"""Telemetry for people: the streams of some pods for a while, through the API server.

A laptop cannot dial pod addresses, but the API server can: its pod proxy leads to the sidecar's
port. Inside the cluster, where the proxy is not allowed, the pods are dialled directly.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

import aiohttp
from bottleneck_sidecar import wire

from ..kube import Kube, KubeError
from ..observe.pods import Pod
from .live import in_words
from .output import RefusedError

INTERVAL_SECONDS = 1.0
"""Wanted time between two lines, as the operator asks for it."""

SILENCE_SECONDS = 20.0
"""A stream without a line for so long is opened anew."""

RETRY_SECONDS = 1.0

PATIENCE_SECONDS = 10.0
"""How long a pod that says nothing at all is asked again: a sidecar starts within a second."""

MOST_PODS = 90
"""Most pods that are followed at once; the connections to one API server are bounded."""

Take = Callable[[float, Pod, wire.Sample, bytes], None]
"""What is done with a line: time of arrival, its pod, the sample, and the line itself."""


@dataclass(slots=True)
class Tap:
    """Follows pods and tells how far it is. ``lines`` counts what came of each pod, ``troubles``
    tells what went wrong last with a pod of which nothing came."""

    kube: Kube
    pods: Sequence[Pod]
    take: Take
    lines: dict[str, int] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)
    stopped: bool = False

    async def run(self, seconds: float | None) -> float:
        """Follows them for some seconds, or without a limit until Ctrl-C; gives the seconds that it
        took. Raises ``RefusedError`` where nothing at all came of any pod, and at once where
        nothing can come any more."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            self.stopped = True
            stop.set()

        self.lines = {pod.name: 0 for pod in self.pods}
        began = time.monotonic()
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):  # on Windows
                loop.add_signal_handler(number, interrupt)
        tasks = [asyncio.create_task(self._follow(pod)) for pod in self.pods]
        progress = asyncio.create_task(self._progress(began, seconds))
        everything = asyncio.gather(*tasks, return_exceptions=True)
        # The tasks end by themselves only when nothing can come any more.
        everything.add_done_callback(lambda _: stop.set())
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await stop.wait()
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                with contextlib.suppress(NotImplementedError):
                    loop.remove_signal_handler(number)
            for task in (*tasks, progress):
                task.cancel()
            await asyncio.gather(everything, progress, return_exceptions=True)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        if not any(self.lines.values()) and not self.stopped:
            reasons = "; ".join(f"{pod}: {why}" for pod, why in self.troubles.items())
            raise RefusedError(f"no telemetry came: {reasons or 'the sidecars said nothing'}")
        return time.monotonic() - began

    async def _follow(self, pod: Pod) -> None:
        direct, began = False, time.monotonic()
        while self.lines[pod.name] or time.monotonic() - began < PATIENCE_SECONDS:
            stream = self._dialled(pod) if direct else self._proxied(pod)
            try:
                async with contextlib.aclosing(stream) as lines:
                    async for line in lines:
                        self._line(pod, line)
                self.troubles[pod.name] = "the sidecar ended the stream"
            except KubeError as error:
                inside = "KUBERNETES_SERVICE_HOST" in os.environ and bool(pod.ip)
                if error.status == 403 and inside and not direct:
                    direct = True
                    continue
                self.troubles[pod.name] = _why(error)
                if error.status in (401, 403, 404):
                    return
            except (OSError, TimeoutError, ValueError) as error:
                self.troubles[pod.name] = str(error) or "it fell silent"
            await asyncio.sleep(RETRY_SECONDS)

    def _proxied(self, pod: Pod) -> AsyncGenerator[bytes, None]:
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}:{wire.PORT}/proxy/v1/stream"
        return self.kube.lines(path, {"interval": f"{INTERVAL_SECONDS:g}"}, SILENCE_SECONDS)

    async def _dialled(self, pod: Pod) -> AsyncGenerator[bytes, None]:
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        url = f"http://{host}:{wire.PORT}/v1/stream?interval={INTERVAL_SECONDS:g}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=3, sock_read=SILENCE_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(read_bufsize=wire.MAX_BYTES) as session,
                session.get(url, timeout=timeout, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    raise ConnectionError(f"the sidecar answered {response.status}")
                while line := await response.content.readline():
                    yield line
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error)) from None

    def _line(self, pod: Pod, line: bytes) -> None:
        try:
            sample = wire.decode_sample(line)
        except wire.WireError as error:
            self.troubles[pod.name] = f"a line that cannot be read: {error}"
            return
        if sample.uid != pod.uid:
            self.troubles[pod.name] = "another pod answered; the pod was replaced meanwhile"
            return
        self.lines[pod.name] += 1
        self.take(time.time(), pod, sample, line)

    async def _progress(self, began: float, seconds: float | None) -> None:
        """A line on standard error: rewritten each second on a terminal, now and then elsewhere."""
        tty = sys.stderr.isatty()
        of = f" of {seconds:g}" if seconds is not None else ""
        try:
            while True:
                await asyncio.sleep(1.0 if tty else 10.0)
                speaking = sum(1 for count in self.lines.values() if count)
                text = (
                    f"{time.monotonic() - began:.0f}{of} s, {sum(self.lines.values())} lines"
                    f" from {speaking} of {len(self.pods)} pods"
                )
                print(f"\r{text}\x1b[K" if tty else text, end="" if tty else "\n", file=sys.stderr)
                sys.stderr.flush()
        finally:
            if tty:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def few(pods: Sequence[Pod]) -> tuple[list[Pod], str]:
    """As many pods as can be followed, and a remark if that is not all of them."""
    if len(pods) <= MOST_PODS:
        return list(pods), ""
    return list(pods[:MOST_PODS]), f"only the first {MOST_PODS} of {len(pods)} pods are listened to"


def _why(error: KubeError) -> str:
    if error.status == 404:
        return "the pod is gone"
    if error.status in (500, 502, 503) and "streams are open" not in error.message:
        return f"nothing listens on its port {wire.PORT}; look at the container bottleneck-agent"
    return in_words(error)
