"""When a workload may sleep and when it has to wake; and what is seen of its gate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from bottleneck_operator.api.conditions import Reason
from bottleneck_operator.api.policy import PolicySpec
from bottleneck_operator.api.report import (
    Action,
    Aim,
    BottleneckReport,
    HpaBounds,
    Phase,
    ReplicasChange,
)
from bottleneck_operator.decide.decision import Facts, Plan, Refusal
from bottleneck_operator.decide.idle import RETRY_SECONDS, SILENT_SECONDS, decide_idle, sleeping
from bottleneck_operator.observe.gate import FRESH_SECONDS, GateView, view_of
from bottleneck_operator.observe.owners import Hpa
from bottleneck_operator.observe.trail import Trail
from bottleneck_sidecar.wire import Gate
from hypothesis import given
from hypothesis import strategies as st

from .builders import (
    NOW,
    SERVING,
    history,
    knobs_action,
    moment,
    observation,
    reading,
    replicas_action,
    report,
    sample,
    spec,
)

HPA = Hpa("h", HpaBounds(min=1, max=4))
IDLE = 300.0
QUIET = GateView(pods=1, speaking=1, idle_seconds=IDLE)
BUSY = GateView(pods=1, speaking=1, in_flight=3, idle_seconds=0.0)
HOLDING = GateView(pods=1, speaking=1, held=5, idle_seconds=0.0)
SILENT = GateView(pods=2, speaking=1, silent_seconds=SILENT_SECONDS + 1)
GONE = GateView(silent_seconds=SILENT_SECONDS + 1)


def allowing(least: int = 0, most: int = 6, **changes: Any) -> PolicySpec:
    return spec(**SERVING, actions={"replicas": {"min": least, "max": most}}, **changes)


def slept(before: int = 2, **changes: Any) -> BottleneckReport:
    """The report with which the operator scaled to zero."""
    action = Action(
        type="Replicas",
        summary=f"replicas {before} → 0",
        cause="idle",
        aim=Aim.SAVE,
        replicas=ReplicasChange(desired=0, replaces=before),
    )
    fields = {"applied_at": moment(-900), "closed_at": moment(-900), **changes}
    return report(action, Phase.KEPT, **fields)


def waking(phase: Phase = Phase.APPLIED, **changes: Any) -> BottleneckReport:
    action = replicas_action(2, 0).model_copy(update={"aim": Aim.WAKE})
    applied = {"applied_at": moment(-2)} if phase in (Phase.APPLIED, Phase.KEPT) else {}
    return report(action, phase, "p-2", **applied, **changes)


def awake(replicas: int = 2, **changes: Any) -> Facts:
    return Facts(**{"replicas": replicas, "ready": replicas, **changes})


def asleep(*reports: BottleneckReport) -> Facts:
    return Facts(replicas=0, ready=0, reports=reports)


def traffic(*ages: float) -> Trail:
    """Requests so many seconds ago, by the workload's own word."""
    trail = Trail()
    for age in sorted(ages, reverse=True):
        seen = observation(signals={"inference.arrivalRate": reading(1.0)})
        trail.note(replace(seen, time=NOW - age))
    return trail


def decided(gate: GateView, policy: PolicySpec, facts: Facts) -> Plan | Reason | None:
    answer = decide_idle(gate, policy, facts, NOW)
    return answer.reason if isinstance(answer, Refusal) else answer


# -- to sleep --------------------------------------------------------------------------------------


def test_who_is_idle_for_long_enough_sleeps() -> None:
    plan = decided(QUIET, allowing(), awake(3))
    assert isinstance(plan, Plan)
    assert plan.action.replicas == ReplicasChange(desired=0, replaces=3)
    assert plan.action.aim is Aim.SAVE
    assert not plan.action.judged
    assert plan.symptom is not None
    assert plan.symptom.text == "No request for 300s; 3 replicas run"


@pytest.mark.parametrize(
    ("gate", "policy", "facts", "answer"),
    [
        (QUIET, allowing(1), awake(), None),
        (QUIET, spec(**SERVING, actions={}), awake(), None),
        (QUIET, allowing(paused=True), awake(), None),
        (replace(QUIET, idle_seconds=IDLE - 0.1), allowing(), awake(), None),
        (BUSY, allowing(), awake(), None),
        (HOLDING, allowing(), awake(), None),
        (GateView(), allowing(), awake(), Reason.NO_GATE),
        (SILENT, allowing(), awake(), Reason.GATE_SILENT),
        (QUIET, allowing(), awake(hpa=HPA), Reason.REPLICAS_OWNED_BY_HPA),
        (QUIET, allowing(), awake(gitops="argocd"), Reason.REPLICAS_OWNED_BY_GITOPS),
        (QUIET, allowing(), awake(ready=1), None),
        (QUIET, allowing(), awake(ready=None), None),
        (QUIET, allowing(), Facts(), None),
        (QUIET, allowing(), awake(trail=traffic(100)), Reason.GATE_BYPASSED),
        (
            QUIET,
            allowing(),
            awake(reports=(report(knobs_action(), Phase.VERIFYING),)),
            Reason.COOLDOWN,
        ),
        (
            QUIET,
            allowing(),
            awake(reports=(slept(closed_at=moment(-10), applied_at=moment(-10)),)),
            Reason.COOLDOWN,
        ),
        (
            QUIET,
            allowing(limits={"actionsPerHour": 1}),
            awake(reports=(slept(),)),
            Reason.ACTIONS_PER_HOUR,
        ),
    ],
    ids=[
        "a minimum of one",
        "replicas are not to be changed",
        "paused",
        "not for long enough",
        "in flight",
        "held",
        "no gate",
        "a silent gate",
        "an autoscaler owns them",
        "a repository owns them",
        "some do not run",
        "not known how many run",
        "no replicas to change",
        "requests past the gate",
        "another action is open",
        "the last action was just now",
        "too many actions",
    ],
)
def test_who_does_not_sleep(
    gate: GateView, policy: PolicySpec, facts: Facts, answer: Reason | None
) -> None:
    assert decided(gate, policy, facts) == answer


def test_what_came_before_it_was_idle_is_no_bypass() -> None:
    assert isinstance(decided(QUIET, allowing(), awake(trail=traffic(295, 310))), Plan)


def test_without_a_gate_it_is_said_what_to_write() -> None:
    answer = decide_idle(GateView(), allowing(), awake(), NOW)
    assert isinstance(answer, Refusal)
    assert "labelled bottleneck.dev/gate-for: work" in answer.message
    assert "or write min: 1" in answer.message


def test_a_waking_is_no_reason_to_stay_awake() -> None:
    facts = awake(reports=(slept(), waking(Phase.KEPT)))
    assert isinstance(decided(QUIET, allowing(), facts), Plan)


# -- to wake ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gate", "policy", "reports", "replicas"),
    [
        (HOLDING, allowing(), (slept(2),), 2),
        (replace(HOLDING, held=1), allowing(), (slept(4),), 1),
        (HOLDING, allowing(most=1), (slept(4),), 1),
        (HOLDING, allowing(paused=True), (slept(2),), 2),
        (HOLDING, allowing(mode="Recommend"), (slept(2),), 2),
        (HOLDING, allowing(), (slept(2, applied_at=moment(-1), closed_at=moment(-1)),), 2),
        (HOLDING, allowing(limits={"actionsPerHour": 1}), (slept(2),), 2),
        (HOLDING, allowing(), (slept(2), report(knobs_action(), Phase.VERIFYING, "p-2")), 2),
        (replace(SILENT, held=5), allowing(), (slept(2),), 2),
        (SILENT, allowing(), (slept(4),), 1),
        (GONE, allowing(), (slept(4),), 1),
        (QUIET, allowing(2), (slept(4),), 2),
        (QUIET, spec(**SERVING, actions={}), (slept(4),), 1),
        (QUIET, allowing(mode="Observe"), (slept(4),), 1),
        (HOLDING, allowing(), (), 1),
    ],
    ids=[
        "as many as ran",
        "no more than there are requests",
        "no more than are allowed",
        "paused",
        "by approval",
        "without a cooldown",
        "not counted",
        "beside another action",
        "held by the pod that speaks",
        "a silent gate",
        "no gate any more",
        "a minimum again",
        "no longer the operator's to change",
        "only to be observed from now on",
        "somebody else's zero, in Auto",
    ],
)
def test_who_wakes(
    gate: GateView, policy: PolicySpec, reports: tuple[BottleneckReport, ...], replicas: int
) -> None:
    plan = decided(gate, policy, asleep(*reports))
    assert isinstance(plan, Plan)
    assert plan.action.replicas == ReplicasChange(desired=replicas, replaces=0)
    assert plan.action.aim is Aim.WAKE


@pytest.mark.parametrize(
    ("gate", "policy", "reports", "answer"),
    [
        (QUIET, allowing(), (slept(),), None),
        (replace(SILENT, silent_seconds=SILENT_SECONDS - 1), allowing(), (slept(),), None),
        (HOLDING, allowing(), (slept(), waking()), None),
        (
            HOLDING,
            allowing(),
            (slept(), waking(Phase.REVERTED, closed_at=moment(-RETRY_SECONDS + 1))),
            None,
        ),
        (
            HOLDING,
            allowing(),
            (slept(), waking(Phase.REVERTED, closed_at=moment(-RETRY_SECONDS - 1))),
            Plan,
        ),
        (QUIET, allowing(), (), None),
        (GONE, allowing(), (), None),
        (HOLDING, allowing(1), (), Reason.SCALED_TO_ZERO),
        (HOLDING, allowing(mode="Recommend"), (), Reason.SCALED_TO_ZERO),
        (HOLDING, allowing(paused=True), (), Reason.SCALED_TO_ZERO),
        (HOLDING, allowing(), (slept(2), report(replicas_action(1, 0), Phase.PLANNED)), Plan),
    ],
    ids=[
        "nobody waits",
        "the gate was just restarted",
        "it is woken already",
        "waking has just failed",
        "waking failed, and is tried again",
        "somebody else's zero",
        "somebody else's zero without a gate",
        "somebody else's zero against the policy's minimum",
        "somebody else's zero, only recommending",
        "somebody else's zero, paused",
        "what was planned and not done does not count",
    ],
)
def test_who_sleeps_on(
    gate: GateView, policy: PolicySpec, reports: tuple[BottleneckReport, ...], answer: Any
) -> None:
    found = decided(gate, policy, asleep(*reports))
    assert isinstance(found, Plan) if answer is Plan else found == answer


def test_whose_zero_it_is() -> None:
    grown = report(replicas_action(3, 1), Phase.KEPT, applied_at=moment(-5))
    assert sleeping((grown, slept())) is not None
    assert sleeping((slept(), grown)) is None
    assert sleeping((slept(), waking(Phase.KEPT))) is None
    assert sleeping((slept(), report(knobs_action(), Phase.KEPT))) is not None
    assert sleeping(()) is None


views = st.builds(
    GateView,
    pods=st.integers(0, 3),
    speaking=st.integers(0, 3),
    held=st.integers(0, 2),
    in_flight=st.integers(0, 2),
    idle_seconds=st.none() | st.floats(0, 1000),
    silent_seconds=st.floats(0, 100),
)
counts = st.none() | st.integers(0, 4)
flags = st.booleans()


@given(views, st.integers(0, 2), counts, counts, flags, flags, flags)
def test_nothing_sleeps_unless_every_word_of_its_gate_allows_it(
    gate: GateView,
    least: int,
    replicas: int | None,
    ready: int | None,
    by_us: bool,
    paused: bool,
    owned: bool,
) -> None:
    facts = Facts(
        replicas=replicas,
        ready=ready,
        hpa=HPA if owned else None,
        reports=(slept(),) if by_us else (),
    )
    answer = decide_idle(gate, allowing(least, paused=paused), facts, NOW)
    if not isinstance(answer, Plan):
        return
    change = answer.action.replicas
    assert change is not None
    assert change.replaces == replicas
    if change.desired == 0:
        assert 0 < gate.pods == gate.speaking
        assert gate.held == gate.in_flight == 0
        assert gate.idle_seconds is not None
        assert gate.idle_seconds >= IDLE
        assert least == 0
        assert not paused
        assert not owned
        assert ready == replicas
        assert replicas
    else:
        assert replicas == 0
        assert 1 <= change.desired <= 6
        assert by_us or gate.held


@given(views.filter(lambda view: view.held > 0), st.integers(1, 9), flags)
def test_whoever_waits_at_a_workload_that_the_operator_let_sleep_is_served(
    gate: GateView, before: int, paused: bool
) -> None:
    answer = decide_idle(gate, allowing(paused=paused), asleep(slept(before)), NOW)
    assert isinstance(answer, Plan)
    assert answer.action.aim is Aim.WAKE


# -- what is seen of a gate ------------------------------------------------------------------------


def gate(**changes: Any) -> Gate:
    fields: dict[str, Any] = {
        "epoch": "g",
        "arrivals": 9,
        "held": 0,
        "in_flight": 0,
        "holds": 0,
        "refused": 0,
        "hold_seconds": 0.0,
        "longest_hold_seconds": 0.0,
        "idle_seconds": 60.0,
        **changes,
    }
    return Gate(**fields)


def test_the_pods_of_a_gate_are_taken_together() -> None:
    said = {
        "a": history(sample(NOW - 1, 1, gate=gate(held=2, idle_seconds=0.0))),
        "b": history(sample(NOW - 1, 1, gate=gate(in_flight=3, idle_seconds=7.0))),
    }
    view = view_of(["a", "b"], said, NOW, NOW - 50)
    assert view == GateView(2, 2, held=2, in_flight=3, idle_seconds=0.0)
    assert view.complete


@pytest.mark.parametrize(
    "line",
    [
        None,
        sample(NOW - FRESH_SECONDS - 0.1, 1, gate=gate()),
        sample(NOW - 1, 1, gate=gate(), ages={"g": FRESH_SECONDS}),
        sample(NOW - 1, 1),
    ],
    ids=["never heard", "an old word", "the process behind it hangs", "no gate at all"],
)
def test_one_silent_pod_and_nothing_is_known_of_idleness(line: Any) -> None:
    said = {"a": history(sample(NOW, 1, gate=gate(held=1)))}
    if line is not None:
        said["b"] = history(line)
    view = view_of(["a", "b"], said, NOW, NOW - 50)
    assert view == GateView(2, 1, held=1, idle_seconds=None, silent_seconds=50)
    assert not view.complete


def test_no_gate_is_not_complete_either() -> None:
    assert view_of([], {}, NOW, NOW - 5) == GateView(silent_seconds=5)
    assert not GateView().complete
