"""The policies of a namespace, for the webhook: read when a pod is created, not waited for."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType

from kubernetes.aio.config import ConfigException

from ..api.conditions import GROUP, POLICIES, VERSION
from ..kube import Kube, KubeError, Object

logger = logging.getLogger(__name__)

READ_SECONDS = 1.0
"""Longest that a pod waits for them: it is created without what they would have given it."""


class Policies:
    """An asynchronous context manager. ``kube`` is None where there is no API server to ask."""

    def __init__(self, kube: Kube | None) -> None:
        self._kube = kube

    async def __aenter__(self) -> Policies:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._kube is not None:
            await self._kube.__aexit__(kind, error, trace)

    async def of(self, namespace: str) -> list[Object]:
        """Those of a namespace; none where they cannot be read in time."""
        if self._kube is None or not namespace:
            return []
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{POLICIES}"
        try:
            async with asyncio.timeout(READ_SECONDS):
                # "0": what the API server has in memory is new enough.
                found: list[Object] = (await self._kube.get(path, resourceVersion="0"))["items"]
        except (KubeError, OSError, TimeoutError) as error:
            logger.warning("the policies of %s cannot be read: %s", namespace, error)
            return []
        return found


async def connected() -> Kube | None:
    """A door to the API server, or None where there is none: pods then get the sidecar only."""
    try:
        return await Kube.connect()
    except ConfigException as error:
        logger.warning("no API server (%s): pods get the sidecar, and no kept sizes", error)
        return None
