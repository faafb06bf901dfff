"""From a diagnosis to one action, or to a refusal that says why not. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from ..api import units
from ..api.conditions import Reason
from ..api.policy import PolicySpec
from ..api.report import Action, BottleneckReport, Phase, VerdictResult
from ..diagnose.catalogue import CATALOGUE, CauseEntry
from ..diagnose.diagnosis import Diagnosis
from ..observe.observation import Observation
from .decision import Decision, Facts, Plan, Refusal
from .remedies import REMEDIES

_ENTRIES: dict[str, CauseEntry] = {entry.id: entry for entry in CATALOGUE}


def decide(
    diagnosis: Diagnosis,
    observation: Observation,
    spec: PolicySpec,
    facts: Facts,
    now: float,
) -> Decision:
    """The one thing to do now. Nothing is ever done without data, while an action is open, while
    paused, or for a cause that was not confirmed. ``now`` in seconds since the Unix epoch."""
    if spec.paused:
        return Refusal(Reason.PAUSED, "the policy is paused; set spec.paused to false to go on")
    if not diagnosis.known:
        return Refusal(Reason.NO_DATA, _missing(diagnosis))
    if not diagnosis.breached:
        return Refusal(Reason.OBJECTIVES_MET, "every objective is met")
    if not diagnosis.causes:
        return Refusal(
            Reason.CAUSE_UNKNOWN, "an objective is breached, and no known cause is confirmed"
        )
    if not observation.streaming or observation.streaming < observation.expected:
        # It stands still: the cause is known, but without telemetry only people may act on it.
        return _for_people(_ENTRIES[diagnosis.causes[0].id])
    held = _too_soon(spec, facts, now)
    refusals: list[Refusal] = []
    for cause in diagnosis.causes:
        entry = _ENTRIES[cause.id]
        for remedy in entry.remedies:
            answer = REMEDIES[remedy](cause, observation, spec, facts)
            if isinstance(answer, Refusal):
                refusals.append(answer)
            elif missed := _quarantined(answer, facts):
                refusals.append(missed)
            elif held:
                return held
            else:
                return Plan(answer)
        if not entry.remedies:
            refusals.append(_for_people(entry))
    return refusals[0]


def _for_people(entry: CauseEntry) -> Refusal:
    """What people can do about a cause that the operator does nothing about."""
    return Refusal(Reason.NO_REMEDY, f"{entry.title}. {entry.advice}".strip())


def _missing(diagnosis: Diagnosis) -> str:
    reasons = [f"{s.name}: {s.reason}" for s in diagnosis.objectives if s.met is None]
    return "no data, so nothing is done: " + "; ".join(reasons)


def _acted(report: BottleneckReport) -> datetime | None:
    """When a report had an effect, or None where it had none."""
    return report.status.applied_at


def _too_soon(spec: PolicySpec, facts: Facts, now: float) -> Refusal | None:
    moment = datetime.fromtimestamp(now, UTC)
    cooldown = units.seconds(spec.limits.cooldown)
    for report in facts.reports:
        if report.status.phase.open:
            return Refusal(
                Reason.COOLDOWN, f"{report.metadata.name} is still open; one action at a time"
            )
        closed = report.status.closed_at
        if closed is not None and _acted(report) is not None:
            waited = (moment - closed).total_seconds()
            if waited < cooldown:
                return Refusal(
                    Reason.COOLDOWN,
                    f"the last action ended {waited:.0f}s ago; the policy's cooldown is "
                    f"{spec.limits.cooldown}",
                    retry_after=cooldown - waited,
                )
    ages = [
        (moment - acted).total_seconds() for r in facts.reports if (acted := _acted(r)) is not None
    ]
    recent = [age for age in ages if age < 3600]
    if len(recent) >= spec.limits.actions_per_hour:
        return Refusal(
            Reason.ACTIONS_PER_HOUR,
            f"{len(recent)} actions in the last hour, the policy's maximum",
            retry_after=3600 - max(recent),
        )
    return None


def _quarantined(action: Action, facts: Facts) -> Refusal | None:
    """The same action for the same cause is not tried again after a miss, until the policy was
    changed: what did not help a minute ago will not help now."""
    for report in facts.reports:
        before, verdict = report.spec.action, report.status.verdict
        missed = report.status.phase is Phase.REVERTED or (
            verdict is not None and verdict.result is not VerdictResult.IMPROVED
        )
        if (
            before is not None
            and missed
            and before.cause == action.cause
            and before.type == action.type
            and _desired(before) == _desired(action)
            and report.spec.policy_generation == facts.policy_generation
        ):
            result = verdict.result if verdict else report.status.phase
            return Refusal(
                Reason.QUARANTINED,
                f"{action.summary} was tried by {report.metadata.name} and ended {result}; it is "
                "tried again when the policy changes",
            )
    return None


def _desired(action: Action) -> object:
    return action.knobs.desired if action.knobs else action.replicas and action.replicas.desired
