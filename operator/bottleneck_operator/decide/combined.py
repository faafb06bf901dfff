"""Two changes at once, where each alone returned too little to be kept. Pure.

Where two parts of a step take about the same time and overlap, removing one exposes the other at
once: 16-bit arithmetic returns nothing before there are more loader workers, and these return
nothing before the arithmetic is faster.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from ..api.report import Action, BottleneckReport, Phase, Prediction, VerdictResult
from .decision import Facts
from .points import changed, effective, here, knobs_of
from .remedies.common import knobs_change, listed
from .remedies.data_loader import WORKERS
from .steps import SEEN, returned, seen

MUCH = 1.15
"""How many times better an action was predicted to be, for its return of nothing to be a sign."""

BASIS = "what each of them returned, or is predicted to return, alone"


def together(candidates: Iterable[Action], facts: Facts) -> Iterator[Action]:
    """All changes that returned something from where the workload is now, at once; then these with
    each of ``candidates`` for another knob. Without any: one that returned nothing of the much that
    was predicted, together with more loader workers, or the other way round."""
    small = [report for report in effective(facts) if _too_little(report, facts)]
    base: list[Action] = []
    for report in sorted(small, key=returned, reverse=True):
        base = _with(base, _as_measured(report))
    if len(base) > 1:
        yield _merged(base, facts)
    starts = [base]
    if not base:
        starts = [[_as_measured(each)] for each in effective(facts) if _hidden(each, facts)]
    for candidate in candidates:
        for start in starts:
            more = _with(start, candidate)
            overlapping = any(WORKERS in _names(action) for action in more)
            if len(more) > len(start) and (base or overlapping):
                yield _merged(more, facts)


def _hidden(report: BottleneckReport, facts: Facts) -> bool:
    """Whether an action from here returned nothing of the much that was predicted: what was next in
    the way was as much in the way."""
    action, verdict = report.spec.action, report.status.verdict
    if action is None or action.prediction is None or verdict is None:
        return False
    return (
        verdict.result is VerdictResult.NO_EFFECT
        and verdict.before is not None
        and verdict.after is not None
        and report.status.phase is Phase.REVERTED
        and not report.spec.metric.lower_is_better
        and action.prediction.after >= MUCH * action.prediction.before
        and returned(report) >= 1 / SEEN
        and here(knobs_of(report), facts)
    )


def _too_little(report: BottleneckReport, facts: Facts) -> bool:
    verdict = report.status.verdict
    return (
        report.status.phase is Phase.REVERTED
        and verdict is not None
        and verdict.result is VerdictResult.NO_EFFECT
        and seen(report)
        and here(knobs_of(report), facts)
    )


def _as_measured(report: BottleneckReport) -> Action:
    """The action of a report, with what came of it as its prediction."""
    action, verdict = report.spec.action, report.status.verdict
    assert action is not None
    assert verdict is not None
    assert verdict.before is not None
    assert verdict.after is not None
    prediction = Prediction(before=verdict.before, after=verdict.after, basis=BASIS)
    return action.model_copy(update={"prediction": prediction})


def _with(base: Sequence[Action], more: Action) -> list[Action]:
    """These actions and one more, where that one changes other knobs."""
    taken = {name for action in base for name in _names(action)}
    return list(base) if taken & _names(more) else [*base, more]


def _names(action: Action) -> set[str]:
    assert action.knobs is not None
    return {name for name, _ in changed(action.knobs)}


def _merged(actions: Sequence[Action], facts: Facts) -> Action:
    """One action of several; it is of the type, and for the cause, of the first."""
    changes = [action.knobs for action in actions if action.knobs is not None]
    current = {name: each.replaces[name] for each in changes for name, _ in changed(each)}
    desired = {name: new for each in changes for name, new in changed(each)}
    first = actions[0].prediction
    ratios = [each.after / each.before for action in actions if (each := action.prediction)]
    prediction = None
    if first is not None:
        after = first.before * math.prod(ratios)
        prediction = Prediction(before=first.before, after=round(after, 4), basis=BASIS)
    return actions[0].model_copy(
        update={
            "summary": listed(current, desired),
            "knobs": knobs_change(facts, current, desired),
            "prediction": prediction,
        }
    )
