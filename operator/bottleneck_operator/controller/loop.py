"""One policy's control loop: observe → diagnose → decide → act → verify → report.

The loop itself decides nothing: it gathers what the pure folders need (``gather.py``), asks them,
and carries out what they answer (``actions.py``). Whatever it must remember is in the API; what it
holds in memory can be lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..act import knobs as act_knobs
from ..api.conditions import GROUP, POLICIES, VERSION, Reason
from ..api.consequences import Circumstances
from ..api.pause import resumed_at, with_pause
from ..api.policy import BottleneckPolicy, Mode
from ..api.policy_status import BaselineStatus, PolicyStatus, TrailStatus
from ..api.report import Aim, BottleneckReport, Phase, ReportSpec
from ..decide.circumstances import circumstances
from ..decide.constraint import constraint
from ..decide.decision import Decision, Facts, Plan, Refusal
from ..decide.idle import IDLE, decide_idle
from ..decide.intent import awaiting, intent, standing
from ..decide.lifecycle import desired_knobs, issued_generation
from ..decide.planner import decide, follow
from ..diagnose.diagnosis import Diagnosis
from ..diagnose.objectives import RUNNING
from ..kube import JSON_PATCH, KubeError
from ..observe.baseline import Baselines
from ..observe.cluster import TargetError
from ..observe.containers import ResizeState
from ..observe.observation import Observation, Reading, WorkloadType
from ..observe.pods import Pod
from ..observe.trail import Trail
from ..report import metrics, reports
from ..report.reports import now_utc
from ..report.status import Problem, View, status_of, substance
from ..verify.measure import percentile
from .actions import Actions
from .aftermath import Aftermath
from .gather import Gatherer, Seen
from .onset import Onset
from .services import Services
from .trader import Trader

log = logging.getLogger(__name__)

FIGURES_SECONDS = 10.0
"""How often a status is written when nothing but its figures changed."""

BASELINES_SECONDS = 60.0
"""How often what was learnt is taken into the status: a restart loses no more than that."""

PRUNE_SECONDS = 60.0
"""How often reports that are too many or too old are looked for."""

NEXT_SECONDS = 600.0
"""How long after an action was kept the constraint that it exposed is looked for: what is seen
later has other reasons."""

_AT_REST = (Reason.OBJECTIVES_MET, Reason.NO_DATA)
"""Answers of the planner beside which being idle is worth a thought: nothing is wrong, or nobody
asks, and so nothing is measured."""


@dataclass(slots=True)
class PolicyLoop:
    """The loop of one policy."""

    services: Services
    key: str
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    _gatherer: Gatherer = field(init=False)
    _actions: Actions = field(init=False)
    _aftermath: Aftermath = field(init=False)
    _trader: Trader = field(init=False)
    _status: PolicyStatus | None = None
    _status_written: float = 0.0
    _baselines: list[BaselineStatus] = field(default_factory=list)
    _trail: list[TrailStatus] = field(default_factory=list)
    _baselines_taken: float = 0.0
    _pruned: float = 0.0
    _version: str = ""
    """Resource version of the policy with the status that was written last."""
    _loaded: bool = False

    def __post_init__(self) -> None:
        self._gatherer = Gatherer(self.services, self.key, self.wake)
        self._actions = Actions(self.services, self._gatherer)
        self._aftermath = Aftermath(self.services, self._gatherer)
        self._trader = Trader(self.services, self.key, self._gatherer)

    async def turn(self, policy: BottleneckPolicy, now: float) -> None:
        """One turn at ``now`` (seconds since the Unix epoch). Raises ``KubeError``, OSError and
        TimeoutError; the next turn begins afresh."""
        if self._status is not None:
            # The watch may still show an older status than the one written here.
            policy = policy.model_copy(update={"status": self._status})
        policy = with_pause(policy, now)
        if not self._loaded:
            # A new process knows nothing of what an earlier one began; it asks before it acts.
            await reports.load(self.services.kube, policy, self.services.reports)
            self._gatherer.baselines = Baselines.restored(policy.status.baselines)
            self._gatherer.trail = Trail.restored(policy.status.trail, now)
            self._gatherer.onset = Onset.restored(policy.status)
            self._baselines_taken = now
            self._baselines = self._gatherer.baselines.statuses()
            self._trail = policy.status.trail
            self._loaded = True
        view = self._remembered(await self._advance(policy, now), now)
        await self._write_status(policy, view, now)
        if now - self._pruned >= PRUNE_SECONDS:
            # By the clock that the reports were written by.
            await reports.prune(self.services.kube, self.services.reports, policy, time.time())
            self._pruned = now

    def leave(self) -> None:
        """Nothing is followed any more."""
        self._gatherer.leave()

    async def release(self, policy: BottleneckPolicy) -> None:
        """The policy is being deleted: what was begun and not yet judged is undone. Idempotent.
        Raises ``KubeError``, OSError and TimeoutError, after which it is to be tried again."""
        self.services.claims.drop(self.key)
        self.services.pools.drop(self.key)
        self.leave()
        # An answer may have been lost, and a new process knows nothing at all.
        await reports.load(self.services.kube, policy, self.services.reports)
        await self._actions.undo_unjudged(policy)

    def _remembered(self, view: View, now: float) -> View:
        """With what a new process goes on from. What was learnt moves with every window, and is
        worth a write only now and then."""
        if now - self._baselines_taken >= BASELINES_SECONDS:
            self._baselines = self._gatherer.baselines.statuses()
            self._trail = self._gatherer.trail.statuses(now)
            self._baselines_taken = now
        onset = self._gatherer.onset
        broke, worse = onset.breached_at, onset.degraded_at
        return replace(
            view,
            baselines=self._baselines,
            trail=self._trail,
            breached_since=None if broke is None else now_utc(broke),
            degraded_since=None if worse is None else now_utc(worse),
        )

    # -- observe and diagnose --------------------------------------------------------------------

    async def _advance(self, policy: BottleneckPolicy, now: float) -> View:
        services, spec = self.services, policy.spec
        known = services.reports.of(policy)
        rival = services.claims.claim(self.key, policy)
        if rival is not None:
            message = f"{rival} looks after {spec.target_ref} already; delete one of the two"
            return View(problem=Problem(Reason.TARGET_CLAIMED, message), reports=known)
        busy = any(report.status.phase.open for report in known)
        try:
            await self._gatherer.read_target(policy, now, busy)
        except TargetError as error:
            return await self._without_target(policy, error, now)
        assert self._gatherer.target is not None
        seen = await self._gatherer.see(policy, known, now)
        await self._tell_cause(policy, seen.diagnosis)
        await self._name_next(policy, seen, now)
        await self._actions.step_all(policy, seen.observation, seen.histories, seen.running, now)
        decision = await self._decide(policy, seen, now)
        short = await self._trader.refusal(policy, now)
        return View(
            replicas=self._gatherer.target.replicas if self._gatherer.target else None,
            telemetry=seen.telemetry,
            observation=seen.observation,
            diagnosis=seen.diagnosis,
            texts=seen.facts.texts,
            decision=short if short is not None and _waits(decision) else decision,
            trades=self._trader.sentences(policy),
            facts=self._facts(policy, seen, services.reports.of(policy), now),
            reports=services.reports.of(policy),
            trouble=self._actions.trouble,
        )

    async def _without_target(
        self, policy: BottleneckPolicy, error: TargetError, now: float
    ) -> View:
        reason = {
            "missing": Reason.TARGET_NOT_FOUND,
            "unsupported": Reason.TARGET_NOT_SUPPORTED,
            "forbidden": Reason.FORBIDDEN,
        }[error.kind]
        self._gatherer.leave()
        if error.kind == "missing":
            nothing = Observation(now, WorkloadType.UNKNOWN, {})
            await self._actions.step_all(policy, nothing, {}, [], now)
        known = self.services.reports.of(policy)
        return View(problem=Problem(reason, str(error)), reports=known)

    async def _tell_cause(self, policy: BottleneckPolicy, diagnosis: Diagnosis) -> None:
        """An event when the diagnosed cause is another one than the policy's status says. It has no
        figures in it, so that the recorder knows it again."""
        if not diagnosis.causes:
            return
        cause, before = diagnosis.causes[0], policy.status.bottleneck
        if before is None:
            message = f"{cause.id}: {cause.title}"
            await self.services.recorder.post(policy, Reason.BOTTLENECK_FOUND, message)
        elif before.id != cause.id:
            message = f"{cause.id}: {cause.title}; before it was {before.id}"
            await self.services.recorder.post(policy, Reason.BOTTLENECK_CHANGED, message)

    async def _name_next(self, policy: BottleneckPolicy, seen: Seen, now: float) -> None:
        """Writes what limits the workload now into the report of an action that was just kept."""
        for report in self.services.reports.of(policy):
            closed = report.status.closed_at
            if report.status.phase is not Phase.KEPT or report.status.next or closed is None:
                continue
            if now - closed.timestamp() > NEXT_SECONDS:
                continue
            found = constraint(
                seen.diagnosis,
                seen.observation,
                percentile(policy),
                seen.facts.signals,
                seen.facts.texts,
            )
            if found is not None:
                await reports.set_next(
                    self.services.kube, self.services.reports, report, found, now_utc(now)
                )

    # -- decide ----------------------------------------------------------------------------------

    async def _decide(self, policy: BottleneckPolicy, seen: Seen, now: float) -> Decision | None:
        known = self.services.reports.of(policy)
        facts = self._facts(policy, seen, known, now)
        await self._aftermath.judge(policy, seen, facts, now)
        facts = replace(facts, reports=self.services.reports.of(policy))
        self._trader.offer(policy, seen, facts, now)
        # First of all: somebody who waits at the gate waits for no other action.
        rest = decide_idle(self._gatherer.gate(policy, now), policy.spec, facts, now)
        if isinstance(rest, Plan) and rest.action.aim is Aim.WAKE:
            return await self._carry_out(policy, rest, seen, now)
        if any(report.status.phase.open for report in known):
            further = follow(seen.diagnosis, seen.observation, policy.spec, facts, now)
            return None if further is None else await self._carry_out(policy, further, seen, now)
        if not isinstance(rest, Plan):
            await self._actions.withdraw(policy, IDLE, "it is no longer idle", now)
        if policy.spec.capacity is None:
            return await self._plan(policy, seen, facts, rest, now)
        with self.services.pools.deciding(policy) as alone:
            if alone:
                facts = replace(facts, gift=await self._trader.gift(policy, now))
            return await self._plan(policy, seen, facts, rest, now)

    async def _plan(
        self,
        policy: BottleneckPolicy,
        seen: Seen,
        facts: Facts,
        rest: Decision | None,
        now: float,
    ) -> Decision | None:
        known, diagnosis = facts.reports, seen.diagnosis
        decision = self._trader.answer(policy, now) or decide(
            diagnosis, seen.observation, policy.spec, facts, now
        )
        if rest is not None and isinstance(decision, Refusal) and decision.reason in _AT_REST:
            decision = rest
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
        return await self._carry_out(policy, decision, seen, now)

    async def _carry_out(
        self, policy: BottleneckPolicy, decision: Plan, seen: Seen, now: float
    ) -> Decision:
        """Records the intent, and begins with it where it needs nobody's approval."""
        diagnosis = seen.diagnosis
        breached_at = self._gatherer.onset.breached_at or seen.observation.newest or now
        if decision.symptom is not None and not diagnosis.breached:
            breached_at = now
        planned = intent(
            policy,
            decision,
            diagnosis,
            seen.observation,
            seen.histories,
            breached_at,
            time.time(),
            self._circumstances(seen, now),
        )
        if isinstance(planned, Refusal):
            return planned
        report = await self._record(policy, planned)
        if planned.approval_required:
            await self._announce(policy, diagnosis, awaiting(report))
            return awaiting(report)
        await self._actions.step_all(policy, seen.observation, seen.histories, seen.running, now)
        return decision

    def _circumstances(self, seen: Seen, now: float) -> Circumstances:
        target = self._gatherer.target
        return circumstances(
            target.workload.template if target else "",
            (pod.node for pod in seen.running),
            target.replicas if target else None,
            self._gatherer.trail,
            now,
        )

    def _facts(
        self,
        policy: BottleneckPolicy,
        seen: Seen,
        known: tuple[BottleneckReport, ...],
        now: float,
    ) -> Facts:
        target = self._gatherer.target
        wanted = desired_knobs(known)
        carried = max((act_knobs.generation(pod.knobs) for pod in seen.running), default=0)
        settable = [rank.settable for rank in seen.observation.ranks]
        return Facts(
            policy_generation=policy.metadata.generation,
            replicas=target.replicas if target else None,
            ready=self._gatherer.ready(seen.running),
            hpa=self._gatherer.hpa,
            scaled_object=self._gatherer.scaled_object,
            kueue=target.kueue if target else "",
            scale=target.scale if target else None,
            gitops=target.workload.gitops if target else "",
            vpa=self._gatherer.vpa,
            generation=max(issued_generation(known), carried),
            knobs=wanted.values if wanted else {},
            settable=frozenset.intersection(*settable) if settable else frozenset(),
            containers=_containers(seen.running),
            reports=known,
            unplaced=_unplaced(seen),
            trail=self._gatherer.trail,
            rollout=target.workload.rollout if target else None,
            breached_since=self._gatherer.onset.breached_at,
            circumstances=self._circumstances(seen, now),
            ledger=policy.status.ledger,
            resumed_at=resumed_at(policy),
        )

    async def _record(self, policy: BottleneckPolicy, planned: ReportSpec) -> BottleneckReport:
        """The intent, in the API before anything changes."""
        phase = Phase.RECOMMENDED if planned.approval_required else Phase.PLANNED
        if (target := self._gatherer.target) is not None:
            planned = planned.model_copy(update={"target_uid": target.uid})
        report = await reports.create(
            self.services.kube, self.services.reports, policy, planned, phase
        )
        assert planned.action is not None
        metrics.ACTIONS.labels(planned.action.type).inc()
        if planned.action.aim is Aim.IMPROVE:
            waited = (planned.decided_at - planned.breached_at).total_seconds()
            metrics.DECISION_SECONDS.observe(waited)
        if not planned.approval_required:
            message = f"{report.metadata.name}: {planned.action.summary}"
            await self.services.recorder.post(policy, Reason.ACTION_PLANNED, message)
        return report

    async def _announce(
        self, policy: BottleneckPolicy, diagnosis: Diagnosis, refusal: Refusal
    ) -> None:
        """Tells once that something is wrong and why nothing is done about it."""
        if refusal.reason in (Reason.COOLDOWN, Reason.REPLICAS_PENDING):
            return
        objective = diagnosis.symptom.objective if diagnosis.symptom else ""
        message = refusal.message
        if objective and objective != RUNNING:
            message = f"{objective} is breached. {message}"
        await self.services.recorder.post(policy, refusal.reason, message)

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
        body = [
            {"op": "add", "path": "/status", "value": status.dump()},
            # Guarded as every write is: a process that is late must not write what was true once.
            {"op": "replace", "path": "/metadata/resourceVersion", "value": self._newest(policy)},
        ]
        try:
            written = await self.services.kube.patch(path, body, JSON_PATCH)
        except KubeError as error:
            if not error.conflict:
                raise
            log.debug("status of %s: the policy has just changed; the next turn writes it", path)
            return
        self._version = (written.get("metadata") or {}).get("resourceVersion", "")
        self._status, self._status_written = status, now

    def _newest(self, policy: BottleneckPolicy) -> str:
        """The newest version of the policy that is known: the watch may lag behind the answer."""
        seen = policy.metadata.resource_version
        return max(seen, self._version, key=lambda version: int(version or 0))


def _unplaced(seen: Seen) -> str:
    """Why pods cannot run: no node takes them, or a quota refuses them."""
    for name in ("pods.unschedulable", "pods.quotaRefused"):
        signal = seen.facts.signals.get(name)
        if isinstance(signal, Reading) and signal.value > 0:
            return seen.facts.texts.get(name, "")
    return ""


def _waits(decision: Decision | None) -> bool:
    """Whether nothing is done, and people are not asked either."""
    return decision is None or (
        isinstance(decision, Refusal)
        and decision.reason not in (Reason.AWAITING_APPROVAL, Reason.OBSERVE_ONLY, Reason.PAUSED)
    )


def _containers(running: Sequence[Pod]) -> dict[str, tuple[ResizeState, ...]]:
    """The containers of running pods, by name."""
    found: dict[str, list[ResizeState]] = {}
    for pod in running:
        for container in pod.containers:
            if (state := pod.size(container.name)) is not None:
                found.setdefault(container.name, []).append(state)
    return {name: tuple(states) for name, states in found.items()}
