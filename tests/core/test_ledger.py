"""What became of earlier predictions, and what that says of the next one."""

from __future__ import annotations

from typing import Any

import pytest
from bottleneck_operator.api.report import (
    Action,
    Aim,
    BottleneckReport,
    Metric,
    Phase,
    Prediction,
    Verdict,
    VerdictResult,
)
from bottleneck_operator.decide.ledger import MOST, Record, corrected, gain_of, record
from hypothesis import given
from hypothesis import strategies as st

from .builders import knobs_action, report

GOODPUT = Metric(name="goodput", unit="samples/s")
LATENCY = Metric(name="latency p95", unit="s", lower_is_better=True)

KEY = ("loader-without-workers", "DataLoader")


def action(before: float = 100, after: float = 200, **changes: Any) -> Action:
    prediction = Prediction(before=before, after=after, basis="a model")
    return knobs_action().model_copy(update={"prediction": prediction, **changes})


def outcome(
    predicted: float,
    measured: float | None,
    result: VerdictResult = VerdictResult.IMPROVED,
    metric: Metric = GOODPUT,
    **changes: Any,
) -> BottleneckReport:
    """A report of an action that was to take the metric from 100 to ``predicted``."""
    verdict = Verdict(result=result, before=None if measured is None else 100, after=measured)
    closed = report(action(after=predicted, **changes), Phase.KEPT, verdict=verdict)
    return closed.model_copy(update={"spec": closed.spec.model_copy(update={"metric": metric})})


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([], Record()),
        ([outcome(200, 200)], Record(1, 0, 1.0)),
        ([outcome(200, 100, VerdictResult.NO_EFFECT)], Record(1, 1, 0.5)),
        ([outcome(200, None, VerdictResult.WORSE)], Record(1, 1, 0.5)),
        ([outcome(200, 50, VerdictResult.WORSE)], Record(1, 1, 0.5)),
        ([outcome(200, 400)], Record(1, 0, 1.5)),
        ([outcome(200, 1e9)], Record(1, 0, (1 + MOST) / 2)),
        ([outcome(50, 50, metric=LATENCY)], Record(1, 0, 1.0)),
        ([outcome(50, 200, VerdictResult.WORSE, LATENCY)], Record(1, 1, 0.5)),
        ([outcome(200, 100, VerdictResult.NO_EFFECT)] * 3, Record(3, 3, 0.25)),
        ([outcome(200, 100, VerdictResult.NO_DATA)], Record()),
        ([outcome(100, 100, VerdictResult.NO_EFFECT)], Record()),
        ([outcome(200, 100, VerdictResult.NO_EFFECT, aim=Aim.SAVE)], Record()),
        ([outcome(200, 100, VerdictResult.NO_EFFECT, cause="another")], Record()),
        ([outcome(200, 100, VerdictResult.NO_EFFECT, type="Replicas")], Record()),
    ],
    ids=[
        "never tried",
        "as predicted",
        "nothing came of it",
        "a guardrail broke",
        "worse",
        "twice the gain",
        "a lucky one is bounded",
        "a latency",
        "a latency that got worse",
        "three times nothing",
        "not measured",
        "nothing was promised",
        "a saving",
        "another cause",
        "another type",
    ],
)
def test_the_record(reports: list[BottleneckReport], expected: Record) -> None:
    assert record(reports, *KEY) == expected


def test_a_prediction_shrinks_with_what_did_not_come_true() -> None:
    before = action(after=400)
    after = corrected(before, [outcome(200, 100, VerdictResult.NO_EFFECT)], lower_is_better=False)
    assert after.prediction is not None
    assert after.prediction.after == pytest.approx(200)
    assert "50% of such gains" in after.prediction.basis


@pytest.mark.parametrize(
    ("given", "lower"),
    [
        (action(), False),
        (action().model_copy(update={"prediction": None}), False),
        (action(after=0), False),
        (action(before=0), True),
    ],
)
def test_without_a_history_or_a_figure_nothing_changes(given: Action, lower: bool) -> None:
    reports = (
        []
        if given.prediction and given.prediction.after and given.prediction.before
        else [outcome(200, 100)]
    )
    assert corrected(given, reports, lower) == given


@given(
    st.lists(st.tuples(st.floats(101, 1000), st.floats(1, 1e4)), max_size=8),
    st.floats(101, 1000),
    st.booleans(),
)
def test_a_correction_never_turns_a_gain_into_a_loss(
    history: list[tuple[float, float]], promised: float, lower: bool
) -> None:
    metric = LATENCY if lower else GOODPUT
    goal = (lambda x: 1e4 / x) if lower else (lambda x: x)
    reports = [outcome(goal(predicted), measured, metric=metric) for predicted, measured in history]
    found = corrected(action(after=goal(promised)), reports, lower).prediction
    assert gain_of(found, lower) >= 1 - 1e-6
    share = record(reports, *KEY).realised
    assert 0 < share <= MOST
