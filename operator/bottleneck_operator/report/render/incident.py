"""What a policy and its reports tell besides the diagnosis: what was done, what holds it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from ...api.conditions import Condition
from ...api.policy import BottleneckPolicy, Mode
from ...api.report import BottleneckReport, Phase, Verdict, VerdictResult
from ...decide.choice import cost_text
from ...diagnose.diagnosis import ObjectiveState
from ...diagnose.objectives import figure
from .parts import Section, percent

_ENDS = {
    Phase.KEPT: "it was kept",
    Phase.REVERTED: "it was taken back",
    Phase.REVERTING: "it is being taken back",
    Phase.ABANDONED: "it was given up",
}
_MODES = {
    Mode.OBSERVE: "Observe: it diagnoses and changes nothing",
    Mode.RECOMMEND: "Recommend: it says what it would change, and waits for approval",
    Mode.AUTO: "Auto: it acts, verifies, and reverts what did not help",
}


def action_section(reports: Sequence[BottleneckReport]) -> Section | None:
    """What the operator did last: the newest report with an action, or None if there is none."""
    with_action = [report for report in reports if report.spec.action is not None]
    if not with_action:
        return None
    return Section("What the operator did last", tuple(_action(with_action[-1])))


def report_sections(report: BottleneckReport) -> list[Section]:
    """Everything that one report tells besides its diagnosis."""
    sections = []
    if report.spec.action is not None:
        sections.append(Section("What the operator did", tuple(_action(report))))
    if report.spec.alternatives:
        sections.append(Section("What was considered besides", tuple(_alternatives(report))))
    if report.spec.refusal:
        sections.append(Section("What it refused, and why", (report.spec.refusal,)))
    timeline = tuple(
        f"{_time(entry.time)} {entry.what}" + (f": {entry.message}" if entry.message else "")
        for entry in report.status.timeline
    )
    if timeline:
        sections.append(Section("Timeline", timeline))
    return sections


def limits_section(policy: BottleneckPolicy) -> Section | None:
    """What keeps the operator from acting, after the policy's conditions; None if nothing does."""
    conditions = {condition.type: condition for condition in policy.status.conditions}
    lines = []
    for kind, held in (
        (Condition.READY, "False"),
        (Condition.TELEMETRY_AVAILABLE, "False"),
        (Condition.LIMITED, "True"),
    ):
        condition = conditions.get(kind)
        if condition is not None and condition.status == held:
            lines.append(f"{condition.reason}: {condition.message or 'no message'}.")
    if not conditions:
        lines.append("The operator has not looked at this policy yet; is it running?")
    if not lines:
        return None
    return Section("What it refuses, and why", (*lines, f"Mode {_MODES[policy.spec.mode]}."))


def objectives_section(states: Sequence[ObjectiveState]) -> Section | None:
    """Each objective with its figure; None without objectives."""
    words = {True: "met", False: "missed", None: "cannot be judged"}
    lines = tuple(
        f"{state.name} {state.current}, wanted {state.target}: {words[state.met]}"
        + (f" ({state.reason})" if state.met is None and state.reason else "")
        for state in states
    )
    return Section("Objectives", lines) if lines else None


def operator_section(policy: BottleneckPolicy, first: str) -> Section | None:
    """What the operator itself names, if that is not ``first``, the cause that the sample shows: it
    has watched for longer than a sample does."""
    named = policy.status.bottleneck
    if named is None or named.id == first:
        return None
    share = f", {percent(named.share)}" if named.share is not None else ""
    lines = [f"{named.title or named.id} ({named.id}{share})."]
    if policy.status.why:
        lines.append(policy.status.why)
    return Section("What the operator sees, which watches all the time", tuple(lines))


def _action(report: BottleneckReport) -> Iterator[str]:
    spec, status, action = report.spec, report.status, report.spec.action
    assert action is not None
    yield (
        f"{_time(spec.decided_at)} {report.metadata.name}: {action.summary}, against"
        f" {action.cause}."
    )
    if spec.trade is not None:
        yield f"Trade in pool {spec.trade.pool}: {spec.trade.reason}."
    unit = spec.metric.unit
    if action.prediction is not None:
        expected = action.prediction
        yield (
            f"Predicted {spec.metric.name}: {figure(expected.before, unit)} →"
            f" {figure(expected.after, unit)} ({expected.basis})."
        )
    if action.cost is not None:
        yield f"Cost: {cost_text(action)}."
    if status.verdict is not None:
        yield from _verdict(status.verdict, status.phase, unit)
    elif status.phase is Phase.RECOMMENDED:
        where = f"{report.metadata.name} -n {report.metadata.namespace}"
        yield f"It waits for your approval: kubectl bottleneck approve {where}"
    elif status.phase.open:
        yield f"It is under way ({status.phase})."
    elif status.phase in _ENDS:
        said = status.timeline[-1].message if status.timeline else ""
        yield f"There is no verdict: {_ENDS[status.phase]}" + (f" ({said})." if said else ".")
    if status.next:
        yield f"What limits it now: {status.next}"


def _alternatives(report: BottleneckReport) -> Iterator[str]:
    for other in report.spec.alternatives:
        what = other.summary or other.type or "only people can act"
        yield f"{what}, against {other.cause}: {other.reason}."


def _verdict(verdict: Verdict, phase: Phase, unit: str) -> Iterator[str]:
    if verdict.before is not None and verdict.after is not None:
        measured = f"Measured: {figure(verdict.before, unit)} → {figure(verdict.after, unit)}"
        if verdict.effect is not None:
            measured += f", {verdict.effect:+.0%}"
        if len(verdict.interval) == 2:
            low, high = verdict.interval
            measured += f" (95% interval {low:+.0%} to {high:+.0%})"
        if len(verdict.bins) == 2:
            measured += f", {verdict.bins[0]} figures before and {verdict.bins[1]} after"
        if verdict.control:
            measured += ", compared with untouched replicas"
        yield measured + "."
    elif verdict.result is VerdictResult.NO_DATA:
        yield "It could not be measured."
    end = f", so {_ENDS[phase]}" if phase in _ENDS else ""
    reason = f" ({verdict.reason})" if verdict.reason else ""
    yield f"Verdict: {verdict.result}{end}{reason}."


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
