"""When a workload may sleep, and when it has to wake (docs/scale-to-zero.md). Pure.

Nothing is ever scaled to zero on missing data. To wake is the safe side, so there it is the other
way round: where nobody can say whether requests wait, it is taken that they do.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..api import units
from ..api.conditions import GATE_LABEL, Reason
from ..api.policy import Mode, PolicySpec
from ..api.report import (
    Action,
    Aim,
    BottleneckReport,
    Evidence,
    Phase,
    ReplicasChange,
    Symptom,
)
from ..observe.gate import GateView
from ..observe.windows import WINDOW_SECONDS
from .decision import Facts, Plan, Refusal
from .guards import too_soon
from .remedies.owners import room_for

IDLE = "idle"
"""Cause of a scaling to zero."""

WAITING = "requests-waiting"
"""Cause of a waking."""

SILENT_SECONDS = 30.0
"""A gate that is silent for longer, with nothing behind it, may hold requests: it is woken. Short
against the two minutes for which a gate holds, long against the restart of a gate or an operator
(a stream is opened again within 5 s)."""

RETRY_SECONDS = 10.0
"""Pause after a waking that came to nothing, for instance since the API server refused it."""

_SOURCE = "the gate's own figures"


def decide_idle(
    gate: GateView, spec: PolicySpec, facts: Facts, now: float
) -> Plan | Refusal | None:
    """To sleep, to wake, or why not; None where there is nothing to say. A waking waits for no
    cooldown and for no other action; a sleep waits for all that other actions wait for."""
    if facts.replicas is None:
        return None
    if facts.replicas == 0:
        return _wake(gate, spec, facts, now)
    bounds = spec.actions.replicas
    if bounds is None or bounds.min > 0 or spec.paused:
        return None
    return _sleep(gate, spec, facts, units.seconds(bounds.idle), now)


def sleeping(reports: Sequence[BottleneckReport]) -> BottleneckReport | None:
    """The report that scaled the workload to zero, if that was the operator's last word on its
    replicas. ``reports`` are oldest first."""
    for report in reversed(reports):
        action, phase = report.spec.action, report.status.phase
        if action is None or action.replicas is None or report.status.applied_at is None:
            continue
        to_zero = action.replicas.desired == 0 and phase in (Phase.APPLIED, Phase.KEPT)
        return report if to_zero else None
    return None


# -- to sleep --------------------------------------------------------------------------------------


def _sleep(
    gate: GateView, spec: PolicySpec, facts: Facts, idle: float, now: float
) -> Plan | Refusal | None:
    if gate.pods == 0:
        return Refusal(
            Reason.NO_GATE,
            "actions.replicas.min is 0, and there is no gate to keep the requests that come while "
            f"nothing runs: put one in front, its pods labelled {GATE_LABEL}: "
            f"{spec.target_ref.name} (docs/scale-to-zero.md), or write min: 1",
        )
    if not gate.complete:
        return Refusal(
            Reason.GATE_SILENT,
            f"{gate.pods - gate.speaking} of {gate.pods} pods of the gate are silent, so it is not "
            "scaled to zero; look at their log, and whether the operator may dial their port 9709",
        )
    owned = room_for(spec, facts)
    if isinstance(owned, Refusal):
        return owned
    if facts.hpa is not None:
        return Refusal(
            Reason.REPLICAS_OWNED_BY_HPA,
            f"HorizontalPodAutoscaler {facts.hpa} sets the replicas, so they are not scaled to"
            " zero; write min: 1",
        )
    if gate.idle_seconds is None or gate.idle_seconds < idle or gate.held or gate.in_flight:
        return None
    if facts.replicas is None or facts.ready is None or facts.ready < facts.replicas:
        return None  # what does not start is not asleep
    past = max(0.0, min(gate.idle_seconds, idle) - 2 * WINDOW_SECONDS)
    slots = facts.trail.series("inference.arrivalRate", past, now)
    if any(slot.most > 0 for slot in slots):
        return Refusal(
            Reason.GATE_BYPASSED,
            "nothing came through the gate, but requests reach the workload: let every client use "
            "the gate's Service, or write min: 1",
        )
    seconds = f"{gate.idle_seconds:.0f}s"
    return too_soon(spec, facts, now) or Plan(
        Action(
            type="Replicas",
            summary=f"replicas {facts.replicas} → 0",
            cause=IDLE,
            aim=Aim.SAVE,
            replicas=ReplicasChange(desired=0, replaces=facts.replicas),
        ),
        Symptom(
            objective="Idle",
            text=f"No request for {seconds}; {facts.replicas} replicas run",
            evidence=_evidence("gate.idleSeconds", gate.idle_seconds, "s", idle),
        ),
    )


# -- to wake ---------------------------------------------------------------------------------------


def _wake(gate: GateView, spec: PolicySpec, facts: Facts, now: float) -> Plan | Refusal | None:
    if any(_waking(report, now) for report in facts.reports):
        return None
    slept = sleeping(facts.reports)
    bounds = spec.actions.replicas
    if slept is None:
        return _asleep_by_others(gate, spec)
    assert slept.spec.action is not None
    assert slept.spec.action.replicas is not None
    before = slept.spec.action.replicas.replaces
    if bounds is None or bounds.min > 0 or spec.mode is Mode.OBSERVE:
        least = 1 if bounds is None else max(1, bounds.min)
        text = "The policy no longer lets it sleep"
        return _awake(least, text, _evidence("gate.held", gate.held))
    if gate.held:
        # As many as ran before, where that many can have something to do: what they can bear is
        # measured as soon as they run.
        text = f"{gate.held} connections wait at the gate, and nothing runs"
        wanted = min(bounds.max, before, gate.held)
        return _awake(wanted, text, _evidence("gate.held", gate.held, threshold=1))
    if not gate.complete and gate.silent_seconds > SILENT_SECONDS:
        silent = f"The gate has been silent for {gate.silent_seconds:.0f}s"
        text = "There is no gate any more" if gate.pods == 0 else silent
        text += ", so nobody can say whether requests wait"
        evidence = _evidence("gate.silentSeconds", gate.silent_seconds, "s", SILENT_SECONDS)
        return _awake(1, text, evidence)
    return None


def _asleep_by_others(gate: GateView, spec: PolicySpec) -> Plan | Refusal | None:
    """Somebody else scaled it to zero, perhaps to keep it there."""
    bounds = spec.actions.replicas
    if not gate.held:
        return None
    if bounds is not None and bounds.min == 0 and spec.mode is Mode.AUTO and not spec.paused:
        text = f"{gate.held} connections wait at the gate, and nothing runs"
        return _awake(1, text, _evidence("gate.held", gate.held, threshold=1))
    return Refusal(
        Reason.SCALED_TO_ZERO,
        f"{gate.held} connections wait at the gate, and somebody else has scaled the workload to "
        "zero: scale it up, or let the operator do it with mode: Auto and actions.replicas.min: 0",
    )


def _waking(report: BottleneckReport, now: float) -> bool:
    """Whether it is being woken, or that has just failed."""
    action, closed = report.spec.action, report.status.closed_at
    if action is None or action.aim is not Aim.WAKE or report.status.phase is Phase.KEPT:
        return False
    return closed is None or now - closed.timestamp() < RETRY_SECONDS


def _awake(replicas: int, text: str, evidence: Evidence) -> Plan:
    return Plan(
        Action(
            type="Replicas",
            summary=f"replicas 0 → {replicas}",
            cause=WAITING,
            aim=Aim.WAKE,
            replicas=ReplicasChange(desired=replicas, replaces=0),
        ),
        Symptom(objective="Awake", text=text, evidence=evidence),
    )


def _evidence(
    signal: str, value: float, unit: str = "", threshold: float | None = None
) -> Evidence:
    return Evidence(
        signal=signal,
        window="now",
        statistic="sum over the gate's pods" if signal == "gate.held" else "least",
        value=value,
        unit=unit,
        threshold=threshold,
        source=_SOURCE,
    )
