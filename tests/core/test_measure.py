"""By what an action is judged, which stretch counts, and what breaks without statistics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from bottleneck_operator.api.conditions import Reason
from bottleneck_operator.api.report import Phase, ReportSpec
from bottleneck_operator.decide.decision import Plan, Refusal
from bottleneck_operator.decide.intent import intent, standing
from bottleneck_operator.decide.lifecycle import Next, Step, evidence_window
from bottleneck_operator.diagnose.diagnosis import Diagnosis
from bottleneck_operator.diagnose.engine import diagnose
from bottleneck_operator.observe.history import History
from bottleneck_operator.observe.observation import Observation, WorkloadType
from bottleneck_operator.observe.series import drained_at, in_force_at
from bottleneck_operator.observe.windows import WINDOW_SECONDS
from bottleneck_operator.report.reports import ReportStore, advanced
from bottleneck_operator.verify.measure import after, before, guardrail, metric_of
from bottleneck_sidecar.wire import Acknowledgement

from .builders import (
    NOW,
    SERVING,
    history,
    knobs_action,
    moment,
    observation,
    policy,
    rank,
    reading,
    replicas_action,
    report,
    sample,
    server,
    starved,
    talking,
)


def test_training_is_judged_by_goodput_and_serving_by_the_policys_percentile() -> None:
    assert metric_of(policy(), WorkloadType.TRAINING).name == "goodput"
    serving = policy(spec={"objectives": {"latency": {"percentile": 90, "target": "1s"}}})
    metric = metric_of(serving, WorkloadType.INFERENCE)
    assert (metric.name, metric.lower_is_better) == ("latency p90", True)


@pytest.mark.parametrize(
    ("signals", "broken"),
    [
        ({}, ""),
        ({"memory.oomKills": reading(0)}, ""),
        ({"memory.oomKills": reading(2)}, "2 out-of-memory kills"),
        ({"training.sinceStepSeconds": reading(119, "s")}, ""),
        ({"training.sinceStepSeconds": reading(121, "s")}, "no step for 121s"),
        ({"inference.errorRate": reading(0.009)}, ""),
        ({"inference.errorRate": reading(0.02)}, "error rate 2.0% is over 1%"),
    ],
)
def test_a_guardrail_breaks_only_on_what_was_measured(
    signals: dict[str, object], broken: str
) -> None:
    wanted = policy(spec={"objectives": SERVING["objectives"] | {"errorRate": {"max": "1%"}}})
    seen = observation(WorkloadType.INFERENCE, signals)  # type: ignore[arg-type]
    assert guardrail(wanted, report(knobs_action(), Phase.VERIFYING), seen, {}) == broken


@pytest.mark.parametrize(
    ("generation", "result", "broken"),
    [
        (1, "Refused", "rank 0 of pod-0 went back: out of memory"),
        (1, "Applied", ""),
        (2, "Refused", ""),
    ],
)
def test_a_rank_that_goes_back_after_all_breaks_it(
    generation: int, result: str, broken: str
) -> None:
    told = talking(generation, result, message="out of memory")
    seen = observation(ranks=[told])
    assert guardrail(policy(), report(knobs_action(), Phase.VERIFYING), seen, {}) == broken


def test_evidence_from_before_a_change_is_not_read_after_it() -> None:
    assert evidence_window([], NOW) == WINDOW_SECONDS
    applied = report(knobs_action(), Phase.VERIFYING, applied_at=moment(-7))
    assert evidence_window([applied], NOW) == pytest.approx(7)
    acknowledged = report(
        knobs_action(), Phase.VERIFYING, applied_at=moment(-7), acknowledged_at=moment(-4)
    )
    assert evidence_window([applied, acknowledged], NOW) == pytest.approx(4)
    undone = report(knobs_action(), Phase.REVERTED, applied_at=moment(-60), closed_at=moment(-3))
    assert evidence_window([undone], NOW) == pytest.approx(3)
    kept = report(knobs_action(), Phase.KEPT, applied_at=moment(-60), closed_at=moment(-3))
    assert evidence_window([kept], NOW) == WINDOW_SECONDS


def _lines(seconds: int) -> dict[str, object]:
    """A rank that trained 32 samples a second until now, told every second."""
    return {
        "pod-0": history(
            *(
                sample(NOW - seconds + i, i, rank("e0", steps=10 + i, at=NOW - seconds + i))
                for i in range(seconds + 1)
            )
        )
    }


def _diagnosis() -> tuple[Diagnosis, Observation]:
    seen = observation(signals=starved())
    return diagnose(seen, policy().spec.objectives), seen


def test_the_intent_holds_what_was_before_and_nothing_older_than_the_breach() -> None:
    diagnosis, seen = _diagnosis()
    found = intent(
        policy(),
        Plan(knobs_action()),
        diagnosis,
        seen,
        _lines(60),
        NOW - 5,
        NOW,  # type: ignore[arg-type]
    )
    assert isinstance(found, ReportSpec)
    assert found.before == [32.0] * 15  # five seconds of breach and the window that showed it
    assert found.breached_at == moment(-5)


def test_what_has_nothing_to_be_compared_with_is_not_begun() -> None:
    diagnosis, seen = _diagnosis()
    found = intent(
        policy(),
        Plan(knobs_action()),
        diagnosis,
        seen,
        _lines(3),
        NOW - 1,
        NOW,  # type: ignore[arg-type]
    )
    assert isinstance(found, Refusal)
    assert found.reason is Reason.NO_DATA


def test_after_leaves_the_warm_up_out() -> None:
    verifying = report(knobs_action(), Phase.VERIFYING, acknowledged_at=moment(-25))
    figures = after(policy(), verifying, _lines(60), NOW)  # type: ignore[arg-type]
    assert len(figures) == 20  # 25 seconds less five of warm-up, a bin a second
    planned = report(knobs_action(), Phase.PLANNED)
    assert after(policy(), planned, _lines(60), NOW) == []  # type: ignore[arg-type]


def test_until_the_change_is_in_force_it_is_still_before() -> None:
    planned = report(knobs_action(), Phase.PLANNED)
    assert before(policy(), planned, {}) == planned.spec.before
    verifying = report(knobs_action(), Phase.VERIFYING, acknowledged_at=moment(-1))
    figures = before(policy(), verifying, _lines(60))  # type: ignore[arg-type]
    assert figures == [*planned.spec.before, 32.0, 32.0, 32.0, 32.0]
    # A process that took over has no figures of that time; the recorded ones stand.
    assert before(policy(), verifying, {}) == planned.spec.before


def _queue(answered: list[int]) -> dict[str, History]:
    """A server that had taken ten requests more than it had answered, told every second."""
    lines = [
        sample(
            NOW - len(answered) + i,
            i,
            server("s0", [0.1] * count, arrivals=answered[0] + 10 if i == 0 else count + 10),
        )
        for i, count in enumerate(answered)
    ]
    return {"pod-0": history(*lines)}


def test_a_backlog_from_before_the_action_is_no_evidence_about_it() -> None:
    # Arrivals and answers keep pace, ten behind: each second answers four of what it owes.
    behind = _queue(list(range(0, 200, 4)))
    (lines,) = behind.values()
    assert drained_at([lines], NOW - 50) == pytest.approx(NOW - 47)
    assert drained_at([lines], NOW - 2) is None
    serving = report(replicas_action(), Phase.VERIFYING, acknowledged_at=moment(-2))
    metric = metric_of(policy(spec=SERVING), WorkloadType.INFERENCE)
    serving = serving.model_copy(
        update={"spec": serving.spec.model_copy(update={"metric": metric})}
    )
    assert after(policy(spec=SERVING), serving, behind, NOW) == []


def test_a_server_that_is_gone_keeps_nobody_waiting() -> None:
    gone = sample(NOW - 5, 1, server("old", [0.1], arrivals=9))
    there = sample(NOW - 4, 2, server("new", [0.1], arrivals=1))
    assert drained_at([history(gone, there)], NOW - 6) == NOW - 4


def test_a_recommendation_stands_until_it_is_answered() -> None:
    recommended = report(knobs_action(), Phase.RECOMMENDED)
    assert standing((recommended,), knobs_action(generation=2)) is recommended
    assert standing((report(knobs_action(), Phase.KEPT),), knobs_action()) is None


def test_the_store_keeps_the_newest_version_and_forgets_what_is_deleted() -> None:
    store, owner = ReportStore(), policy()
    old = report(knobs_action(), Phase.PLANNED)
    document = old.dump() | {"metadata": _meta("2")}
    newer = document | {"status": {"phase": "Applied"}, "metadata": _meta("3")}
    store.update(newer)
    store.update(document)
    assert [r.status.phase for r in store.of(owner)] == [Phase.APPLIED]
    store.update(newer, deleted=True)
    assert store.of(owner) == ()


def test_a_report_of_another_version_is_left_alone() -> None:
    store = ReportStore()
    assert store.update({"metadata": _meta("1"), "spec": {"unheardOf": 1}}) is None
    assert store.of(policy()) == ()


def test_a_step_to_another_phase_is_told_with_its_time() -> None:
    status = report(knobs_action(), Phase.PLANNED).status
    step = Next(Step.APPLY, Phase.APPLIED, Reason.ACTION_APPLIED, "workers")
    applied = advanced(status, step, moment(1))
    assert (applied.phase, applied.applied_at) == (Phase.APPLIED, moment(1))
    assert applied.timeline[-1].what == "ActionApplied"
    closed = advanced(applied, replace(step, phase=Phase.ABANDONED), moment(2))
    assert closed.closed_at == moment(2)
    assert closed.applied_at == moment(1)


def test_what_was_in_force_while_the_api_server_was_away_counts_from_then() -> None:
    status = report(knobs_action(), Phase.APPLIED, applied_at=moment(1)).status
    told = Next(Step.MOVE, Phase.VERIFYING, Reason.ACTION_ACKNOWLEDGED, "", at=moment(3))
    assert advanced(status, told, moment(25)).acknowledged_at == moment(3)
    assert advanced(status, replace(told, at=None), moment(25)).acknowledged_at == moment(25)
    assert advanced(status, replace(told, at=moment(0)), moment(25)).acknowledged_at == moment(1)


@pytest.mark.parametrize(
    ("answers", "second"),
    [
        ({"a": {2: 1}}, 2),
        ({"a": {2: 1}, "b": {4: 1}}, 4),
        ({"a": {2: 1}, "b": {}}, None),
        ({"a": {2: 0, 3: 2}}, 3),
        ({}, None),
    ],
    ids=["one rank", "the last of two", "one has not", "a newer one will do", "nobody speaks"],
)
def test_knobs_are_in_force_when_the_last_rank_said_so_first(
    answers: dict[str, dict[int, int]], second: int | None
) -> None:
    lines = []
    for at in range(1, 7):
        ranks = []
        for epoch, told in answers.items():
            known = [generation for when, generation in told.items() if when <= at]
            answer = Acknowledgement(known[-1], "Applied") if known else None
            ranks.append(rank(epoch, at, NOW + at, acknowledgement=answer))
        lines.append(sample(NOW + at, at, *ranks))
    found = in_force_at([history(*lines)], 1)
    assert found == (None if second is None else NOW + second)


def _meta(version: str) -> dict[str, Any]:
    owners = [{"uid": "u"}]
    name = {"name": "p-1", "namespace": "ml", "uid": "r"}
    return {**name, "resourceVersion": version, "ownerReferences": owners}
