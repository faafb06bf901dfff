"""What a verdict is worth where something else happened while it was measured."""

from __future__ import annotations

from typing import Any

import pytest
from bottleneck_operator.api.report import BottleneckReport, Phase, Trade, Verdict, VerdictResult
from bottleneck_operator.api.split import Split, Treated
from bottleneck_operator.observe.pods import pod_of
from bottleneck_operator.observe.series import arrival_rate
from bottleneck_operator.observe.workload import Touch, Workload
from bottleneck_operator.verify.comparable import (
    acted_beside,
    begin_of,
    confounders_of,
    rollout_in,
    started_since,
    weakened,
)
from bottleneck_operator.verify.measure import load_change

from .builders import NOW, history, knobs_action, moment, replicas_action, report, sample
from .objects import pod
from .telemetry import model_server
from .telemetry import pod as told

V = VerdictResult
OURS = report(knobs_action(), Phase.VERIFYING)
"""Decided five seconds before ``NOW``, with figures of ten seconds before that."""


def verdict(result: VerdictResult, bins: int = 60, control: bool = False) -> Verdict:
    return Verdict(result=result, bins=[10, bins], control=control, reason="because")


def test_the_figures_from_before_tell_since_when_it_was_measured() -> None:
    assert begin_of(OURS) == NOW - 15
    split = Split(treated=[Treated(name="a", uid="u")], at=moment(30), treated_before=[0.4] * 20)
    halved = OURS.model_copy(update={"status": OURS.status.model_copy(update={"split": split})})
    assert begin_of(halved) == NOW + 10


@pytest.mark.parametrize(
    ("touched", "created", "found"),
    [(-20, -900, False), (-10, -900, True), (8, -900, True), (-10, -11, False), (40, -900, False)],
    ids=["before", "while before", "while after", "as it was made", "later"],
)
def test_a_rollout_counts_while_it_was_measured(touched: int, created: int, found: bool) -> None:
    workload = Workload(created=NOW + created, touch=Touch("kubectl", NOW + touched))
    assert (rollout_in(OURS, workload, NOW + 20) is not None) is found


def test_without_a_known_writer_there_was_none() -> None:
    assert rollout_in(OURS, Workload(), NOW) is None


def test_replicas_that_came_since_share_the_load() -> None:
    pods = [pod_of(pod("ranker-0", created=-600)), pod_of(pod("ranker-1", created=4))]
    assert started_since(OURS, pods) == ["ranker-1"]
    # Of more replicas they are the doing.
    assert started_since(report(replicas_action(), Phase.VERIFYING), pods) == []


def theirs(policy: str = "other", target: str = "work", **status: Any) -> BottleneckReport:
    found = report(replicas_action(), Phase.APPLIED, f"{policy}-3", **status)
    ref = found.spec.target.model_copy(update={"name": target})
    spec = found.spec.model_copy(update={"policy": policy, "target": ref})
    return found.model_copy(update={"spec": spec})


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (theirs(applied_at=moment(3)), True),
        (theirs(target="another", applied_at=moment(3)), False),
        (theirs("mate", "another", applied_at=moment(3)), True),
        (theirs("p", applied_at=moment(3)), False),
        (theirs(applied_at=moment(-60)), False),
        (theirs(), False),
    ],
    ids=["same workload", "a stranger's", "same pool", "our own", "long before", "not begun"],
)
def test_an_action_of_another_policy(other: BottleneckReport, found: bool) -> None:
    words = acted_beside(OURS, [OURS, other], {"p", "mate"}, NOW + 20)
    assert bool(words) is found
    if found:
        policy = other.spec.policy
        assert words == [f"replicas 1 → 3 by policy {policy} ({policy}-3)"]


def test_its_undoing_is_one_too_and_the_other_side_of_a_trade_is_not() -> None:
    other = theirs(applied_at=moment(-60), judged_at=moment(2))
    undone = other.model_copy(
        update={"status": other.status.model_copy(update={"phase": Phase.REVERTING})}
    )
    assert not acted_beside(OURS, [other], (), NOW + 20)
    assert acted_beside(OURS, [undone], (), NOW + 20)
    trade = Trade(
        pool="gpus",
        role="Takes",
        policy="other",
        report="other-3",
        devices=1,
        resource="nvidia.com/gpu",
        ready=2,
        reason="it waits",
    )
    traded = OURS.model_copy(update={"spec": OURS.spec.model_copy(update={"trade": trade})})
    assert not acted_beside(traded, [undone], (), NOW + 20)


@pytest.mark.parametrize("control", [True, False])
@pytest.mark.parametrize("result", list(V))
def test_beside_another_change_only_an_improvement_is_taken_back(
    result: VerdictResult, control: bool
) -> None:
    words = confounders_of(OURS, Workload(touch=Touch("kubectl", NOW)), NOW, [], ["more"])
    assert words == ["a rollout of Deployment/work by kubectl at 2027-01-15 08:00:00Z", "more"]
    found = weakened(verdict(result, control=control), words)
    assert found is not None
    assert found.result is (V.INCONCLUSIVE if result is V.IMPROVED else result)
    if result is not V.NO_DATA:
        assert found.confounders == words
        assert found.reason == f"because; confounded by {words[0]}; more"
    assert weakened(verdict(result, control=control), []) == verdict(result, control=control)
    assert weakened(None, words) is None


@pytest.mark.parametrize(
    ("result", "load", "stands"),
    [
        (V.IMPROVED, 0.5, False),
        (V.IMPROVED, 0.95, True),
        (V.IMPROVED, 2.0, True),
        (V.IMPROVED, None, True),
        (V.WORSE, 2.0, False),
        (V.WORSE, 0.5, True),
        (V.NO_EFFECT, 2.0, False),
        (V.NO_EFFECT, 0.5, True),
        (V.INCONCLUSIVE, 2.0, True),
    ],
)
def test_another_load_may_be_behind_it(
    result: VerdictResult, load: float | None, stands: bool
) -> None:
    found = weakened(verdict(result), [], load)
    assert found is not None
    if stands:
        assert found == verdict(result)
        return
    assert found.result is V.INCONCLUSIVE
    assert f"the load is {load:.2g} times what it was" in found.reason
    # Until the last look it may come back; and beside a control it is the same for both.
    assert weakened(verdict(result, bins=15), [], load) is None
    assert weakened(verdict(result, control=True), [], load) == verdict(result, control=True)


# -- the load --------------------------------------------------------------------------------------


def test_arrivals_are_counted_over_all_servers() -> None:
    servers = [
        told(lambda t, n=n: [model_server(t, rate=10, number=n)], 20)
        for n in range(3)  # type: ignore[misc]
    ]
    assert arrival_rate(servers, NOW - 15, NOW) == pytest.approx(30, rel=0.05)
    assert arrival_rate(servers, NOW + 1, NOW + 9) is None
    assert arrival_rate([], NOW - 15, NOW) is None


def test_a_server_and_the_one_in_its_seat_each_count_for_their_own_time() -> None:
    lines = [
        sample(
            NOW + second,
            second,
            model_server(1.0, requests=0, arrivals=10 * (second % 10), epoch=f"e{second // 10}"),
        )
        for second in range(20)
    ]
    assert arrival_rate([history(*lines)], NOW, NOW + 19) == pytest.approx(180 / 19)


@pytest.mark.parametrize(
    ("before", "change"),
    [(20.0, 1.0), (22.0, 1.0), (40.0, 0.5), (10.0, 2.0), (None, None), (0.0, None)],
    ids=["alike", "by chance", "half", "double", "not known", "none before"],
)
def test_a_load_differs_where_chance_does_not_explain_it(
    before: float | None, change: float | None
) -> None:
    base = report(knobs_action(), Phase.VERIFYING, acknowledged_at=moment(-20))
    made = base.model_copy(update={"spec": base.spec.model_copy(update={"load": before})})
    histories = {"pod-0": told(lambda t: [model_server(t)], 20)}
    found = load_change(made, histories, NOW)
    assert found == (None if change is None else pytest.approx(change, rel=0.05))
