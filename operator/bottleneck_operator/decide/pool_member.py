"""A policy as its pool sees it, and the trades that its reports tell of. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..api.policy import BottleneckPolicy, Disruption, Mode
from ..api.report import BottleneckReport, Phase, TradeRole, VerdictResult
from ..diagnose.diagnosis import Diagnosis
from ..observe.observation import Observation, WorkloadType
from ..observe.pods import Pod
from .decision import Facts, Refusal
from .guards import regretted, too_soon
from .marginal import forecast
from .pool import Member, Past, Shortage
from .remedies.owners import room_for
from .trading import Side, other_side


def member_of(
    policy: BottleneckPolicy,
    observation: Observation,
    diagnosis: Diagnosis,
    facts: Facts,
    pods: Sequence[Pod],
    since_checkpoint: float | None,
    now: float,
) -> Member:
    """The member that a policy with ``spec.capacity`` is at ``now``. ``pods`` are all of its target
    that the watch knows."""
    capacity, spec = policy.spec.capacity, policy.spec
    assert capacity is not None
    alive = [pod for pod in pods if pod.phase not in ("Succeeded", "Failed", "Terminating")]
    devices = dict(alive[0].devices) if alive else {}
    speaks = 0 < observation.expected <= observation.streaming
    known = diagnosis.known and speaks
    symptom = diagnosis.symptom
    ready = sum(pod.ready for pod in alive)
    seen = Facts(ready=ready)
    return Member(
        policy=policy.metadata.name,
        time=now,
        priority=capacity.priority,
        minimum=spec.actions.replicas.min if spec.actions.replicas else 1,
        replicas=facts.replicas or 0,
        ready=ready,
        breached=diagnosis.breached if known else None,
        forecast=lambda replicas: forecast(observation, spec, seen, replicas),
        devices=devices,
        shortage=_shortage(alive, devices, now),
        no_giver=_no_giver(policy, facts, now),
        no_taker=_no_taker(policy, facts, now),
        training=observation.type is WorkloadType.TRAINING,
        since_checkpoint=since_checkpoint,
        trouble=_trouble(diagnosis) if symptom else "",
    )


def _trouble(diagnosis: Diagnosis) -> str:
    """The first breached objective, with its figures where it has any."""
    for state in diagnosis.objectives:
        if state.met is False and state.name != "Running":
            return f"{state.name} is {state.current}, objective {state.target}"
    return diagnosis.symptom.text if diagnosis.symptom else ""


def _shortage(alive: Sequence[Pod], devices: Mapping[str, float], now: float) -> Shortage | None:
    """Pods that no node takes for want of a device, if any."""
    for resource in devices:
        waiting = [
            pod.trouble
            for pod in alive
            if pod.trouble and f"Insufficient {resource}" in pod.trouble.unschedulable
        ]
        if waiting:
            since = [t.unschedulable_since for t in waiting if t.unschedulable_since is not None]
            words = f"The scheduler says: {waiting[0].unschedulable}"
            return Shortage(len(waiting), resource, min(since, default=now), words)
    return None


def _no_giver(policy: BottleneckPolicy, facts: Facts, now: float) -> str:
    spec = policy.spec
    if why := _may_not_act(policy):
        return why
    owned = room_for(spec, facts)
    if isinstance(owned, Refusal):
        return owned.message
    if facts.hpa is not None:
        return f"HorizontalPodAutoscaler {facts.hpa} owns its replicas"
    if spec.limits.disruption is Disruption.HOT_ONLY:
        return "its limits.disruption is HotOnly"
    held = too_soon(spec, facts, now)
    if held is not None:
        return held.message
    if regretted("Replicas", facts, now):
        return "replicas that were taken from it lately had to be given back"
    return ""


def _no_taker(policy: BottleneckPolicy, facts: Facts, now: float) -> str:
    if why := _may_not_act(policy):
        return why
    growth = open_growth(facts.reports)
    if growth is not None and growth.status.phase is Phase.APPLIED:
        return ""
    held = too_soon(policy.spec, facts, now)
    return held.message if held is not None else ""


def _may_not_act(policy: BottleneckPolicy) -> str:
    if policy.spec.paused:
        return "it is paused"
    if policy.spec.mode is not Mode.AUTO:
        return f"its mode is {policy.spec.mode}; only policies in mode Auto trade"
    return ""


def open_growth(reports: Iterable[BottleneckReport]) -> BottleneckReport | None:
    """The action under way that waits for more replicas, if any."""
    for report in reports:
        action = report.spec.action
        if (
            report.status.phase.open
            and report.status.phase is not Phase.REVERTING
            and action is not None
            and action.replicas is not None
            and action.replicas.desired >= action.replicas.replaces
        ):
            return report
    return None


def past_of(reports: Sequence[BottleneckReport], pool: str) -> list[Past]:
    """The trades of a pool from all reports of its namespace. One that was given up before it had
    any effect is none."""
    found = []
    for report in reports:
        trade, status = report.spec.trade, report.status
        if trade is None or trade.role is not TradeRole.GIVES or trade.pool != pool:
            continue
        if not status.phase.open and status.applied_at is None:
            continue
        other = other_side(report, reports)
        failed = ""
        if status.verdict is not None and status.verdict.result is VerdictResult.WORSE:
            failed = report.spec.policy
        elif other is not None and other.side is Side.UNDONE and other.report:
            failed = trade.policy
        at = status.closed_at or status.applied_at or report.spec.decided_at
        found.append(
            Past(report.spec.policy, trade.policy, at.timestamp(), status.phase.open, failed)
        )
    return found
