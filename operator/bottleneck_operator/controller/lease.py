"""Which of several operator processes acts: the one that holds a Lease (coordination.k8s.io/v1).

Only durations on this machine's own clock are compared, never the times in the Lease, which are of
another machine. A follower counts from when it first saw the holder's newest renewal, the holder
from before it sent it: so the holder's time ends first, whatever the network did in between. From
then on the holder writes nothing (``Kube.fence``), and goes on if it can renew the Lease before
anybody else has taken it.

A write that was under way when the process was held up cannot be called back. It does no harm,
since it names the version of the object as it was read before (docs/durability.md).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

import aiohttp

from ..kube import Kube, KubeError, Object

log = logging.getLogger(__name__)

LEASE_SECONDS = 10
"""How long a Lease is good for that is not renewed. Somebody else leads at most this and one retry
after the last renewal."""

RENEWALS = 5
"""Renewals in the time of a Lease: four in a row may fail."""

DRIFT = 0.05
"""By which share two clocks may run at different speeds; that of a sane machine is 0.0005."""

NO_ANSWER = (aiohttp.ClientError, OSError, TimeoutError)

NAMESPACE_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


def clock() -> float:
    """Seconds on a clock of this machine that nobody sets, and that goes on while the machine
    sleeps, as those of others do."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def own_namespace() -> str:
    """The namespace of this pod, "default" outside of a cluster."""
    try:
        with open(NAMESPACE_FILE) as file:
            return file.read().strip()
    except OSError:
        return os.environ.get("POD_NAMESPACE", "default")


def own_name() -> str:
    """What no other process that runs is called: the pod's name, of which a container that is
    started again follows one that has ended for certain; else one that is made up."""
    return os.environ.get("POD_NAME") or f"{socket.gethostname()}-{uuid4().hex[:8]}"


class LostError(Exception):
    """Somebody else holds the Lease, or may."""


@dataclass(slots=True)
class Election:
    """One process's part in the election. ``who`` is its name among those that run now; a process
    that ended before may have had it."""

    kube: Kube
    namespace: str
    name: str
    seconds: int = LEASE_SECONDS
    who: str = field(default_factory=own_name)
    clock: Callable[[], float] = clock
    identity: str = field(init=False)
    _until: float | None = None
    """When its own time ends, by ``clock``; None while it does not hold the Lease."""
    _lease: Object = field(default_factory=dict)
    """The Lease as it was last read or written."""
    _seen: float = 0.0
    """When this version of it was first seen, by ``clock``."""

    def __post_init__(self) -> None:
        self.identity = f"{self.who}_{uuid4().hex[:8]}"

    def left(self) -> float:
        """Seconds in which this process surely holds the Lease; none or less without it."""
        return 0.0 if self._until is None else self._until - self.clock()

    async def acquire(self) -> None:
        """Returns when the Lease is held."""
        told = ""
        while True:
            try:
                if await self._try():
                    log.info("leads as %s", self.identity)
                    return
                if told != (told := self._holder):
                    log.info("stands by: %s leads", told)
            except (KubeError, *NO_ANSWER) as error:
                quicker = isinstance(error, KubeError) and error.conflict
                if not quicker and told != (told := repr(error)):
                    log.warning("the Lease %s cannot be had yet: %s", self._path, told)
            await asyncio.sleep(self.seconds / RENEWALS / 2)

    async def keep(self) -> None:
        """Renews the Lease for as long as it can. Raises ``LostError`` when it is somebody
        else's."""
        every = pause = self.seconds / RENEWALS
        while True:
            await asyncio.sleep(pause)
            try:
                await self._renew()
                pause = every
            except (KubeError, *NO_ANSWER) as error:
                if pause == every:  # once is enough
                    log.warning("the Lease was not renewed, %.1fs are left: %r", self.left(), error)
                pause = every / 2

    async def release(self) -> None:
        """Gives the Lease up, so that nobody has to wait for its end."""
        if self._until is None:
            return
        self._until = None
        try:
            await self._write(holder="")
        except (KubeError, *NO_ANSWER) as error:
            log.info("the Lease was not given up, it ends by itself: %r", error)

    # -- one step of each --------------------------------------------------------------------------

    async def _try(self) -> bool:
        """Takes the Lease if nobody holds it; whether it is held."""
        try:
            found = await self._request("GET", self._path)
        except KubeError as error:
            if not error.not_found:
                raise
            if self._holder and not self._ended():
                return False  # somebody has deleted it under a leader that does not know yet
            found = await self._request("POST", self._folder, self._document())
        self._look(found)
        ours = self._holder.rpartition("_")[0] == self.who
        if self._holder and not ours and not self._ended():
            return False
        await self._write(holder=self.identity)
        return True

    async def _renew(self) -> None:
        try:
            await self._write(holder=self.identity)
        except KubeError as error:
            if not (error.conflict or error.not_found):
                raise
            # Perhaps it was our own write whose answer got lost.
            try:
                self._look(await self._request("GET", self._path))
            except KubeError as again:
                if again.not_found:
                    raise LostError("the Lease was deleted") from None
                raise
            if self._holder != self.identity:
                raise LostError(f"{self._holder or 'nobody'} holds the Lease") from None
            await self._write(holder=self.identity)

    async def _write(self, holder: str) -> None:
        began, now = self.clock(), datetime.now(UTC)
        moment = now.isoformat(timespec="microseconds").replace("+00:00", "Z")
        old = self._lease.get("spec") or {}
        spec = {**old, "holderIdentity": holder, "renewTime": moment}
        spec["leaseDurationSeconds"] = self.seconds
        if holder and holder != self._holder:
            spec["acquireTime"] = moment
            spec["leaseTransitions"] = (old.get("leaseTransitions") or 0) + 1
        # With the version that was read: of two that try, one gets a conflict.
        self._look(await self._request("PUT", self._path, {**self._lease, "spec": spec}))
        if holder:
            self._until = began + self.seconds * (1 - DRIFT)

    def _look(self, lease: Object) -> None:
        """Takes the Lease as it is now. Its time begins when a renewal is first seen."""
        known = (self._lease.get("metadata") or {}).get("resourceVersion")
        if lease["metadata"]["resourceVersion"] != known:
            self._seen = self.clock()
        self._lease = lease

    @property
    def _holder(self) -> str:
        return (self._lease.get("spec") or {}).get("holderIdentity") or ""

    def _ended(self) -> bool:
        """Whether the holder has not renewed it for as long as it said itself."""
        seconds = (self._lease.get("spec") or {}).get("leaseDurationSeconds") or self.seconds
        return self.clock() - self._seen >= float(seconds)

    def _document(self) -> Object:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name, "namespace": self.namespace},
        }

    @property
    def _folder(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"

    @property
    def _path(self) -> str:
        return f"{self._folder}/{self.name}"

    async def _request(self, method: str, path: str, body: Object | None = None) -> Object:
        seconds = self.seconds / RENEWALS
        return await self.kube.request(method, path, body, seconds=seconds)
