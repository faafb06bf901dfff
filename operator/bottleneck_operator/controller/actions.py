"""The acting half of a loop: takes every report as far as it goes now. What the next step is, the
state machine says (``decide/lifecycle.py``); here it is carried out and written down."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..act import hpa as act_hpa
from ..act import images as act_images
from ..act import knobs as act_knobs
from ..act import resources as act_resources
from ..act.replicas import SupersededError, set_replicas
from ..api.conditions import INJECTED_LABEL, Reason
from ..api.policy import BottleneckPolicy
from ..api.report import BottleneckReport, Phase
from ..decide.effects import effect_of
from ..decide.effects.standing import Progress, Standing
from ..decide.idle import sleeping
from ..decide.lifecycle import (
    Next,
    Step,
    desired_knobs,
    desired_sizes,
    issued_generation,
    last_change,
    next_step,
    own_knobs,
    superseded_by,
)
from ..decide.rollback import built_upon, wish_of
from ..decide.some_first import choose, divisible, in_scope, part_of, untouched
from ..decide.trading import OtherSide, other_side
from ..decide.within import beyond
from ..diagnose.objectives import all_met
from ..kube import KubeError
from ..observe.cluster import TargetError
from ..observe.containers import ResizeState
from ..observe.history import History
from ..observe.observation import Observation, WorkloadType
from ..observe.pods import Pod
from ..observe.series import in_force_at
from ..report import metrics, reports
from ..report.reports import now_utc
from .gather import Gatherer
from .judging import Judging
from .services import Services

log = logging.getLogger(__name__)

STEPS_A_TURN = 5
"""Most steps of one action in one turn; an action has fewer."""


@dataclass(slots=True)
class Actions:
    """Carries out the reports of one policy."""

    services: Services
    gatherer: Gatherer
    trouble: str = ""
    """Why the action under way does not get on, in the API server's words."""
    _judging: Judging = field(init=False)

    def __post_init__(self) -> None:
        self._judging = Judging(self.services, self.gatherer)

    async def step_all(
        self,
        policy: BottleneckPolicy,
        observation: Observation,
        histories: Mapping[str, History],
        running: Sequence[Pod],
        now: float,
    ) -> None:
        """Takes every report as far as it goes now, and brings what was kept to pods that came
        later. What the API server does not take now is tried again by the next turn."""
        self.trouble = ""
        try:
            await self._step_all(policy, observation, histories, running, now)
        except KubeError as error:
            self.trouble = f"the API server answered {error}; it is tried again"
            log.warning("an action of %s: %s", policy.metadata.name, self.trouble)
            metrics.ERRORS.labels(f"http {error.status}").inc()

    async def _step_all(
        self,
        policy: BottleneckPolicy,
        observation: Observation,
        histories: Mapping[str, History],
        running: Sequence[Pod],
        now: float,
    ) -> None:
        known = self.services.reports.of(policy)
        for report in known:
            waiting = report.status.phase is Phase.RECOMMENDED or wish_of(report) is not None
            if report.status.phase.open or waiting:
                for _ in range(STEPS_A_TURN):
                    progress = self._progress(policy, report, observation, histories, running, now)
                    step = next_step(report, progress, now_utc(now))
                    if step.step is Step.WAIT:
                        break
                    report = await self._carry_out(policy, report, step, running, now)
                    if step.step is Step.MOVE:
                        continue
                    # The next step must not mistake what this one changed for somebody's change.
                    await self.gatherer.read_target(policy, time.time(), True)
                    running = self.gatherer.running(policy)
        if self.gatherer.target is not None and not policy.spec.paused:
            await self._follow_up(policy, running)

    async def _follow_up(self, policy: BottleneckPolicy, running: Sequence[Pod]) -> None:
        """Brings what was kept to pods that came later."""
        known, kube = self.services.reports.of(policy), self.services.kube
        if (wanted := desired_knobs(known)) is not None:
            await act_knobs.write(kube, running, wanted)
        for container, change in desired_sizes(known).items():
            sizes = (change.replaces, *change.earlier)
            await act_resources.resize(kube, running, container, change.desired, sizes)

    async def withdraw(
        self, policy: BottleneckPolicy, cause: str, message: str, now: float
    ) -> None:
        """Abandons a recommendation against ``cause`` that does not hold any more."""
        for report in self.services.reports.of(policy):
            action = report.spec.action
            recommended = report.status.phase is Phase.RECOMMENDED
            if recommended and action is not None and action.cause == cause:
                step = Next(Step.MOVE, Phase.ABANDONED, Reason.ACTION_ABANDONED, message)
                await self._move(policy, report, step, now)

    async def undo_unjudged(self, policy: BottleneckPolicy) -> None:
        """Undoes what was begun and not yet judged, and wakes what sleeps: the policy is being
        deleted, and nobody else would. Raises ``KubeError`` where not everything is undone yet."""
        known = self.services.reports.of(policy)
        slept = sleeping(known)
        for report in known:
            # What is only planned may have had its effect: a process can die in between.
            if (report.status.phase.open and report.status.phase is not Phase.REVERTING) or (
                report is slept
            ):
                step = Next(Step.MOVE, Phase.REVERTING, Reason.REVERTING, "the policy was deleted")
                report = await self._move(policy, report, step, time.time())
            if report.status.phase is Phase.REVERTING:
                step = await self._undone(policy, report)
                await self._move(policy, report, step, time.time())

    async def _undone(self, policy: BottleneckPolicy, report: BottleneckReport) -> Next:
        """Undoes one action now, with what the API server says rather than the watches."""
        action = report.spec.action
        assert action is not None
        try:
            running = await self._read_anew(policy)
            await self._bring_about(policy, report, running, undo=True)
            running = await self._read_anew(policy)
        except (SupersededError, TargetError) as error:
            # What is gone, or set by others since, needs nothing.
            return Next(Step.MOVE, Phase.ABANDONED, Reason.ACTION_SUPERSEDED, str(error))
        nothing = Observation(time.time(), WorkloadType.UNKNOWN, {})
        progress = self._progress(policy, report, nothing, {}, running, time.time())
        if running and effect_of(action, Phase.REVERTING, progress).standing is Standing.MISSING:
            raise KubeError(409, f"{report.metadata.name} is not undone everywhere yet")
        message = f"undone: {action.summary}"
        return Next(Step.MOVE, Phase.REVERTED, Reason.ACTION_REVERTED, message)

    async def _read_anew(self, policy: BottleneckPolicy) -> list[Pod]:
        """Reads the target, and its pods: in a new process the watch may not have shown them."""
        self.gatherer.forget_target()
        await self.gatherer.read_target(policy, time.time(), True)
        path = f"/api/v1/namespaces/{policy.metadata.namespace}/pods"
        found = await self.services.kube.get(path, labelSelector=f"{INJECTED_LABEL}=true")
        for item in found["items"]:
            self.services.pods.update(item)
        return self.gatherer.running(policy)

    def _progress(
        self,
        policy: BottleneckPolicy,
        report: BottleneckReport,
        observation: Observation,
        histories: Mapping[str, History],
        running: Sequence[Pod],
        now: float,
    ) -> Progress:
        known, target = self.services.reports.of(policy), self.gatherer.target
        own, scope = own_knobs(report), in_scope(report, running)
        others = [each for each in known if each.metadata.name != report.metadata.name]
        verdict = None
        if report.status.phase is Phase.VERIFYING:
            verdict = self._judging.verdict(policy, report, observation, histories, now)
        return Progress(
            observation=part_of(report, observation, scope),
            replicas=target.replicas if target else None,
            ready=self.gatherer.ready(running),
            elastic=bool(target and target.scale and target.scale.elastic),
            containers=self._containers(report, scope),
            **self._hpa(report),
            in_force_at=in_force_at(
                [histories[pod.name] for pod in scope if pod.name in histories], own.generation
            )
            if own
            else None,
            annotated=bool(scope) and own is not None and not act_knobs.outdated(scope, own),
            target_gone=target is None
            or target.finished
            or report.spec.target_uid not in ("", target.uid),
            newest_generation=max((k.generation for k in map(own_knobs, others) if k), default=0),
            another_open=any(each.status.phase.open for each in others),
            verdict=verdict,
            trade=self._other_side(policy, report),
            stage=report.status.stage,
            **self._halves(policy, report, observation, histories, running, now),
            rollout=target.workload.rollout if target else None,
            images=self._judging.images(policy, report),
            met=all_met(policy.spec.objectives, observation),
            beyond=beyond(
                report.spec.action,
                policy.spec.actions,
                standing.values if (standing := desired_knobs(others)) else {},
                known,
            )
            if report.spec.action
            else "",
            superseded_by=superseded_by(report, known),
            built_upon=built_upon(report, known),
            issued_generation=issued_generation(known),
        )

    def _halves(
        self,
        policy: BottleneckPolicy,
        report: BottleneckReport,
        observation: Observation,
        histories: Mapping[str, History],
        running: Sequence[Pod],
        now: float,
    ) -> dict[str, Any]:
        """On which replicas an action may begin, and how many of those chosen are left. A watch
        that has not shown all pods yet says nothing of either."""
        target, split = self.gatherer.target, report.status.split
        wanted = None if target is None else target.replicas
        known_pods = len(self.gatherer.pods(policy))
        # Where a replica is a group of pods, one of them is no replica.
        if not wanted or known_pods >= 2 * wanted or not divisible(report):
            return {}
        if known_pods < wanted:
            return {"gathering": True}
        halves = None
        if split is not None:
            halves = len(in_scope(report, running)), len(untouched(split, running))
            if halves[0]:
                return {"halves": halves}
        known = self.services.reports.of(policy)
        changed_at = last_change(each for each in known if each is not report)
        choice = choose(policy, report, observation, running, histories, changed_at, now)
        gathering = choice is None and len(running) > 1
        return {"halves": halves, "choice": choice, "gathering": gathering}

    def _other_side(self, policy: BottleneckPolicy, report: BottleneckReport) -> OtherSide | None:
        # A trade under way goes on also where the policy was taken out of its pool meanwhile.
        if policy.spec.capacity is None and report.spec.trade is None:
            return None
        return other_side(report, self.services.reports.in_namespace(policy.metadata.namespace))

    def _containers(
        self, report: BottleneckReport, running: Sequence[Pod]
    ) -> tuple[ResizeState, ...]:
        action = report.spec.action
        if action is None or action.resources is None:
            return ()
        states = (pod.size(action.resources.container) for pod in running)
        return tuple(state for state in states if state is not None)

    def _hpa(self, report: BottleneckReport) -> dict[str, Any]:
        action = report.spec.action
        if action is None or action.hpa is None or not self.gatherer.hpa_known:
            return {}
        found = self.gatherer.hpa
        if found is None or found.name != action.hpa.name:
            return {"hpa_gone": True}
        return {"hpa": found.bounds}

    async def _carry_out(
        self,
        policy: BottleneckPolicy,
        report: BottleneckReport,
        step: Next,
        running: Sequence[Pod],
        now: float,
    ) -> BottleneckReport:
        try:
            if step.step is not Step.MOVE:
                undo = step.step is Step.UNDO
                await self._bring_about(policy, report, running, undo)
        except SupersededError as error:
            step = Next(Step.MOVE, Phase.ABANDONED, Reason.ACTION_SUPERSEDED, str(error))
        except KubeError as error:
            if not error.refused or step.step is not Step.APPLY:
                raise  # the next turn tries again; what is recorded stays true
            # Perhaps some pods have it already: undoing what was begun leaves nothing half done.
            message = f"the API server refused it: {error.message}"
            step = Next(Step.MOVE, Phase.REVERTING, Reason.ACTION_REFUSED, message)
        self.gatherer.forget_target()
        if step.phase is None:
            return report
        return await self._move(policy, report, step, now)

    async def _bring_about(
        self,
        policy: BottleneckPolicy,
        report: BottleneckReport,
        running: Sequence[Pod],
        undo: bool = False,
    ) -> None:
        """The effect of a report's action, or its undoing. Which knobs that means follows from the
        report's phase."""
        action, running = report.spec.action, in_scope(report, running)
        assert action is not None
        if action.knobs is not None:
            wanted = own_knobs(report)
            if wanted is not None:
                await act_knobs.write(self.services.kube, running, wanted)
        elif action.replicas is not None and self.gatherer.target is not None:
            old, new = action.replicas.replaces, action.replicas.desired
            if undo:
                old, new = new, old
            namespace = policy.metadata.namespace
            await set_replicas(self.services.kube, namespace, self.gatherer.target, old, new)
        elif (bounds := action.hpa) is not None:
            now, then = bounds.replaces, bounds.desired
            if undo:
                now, then = then, now
            namespace = policy.metadata.namespace
            scaled_by = self.gatherer.hpa.name if self.gatherer.hpa else "nothing"
            if bounds.name != scaled_by:
                raise SupersededError(f"{scaled_by} scales the target, and not {bounds.name}")
            await act_hpa.set_bounds(self.services.kube, namespace, bounds.name, now, then)
        elif (change := action.resources) is not None:
            new_size, sizes = change.desired, (change.replaces, *change.earlier)
            if undo:
                new_size, sizes = change.replaces, (change.desired, *change.earlier)
            await act_resources.resize(
                self.services.kube, running, change.container, new_size, sizes
            )
        elif action.image is not None and self.gatherer.target is not None:
            kube, namespace = self.services.kube, policy.metadata.namespace
            target = self.gatherer.target
            if undo:
                pods = self.gatherer.pods(policy)
                await act_images.undo(kube, namespace, target, action.image, pods)
            else:
                stage = report.status.stage
                await act_images.roll(kube, namespace, target, action.image, stage)

    async def _move(
        self, policy: BottleneckPolicy, report: BottleneckReport, step: Next, now: float
    ) -> BottleneckReport:
        services = self.services
        figures = None
        if step.verdict is not None:
            histories = self.gatherer.histories(self.gatherer.running(policy))
            figures = self._judging.figures(policy, report, histories, now)
        status = reports.advanced(report.status, step, now_utc(time.time()), figures)
        report = await reports.set_status(services.kube, services.reports, report, status)
        if step.verdict is not None and report.spec.action is not None:
            metrics.VERDICTS.labels(report.spec.action.type, step.verdict.result).inc()
        if step.reason is not None:
            message = f"{report.metadata.name}: {step.message}"
            await services.recorder.post(policy, step.reason, message)
        if not report.status.phase.open:
            # What is breached after an action is a new breach.
            self.gatherer.onset.breached_at = None
        return report
