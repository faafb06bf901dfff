"""What became of earlier predictions, and what that says of the next one. Pure.

The ledger is the policy's own reports: what each action was predicted to return, and what was
measured. It is kept by workload (a policy has one), cause and type of action.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..api.report import Action, Aim, BottleneckReport, Prediction, VerdictResult

PRIOR = 1.0
"""Weight of the model itself, in earlier outcomes: after one that brought nothing, half of the next
prediction is believed."""

MOST = 2.0
"""Most that one outcome can say, in predicted gains: a lucky one must not carry all later ones."""

SURE = 0.01
"""Least gain that a prediction must name to be held against its outcome, as a logarithm."""


@dataclass(frozen=True, slots=True)
class Record:
    """Outcomes of one kind of action against one cause. ``realised`` is the part of a predicted
    gain that is to be expected now: 1 without any outcome."""

    tried: int = 0
    missed: int = 0
    realised: float = 1.0


def record(reports: Iterable[BottleneckReport], cause: str, type: str) -> Record:
    """The outcomes of such actions so far."""
    outcomes = list(_outcomes(reports, cause, type))
    if not outcomes:
        return Record()
    shares = [share for share, _ in outcomes]
    return Record(
        tried=len(outcomes),
        missed=sum(missed for _, missed in outcomes),
        realised=(PRIOR + sum(shares)) / (PRIOR + len(shares)),
    )


def corrected(action: Action, reports: Iterable[BottleneckReport], lower_is_better: bool) -> Action:
    """The action with the prediction that earlier outcomes leave of it: gain ** realised, gains
    being factors. Without outcomes, or without a prediction, it stays as it is."""
    found, predicted = record(reports, action.cause, action.type), action.prediction
    gain = gain_of(predicted, lower_is_better)
    if not found.tried or predicted is None or not 0 < gain < math.inf:
        return action
    believed = gain**found.realised
    after = predicted.before / believed if lower_is_better else predicted.before * believed
    times = "once" if found.tried == 1 else f"{found.tried} times"
    basis = (
        f"{predicted.basis}; tried {times} before, {found.realised:.0%} of such gains are expected"
        " to come true"
    )
    changes = {"after": round(after, 6), "basis": basis}
    return action.model_copy(update={"prediction": predicted.model_copy(update=changes)})


def gain_of(prediction: Prediction | None, lower_is_better: bool) -> float:
    """How many times better the metric is predicted to be; 1 without a prediction."""
    if prediction is None:
        return 1.0
    before, after = prediction.before, prediction.after
    better, worse = (before, after) if lower_is_better else (after, before)
    return better / worse if worse > 0 else math.inf


def _outcomes(
    reports: Iterable[BottleneckReport], cause: str, type: str
) -> Iterator[tuple[float, bool]]:
    """Of each such action the part of the predicted gain that came true, and whether it missed."""
    for report in reports:
        action, verdict = report.spec.action, report.status.verdict
        if action is None or verdict is None or action.aim is not Aim.IMPROVE:
            continue
        if (action.cause, action.type) != (cause, type) or action.prediction is None:
            continue
        if verdict.result is VerdictResult.NO_DATA:
            continue
        lower = report.spec.metric.lower_is_better
        expected = _log(gain_of(action.prediction, lower))
        missed = verdict.result is not VerdictResult.IMPROVED
        if expected is None or expected < SURE:
            continue
        measured = 0.0
        if verdict.before and verdict.after:
            factor = verdict.before / verdict.after if lower else verdict.after / verdict.before
            measured = _log(factor) or 0.0
        yield min(MOST, max(0.0, measured / expected)), missed


def _log(factor: float) -> float | None:
    return math.log(factor) if 0 < factor < math.inf else None
