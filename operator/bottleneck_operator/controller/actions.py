"""The acting half of a loop: takes every report as far as it goes now. What the next step is, the
state machine says (``decide/lifecycle.py``); here it is carried out and written down."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..act import knobs as act_knobs
from ..act import resources as act_resources
from ..act.replicas import SupersededError, set_replicas
from ..api.conditions import Reason
from ..api.policy import BottleneckPolicy
from ..api.report import BottleneckReport, Phase, Verdict
from ..decide.effect import Progress
from ..decide.lifecycle import Next, Step, desired_knobs, desired_sizes, next_step
from ..kube import KubeError
from ..observe.containers import ResizeState
from ..observe.history import History
from ..observe.observation import Observation
from ..observe.pods import Pod
from ..observe.series import in_force_at
from ..report import metrics, reports
from ..report.reports import now_utc
from ..verify.judge import judge
from ..verify.measure import after, before, guardrail
from .gather import Gatherer
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

    async def undo_unjudged(self, policy: BottleneckPolicy) -> None:
        """Undoes what was applied and not yet judged: the policy is being deleted."""
        for report in self.services.reports.of(policy):
            if report.status.phase in (Phase.APPLIED, Phase.VERIFYING):
                step = Next(Step.MOVE, Phase.REVERTING, Reason.REVERTING, "the policy was deleted")
                report = await self._move(policy, report, step, time.time())
            if report.status.phase is Phase.REVERTING:
                self.gatherer.forget_target()
                await self.gatherer.read_target(policy, time.time(), True)
                running = self.gatherer.running(policy)
                await self._bring_about(policy, report, running, undo=True)

    def _progress(
        self,
        policy: BottleneckPolicy,
        report: BottleneckReport,
        observation: Observation,
        histories: Mapping[str, History],
        running: Sequence[Pod],
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
            replicas=self.gatherer.target.replicas if self.gatherer.target else None,
            ready=self._ready(running),
            containers=self._containers(report, running),
            in_force_at=in_force_at(histories.values(), own.generation) if own else None,
            annotated=bool(running) and own is not None and not act_knobs.outdated(running, own),
            target_gone=self.gatherer.target is None or self.gatherer.target.finished,
            newest_generation=others.generation if others else 0,
            another_open=any(
                r.status.phase.open for r in known if r.metadata.name != report.metadata.name
            ),
            verdict=verdict,
        )

    def _containers(
        self, report: BottleneckReport, running: Sequence[Pod]
    ) -> tuple[ResizeState, ...]:
        action = report.spec.action
        if action is None or action.resources is None:
            return ()
        states = (pod.size(action.resources.container) for pod in running)
        return tuple(state for state in states if state is not None)

    def _ready(self, running: Sequence[Pod]) -> int | None:
        """Ready replicas: the watch of pods knows sooner than the target's status does."""
        if self.gatherer.target is None or self.gatherer.target.ready is None:
            return None
        return max(self.gatherer.target.ready, sum(pod.ready for pod in running))

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
            guardrail(policy, report, observation, histories),
        )

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
        action = report.spec.action
        assert action is not None
        if action.knobs is not None:
            wanted = desired_knobs([report])
            if wanted is not None:
                await act_knobs.write(self.services.kube, running, wanted)
        elif action.replicas is not None and self.gatherer.target is not None:
            old, new = action.replicas.replaces, action.replicas.desired
            if undo:
                old, new = new, old
            namespace = policy.metadata.namespace
            await set_replicas(self.services.kube, namespace, self.gatherer.target, old, new)
        elif (change := action.resources) is not None:
            new_size, sizes = change.desired, (change.replaces, *change.earlier)
            if undo:
                new_size, sizes = change.replaces, (change.desired, *change.earlier)
            await act_resources.resize(
                self.services.kube, running, change.container, new_size, sizes
            )

    async def _move(
        self, policy: BottleneckPolicy, report: BottleneckReport, step: Next, now: float
    ) -> BottleneckReport:
        services = self.services
        figures = None
        if step.verdict is not None:
            histories = self.gatherer.histories(self.gatherer.running(policy))
            figures = after(policy, report, histories, now)
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
            await reports.prune(services.kube, services.reports, policy)
        return report
