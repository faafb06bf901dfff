"""Gathers what a report is judged by, and asks the pure judges (``verify/``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..api.policy import BottleneckPolicy
from ..api.report import Aim, BottleneckReport, Stage, Verdict
from ..api.split import Split
from ..decide.lifecycle import rolled_by_us
from ..decide.some_first import in_scope, untouched
from ..diagnose.objectives import all_met, unmet
from ..observe.history import History
from ..observe.observation import Observation
from ..observe.rollout import PodImage, words_about
from ..verify.canary import beside, judge_canary, judge_rolled, of_replica
from ..verify.comparable import acted_beside, confounders_of, rollout_in, weakened
from ..verify.judge import judge, judge_growth, judge_saving
from ..verify.measure import after, before, guardrail, load_change
from ..verify.split import Beside, judge_split, since_split
from .gather import Gatherer
from .services import Services

Histories = Mapping[str, History]


@dataclass(frozen=True, slots=True)
class Judging:
    """Judges the reports of one policy."""

    services: Services
    gatherer: Gatherer

    def verdict(
        self,
        policy: BottleneckPolicy,
        report: BottleneckReport,
        observation: Observation,
        histories: Histories,
        now: float,
    ) -> Verdict | None:
        """The verdict on a report at ``now``, or None while it is worth waiting or replicas are
        silent."""
        action = report.spec.action
        if action is None or not self._heard(policy, report, observation):
            return None
        saving, split = action.aim is Aim.SAVE, first_on(report)
        if split is not None:
            found = self._of_split(policy, report, split, observation, histories, now)
            return self._weakened(policy, report, found, histories, now)
        broken = guardrail(policy, report, observation, histories)
        missed = unmet(policy.spec.objectives, observation) if saving else ""
        if report.status.stage is Stage.ROLLED:
            new = after(policy, report, histories, now)
            return judge_rolled(report.status.verdict, new, missed, broken)
        if action.image is not None:
            found = self._of_canary(policy, report, observation, histories, broken, now)
            return self._weakened(policy, report, found, histories, now)
        old, new = before(policy, report, histories), after(policy, report, histories, now)
        lower = report.spec.metric.lower_is_better
        if saving:
            found = judge_saving(old, new, missed, broken)
        elif action.grows:
            met = all_met(policy.spec.objectives, observation)
            load, change = load_change(report, histories, now), action.replicas
            grown = change.desired / max(1, change.replaces) if change is not None else 1.0
            found = judge_growth(old, new, lower, met, load, broken, grown)
        else:
            found = judge(old, new, lower, broken)
        return found if broken else self._weakened(policy, report, found, histories, now)

    def figures(
        self, policy: BottleneckPolicy, report: BottleneckReport, histories: Histories, now: float
    ) -> list[float]:
        """The metric after the action, as it was judged."""
        if report.status.stage is not Stage.CANARY:
            return after(policy, report, histories, now)
        if (split := first_on(report)) is not None:
            return list(self._beside(policy, report, split, histories, now).treated)
        canaries = self._canaries(policy, report)
        return list(beside(policy, report, histories, canaries, now).new)

    def images(self, policy: BottleneckPolicy, report: BottleneckReport) -> tuple[PodImage, ...]:
        """The changed container of all pods, those included that do not run yet."""
        change = report.spec.action.image if report.spec.action else None
        if change is None:
            return ()
        return tuple(
            PodImage(
                pod=pod.name,
                image=pod.image(change.container),
                ready=pod.running and pod.ready,
                words=words_about(pod.trouble),
                stuck=pod.trouble is not None and not pod.trouble.unschedulable,
            )
            for pod in self.gatherer.pods(policy)
            if pod.phase != "Terminating"
        )

    # -- who speaks --------------------------------------------------------------------------------

    def _heard(
        self, policy: BottleneckPolicy, report: BottleneckReport, observation: Observation
    ) -> bool:
        if not observation.streaming:
            return False
        if observation.streaming >= observation.expected:
            return True
        speaking = {replica.pod for replica in observation.replicas}
        running = self.gatherer.running(policy)
        if (split := first_on(report)) is not None:
            # Pods that came later are in neither half.
            halves = [*in_scope(report, running), *untouched(split, running)]
            return {pod.name for pod in halves} <= speaking
        # Where everything but the canary speaks, that tells of the image, not of the wires.
        canaries = set(self._canaries(policy, report))
        others = {pod.name for pod in running} - canaries
        return report.status.stage is Stage.CANARY and bool(others) and others <= speaking

    # -- some of the replicas ----------------------------------------------------------------------

    def _of_split(
        self,
        policy: BottleneckPolicy,
        report: BottleneckReport,
        split: Split,
        observation: Observation,
        histories: Histories,
        now: float,
    ) -> Verdict | None:
        treated = [pod.name for pod in in_scope(report, self.gatherer.running(policy))]
        ours = _of(treated, histories)
        # What breaks on the others is not its doing.
        own = [of_replica(observation, pod) for pod in treated]
        broken = _first(guardrail(policy, report, each, ours) for each in own)
        figures = self._beside(policy, report, split, histories, now)
        if report.spec.action is None or report.spec.action.aim is not Aim.SAVE:
            return judge_split(report, split, figures, treated, broken)
        missed = _first(unmet(policy.spec.objectives, each) for each in own)
        broken = broken or figures.failing
        verdict = judge_saving(figures.untouched, figures.treated, missed, broken)
        return verdict and verdict.model_copy(update={"control": True})

    def _beside(
        self,
        policy: BottleneckPolicy,
        report: BottleneckReport,
        split: Split,
        histories: Histories,
        now: float,
    ) -> Beside:
        running = self.gatherer.running(policy)
        ours = [pod.name for pod in in_scope(report, running)]
        others = [pod.name for pod in untouched(split, running)]
        return since_split(policy, report, _of(ours, histories), _of(others, histories), now)

    # -- one pod with another image ----------------------------------------------------------------

    def _of_canary(
        self,
        policy: BottleneckPolicy,
        report: BottleneckReport,
        observation: Observation,
        histories: Histories,
        broken: str,
        now: float,
    ) -> Verdict | None:
        canaries = self._canaries(policy, report)
        if not canaries:
            return None
        figures = beside(policy, report, histories, canaries, now)
        own = [of_replica(observation, pod) for pod in canaries]
        # Among many replicas the figures of one are hardly seen in those of all.
        broken = broken or _first(guardrail(policy, report, each, histories) for each in own)
        if report.spec.action is None or report.spec.action.aim is not Aim.SAVE:
            return judge_canary(report, figures, observation, canaries, broken)
        missed = _first(unmet(policy.spec.objectives, each) for each in own)
        verdict = judge_saving(figures.old, figures.new, missed, broken or figures.failing)
        return verdict and verdict.model_copy(update={"control": figures.control})

    def _canaries(self, policy: BottleneckPolicy, report: BottleneckReport) -> list[str]:
        change = report.spec.action.image if report.spec.action else None
        found = self.images(policy, report)
        return [e.pod for e in found if change is not None and e.image == change.desired]

    # -- what else happened ------------------------------------------------------------------------

    def _weakened(
        self,
        policy: BottleneckPolicy,
        report: BottleneckReport,
        verdict: Verdict | None,
        histories: Histories,
        now: float,
    ) -> Verdict | None:
        """The verdict as far as it holds beside what else happened meanwhile."""
        target = self.gatherer.target
        if verdict is None or target is None:
            return verdict
        pooled: set[str] = set()
        if policy.spec.capacity is not None:
            pooled = {member.policy for member in self.services.pools.members(policy)}
        known = self.services.reports.of(policy)
        rolled = rollout_in(report, target.workload, now)
        if rolled is not None and rolled_by_us(known, rolled):
            rolled = None
        others = self.services.reports.in_namespace(policy.metadata.namespace)
        confounders = confounders_of(
            report,
            target.workload,
            rolled,
            self.gatherer.running(policy),
            acted_beside(report, others, pooled, now),
        )
        growing = report.spec.action is not None and report.spec.action.grows
        load = None if growing else load_change(report, histories, now)
        return weakened(verdict, confounders, load)


def first_on(report: BottleneckReport) -> Split | None:
    """The replicas that a report's action is on, where it is not on all of them."""
    return report.status.split if report.status.stage is Stage.CANARY else None


def _of(names: Sequence[str], histories: Histories) -> dict[str, History]:
    return {name: histories[name] for name in names if name in histories}


def _first(words: Iterable[str]) -> str:
    return next(filter(None, words), "")
