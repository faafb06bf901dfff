"""What ``kubectl get`` shows of a policy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from bottleneck_operator.api.conditions import Condition, Reason
from bottleneck_operator.api.policy_status import BaselineStatus, ConditionStatus, PolicyStatus
from bottleneck_operator.api.report import Phase, Verdict, VerdictResult
from bottleneck_operator.decide.decision import Plan, Refusal
from bottleneck_operator.diagnose.diagnosis import Diagnosis
from bottleneck_operator.diagnose.engine import diagnose
from bottleneck_operator.report.status import Problem, View, status_of, substance

from .builders import (
    MISSING,
    hpa_action,
    knobs_action,
    moment,
    observation,
    policy,
    reading,
    replicas_action,
    report,
    spec,
    starved,
    talking,
)

SEEN = observation(signals=starved(), ranks=[talking()])


def diagnosed(**changes: Any) -> Diagnosis:
    return diagnose(observation(signals=starved(**changes)), spec().objectives)


STARVED = diagnosed()
HEALTHY = diagnosed(training_dataShare=reading(0.05))
UNKNOWN = diagnosed(training_dataShare=MISSING)


def condition(status: PolicyStatus, kind: Condition) -> ConditionStatus:
    (found,) = [each for each in status.conditions if each.type == kind]
    return found


@pytest.mark.parametrize(
    ("kind", "view", "expected"),
    [
        (Condition.READY, View(), ("True", Reason.ACCEPTED)),
        (
            Condition.READY,
            View(problem=Problem(Reason.TARGET_NOT_FOUND, "no such Deployment")),
            ("False", Reason.TARGET_NOT_FOUND),
        ),
        (Condition.TELEMETRY_AVAILABLE, View(), ("Unknown", Reason.NO_DATA)),
        (Condition.TELEMETRY_AVAILABLE, View(observation=SEEN), ("True", Reason.STREAMING)),
        (
            Condition.TELEMETRY_AVAILABLE,
            View(observation=SEEN, telemetry=Problem(Reason.NOT_INJECTED, "no sidecar")),
            ("False", Reason.NOT_INJECTED),
        ),
        (Condition.BOTTLENECKED, View(), ("Unknown", Reason.UNKNOWN)),
        (Condition.BOTTLENECKED, View(diagnosis=UNKNOWN), ("Unknown", Reason.UNKNOWN)),
        (Condition.BOTTLENECKED, View(diagnosis=HEALTHY), ("False", Reason.OBJECTIVES_MET)),
        (Condition.BOTTLENECKED, View(diagnosis=STARVED), ("True", Reason.OBJECTIVE_BREACHED)),
        (Condition.PROGRESSING, View(), ("False", Reason.IDLE)),
        *(
            (Condition.PROGRESSING, View(reports=[report(action, phase)]), expected)
            for action, phase, expected in (
                (knobs_action(), Phase.PLANNED, ("True", Reason.APPLYING)),
                (knobs_action(), Phase.APPLIED, ("True", Reason.AWAITING_ACKNOWLEDGEMENT)),
                (replicas_action(), Phase.APPLIED, ("True", Reason.AWAITING_REPLICAS)),
                (hpa_action(), Phase.APPLIED, ("True", Reason.AWAITING_REPLICAS)),
                (knobs_action(), Phase.VERIFYING, ("True", Reason.VERIFYING)),
                (knobs_action(), Phase.REVERTING, ("True", Reason.REVERTING)),
                (knobs_action(), Phase.RECOMMENDED, ("False", Reason.IDLE)),
                (knobs_action(), Phase.KEPT, ("False", Reason.IDLE)),
            )
        ),
        (Condition.LIMITED, View(), ("False", Reason.NOT_LIMITED)),
        (Condition.LIMITED, View(decision=Plan(knobs_action())), ("False", Reason.NOT_LIMITED)),
        (
            Condition.LIMITED,
            View(decision=Refusal(Reason.OBJECTIVES_MET, "every objective is met")),
            ("False", Reason.NOT_LIMITED),
        ),
        (
            Condition.LIMITED,
            View(decision=Refusal(Reason.AT_MAXIMUM, "raise it")),
            ("True", Reason.AT_MAXIMUM),
        ),
    ],
)
def test_a_condition(kind: Condition, view: View, expected: tuple[str, Reason]) -> None:
    found = condition(status_of(policy(), view, moment()), kind)
    assert (found.status, found.reason) == expected
    assert found.observed_generation == 3
    assert found.message


NO_NODE = {"pods.unschedulable": "work-0: 0/1 nodes are available: 1 Insufficient cpu."}


def unplaced(objective: str, **changes: Any) -> Diagnosis:
    """A diagnosis of pods that no node takes, for a breach of that objective."""
    facts = {
        "pods.unschedulable": reading(1, "pods", "last"),
        "pods.unschedulableSeconds": reading(90, "s", "last"),
    }
    found = diagnose(observation(signals=changes), spec().objectives, facts, NO_NODE)
    assert found.symptom is not None
    symptom = found.symptom.model_copy(update={"objective": objective})
    return replace(found, symptom=symptom)


@pytest.mark.parametrize(
    ("objective", "reason", "start"),
    [
        ("Running", Reason.STANDSTILL, "Pods cannot be placed"),
        ("Goodput", Reason.OBJECTIVE_BREACHED, "Goodput is breached: Pods cannot be placed"),
    ],
)
def test_a_cause_is_told_with_the_words_of_those_who_know(
    objective: str, reason: Reason, start: str
) -> None:
    view = View(
        diagnosis=unplaced(objective), texts=NO_NODE | {"pods.notReady": "work-0 (Pending)"}
    )
    found = condition(status_of(policy(), view, moment()), Condition.BOTTLENECKED)
    assert (found.status, found.reason) == ("True", reason)
    assert found.message.startswith(start)
    assert ".." not in found.message
    assert found.message.endswith(NO_NODE["pods.unschedulable"])
    assert "Pending)" not in found.message


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([], ""),
        ([(Phase.KEPT, "")], ""),
        ([(Phase.KEPT, "compute-bound, 64% of the step")], "compute-bound, 64% of the step"),
        ([(Phase.KEPT, "compute-bound"), (Phase.REVERTED, "never")], "compute-bound"),
        ([(Phase.KEPT, "compute-bound"), (Phase.KEPT, "nothing")], "nothing"),
        ([(Phase.KEPT, "compute-bound"), (Phase.KEPT, "")], ""),
    ],
    ids=["none", "not diagnosed yet", "known", "one that was undone", "the newest", "not yet"],
)
def test_what_limits_it_now_is_what_the_newest_kept_action_left(
    reports: list[tuple[Phase, str]], expected: str
) -> None:
    known = [
        report(knobs_action(), phase, f"p-{number}", next=following)
        for number, (phase, following) in enumerate(reports)
    ]
    assert status_of(policy(), View(reports=known), moment()).next == expected


def test_moving_baselines_alone_are_not_worth_a_write_at_once() -> None:
    usual = BaselineStatus(
        signal="inference.latency p95",
        load="2^3 requests/s a replica",
        median=0.1,
        spread=0.01,
        count=9,
        updated_at=moment(),
    )
    without = status_of(policy(), View(), moment())
    written = status_of(policy(), View(baselines=[usual]), moment())
    assert written.baselines == [usual]
    assert substance(written) == substance(without)
    assert PolicyStatus.model_validate(written.dump()) == written


def test_a_paused_policy_is_not_ready_and_says_so() -> None:
    found = condition(status_of(policy(spec={"paused": True}), View(), moment()), Condition.READY)
    assert (found.status, found.reason) == ("False", Reason.PAUSED)


def test_the_bottleneck_is_named_with_its_share_and_its_whys() -> None:
    status = status_of(policy(), View(observation=SEEN, diagnosis=STARVED, replicas=2), moment())
    assert status.bottleneck is not None
    assert (status.bottleneck.id, status.bottleneck.share) == ("loader-without-workers", 0.8)
    assert status.why.startswith("Waiting for input is 80%")
    assert "Because" in status.why
    assert (status.replicas, status.streaming) == (2, 1)
    (objective,) = status.objectives
    assert (objective.name, objective.current, objective.met) == ("DataWait", "80%", False)


def test_without_data_there_is_no_bottleneck_and_no_figure() -> None:
    status = status_of(policy(), View(diagnosis=UNKNOWN), moment())
    assert status.bottleneck is None
    assert status.why == ""
    (objective,) = status.objectives
    assert (objective.current, objective.met) == ("no data", None)


def test_a_condition_keeps_its_time_while_its_status_stays_and_only_then() -> None:
    def after(view: View, before: PolicyStatus, second: float) -> PolicyStatus:
        return status_of(policy(status=before.dump()), view, moment(second))

    starved_at_0 = after(View(diagnosis=STARVED), PolicyStatus(), 0)
    another_cause = after(
        View(diagnosis=diagnosed(dataLoader_workers=reading(2, "workers"))), starved_at_0, 10
    )
    healthy_at_20 = after(View(diagnosis=HEALTHY), another_cause, 20)
    messages = [condition(s, Condition.BOTTLENECKED).message for s in (starved_at_0, another_cause)]
    assert messages[0] != messages[1]
    times = [
        condition(s, Condition.BOTTLENECKED).last_transition_time
        for s in (starved_at_0, another_cause, healthy_at_20)
    ]
    assert times == [moment(0), moment(0), moment(20)]
    assert condition(healthy_at_20, Condition.READY).last_transition_time == moment(0)


def test_a_long_message_is_cut_to_what_the_api_takes() -> None:
    view = View(problem=Problem(Reason.FORBIDDEN, "x" * 5000))
    assert len(condition(status_of(policy(), view, moment()), Condition.READY).message) == 1024


@pytest.mark.parametrize(("answered", "acknowledged"), [(None, 0), (0, 0), (1, 1), (2, 2)])
def test_knobs_count_as_acknowledged_when_every_rank_says_so(
    answered: int | None, acknowledged: int
) -> None:
    generation = max(1, acknowledged)
    seen = observation(signals=starved(), ranks=[talking(answered)])
    kept = report(knobs_action(generation), Phase.KEPT)
    knobs = status_of(policy(), View(observation=seen, reports=[kept]), moment()).knobs
    assert knobs is not None
    assert (knobs.generation, knobs.acknowledged) == (generation, acknowledged)
    assert knobs.desired == {"dataLoader.workers": 4}


def test_the_last_action_is_told_with_its_verdict_or_how_far_it_got() -> None:
    improved = Verdict(result=VerdictResult.IMPROVED)
    first = report(knobs_action(), Phase.KEPT, "p-1", verdict=improved)
    last = status_of(policy(), View(reports=[first]), moment()).last_action
    assert last is not None
    assert (last.report, last.verdict) == ("p-1", "Improved")
    second = report(replicas_action(), Phase.APPLIED, "p-2")
    last = status_of(policy(), View(reports=[first, second]), moment()).last_action
    assert last is not None
    assert (last.report, last.summary, last.verdict) == ("p-2", "replicas 1 → 3", "Applied")


@pytest.mark.parametrize(
    ("before", "names", "expected"),
    [
        (1, [], 1),
        (1, ["p-1"], 2),
        (7, ["p-2"], 7),
        (1, ["p-9", "p-10"], 11),
        (1, ["p-x"], 1),
    ],
    ids=["none", "one", "pruned ones still count", "numbers, not letters", "a name of people"],
)
def test_the_number_of_the_next_report_never_goes_back(
    before: int, names: list[str], expected: int
) -> None:
    reports = [report(knobs_action(), Phase.KEPT, name) for name in names]
    old = policy(status={"nextReport": before})
    assert status_of(old, View(reports=reports), moment()).next_report == expected


@pytest.mark.parametrize(
    "view",
    [
        View(),
        View(
            observation=SEEN,
            diagnosis=STARVED,
            decision=Plan(knobs_action()),
            reports=[report(knobs_action(), Phase.VERIFYING)],
            replicas=1,
        ),
    ],
    ids=["nothing is known", "all is known"],
)
def test_a_status_reads_back_as_it_was_written(view: View) -> None:
    written = status_of(policy(), view, moment())
    assert PolicyStatus.model_validate(written.dump()) == written
    again = status_of(policy(status=written.dump()), view, moment(5))
    assert again == written
    kinds = [each.type for each in written.conditions]
    assert kinds == list(Condition)
