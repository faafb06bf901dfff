"""Whether all is as it was once an action is undone: the metric, and every value. Pure.

What was lost that way is no miss like any other: the operator does not understand the workload, so
nothing else is tried on it (``holds.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ..api.consequences import RevertResult, RevertVerdict
from ..api.report import BottleneckReport
from ..verify.judge import ALIKE
from ..verify.revert import REVERT_SECONDS, Restoration, judge_revert
from .circumstances import changed, load_factor
from .decision import Facts
from .holds import REVERT_MOST

HURRY_SECONDS = 30.0
"""So long before nobody asks any more a verdict is given on what there is."""


@dataclass(frozen=True, slots=True)
class Undone:
    """What is seen of an action that was undone: the metric ``figures`` since all that is wanted
    runs and speaks again, ``waited`` for so many seconds (0 while it does not), and ``differences``
    of the state from what was there before. ``ago`` is how long the undoing itself is over."""

    figures: Sequence[float]
    differences: Sequence[str]
    waited: float
    ago: float


def revert_verdict(
    report: BottleneckReport, seen: Undone, facts: Facts, at: datetime
) -> RevertVerdict | None:
    """The verdict on an undoing, or None while it is worth waiting. Nothing is known where
    something else has changed, too."""
    if meanwhile := _meanwhile(report, facts):
        reason = f"not comparable: {meanwhile}"
        return RevertVerdict(result=RevertResult.NO_DATA, at=at, reason=reason)
    late = seen.waited > REVERT_SECONDS or seen.ago > REVERT_MOST - HURRY_SECONDS
    lower = report.spec.metric.lower_is_better
    found = judge_revert(report.spec.before, seen.figures, lower, late)
    if seen.differences:
        return _differing(found, seen.differences, at) if late else None
    return None if found is None else _verdict(found, at)


def _meanwhile(report: BottleneckReport, facts: Facts) -> str:
    closed = report.status.closed_at
    for other in facts.reports:
        if closed is not None and other.spec.decided_at > closed and other.status.phase.open:
            return f"{other.metadata.name} began meanwhile"
    then, now = report.spec.circumstances, facts.circumstances
    if then is not None:
        factor = load_factor(then.load, now.load)
        if factor is not None and not 1 / ALIKE <= factor <= ALIKE:
            return f"the load is {factor:.1f} times what it was"
    return changed(then, now, report.spec.action)


def _differing(
    found: Restoration | None, differences: Sequence[str], at: datetime
) -> RevertVerdict:
    told = "; ".join(differences)
    if found is None:
        result = RevertResult.NOT_RESTORED
        return RevertVerdict(result=result, at=at, differences=[*differences], reason=told)
    changes = {"result": RevertResult.NOT_RESTORED, "differences": [*differences]}
    reason = f"{told}; {found.reason}"
    return _verdict(found, at).model_copy(update={**changes, "reason": reason})


def _verdict(found: Restoration, at: datetime) -> RevertVerdict:
    return RevertVerdict(
        result=found.result,
        at=at,
        before=found.before,
        after=found.after,
        effect=found.effect,
        interval=[*found.interval],
        p_value=found.p_value,
        bins=[*found.bins],
        reason=found.reason,
    )
