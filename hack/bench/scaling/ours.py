"""Our rule, as it decides in the operator: the planner on what the service would tell. Only the
life of a report is shortened: applied at once, acknowledged when the replicas are ready, and kept
or undone by whether the objective is met after as many figures as the judge takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from bottleneck_operator.api.policy import PolicySpec
from bottleneck_operator.api.report import (
    Aim,
    BottleneckReport,
    Cause,
    Phase,
    ReportSpec,
    ReportStatus,
    Verdict,
    VerdictResult,
)
from bottleneck_operator.decide.decision import Decision, Facts, Plan
from bottleneck_operator.decide.planner import decide, follow
from bottleneck_operator.diagnose.diagnosis import Diagnosis
from bottleneck_operator.diagnose.objectives import evaluate, unknown
from bottleneck_operator.observe.observation import Observation, Reading, Signal, WorkloadType
from bottleneck_operator.observe.trail import Trail
from bottleneck_operator.verify.judge import LOOKS, SAVING_LOOKS

from .world import Done, Service

WINDOW = 10.0
LEAST_SPAN = 5.0
LEAST_REQUESTS = 10
WARM_UP = 10.0
BEGIN = 1_800_000_000.0

QUEUEING = Cause.model_validate(
    {
        "id": "queueing",
        "class": "queueing",
        "category": "Infrastructure",
        "title": "Requests wait for a free server",
        "share": 0.5,
        "confidence": 1.0,
    }
)


def moment(seconds: float) -> datetime:
    """A second of the simulation as a moment."""
    return datetime.fromtimestamp(BEGIN + seconds, UTC)


@dataclass(slots=True)
class Ours:
    """Our rule; see ``rules.Rule``. ``silent`` are stretches of seconds without telemetry."""

    spec: PolicySpec
    silent: Sequence[tuple[float, float]] = ()
    trail: Trail = field(default_factory=Trail)
    reports: list[BottleneckReport] = field(default_factory=list)
    decisions: list[tuple[float, Plan]] = field(default_factory=list)
    _changed: float = -1000.0
    _ended: list[tuple[float, Done]] = field(default_factory=list)
    _told: int = 0

    def look(self, service: Service) -> None:
        """One look; see ``Rule``."""
        seen = self._observe(service)
        self.trail.note(seen)
        states = evaluate(self.spec.objectives, seen)
        symptom = next((s.symptom for s in states if s.symptom is not None), None)
        causes = (QUEUEING,) if symptom and queueing(seen, service.model.target) else ()
        diagnosis = Diagnosis(
            seen.time, symptom is not None or not unknown(states), states, symptom, causes
        )
        self._advance(service, diagnosis)
        facts = Facts(
            replicas=len(service.replicas),
            ready=service.ready,
            reports=tuple(self.reports),
            trail=self.trail,
        )
        decision: Decision | None
        if any(report.status.phase.open for report in self.reports):
            decision = follow(diagnosis, seen, self.spec, facts, seen.time)
        else:
            decision = decide(diagnosis, seen, self.spec, facts, seen.time)
        if isinstance(decision, Plan):
            self._apply(service, decision, seen)

    def _observe(self, service: Service) -> Observation:
        now = service.now
        for each in service.done[self._told :]:
            self._ended.append((each.ended, each))
        self._told = len(service.done)
        span = min(WINDOW, now - self._changed, now)
        start = now - span
        self._ended = [each for each in self._ended if each[0] > now - WINDOW]
        heard = not any(begin <= now < end for begin, end in self.silent)
        signals: dict[str, Signal] = {}

        def put(name: str, value: float, unit: str, statistic: str) -> None:
            signals[f"inference.{name}"] = Reading(value, unit, span, statistic, 0.0, "model")

        count, index = 0, service.next
        while index > 0 and service.arrivals[index - 1] >= start:
            index, count = index - 1, count + 1
        if heard and span >= LEAST_SPAN:
            put("arrivalRate", count / span, "requests/s", "rate")
            waiting = service.backlog[-int(span) :]
            put("queued", sum(waiting) / max(1, len(waiting)), "requests", "mean")
            done = [each for at, each in self._ended if start < at <= now]
            if len(done) >= LEAST_REQUESTS:
                model = service.model
                taken = sorted(each.ended - each.arrived for each in done)
                rank = min(len(taken) - 1, int(len(taken) * model.percentile / 100))
                put("latency", taken[rank], "s", f"p{model.percentile}")
                queue = sum(each.begun - each.arrived for each in done)
                busy = sum(each.ended - each.begun for each in done)
                put("queueSeconds", queue / len(done), "s", "mean")
                put("serviceSeconds", busy / len(done), "s", "mean")
                places = max(1, service.ready) * model.places
                put("occupancy", min(1.0, busy / span / places), "", "busy time over time")
                put("concurrency", model.places, "requests", "mean")
        return Observation(
            time=BEGIN + now,
            type=WorkloadType.INFERENCE,
            signals=signals,
            expected=service.ready,
            streaming=service.ready if heard else 0,
            newest=BEGIN + now,
        )

    def _advance(self, service: Service, diagnosis: Diagnosis) -> None:
        for index, report in enumerate(self.reports):
            if not report.status.phase.open:
                continue
            status, action, now = report.status, report.spec.action, service.now
            assert action is not None
            assert action.replicas is not None
            if status.phase is Phase.APPLIED and service.ready >= action.replicas.desired:
                self._changed = now
                changes = {"phase": Phase.VERIFYING, "acknowledged_at": moment(now)}
                self.reports[index] = _moved(report, changes)
            elif status.phase is Phase.VERIFYING and diagnosis.known:
                assert status.acknowledged_at is not None
                since = now + BEGIN - status.acknowledged_at.timestamp() - WARM_UP
                saving = action.aim is Aim.SAVE
                if diagnosis.breached and saving and since >= SAVING_LOOKS[0]:
                    service.scale(action.replicas.replaces)
                    self._changed = now
                    self._close(index, Phase.REVERTED, VerdictResult.WORSE, now)
                elif not diagnosis.breached and since >= SAVING_LOOKS[saving]:
                    result = VerdictResult.NO_EFFECT if saving else VerdictResult.IMPROVED
                    self._close(index, Phase.KEPT, result, now)
                elif since >= LOOKS[-1]:
                    self._close(index, Phase.KEPT, VerdictResult.INCONCLUSIVE, now)

    def _close(self, index: int, phase: Phase, result: VerdictResult, now: float) -> None:
        changes = {"phase": phase, "closed_at": moment(now), "verdict": Verdict(result=result)}
        self.reports[index] = _moved(self.reports[index], changes)

    def _apply(self, service: Service, plan: Plan, seen: Observation) -> None:
        now, change = service.now, plan.action.replicas
        assert change is not None
        assert change.replaces == len(service.replicas)
        for index, report in enumerate(self.reports):
            if report.metadata.name == plan.supersedes:
                changes = {"phase": Phase.KEPT, "closed_at": moment(now)}
                self.reports[index] = _moved(report, changes)
        self.decisions.append((now, plan))
        service.scale(change.desired)
        self._changed = now
        spec = ReportSpec.model_validate(
            {
                "policy": "p",
                "policy_generation": 0,
                "target": self.spec.target_ref,
                "breached_at": moment(now),
                "decided_at": moment(now),
                "symptom": plan.symptom
                or {
                    "objective": "Latency",
                    "text": "over its objective",
                    "evidence": {"signal": "s", "window": "10s", "statistic": "p95", "value": 1},
                },
                "metric": {"name": "latency", "unit": "s", "lower_is_better": True},
                "action": plan.action,
                "supersedes": plan.supersedes,
            }
        )
        status = ReportStatus(phase=Phase.APPLIED, applied_at=moment(now))
        name = f"p-{len(self.decisions)}"
        self.reports.append(
            BottleneckReport.model_validate(
                {"metadata": {"name": name}, "spec": spec, "status": status}
            )
        )
        self.reports = self.reports[-30:]


def queueing(seen: Observation, target: float) -> bool:
    """Whether the catalogue would confirm that requests queue; its main predicates."""
    wait, latency = seen.value("inference.queueSeconds"), seen.value("inference.serviceSeconds")
    busy, queued = seen.value("inference.occupancy"), seen.value("inference.queued")
    if wait is None or latency is None or busy is None or queued is None:
        return False
    waited = wait >= target / 2 or wait >= (wait + latency) / 2
    return waited and (busy >= 0.7 or queued >= 2)


def _moved(report: BottleneckReport, changes: dict[str, object]) -> BottleneckReport:
    status = report.status.model_copy(update=changes)
    return report.model_copy(update={"status": status})
