"""A policy's status from what the loop knows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from ..api.conditions import Condition, Reason
from ..api.pause import pause_of
from ..api.policy import BottleneckPolicy
from ..api.policy_status import (
    BaselineStatus,
    BottleneckStatus,
    ConditionStatus,
    KnobsStatus,
    LastAction,
    ObjectiveStatus,
    PolicyStatus,
    SizeStatus,
    TrailStatus,
)
from ..api.report import BottleneckReport, Phase
from ..decide.advice import MOST, recommendations
from ..decide.decision import Facts, Plan, Refusal
from ..decide.effects.knobs import acknowledged
from ..decide.ledger import settled
from ..decide.lifecycle import desired_knobs, desired_sizes
from ..diagnose.diagnosis import Diagnosis
from ..diagnose.objectives import RUNNING
from ..observe.observation import Observation
from .consequences import restored, undecided_ones


class _Condition(Protocol):
    def __call__(
        self, kind: Condition, status: bool | None, reason: Reason, message: str = ""
    ) -> ConditionStatus: ...


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a policy cannot do its work."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class View:
    """Everything that a status tells, gathered by one turn of the loop."""

    replicas: int | None = None
    problem: Problem | None = None
    telemetry: Problem | None = None
    observation: Observation | None = None
    diagnosis: Diagnosis | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    """Other people's words, under the names of the signals that they go with."""
    decision: Plan | Refusal | None = None
    facts: Facts | None = None
    """What the decision went by."""
    reports: Sequence[BottleneckReport] = field(default_factory=tuple)
    trouble: str = ""
    """Why the action under way does not get on."""
    baselines: Sequence[BaselineStatus] = field(default_factory=tuple)
    trail: Sequence[TrailStatus] = field(default_factory=tuple)
    breached_since: datetime | None = None
    degraded_since: datetime | None = None
    trades: Mapping[str, tuple[Reason, str]] = field(default_factory=dict)
    """By the name of the report of an action under way: its side of a trade, and that in words."""


_PROGRESS = {
    Phase.PLANNED: Reason.APPLYING,
    Phase.APPLIED: Reason.AWAITING_ACKNOWLEDGEMENT,
    Phase.VERIFYING: Reason.VERIFYING,
    Phase.REVERTING: Reason.REVERTING,
}

_NO_LIMIT = (Reason.OBJECTIVES_MET, Reason.NO_DATA)


def status_of(policy: BottleneckPolicy, view: View, now: datetime) -> PolicyStatus:
    """The status to write. A condition keeps its transition time while its status stays."""
    old = {condition.type: condition for condition in policy.status.conditions}
    generation = policy.metadata.generation

    def condition(
        kind: Condition, status: bool | None, reason: Reason, message: str = ""
    ) -> ConditionStatus:
        text = {True: "True", False: "False", None: "Unknown"}[status]
        before = old.get(kind)
        since = before.last_transition_time if before and before.status == text else now
        return ConditionStatus(
            type=kind,
            status=text,
            reason=reason,
            message=message[:1024],
            last_transition_time=since,
            observed_generation=generation,
        )

    conditions = [
        _ready(view, policy, now, condition),
        _telemetry(view, condition),
        _bottlenecked(view, condition),
        _progressing(view, condition),
        _limited(view, condition),
        condition(Condition.RESTORED, *restored(view.reports, view.facts, now.timestamp())),
    ]
    diagnosis, observation = view.diagnosis, view.observation
    top = diagnosis.causes[0] if diagnosis and diagnosis.causes else None
    return PolicyStatus(
        observed_generation=generation,
        conditions=conditions,
        replicas=view.replicas,
        streaming=observation.streaming if observation else None,
        objectives=[
            ObjectiveStatus(name=s.name, current=s.current, target=s.target, met=s.met)
            for s in (diagnosis.objectives if diagnosis else ())
        ],
        bottleneck=BottleneckStatus(id=top.id, title=top.title, share=round(top.share, 2))
        if top
        else None,
        why=_sentences(diagnosis.whys) if diagnosis else "",
        recommendations=[
            *undecided_ones(view.reports, view.facts),
            *(
                recommendations(diagnosis, observation.type)
                if diagnosis is not None and observation is not None
                else ()
            ),
        ][:MOST],
        knobs=_knobs(view),
        sizes=[
            SizeStatus(
                container=name,
                desired=change.desired,
                replaces=[change.replaces, *change.earlier],
            )
            for name, change in sorted(desired_sizes(view.reports).items())
        ],
        last_action=_last_action(view.reports),
        next=_next(view.reports),
        next_report=max(
            [policy.status.next_report, *(report.number + 1 for report in view.reports)]
        ),
        ledger=settled(policy.status.ledger, view.reports),
        baselines=list(view.baselines),
        trail=list(view.trail),
        breached_since=view.breached_since,
        degraded_since=view.degraded_since,
    )


def _ready(
    view: View, policy: BottleneckPolicy, now: datetime, condition: _Condition
) -> ConditionStatus:
    if view.problem is not None:
        return condition(Condition.READY, False, view.problem.reason, view.problem.message)
    if policy.spec.paused:
        paused = pause_of(policy, now.timestamp())
        return condition(Condition.READY, False, Reason.PAUSED, paused)
    return condition(
        Condition.READY, True, Reason.ACCEPTED, f"looks after {policy.spec.target_ref}"
    )


def _telemetry(view: View, condition: _Condition) -> ConditionStatus:
    if view.telemetry is not None:
        return condition(
            Condition.TELEMETRY_AVAILABLE, False, view.telemetry.reason, view.telemetry.message
        )
    observation = view.observation
    if observation is None:
        return condition(Condition.TELEMETRY_AVAILABLE, None, Reason.NO_DATA, "not looked at yet")
    message = f"{observation.streaming} of {observation.expected} replicas speak"
    return condition(Condition.TELEMETRY_AVAILABLE, True, Reason.STREAMING, message)


def _bottlenecked(view: View, condition: _Condition) -> ConditionStatus:
    kind, diagnosis = Condition.BOTTLENECKED, view.diagnosis
    if view.telemetry is not None and view.telemetry.reason is Reason.SCALED_TO_ZERO:
        return condition(kind, None, Reason.SCALED_TO_ZERO, "nothing runs that could be judged")
    if diagnosis is None or not diagnosis.known:
        return condition(kind, None, Reason.UNKNOWN, "there is no data to judge by")
    if diagnosis.symptom is None:
        return condition(kind, False, Reason.OBJECTIVES_MET, "every objective is met")
    cause = "no known cause is confirmed"
    if diagnosis.causes:
        words = [view.texts.get(item.signal, "") for item in diagnosis.causes[0].evidence]
        cause = _sentences([diagnosis.causes[0].title, *words])
    if diagnosis.symptom.objective == RUNNING:
        return condition(kind, True, Reason.STANDSTILL, cause)
    message = f"{diagnosis.symptom.objective} is breached: {cause}"
    return condition(kind, True, Reason.OBJECTIVE_BREACHED, message)


def _sentences(lines: Iterable[str]) -> str:
    """The lines as one paragraph, each once. Some are other people's, with a full stop already."""
    told = list(dict.fromkeys(filter(None, lines)))
    ended = [line if line.endswith(".") else f"{line}." for line in told[:-1]]
    return " ".join([*ended, *told[-1:]])


def _progressing(view: View, condition: _Condition) -> ConditionStatus:
    for report in view.reports:
        if report.status.phase.open and report.spec.action is not None:
            reason, action = _PROGRESS[report.status.phase], report.spec.action
            if reason is Reason.AWAITING_ACKNOWLEDGEMENT and (action.replicas or action.hpa):
                reason = Reason.AWAITING_REPLICAS
            if reason is Reason.AWAITING_ACKNOWLEDGEMENT and report.spec.action.resources:
                reason = Reason.AWAITING_RESIZE
            if reason is Reason.AWAITING_ACKNOWLEDGEMENT and report.spec.action.image:
                reason = Reason.AWAITING_ROLLOUT
            message = f"{report.metadata.name}: {report.spec.action.summary}"
            if (trade := view.trades.get(report.metadata.name)) is not None:
                reason, message = trade[0], f"{message}; {trade[1]}"
            if report.status.stage is not None:
                message = f"{message} ({report.status.stage})"
            if view.trouble:
                reason, message = Reason.RETRYING, f"{message}; {view.trouble}"
            return condition(Condition.PROGRESSING, True, reason, message)
    return condition(Condition.PROGRESSING, False, Reason.IDLE, "no action is under way")


def _limited(view: View, condition: _Condition) -> ConditionStatus:
    decision = view.decision
    if isinstance(decision, Refusal) and decision.reason not in _NO_LIMIT:
        return condition(Condition.LIMITED, True, decision.reason, decision.message)
    return condition(
        Condition.LIMITED, False, Reason.NOT_LIMITED, "nothing holds the operator back"
    )


def _knobs(view: View) -> KnobsStatus | None:
    wanted = desired_knobs(view.reports)
    if wanted is None:
        return None
    done = view.observation is not None and acknowledged(view.observation, wanted.generation)
    return KnobsStatus(
        generation=wanted.generation,
        desired=wanted.values,
        acknowledged=wanted.generation if done else 0,
    )


def _last_action(reports: Iterable[BottleneckReport]) -> LastAction | None:
    last = None
    for report in reports:
        if report.spec.action is not None:
            verdict = report.status.verdict
            last = LastAction(
                report=report.metadata.name,
                summary=report.spec.action.summary,
                verdict=str(verdict.result) if verdict else str(report.status.phase),
                time=report.spec.decided_at,
            )
    return last


def _next(reports: Iterable[BottleneckReport]) -> str:
    """What the newest kept action left as the constraint."""
    kept = [report.status.next for report in reports if report.status.phase is Phase.KEPT]
    return kept[-1] if kept else ""


def substance(status: PolicyStatus) -> PolicyStatus:
    """What is worth a write at once: everything but moving figures and their prose."""
    return status.model_copy(
        update={
            "why": "",
            "baselines": [],
            "trail": [],
            "conditions": [
                c.model_copy(update={"message": "", "last_transition_time": None})
                for c in status.conditions
            ],
            "recommendations": [
                r.model_copy(update={"expected_gain": ""}) for r in status.recommendations
            ],
            "objectives": [o.model_copy(update={"current": ""}) for o in status.objectives],
            "bottleneck": status.bottleneck.model_copy(update={"share": None})
            if status.bottleneck
            else None,
        }
    )
