"""Where a workload has been: the combinations of settings that earlier actions led to. Pure.

A report names the knobs that were changed by then; the same settings may be written with fewer or
more of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..api.meta import Setting
from ..api.report import Action, BottleneckReport, KnobsChange, Phase, VerdictResult
from .decision import Facts

RECENT_SECONDS = 3600.0
"""How long settings that were left for better ones are not gone back to."""


def effective(facts: Facts) -> list[BottleneckReport]:
    """The reports of changed knobs that had an effect, oldest first."""
    return [
        report
        for report in facts.reports
        if report.spec.action is not None
        and report.spec.action.knobs is not None
        and report.status.applied_at is not None
    ]


def knobs_of(report: BottleneckReport) -> KnobsChange:
    """The change of a report that has one of knobs."""
    assert report.spec.action is not None
    assert report.spec.action.knobs is not None
    return report.spec.action.knobs


def changed(change: KnobsChange) -> set[tuple[str, Setting]]:
    """The knobs that differ, with their new values."""
    return {(name, new) for name, new in change.desired.items() if change.replaces.get(name) != new}


def same_point(one: KnobsChange, other: KnobsChange, facts: Facts) -> bool:
    """Whether two changes lead to the same settings, however many of them each names."""
    origin = _origin([*map(knobs_of, effective(facts)), one, other])
    return {**origin, **one.desired} == {**origin, **other.desired}


def here(change: KnobsChange, facts: Facts) -> bool:
    """Whether a change began where the workload is now."""
    origin = _origin([*map(knobs_of, effective(facts)), change])
    return {**origin, **change.replaces} == {**origin, **facts.knobs}


def visited(action: Action, facts: Facts) -> bool:
    """Whether the settings that an action leads to were in force already, under this generation of
    the policy; False for one that changes no knobs."""
    if action.knobs is None:
        return False
    reports = effective(facts)
    origin = _origin([*map(knobs_of, reports), action.knobs])
    point = {**origin, **action.knobs.desired}
    return any(
        point == {**origin, **settings}
        for report in reports
        if report.spec.policy_generation == facts.policy_generation
        for settings in (knobs_of(report).replaces, knobs_of(report).desired)
    )


def left_for_better(action: Action, facts: Facts, now: float) -> str:
    """The name of the report of a kept action that led away from the settings to which ``action``
    would lead back, within the last hour; empty without one. ``now`` in seconds since the Unix
    epoch. A load that changes may make them right again, but not so soon."""
    if action.knobs is None:
        return ""
    origin = _origin([*map(knobs_of, effective(facts)), action.knobs])
    for report in effective(facts):
        verdict, closed = report.status.verdict, report.status.closed_at
        if (
            report.status.phase is Phase.KEPT
            and verdict is not None
            and verdict.result is VerdictResult.IMPROVED
            and closed is not None
            and now - closed.timestamp() < RECENT_SECONDS
            and {**origin, **knobs_of(report).replaces} == {**origin, **action.knobs.desired}
        ):
            return report.metadata.name
    return ""


def _origin(changes: Iterable[KnobsChange]) -> dict[str, Setting]:
    """Every knob that is named, as it was before the first change of it. ``changes`` are oldest
    first."""
    origin: dict[str, Setting] = {}
    for change in changes:
        for name, value in change.replaces.items():
            origin.setdefault(name, value)
    return origin
