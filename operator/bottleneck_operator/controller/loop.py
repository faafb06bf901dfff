"""One policy's control loop: observe → diagnose → decide → act → verify → report.

The loop itself decides nothing: it gathers what the pure folders need, asks them, and carries out
what they answer. Whatever it must remember is in the API; what it holds in memory can be lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..act import knobs as act_knobs
from ..act.replicas import SupersededError, set_replicas
from ..api.conditions import GROUP, POLICIES, VERSION, Reason
from ..api.policy import BottleneckPolicy, Mode, PolicyStatus
from ..api.report import (
    BottleneckReport,
    Phase,
    ReportSpec,
    Verdict,
)
from ..decide.decision import Decision, Facts, Refusal
from ..decide.intent import awaiting, intent, standing
from ..decide.lifecycle import (
    Next,
    Progress,
    Step,
    desired_knobs,
    evidence_window,
    issued_generation,
    next_step,
)
from ..decide.planner import decide
from ..diagnose.diagnosis import Diagnosis
from ..diagnose.engine import diagnose
from ..kube import JSON_PATCH, Kube
from ..observe.cluster import Pod, PodStore, Target, TargetError, owner_of_replicas, read_target
from ..observe.history import History
from ..observe.observation import Observation, Reading, Signal, WorkloadType
from ..observe.series import in_force_at
from ..observe.streams import Streams
from ..observe.windows import observe
from ..report import metrics, reports
from ..report.events import Recorder
from ..report.reports import ReportStore, now_utc
from ..report.status import Problem, View, status_of, substance
from ..verify.judge import judge
from ..verify.measure import after, before, guardrail, percentile
from .claims import Claims

log = logging.getLogger(__name__)

TARGET_SECONDS = 5.0
"""How old the known state of the target may be while nothing is under way."""

FIGURES_SECONDS = 10.0
"""How often a status is written when nothing but its figures changed."""

GRACE_SECONDS = 20.0
"""How long a running pod may be silent before it counts as missing."""

STEPS_A_TURN = 5
"""Most steps of one action in one turn; an action has fewer."""


@dataclass(slots=True)
class Services:
    """What all loops share."""

    kube: Kube
    recorder: Recorder
    pods: PodStore = field(default_factory=PodStore)
    reports: ReportStore = field(default_factory=ReportStore)
    streams: Streams = field(default_factory=Streams)
    claims: Claims = field(default_factory=Claims)


@dataclass(slots=True)
class PolicyLoop:
    """The loop of one policy."""

    services: Services
    key: str
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    _target: Target | None = None
    _target_read: float = 0.0
    _hpa: str | None = None
    _first_seen: dict[str, float] = field(default_factory=dict)
    _breached_at: float | None = None
    _status: PolicyStatus | None = None
    _status_written: float = 0.0
    _loaded: bool = False

    async def turn(self, policy: BottleneckPolicy, now: float) -> None:
        """One turn at ``now`` (seconds since the Unix epoch). Raises ``KubeError``, OSError and
        TimeoutError; the next turn begins afresh."""
        if self._status is not None:
            # The watch may still show an older status than the one written here.
            policy = policy.model_copy(update={"status": self._status})
        if not self._loaded:
            # A new process knows nothing of what an earlier one began; it asks before it acts.
            metadata = policy.metadata
            await reports.load(
                self.services.kube, metadata.namespace, metadata.name, self.services.reports
            )
            self._loaded = True
        view = await self._advance(policy, now)
        await self._write_status(policy, view, now)

    async def release(self, policy: BottleneckPolicy) -> None:
        """The policy is being deleted: what was applied and not yet judged is undone."""
        self.services.claims.drop(self.key)
        self.services.streams.unfollow(self.key)
        for report in self.services.reports.of(policy):
            if report.status.phase in (Phase.APPLIED, Phase.VERIFYING):
                step = Next(Step.MOVE, Phase.REVERTING, Reason.REVERTING, "the policy was deleted")
                report = await self._move(policy, report, step, time.time())
            if report.status.phase is Phase.REVERTING:
                pods = await self._pods(policy)
                await self._bring_about(policy, report, pods, undo=True)

    # -- observe ---------------------------------------------------------------------------------

    async def _advance(self, policy: BottleneckPolicy, now: float) -> View:
        services, metadata, spec = self.services, policy.metadata, policy.spec
        known = services.reports.of(policy)
        rival = services.claims.claim(self.key, policy)
        if rival is not None:
            message = f"{rival} looks after {spec.target_ref} already; delete one of the two"
            return View(problem=Problem(Reason.TARGET_CLAIMED, message), reports=known)
        busy = any(report.status.phase.open for report in known)
        try:
            await self._read_target(policy, now, busy)
        except TargetError as error:
            reason = {
                "missing": Reason.TARGET_NOT_FOUND,
                "unsupported": Reason.TARGET_NOT_SUPPORTED,
                "forbidden": Reason.FORBIDDEN,
            }[error.kind]
            services.streams.unfollow(self.key)
            if error.kind == "missing":
                await self._step_all(
                    policy, Observation(now, WorkloadType.UNKNOWN, {}), {}, [], now
                )
            known = services.reports.of(policy)
            return View(problem=Problem(reason, str(error)), reports=known)
        assert self._target is not None

        pods = services.pods.of(metadata.namespace, self._target.selector)
        running = [pod for pod in pods if pod.running]
        histories = services.streams.follow(self.key, running, self.wake.set)
        expected = self._expected(running, histories, now)
        objectives = spec.objectives
        observation = observe(
            histories,
            expected,
            now,
            percentile=percentile(policy),
            window=evidence_window(known, now),
        )
        diagnosis = diagnose(observation, objectives, self._facts_as_signals())
        self._note_breach(diagnosis, observation)
        await self._step_all(policy, observation, histories, running, now)
        decision = await self._decide(policy, diagnosis, observation, histories, running, now)
        telemetry = self._telemetry(observation, running)
        return View(
            replicas=self._target.replicas,
            telemetry=telemetry,
            observation=observation,
            diagnosis=diagnosis,
            decision=decision,
            reports=services.reports.of(policy),
        )

    async def _read_target(self, policy: BottleneckPolicy, now: float, busy: bool) -> None:
        age = now - self._target_read
        if self._target is not None and age < (1.0 if busy else TARGET_SECONDS):
            return
        # Cleared first: a failed read must not leave an old answer standing as if it were new.
        self._target = None
        namespace, ref = policy.metadata.namespace, policy.spec.target_ref
        target = await read_target(self.services.kube, namespace, ref)
        if target.replicas is not None and policy.spec.actions.replicas is not None:
            self._hpa = await owner_of_replicas(self.services.kube, namespace, ref)
        self._target, self._target_read = target, now

    def _expected(
        self, running: list[Pod], histories: Mapping[str, History], now: float
    ) -> list[str]:
        """Pods that should be speaking: those that do, and those that had time to begin."""
        self._first_seen = {pod.uid: self._first_seen.get(pod.uid, now) for pod in running}
        return [
            pod.name
            for pod in running
            if (pod.name in histories and histories[pod.name].last is not None)
            or now - self._first_seen[pod.uid] > GRACE_SECONDS
        ]

    def _telemetry(self, observation: Observation, running: list[Pod]) -> Problem | None:
        if observation.expected and observation.streaming == observation.expected:
            return None
        if running:
            silent = observation.expected - observation.streaming
            message = (
                f"{silent} of {observation.expected} replicas are silent; look at the container "
                "bottleneck-agent of the pods"
                if observation.expected
                else f"waiting for the first telemetry of {len(running)} pods"
            )
            return Problem(Reason.NO_DATA, message)
        assert self._target is not None
        if self._target.finished:
            return Problem(Reason.NO_REPLICAS, f"{self._target.ref} has finished")
        if self._target.active:
            return Problem(
                Reason.NOT_INJECTED,
                'the pods have no sidecar; set the label bottleneck.dev/inject: "true" in the pod '
                "template and roll it out, or use kubectl bottleneck inject",
            )
        return Problem(Reason.NO_REPLICAS, f"{self._target.ref} has no running pod with a sidecar")

    # -- diagnose --------------------------------------------------------------------------------

    def _facts_as_signals(self) -> dict[str, Signal]:
        facts: dict[str, Signal] = {}
        if self._target is not None and self._target.replicas is not None:
            desired = float(self._target.replicas)
            facts["replicas.desired"] = Reading(desired, "replicas", 0, "last", 0, "API server")
            if self._hpa is None:
                facts["replicas.unowned"] = Reading(1, "", 0, "last", 0, "API server")
        return facts

    def _note_breach(self, diagnosis: Diagnosis, observation: Observation) -> None:
        if diagnosis.breached and self._breached_at is None:
            self._breached_at = observation.newest
        elif diagnosis.known and not diagnosis.breached:
            self._breached_at = None

    # -- decide ----------------------------------------------------------------------------------

    async def _decide(
        self,
        policy: BottleneckPolicy,
        diagnosis: Diagnosis,
        observation: Observation,
        histories: Mapping[str, History],
        running: list[Pod],
        now: float,
    ) -> Decision | None:
        known = self.services.reports.of(policy)
        if any(report.status.phase.open for report in known):
            return None
        facts = self._facts(policy, observation, known, running)
        decision = decide(diagnosis, observation, policy.spec, facts, now)
        if isinstance(decision, Refusal):
            if diagnosis.breached:
                await self._announce(policy, diagnosis, decision)
            return decision
        if policy.spec.mode is Mode.OBSERVE:
            message = (
                f"the policy only observes; in mode Auto it would do: {decision.action.summary}"
            )
            refusal = Refusal(Reason.OBSERVE_ONLY, message)
            await self._announce(policy, diagnosis, refusal)
            return refusal
        recommend = policy.spec.mode is Mode.RECOMMEND
        if recommend and (recommended := standing(known, decision.action)):
            return awaiting(recommended)
        breached_at = self._breached_at or observation.newest or now
        planned = intent(
            policy, decision, diagnosis, observation, histories, breached_at, time.time()
        )
        if isinstance(planned, Refusal):
            return planned
        report = await self._record(policy, planned)
        if recommend:
            await self._announce(policy, diagnosis, awaiting(report))
            return awaiting(report)
        await self._step_all(policy, observation, histories, running, now)
        return decision

    def _facts(
        self,
        policy: BottleneckPolicy,
        observation: Observation,
        known: tuple[BottleneckReport, ...],
        running: list[Pod],
    ) -> Facts:
        assert self._target is not None
        wanted = desired_knobs(known)
        carried = max((act_knobs.generation(pod.knobs) for pod in running), default=0)
        settable = [rank.settable for rank in observation.ranks]
        return Facts(
            policy_generation=policy.metadata.generation,
            replicas=self._target.replicas,
            ready=self._target.ready,
            hpa=self._hpa,
            generation=max(issued_generation(known), carried),
            knobs=wanted.values if wanted else {},
            settable=frozenset.intersection(*settable) if settable else frozenset(),
            reports=known,
        )

    async def _record(self, policy: BottleneckPolicy, planned: ReportSpec) -> BottleneckReport:
        """The intent, in the API before anything changes."""
        phase = Phase.RECOMMENDED if planned.approval_required else Phase.PLANNED
        report = await reports.create(
            self.services.kube, self.services.reports, policy, planned, phase
        )
        assert planned.action is not None
        metrics.ACTIONS.labels(planned.action.type).inc()
        metrics.DECISION_SECONDS.observe((planned.decided_at - planned.breached_at).total_seconds())
        found = f"{planned.symptom.text}: {planned.causes[0].title}"
        await self.services.recorder.post(policy, Reason.BOTTLENECK_FOUND, found)
        if not planned.approval_required:
            message = f"{report.metadata.name}: {planned.action.summary}"
            await self.services.recorder.post(policy, Reason.ACTION_PLANNED, message)
        return report

    async def _announce(
        self, policy: BottleneckPolicy, diagnosis: Diagnosis, refusal: Refusal
    ) -> None:
        """Tells once that an objective is breached and why nothing is done about it."""
        if refusal.reason in (Reason.COOLDOWN, Reason.REPLICAS_PENDING):
            return
        objective = diagnosis.symptom.objective if diagnosis.symptom else ""
        await self.services.recorder.post(
            policy, refusal.reason, f"{objective} is breached. {refusal.message}"
        )

    # -- act and verify --------------------------------------------------------------------------

    async def _step_all(
        self,
        policy: BottleneckPolicy,
        observation: Observation,
        histories: Mapping[str, History],
        running: list[Pod],
        now: float,
    ) -> None:
        """Takes every report as far as it goes now. The newest knobs are also brought to pods that
        came later."""
        known = self.services.reports.of(policy)
        for report in known:
            if report.status.phase.open or report.status.phase is Phase.RECOMMENDED:
                for _ in range(STEPS_A_TURN):
                    progress = self._progress(policy, report, observation, histories, running, now)
                    step = next_step(report, progress, now_utc(now))
                    if step.step is Step.WAIT:
                        break
                    report = await self._carry_out(policy, report, step, running, now)
                    if step.step is Step.MOVE:
                        continue
                    # The next step must not mistake what this one changed for somebody's change.
                    await self._read_target(policy, time.time(), True)
                    running = self._fresh(policy, running)
        wanted = desired_knobs(self.services.reports.of(policy))
        if wanted is not None and self._target is not None and not policy.spec.paused:
            await act_knobs.write(self.services.kube, running, wanted)

    def _fresh(self, policy: BottleneckPolicy, running: list[Pod]) -> list[Pod]:
        if self._target is None:
            return running
        pods = self.services.pods.of(policy.metadata.namespace, self._target.selector)
        return [pod for pod in pods if pod.running]

    def _progress(
        self,
        policy: BottleneckPolicy,
        report: BottleneckReport,
        observation: Observation,
        histories: Mapping[str, History],
        running: list[Pod],
        now: float,
    ) -> Progress:
        known = self.services.reports.of(policy)
        own = desired_knobs([report])
        others = desired_knobs(r for r in known if r.metadata.name != report.metadata.name)
        verdict = None
        if report.status.phase is Phase.VERIFYING:
            verdict = self._judge(policy, report, observation, histories, now)
        return Progress(
            observation=observation,
            replicas=self._target.replicas if self._target else None,
            ready=self._ready(running),
            in_force_at=in_force_at(histories.values(), own.generation) if own else None,
            annotated=bool(running) and own is not None and not act_knobs.outdated(running, own),
            target_gone=self._target is None or self._target.finished,
            newest_generation=others.generation if others else 0,
            another_open=any(
                r.status.phase.open for r in known if r.metadata.name != report.metadata.name
            ),
            verdict=verdict,
        )

    def _ready(self, running: list[Pod]) -> int | None:
        """Ready replicas: the watch of pods knows sooner than the target's status does."""
        if self._target is None or self._target.ready is None:
            return None
        return max(self._target.ready, sum(pod.ready for pod in running))

    def _judge(
        self,
        policy: BottleneckPolicy,
        report: BottleneckReport,
        observation: Observation,
        histories: Mapping[str, History],
        now: float,
    ) -> Verdict | None:
        if observation.streaming < observation.expected or not observation.streaming:
            return None
        spec = report.spec
        return judge(
            before(policy, report, histories),
            after(policy, report, histories, now),
            spec.metric.lower_is_better,
            guardrail(policy, report, observation),
        )

    async def _carry_out(
        self,
        policy: BottleneckPolicy,
        report: BottleneckReport,
        step: Next,
        running: list[Pod],
        now: float,
    ) -> BottleneckReport:
        try:
            if step.step is not Step.MOVE:
                undo = step.step is Step.UNDO
                await self._bring_about(policy, report, running, undo)
        except SupersededError as error:
            step = Next(Step.MOVE, Phase.ABANDONED, Reason.ACTION_SUPERSEDED, str(error))
        self._target_read = 0.0
        if step.phase is None:
            return report
        return await self._move(policy, report, step, now)

    async def _bring_about(
        self,
        policy: BottleneckPolicy,
        report: BottleneckReport,
        running: list[Pod],
        undo: bool = False,
    ) -> None:
        """The effect of a report's action, or its undoing. Which knobs that means follows from the
        report's phase."""
        action = report.spec.action
        assert action is not None
        if action.knobs is not None:
            wanted = desired_knobs([report])
            if wanted is not None:
                await act_knobs.write(self.services.kube, running, wanted)
        elif action.replicas is not None and self._target is not None:
            old, new = action.replicas.replaces, action.replicas.desired
            if undo:
                old, new = new, old
            namespace = policy.metadata.namespace
            await set_replicas(self.services.kube, namespace, self._target, old, new)

    async def _pods(self, policy: BottleneckPolicy) -> list[Pod]:
        self._target_read = 0.0
        await self._read_target(policy, time.time(), True)
        return self._fresh(policy, [])

    async def _move(
        self, policy: BottleneckPolicy, report: BottleneckReport, step: Next, now: float
    ) -> BottleneckReport:
        services = self.services
        figures = None
        if step.verdict is not None:
            histories = services.streams.follow(self.key, self._fresh(policy, []), self.wake.set)
            figures = after(policy, report, histories, now)
        status = reports.advanced(report.status, step, now_utc(time.time()), figures)
        report = await reports.set_status(services.kube, services.reports, report, status)
        if step.verdict is not None and report.spec.action is not None:
            metrics.VERDICTS.labels(report.spec.action.type, step.verdict.result).inc()
        if step.reason is not None:
            message = f"{report.metadata.name}: {step.message}"
            await services.recorder.post(policy, step.reason, message)
        if not report.status.phase.open:
            self._breached_at = None
            await reports.prune(services.kube, services.reports, policy)
        return report

    # -- report ----------------------------------------------------------------------------------

    async def _write_status(self, policy: BottleneckPolicy, view: View, now: float) -> None:
        status = status_of(policy, view, now_utc(now))
        if self._status is None or substance(status) != substance(self._status):
            due = True
        else:
            due = now - self._status_written >= FIGURES_SECONDS and status != self._status
        if view.diagnosis is not None and view.diagnosis.known:
            metrics.BREACHED.labels(policy.metadata.namespace, policy.metadata.name).set(
                float(view.diagnosis.breached)
            )
        if not due:
            return
        metadata = policy.metadata
        path = (
            f"/apis/{GROUP}/{VERSION}/namespaces/{metadata.namespace}/{POLICIES}/"
            f"{metadata.name}/status"
        )
        body = [{"op": "add", "path": "/status", "value": status.dump()}]
        await self.services.kube.patch(path, body, JSON_PATCH)
        self._status, self._status_written = status, now
