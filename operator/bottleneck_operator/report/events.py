"""Kubernetes events for people who run ``kubectl describe``: specific, and never a flood."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

from ..api.conditions import Reason
from ..api.policy import BottleneckPolicy
from ..kube import Kube, KubeError
from ..observe.documents import clean

log = logging.getLogger(__name__)

REPEAT_SECONDS = 600.0
"""The same event about the same policy is not posted again within this time."""

NORMAL = {
    Reason.BOTTLENECK_FOUND,
    Reason.ACTION_PLANNED,
    Reason.ACTION_APPLIED,
    Reason.ACTION_ACKNOWLEDGED,
    Reason.ACTION_KEPT,
    Reason.AWAITING_APPROVAL,
    Reason.OBJECTIVES_MET,
    Reason.ROLLED_BACK,
}


@dataclass(slots=True)
class Recorder:
    """Posts events; the same one again only after ``REPEAT_SECONDS``."""

    kube: Kube
    instance: str
    _posted: dict[tuple[str, str, str], float] = field(default_factory=dict)

    async def post(self, policy: BottleneckPolicy, reason: Reason, message: str) -> None:
        """Posts one event about a policy. An API server that refuses it costs a log line only."""
        key = (policy.metadata.uid, reason, message)
        now = time.monotonic()
        if now - self._posted.get(key, -REPEAT_SECONDS) < REPEAT_SECONDS:
            return
        if len(self._posted) > 10_000:
            fresh = {k: t for k, t in self._posted.items() if now - t < REPEAT_SECONDS}
            self._posted = fresh if len(fresh) <= 10_000 else {}
        self._posted[key] = now
        moment = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        namespace = policy.metadata.namespace
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{policy.metadata.name[:200]}.{uuid4().hex[:16]}",
                "namespace": namespace,
            },
            "type": "Normal" if reason in NORMAL else "Warning",
            "reason": str(reason),
            "message": clean(message, 1024),
            "action": str(reason),
            "eventTime": moment,
            "reportingComponent": "bottleneck-operator",
            "reportingInstance": self.instance,
            "involvedObject": {
                "apiVersion": policy.api_version,
                "kind": policy.kind,
                "name": policy.metadata.name,
                "namespace": namespace,
                "uid": policy.metadata.uid,
            },
        }
        try:
            await self.kube.create(f"/api/v1/namespaces/{namespace}/events", body)
        except (KubeError, OSError, TimeoutError) as error:
            log.warning("event %s of %s not posted: %s", reason, policy.metadata.name, error)
