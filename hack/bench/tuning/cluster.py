"""A cluster of one workload with one pod, in memory: all of the Kubernetes API that a policy's loop
asks for. A pod's knobs annotation ends as its knobs file, as the kubelet would write it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bottleneck_operator.api.conditions import INJECTED_LABEL, KNOBS_ANNOTATION, POLICIES
from bottleneck_operator.kube import KubeError, Object, Resource
from bottleneck_operator.observe.history import History
from bottleneck_operator.observe.pods import Pod

LABELS = {"app": "tuned"}


def write_knobs(path: Path, text: str) -> None:
    """Replaces the file as a whole: no reader sees half of it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


class Lines:
    """Telemetry of the one pod, from its agent's recording; takes the place of the streams."""

    def __init__(self, history: History) -> None:
        self.history = history

    def follow(self, policy: str, pods: list[Pod], wake: Callable[[], None]) -> dict[str, History]:
        """The histories of these pods."""
        return {pod.name: self.history for pod in pods}

    def unfollow(self, policy: str) -> None:
        """Nothing was begun."""


class Cluster:
    """Answers as an API server does. ``told`` gets every event's reason and message."""

    def __init__(
        self, policy: Object, pod: str, knobs: Path, told: Callable[[str, str], None]
    ) -> None:
        ref = policy["spec"]["targetRef"]
        # An hour old: a target that is new would be suspected of having changed.
        created = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        meta = {"namespace": policy["metadata"]["namespace"], "creationTimestamp": created}
        self.kind: str = ref["kind"]
        self.target: Object = {
            "kind": ref["kind"],
            "metadata": {**meta, "name": ref["name"], "uid": "target", "generation": 1},
            "spec": {"selector": {"matchLabels": LABELS}, "replicas": 1, "parallelism": 1},
            "status": {"active": 1, "replicas": 1, "readyReplicas": 1},
        }
        running = {"name": "main", "ready": True, "restartCount": 0, "state": {"running": {}}}
        self.pod: Object = {
            "metadata": {
                **meta,
                "name": pod,
                "uid": "pod",
                "labels": {**LABELS, INJECTED_LABEL: "true"},
                "annotations": {},
            },
            "status": {
                "phase": "Running",
                "podIP": "127.0.0.1",
                "startTime": created,
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [running],
            },
        }
        self.knobs = knobs
        self.told = told
        self.reports: dict[str, Object] = {}
        self.status: Object = {}
        self.written: dict[int, float] = {}
        """When each generation of knobs was written, seconds since the Unix epoch."""
        self.watch: Callable[[Object], object] = lambda document: None
        """Gets the pod when it has changed."""

    async def resource(self, api_version: str, kind: str) -> Resource | None:
        """How a kind is addressed."""
        if kind != self.kind:
            return None
        return Resource(api_version, f"{kind.lower()}s", kind == "Deployment")

    async def get(self, path: str, **query: str) -> Object:
        """The target, or an empty list: nobody else is here."""
        if path.endswith(f"/{self.target['metadata']['name']}"):
            return self.target
        return {"items": []}

    async def create(self, path: str, body: Object) -> Object:
        """A report, or an event."""
        if path.endswith("/events"):
            self.told(body["reason"], body["message"])
            return body
        name = body["metadata"]["name"]
        if name in self.reports:
            raise KubeError(409, f"{name} exists")
        body["metadata"] |= {"uid": name, "resourceVersion": "1"}
        self.reports[name] = body
        return json.loads(json.dumps(body))  # type: ignore[no-any-return]

    async def patch(self, path: str, body: Any, content_type: str = "") -> Object:
        """The status of the policy or of a report, or the annotation of the pod."""
        if f"/{POLICIES}/" in path:
            self.status = body[0]["value"]
            return {}
        if "/pods/" in path:
            text = body["metadata"]["annotations"][KNOBS_ANNOTATION]
            self.pod["metadata"]["annotations"][KNOBS_ANNOTATION] = text
            write_knobs(self.knobs, text)
            self.written[json.loads(text)["generation"]] = time.time()
            self.watch(self.pod)
            return self.pod
        report = self.reports[path.split("/")[-2]]
        meta = report["metadata"]
        meta["resourceVersion"] = str(int(meta["resourceVersion"]) + 1)
        report["status"] = body["status"]
        return json.loads(json.dumps(report))  # type: ignore[no-any-return]

    async def delete(self, path: str) -> None:
        """A report that is old."""
        self.reports.pop(path.rpartition("/")[2], None)
