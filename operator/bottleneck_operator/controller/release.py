"""Takes the operator's finalizer off every policy: without an operator nobody else would."""

from __future__ import annotations

import logging
import os

from ..api.conditions import FINALIZER, GROUP, POLICIES, VERSION
from ..kube import Kube, KubeError

log = logging.getLogger(__name__)


async def release() -> None:
    """Idempotent. Policies, their status and their reports stay. Raises ``KubeError``."""
    async with await Kube.connect(os.environ.get("KUBECONFIG")) as kube:
        root = f"/apis/{GROUP}/{VERSION}"
        try:
            items = (await kube.get(f"{root}/{POLICIES}")).get("items", [])
        except KubeError as error:
            if not error.not_found:
                raise
            items = []  # without the CRD there is no policy either
        for item in items:
            metadata = item["metadata"]
            kept = [name for name in metadata.get("finalizers", []) if name != FINALIZER]
            path = f"{root}/namespaces/{metadata['namespace']}/{POLICIES}/{metadata['name']}"
            version = metadata["resourceVersion"]
            try:
                await kube.patch(
                    path, {"metadata": {"finalizers": kept, "resourceVersion": version}}
                )
            except KubeError as error:
                if not error.not_found:
                    raise
            log.info("released policy %s/%s", metadata["namespace"], metadata["name"])
