"""The observing half of a loop: everything that a turn must know, and the diagnosis of it.

What a watch has is never read. The target is read every few seconds; all other questions go to the
API server only while something is wrong (``observe/inquiry.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..api.conditions import GATE_LABEL
from ..api.policy import BottleneckPolicy
from ..api.report import BottleneckReport
from ..decide.lifecycle import evidence_window, last_change, rolled_by_us
from ..decide.standstill import judge_workload
from ..diagnose.diagnosis import Diagnosis
from ..observe.baseline import Baselines
from ..observe.cluster import (
    Target,
    owner_of_replicas,
    owner_of_resources,
    read_target,
    scaled_object_of,
)
from ..observe.facts import ClusterFacts, Moments, facts_of
from ..observe.gate import GateView, view_of
from ..observe.history import History
from ..observe.inquiry import Inquiry
from ..observe.observation import Observation
from ..observe.owners import Hpa, ScaledObject
from ..observe.pods import Pod, foreign
from ..observe.trail import Trail
from ..observe.windows import observe
from ..report import metrics
from ..report.prometheus import with_prometheus
from ..report.status import Problem
from ..report.telemetry import telemetry_problem
from ..verify.measure import percentile
from .onset import Onset
from .services import Services

TARGET_SECONDS = 5.0
"""How old the known state of the target may be while nothing is under way."""

BUSY_SECONDS = 1.0
"""The same while an action is under way."""

OWNERS_SECONDS = 60.0
"""How old the answer may be whether a VerticalPodAutoscaler owns the resources, or a ScaledObject
without an autoscaler (a paused one) the replicas."""

GRACE_SECONDS = 20.0
"""How long a running pod may be silent before it counts as missing."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one turn knows."""

    running: Sequence[Pod]
    histories: Mapping[str, History]
    observation: Observation
    diagnosis: Diagnosis
    facts: ClusterFacts
    telemetry: Problem | None


@dataclass(slots=True)
class Gatherer:
    """Observes the target of one policy. ``target`` is None until it has been read, and while it
    cannot be read."""

    services: Services
    key: str
    wake: asyncio.Event
    target: Target | None = None
    hpa: Hpa | None = None
    hpa_known: bool = False
    """Whether it was asked who scales the target."""
    scaled_object: ScaledObject | None = None
    vpa: str | None = None
    inquiry: Inquiry = field(default_factory=Inquiry)
    onset: Onset = field(default_factory=Onset)
    baselines: Baselines = field(default_factory=Baselines)
    trail: Trail = field(default_factory=Trail)
    _gate_heard: float | None = None
    _vpa_read: float = 0.0
    _keda_read: float = 0.0
    _target_read: float = 0.0
    _first_seen: dict[str, float] = field(default_factory=dict)

    async def read_target(self, policy: BottleneckPolicy, now: float, busy: bool) -> None:
        """The target, unless what is known of it is young enough. Raises ``TargetError`` and
        ``KubeError``."""
        age = now - self._target_read
        if self.target is not None and age < (BUSY_SECONDS if busy else TARGET_SECONDS):
            return
        # Cleared first: a failed read must not leave an old answer standing as if it were new.
        self.target = None
        namespace, ref = policy.metadata.namespace, policy.spec.target_ref
        bounds, kube = policy.spec.actions.replicas, self.services.kube
        target = await read_target(kube, namespace, ref, bounds.group if bounds else "")
        # An action under way may be about the autoscaler whatever the policy allows by now.
        under_way = any(
            report.status.phase.open and report.spec.action and report.spec.action.hpa
            for report in self.services.reports.of(policy)
        )
        self.hpa_known = target.resource.scalable and (bounds is not None or under_way)
        if self.hpa_known:
            self.hpa = await owner_of_replicas(kube, namespace, ref)
        if target.resource.scalable and bounds and now - self._keda_read >= OWNERS_SECONDS:
            self.scaled_object = await scaled_object_of(kube, namespace, ref)
            self._keda_read = now
        if policy.spec.actions.resources is not None and now - self._vpa_read >= OWNERS_SECONDS:
            self.vpa = await owner_of_resources(kube, namespace, ref)
            self._vpa_read = now
        self.target, self._target_read = target, now

    def forget_target(self) -> None:
        """The next reading goes to the API server: the operator has just changed something."""
        self._target_read = 0.0

    def pods(self, policy: BottleneckPolicy) -> list[Pod]:
        """Pods of the target that the watch knows."""
        if self.target is None:
            return []
        found = self.services.pods.of(policy.metadata.namespace, self.target.selector)
        ref, uid = self.target.ref, self.target.uid
        return [pod for pod in found if not foreign(pod, ref.kind, ref.name, uid)]

    def running(self, policy: BottleneckPolicy) -> list[Pod]:
        """Those of them that run."""
        return [pod for pod in self.pods(policy) if pod.running]

    def ready(self, running: Sequence[Pod]) -> int | None:
        """Ready replicas: the watch of pods knows sooner than the target's status does. None where
        the target has no scale."""
        if self.target is None or self.target.ready is None:
            return None
        pods = self.target.scale.pods if self.target.scale else 1
        return max(self.target.ready, sum(pod.ready for pod in running) // pods)

    def histories(self, running: Sequence[Pod]) -> dict[str, History]:
        """Telemetry of these pods, which are followed from now on, and no others."""
        return self.services.streams.follow(self.key, list(running), self.wake.set)

    def gate(self, policy: BottleneckPolicy, now: float) -> GateView:
        """What the gate before the target says; it is followed from now on."""
        before = {GATE_LABEL: policy.spec.target_ref.name}
        found = self.services.pods.of(policy.metadata.namespace, {"matchLabels": before})
        pods = [pod for pod in found if pod.running]
        histories = self.services.streams.follow(f"{self.key} gate", pods, self.wake.set)
        heard = now if self._gate_heard is None else self._gate_heard
        view = view_of([pod.name for pod in pods], histories, now, heard)
        self._gate_heard = now if view.complete else heard
        return view

    def leave(self) -> None:
        """Nothing is followed any more."""
        self.services.streams.unfollow(self.key)
        self.services.streams.unfollow(f"{self.key} gate")
        self.services.prometheus.unfollow(self.key)

    async def see(
        self, policy: BottleneckPolicy, known: Sequence[BottleneckReport], now: float
    ) -> Seen:
        """Observation, facts and diagnosis at ``now``; the target has been read."""
        assert self.target is not None
        running = self.running(policy)
        histories = self.histories(running)
        observation = observe(
            histories,
            self._expected(running, histories, now),
            now,
            percentile=percentile(policy),
            window=evidence_window(known, now),
        )
        observation = self.services.prometheus.observe(
            self.key,
            policy,
            self.target.selector,
            observation,
            percentile(policy),
            since=last_change(known),
            wake=self.wake.set,
        )
        self.trail.note(observation)
        compared = self.baselines.compare(observation)
        observation = replace(observation, signals={**observation.signals, **compared})
        facts, diagnosis = self._judge(policy, observation, now)
        if await self._inquire(policy, diagnosis, now):
            facts, diagnosis = self._judge(policy, observation, now)
        # What is measured while something is wrong, or tried out, must not become the usual.
        open_action = any(report.status.phase.open for report in known)
        wrong = open_action or diagnosis.breached or not diagnosis.known
        self.baselines.learn(observation, now, wrong=wrong)
        return Seen(
            running=running,
            histories=histories,
            observation=observation,
            diagnosis=diagnosis,
            facts=facts,
            telemetry=with_prometheus(
                telemetry_problem(
                    observation,
                    len(running),
                    str(self.target.ref),
                    finished=self.target.finished,
                    # Pods that the watch knows have a sidecar, even while none of them runs.
                    active=self.target.active and not self.pods(policy),
                    asleep=self.target.replicas == 0,
                ),
                observation,
                self.services.prometheus.problem(self.key),
            ),
        )

    def _expected(
        self, running: Sequence[Pod], histories: Mapping[str, History], now: float
    ) -> list[str]:
        """Pods that should be speaking: those that do, and those that had time to begin."""
        self._first_seen = {pod.uid: self._first_seen.get(pod.uid, now) for pod in running}
        return [
            pod.name
            for pod in running
            if (pod.name in histories and histories[pod.name].last is not None)
            or now - self._first_seen[pod.uid] > GRACE_SECONDS
        ]

    def _judge(
        self, policy: BottleneckPolicy, observation: Observation, now: float
    ) -> tuple[ClusterFacts, Diagnosis]:
        facts = self._facts(policy, now)
        objectives = policy.spec.objectives
        diagnosis = judge_workload(observation, objectives, facts.signals, facts.texts)
        if self.onset.note(diagnosis, observation):
            # The onset is a fact itself: what changed before it is a suspect.
            facts = self._facts(policy, now)
            diagnosis = judge_workload(observation, objectives, facts.signals, facts.texts)
        return facts, diagnosis

    def _facts(self, policy: BottleneckPolicy, now: float) -> ClusterFacts:
        assert self.target is not None
        answers = self.inquiry.answers
        if self.hpa_known:
            answers = answers.with_hpa(self.hpa.name if self.hpa else None)
        change = answers.change
        if change is not None and rolled_by_us(self.services.reports.of(policy), change.at):
            answers = replace(answers, change=None)
        moments = Moments(
            now=now, onset=self.onset.since(policy), learnt_since=self.baselines.known_since()
        )
        return facts_of(
            self.target.workload, self.target.replicas, self.pods(policy), answers, moments
        )

    async def _inquire(self, policy: BottleneckPolicy, diagnosis: Diagnosis, now: float) -> bool:
        """Asks the API server what only it knows, while something is wrong; whether it did."""
        assert self.target is not None
        workload, known = self.target.workload, bool(self.pods(policy))
        pods_missing = bool(workload.missing) or (not known and workload.wanted != 0)
        if not (pods_missing or diagnosis.breached or self.onset.degraded):
            self.inquiry.rest()
            return False
        if not self.inquiry.due(workload.generation, now):
            return False
        asked = dict(self.inquiry.requests)
        await self.inquiry.ask(
            self.services.kube,
            policy.metadata.namespace,
            self.target,
            pods_known=known,
            hpa_known=self.hpa_known,
            now=now,
        )
        for what, count in self.inquiry.requests.items():
            metrics.INQUIRIES.labels(what).inc(count - asked.get(what, 0))
        return True
