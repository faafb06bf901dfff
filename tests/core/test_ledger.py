"""What became of earlier predictions, and what that says of the next one."""

from __future__ import annotations

from typing import Any

import pytest
from bottleneck_operator.api.consequences import RevertResult, RevertVerdict, Rollback
from bottleneck_operator.api.ledger import MOST_MISSES, Ledger
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
from bottleneck_operator.decide.ledger import (
    MOST,
    REMEMBERED,
    Record,
    Totals,
    corrected,
    gain_of,
    may_go,
    record,
    settled,
    totals,
)
from hypothesis import given
from hypothesis import strategies as st

from .builders import CASES, knobs_action, moment, replicas_action, report

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


# -- what outlives the reports ---------------------------------------------------------------------

RESTORED = RevertVerdict(result=RevertResult.RESTORED, at=moment())


def closed(
    number: int,
    result: VerdictResult | None,
    phase: Phase,
    change: Action | None = None,
    **more: Any,
) -> BottleneckReport:
    """A closed report of its own name."""
    verdict = None if result is None else Verdict(result=result, before=100, after=150)
    times = {"applied_at": moment(-50), "closed_at": moment(number - 40)}
    made = change or action(after=200)
    status = {"revert": RESTORED if phase is Phase.REVERTED else None, **times, **more}
    return report(made, phase, f"p-{number}", verdict=verdict, **status)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (closed(1, VerdictResult.IMPROVED, Phase.KEPT), Totals(1, 0, 0)),
        (closed(1, VerdictResult.WORSE, Phase.REVERTED), Totals(0, 1, 1)),
        (closed(1, VerdictResult.NO_EFFECT, Phase.REVERTED), Totals(0, 1, 1)),
        (closed(1, VerdictResult.INCONCLUSIVE, Phase.KEPT), Totals(0, 1, 0)),
        (closed(1, None, Phase.REVERTED), Totals(0, 0, 1)),
        (closed(1, None, Phase.ABANDONED), Totals()),
        (closed(1, VerdictResult.NO_DATA, Phase.KEPT), Totals()),
        (closed(1, VerdictResult.IMPROVED, Phase.VERIFYING), Totals()),
        (closed(1, VerdictResult.NO_EFFECT, Phase.KEPT, replicas_action()), Totals(1, 0, 0)),
        (closed(1, VerdictResult.NO_EFFECT, Phase.KEPT, action(aim=Aim.SAVE)), Totals(1, 0, 0)),
        (
            closed(
                1,
                VerdictResult.IMPROVED,
                Phase.REVERTED,
                rollback=Rollback(by="alice", answered_at=moment()),
            ),
            Totals(1, 0, 0),
        ),
    ],
    ids=[
        "helped",
        "worse",
        "no effect",
        "unclear",
        "refused by a rank",
        "never done",
        "not measured",
        "still open",
        "growth that was enough",
        "a saving",
        "taken back by people",
    ],
)
def test_hits_misses_and_reverts(made: BottleneckReport, expected: Totals) -> None:
    assert totals(Ledger(), [made]) == expected
    assert totals(settled(Ledger(), [made]), [made]) == expected
    assert totals(settled(Ledger(), [made]), []) == expected


def test_the_rate_is_of_what_was_judged() -> None:
    assert Totals(3, 1, 5).hit_rate == 0.75
    assert Totals().hit_rate is None


RESULTS = st.sampled_from(
    [
        (VerdictResult.IMPROVED, Phase.KEPT),
        (VerdictResult.WORSE, Phase.REVERTED),
        (VerdictResult.INCONCLUSIVE, Phase.KEPT),
        (None, Phase.ABANDONED),
    ]
)


@CASES
@given(st.lists(RESULTS, max_size=30), st.lists(st.integers(0, 30), max_size=10), st.booleans())
def test_whenever_reports_are_counted_and_deleted_the_record_is_the_same(
    results: list[tuple[VerdictResult | None, Phase]], moments: list[int], late: bool
) -> None:
    reports = [closed(number, *each) for number, each in enumerate(results)]
    ledger, present = Ledger(), list[BottleneckReport]()
    for number, made in enumerate(reports):
        present.append(made)
        if number in moments:
            ledger = settled(ledger, present)
            if late:  # the process dies, and what it wrote is all that is left
                ledger = Ledger.model_validate(ledger.dump())
            gone = [each for each in present if may_go(ledger, each)]
            present = [each for each in present if each not in gone]
            if late and gone:
                present.insert(0, gone[-1])  # a late event of the watch
    assert totals(ledger, present) == totals(Ledger(), reports)
    assert record(present, *KEY, ledger=ledger) == record(reports, *KEY)


def test_a_ledger_stays_small() -> None:
    reports = [closed(number, VerdictResult.WORSE, Phase.REVERTED) for number in range(500)]
    ledger = Ledger()
    for number in range(0, 500, 20):
        ledger = settled(ledger, reports[number : number + 20])
    assert len(ledger.entries) == 1
    assert len(ledger.misses) == MOST_MISSES
    assert ledger.misses[-1].report == "p-499"
    assert len(ledger.counted) <= REMEMBERED + 20
    assert totals(ledger, []) == Totals(0, 500, 500)


@pytest.mark.parametrize(
    ("made", "free"),
    [
        (closed(1, VerdictResult.IMPROVED, Phase.KEPT), False),
        (closed(1, None, Phase.ABANDONED), True),
        (closed(1, None, Phase.RECOMMENDED), True),
        (closed(1, VerdictResult.WORSE, Phase.REVERTED, revert=None), False),
        (closed(1, VerdictResult.IMPROVED, Phase.VERIFYING), False),
    ],
    ids=["not counted yet", "no outcome", "a recommendation", "not verified yet", "open"],
)
def test_a_report_goes_only_once_nothing_is_lost_with_it(
    made: BottleneckReport, free: bool
) -> None:
    assert may_go(Ledger(), made) is free
    counted = may_go(settled(Ledger(), [made]), made)
    pending = made.status.phase is Phase.REVERTED and made.status.revert is None
    assert counted is not (made.status.phase.open or pending)
