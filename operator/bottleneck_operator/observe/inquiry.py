"""Asks the API server about a target while something is wrong with it, and only then.

What a watch or the reading of the target itself already tells is not asked. A question that fails
costs its answer, never the turn: the workload can be judged without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp

from ..kube import Kube, KubeError, Object
from .changes import newest_change, revisions_of
from .cluster import Target, owner_of_replicas
from .documents import clean, items, part, seconds_of
from .facts import Answers, Refused, Topic
from .pods import pod_of
from .selectors import to_string
from .troubles import RECENT_SECONDS

LEAST_SECONDS = 10.0
"""Least time between two rounds of questions about one target."""

CALM_SECONDS = 60.0
"""The same, once the trouble is older than ``FRESH_SECONDS`` and the target has not changed: nobody
needs to ask six times a minute about what is wrong for hours."""

FRESH_SECONDS = 120.0

PATIENCE_SECONDS = 2.0
"""Longest that a round may take: a decision is due within five seconds of a breach."""

MOST = "50"
"""Most objects of one answer. A Deployment keeps 10 old ReplicaSets unless told otherwise."""

_REVISIONS = {
    "Deployment": "replicasets",
    "StatefulSet": "controllerrevisions",
    "DaemonSet": "controllerrevisions",
}


@dataclass(slots=True)
class Inquiry:
    """Questions about one target and their answers. ``requests`` counts requests to the API server
    by what was asked for."""

    answers: Answers = field(default_factory=Answers)
    requests: dict[str, int] = field(default_factory=dict)
    _since: float | None = None
    _asked: float | None = None
    _generation: int = 0

    def rest(self) -> None:
        """Nothing is wrong: what was answered is forgotten, since it will be old when asked for."""
        self.answers, self._since = Answers(), None

    def due(self, generation: int, now: float) -> bool:
        """Whether to ask (again) at ``now`` about a target of that generation."""
        if self._asked is None or self._since is None:
            return self._asked is None or now - self._asked >= LEAST_SECONDS
        lively = now - self._since <= FRESH_SECONDS or generation != self._generation
        return now - self._asked >= (LEAST_SECONDS if lively else CALM_SECONDS)

    async def ask(
        self,
        kube: Kube,
        namespace: str,
        target: Target,
        pods_known: bool,
        hpa_known: bool,
        now: float,
    ) -> None:
        """One round of questions, at most four requests. Raises nothing that an API server can
        cause: what it did not answer is in ``answers.failed``."""
        workload = target.workload
        self._asked, self._generation = now, workload.generation
        self._since = now if self._since is None else self._since
        questions: list[tuple[Topic, Callable[[], Awaitable[dict[str, Any]]]]] = [
            (Topic.CHANGE, lambda: self._change(kube, namespace, target)),
        ]
        if not hpa_known and target.replicas is not None and target.resource.scalable:
            questions.append((Topic.HPA, lambda: self._hpa(kube, namespace, target)))
        if workload.missing != 0 and not workload.refused and target.ref.kind != "Deployment":
            # A Deployment's own conditions say what its pods were refused for; of others only
            # events do.
            questions.append((Topic.REFUSAL, lambda: self._refusal(kube, namespace, target, now)))
        if not pods_known and workload.wanted != 0:
            # Pods without a sidecar are in no watch.
            questions.append((Topic.PODS, lambda: self._pods(kube, namespace, target)))
        self.answers = Answers()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                for topic, question in questions:
                    await self._answer(topic, question)
        except TimeoutError:
            for topic, _ in questions:
                if topic not in self.answers.asked:
                    self._fail(topic, "the API server took too long to answer")

    async def _answer(
        self, topic: Topic, question: Callable[[], Awaitable[dict[str, Any]]]
    ) -> None:
        try:
            found = await question()
        except KubeError as error:
            if error.status == 403:
                why = "the operator may not ask: give it the rights in the chart's rbac.yaml"
            else:
                why = f"the API server answered {error.status}"
            self._fail(topic, why)
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            self._fail(topic, "the API server did not answer")
        else:
            asked = self.answers.asked | {topic}
            self.answers = replace(self.answers, asked=asked, **found)

    def _fail(self, topic: Topic, why: str) -> None:
        self.answers = replace(self.answers, failed={**self.answers.failed, topic: why})

    def _count(self, what: str) -> None:
        self.requests[what] = self.requests.get(what, 0) + 1

    async def _list(self, kube: Kube, path: str, **query: str) -> list[Any]:
        self._count(path.rpartition("/")[2])
        listed: Object = await kube.get(path, limit=MOST, **query)
        return items(listed.get("items"))

    async def _change(self, kube: Kube, namespace: str, target: Target) -> dict[str, Any]:
        ref, plural = target.ref, _REVISIONS.get(target.ref.kind)
        revisions = None
        if plural is not None and ref.api_version == "apps/v1":
            path = f"/apis/apps/v1/namespaces/{namespace}/{plural}"
            found = await self._list(kube, path, labelSelector=to_string(target.selector))
            revisions = revisions_of(found, target.uid)
        return {"change": newest_change(str(ref), target.workload, revisions)}

    async def _hpa(self, kube: Kube, namespace: str, target: Target) -> dict[str, Any]:
        self._count("horizontalpodautoscalers")
        found = await owner_of_replicas(kube, namespace, target.ref)
        return {"hpa": found.name if found else None}

    async def _refusal(
        self, kube: Kube, namespace: str, target: Target, now: float
    ) -> dict[str, Any]:
        selector = f"reason=FailedCreate,involvedObject.uid={target.uid}"
        path = f"/api/v1/namespaces/{namespace}/events"
        found = await self._list(kube, path, fieldSelector=selector)
        return {"refused": newest_refusal(found, now)}

    async def _pods(self, kube: Kube, namespace: str, target: Target) -> dict[str, Any]:
        path = f"/api/v1/namespaces/{namespace}/pods"
        found = await self._list(kube, path, labelSelector=to_string(target.selector))
        return {"pods": tuple(pod_of(each) for each in found)}


def newest_refusal(events: list[Any], now: float) -> Refused | None:
    """The newest of some FailedCreate events, if it is recent. Pure."""
    newest: tuple[float, str] | None = None
    for event in events:
        times = (
            event.get("lastTimestamp"),
            event.get("eventTime"),
            part(event, "series").get("lastObservedTime"),
        )
        at = max((t for t in map(seconds_of, times) if t is not None), default=None)
        if at is not None and now - at <= RECENT_SECONDS and (newest is None or at > newest[0]):
            newest = (at, clean(event.get("message")))
    return Refused(newest[1]) if newest else None
