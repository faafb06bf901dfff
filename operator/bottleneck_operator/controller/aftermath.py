"""What comes after an action was undone: whether all is as it was before it. The question is put
each turn until it is answered; the answer is written into the report, and people are told."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..api.conditions import Reason
from ..api.consequences import RevertResult
from ..api.policy import BottleneckPolicy
from ..api.report import Action, BottleneckReport
from ..decide.aftermath import Undone, revert_verdict
from ..decide.decision import Facts
from ..decide.effects.standing import Progress
from ..decide.holds import unverified
from ..decide.restored import State, differences
from ..report import reports
from ..report.reports import now_utc
from ..verify.measure import since_undone
from .gather import Gatherer, Seen
from .services import Services


@dataclass(slots=True)
class Aftermath:
    """Judges the undoings of one policy."""

    services: Services
    gatherer: Gatherer
    _whole_since: dict[str, float] = field(default_factory=dict)
    """By report: since when all that is wanted runs and speaks. A new process has no figures from
    before it began, so it loses nothing here."""

    async def judge(self, policy: BottleneckPolicy, seen: Seen, facts: Facts, now: float) -> None:
        """Gives every undone action its verdict as soon as there is one."""
        for report in facts.reports:
            if not unverified(report, now):
                self._whole_since.pop(report.metadata.name, None)
                continue
            verdict = revert_verdict(
                report, self._undone(policy, report, seen, now), facts, now_utc(now)
            )
            if verdict is None:
                continue
            await reports.set_revert(self.services.kube, self.services.reports, report, verdict)
            if verdict.result is RevertResult.NOT_RESTORED:
                reason = Reason.STATE_DIFFERS if verdict.differences else Reason.NOT_RESTORED
                message = f"{report.metadata.name} was undone: {verdict.reason}"
                await self.services.recorder.post(policy, reason, message)

    def _undone(
        self, policy: BottleneckPolicy, report: BottleneckReport, seen: Seen, now: float
    ) -> Undone:
        closed = report.status.closed_at
        assert closed is not None
        assert report.spec.action is not None
        over, name = closed.timestamp(), report.metadata.name
        since = self._whole_since.setdefault(name, over)
        if not self._whole(seen):
            since = self._whole_since[name] = now
        return Undone(
            figures=since_undone(policy, report, seen.histories, since, now),
            differences=differences(
                report.spec.action, State.BEFORE, self._state(report.spec.action, seen)
            ),
            waited=now - since,
            ago=now - over,
        )

    def _whole(self, seen: Seen) -> bool:
        target, told = self.gatherer.target, seen.observation
        if target is None or not 0 < told.expected == told.streaming:
            return False
        ready = self.gatherer.ready(seen.running)
        return ready is None or target.replicas is None or ready >= target.replicas

    def _state(self, action: Action, seen: Seen) -> Progress:
        target = self.gatherer.target
        sizes = []
        if action.resources is not None:
            found = (pod.size(action.resources.container) for pod in seen.running)
            sizes = [size for size in found if size is not None]
        hpa = self.gatherer.hpa if self.gatherer.hpa_known else None
        ours = action.hpa is not None and hpa is not None and hpa.name == action.hpa.name
        return Progress(
            observation=seen.observation,
            replicas=target.replicas if target is not None else None,
            containers=sizes,
            hpa=hpa.bounds if ours and hpa is not None else None,
            rollout=target.workload.rollout if target is not None else None,
        )
