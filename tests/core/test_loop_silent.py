"""The loop without any telemetry: what it asks of the API server, what it says of a workload that
does not run, and that silence never leads to an action."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from bottleneck_operator.api.conditions import Condition, Reason
from bottleneck_operator.api.policy_status import ConditionStatus
from bottleneck_operator.controller.onset import Onset
from bottleneck_operator.kube import KubeError
from bottleneck_operator.observe.inquiry import Inquiry

from .builders import NOW, moment, policy
from .loop_world import World
from .objects import (
    QUOTA,
    SCHEDULER,
    Object,
    container,
    deployment,
    failed_create,
    job,
    looping,
    pod,
    replica_set,
    unschedulable,
)

INQUIRY = {"replicasets", "controllerrevisions", "events", "pods", "horizontalpodautoscalers"}


# -- a workload that does not run ------------------------------------------------------------------


def test_a_workload_that_no_node_takes_is_named_and_left_alone() -> None:
    world = World(deployment(1, 1))
    world.pods(unschedulable())
    world.turn(0)

    status, reason, message = world.condition(Condition.BOTTLENECKED)
    assert (status, reason) == ("True", Reason.STANDSTILL)
    assert SCHEDULER in message
    assert world.api.status["bottleneck"]["id"] == "unschedulable"
    assert SCHEDULER in world.api.status["why"]
    status, reason, message = world.condition(Condition.LIMITED)
    assert (status, reason) == ("True", Reason.NO_REMEDY)
    assert "Add nodes" in message
    # Not that it has no sidecar: its pods have one, they only do not run.
    assert world.condition(Condition.TELEMETRY_AVAILABLE)[:2] == ("False", Reason.NO_REPLICAS)
    assert world.api.reports == {}
    assert {event["reason"] for event in world.api.events} == {"BottleneckFound", "NoRemedy"}


def test_a_pod_that_waits_for_a_moment_only_is_no_standstill() -> None:
    world = World(deployment(1, 1))
    world.pods(unschedulable(since=-3))
    world.turn(0)
    assert world.condition(Condition.BOTTLENECKED)[:2] == ("Unknown", Reason.UNKNOWN)
    assert world.api.events == []


def test_a_pod_that_is_killed_again_and_again_is_named() -> None:
    world = World(deployment(1, 1))
    world.pods(looping())
    world.turn(0)
    assert world.api.status["bottleneck"]["id"] == "oom-loop"
    status, reason, message = world.condition(Condition.BOTTLENECKED)
    assert (status, reason) == ("True", Reason.STANDSTILL)
    assert "its memory limit is 2Gi" in message
    assert world.condition(Condition.LIMITED)[:2] == ("True", Reason.NO_REMEDY)


def test_a_quota_that_refuses_a_jobs_pods_is_named_from_its_events() -> None:
    world = World(job(active=0), events=[failed_create(-20)])
    world.turn(0)
    assert world.api.status["bottleneck"]["id"] == "unschedulable"
    assert "exceeded quota: compute" in world.condition(Condition.BOTTLENECKED)[2]
    (query,) = [query for name, query in world.api.asked if name == "events"]
    assert query["fieldSelector"] == "reason=FailedCreate,involvedObject.uid=uid-job"


def test_a_quota_that_refuses_a_deployments_pods_is_in_its_own_conditions() -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "message": QUOTA}
    world = World(deployment(2, 0, status={"conditions": [failure], "readyReplicas": 0}))
    world.turn(0)
    assert world.api.status["bottleneck"]["id"] == "unschedulable"
    assert "exceeded quota: compute" in world.condition(Condition.BOTTLENECKED)[2]
    assert "events" not in world.api.names()


def test_a_pod_without_a_sidecar_that_no_node_takes_is_asked_for() -> None:
    waiting = unschedulable()
    waiting["metadata"]["labels"] = {"app": "ranker"}
    world = World(deployment(1, 1), pods=[waiting])
    world.turn(0)
    assert world.api.status["bottleneck"]["id"] == "unschedulable"
    (query,) = [query for name, query in world.api.asked if name == "pods"]
    assert query == {"limit": "50", "labelSelector": "app=ranker"}


def test_once_it_runs_again_nothing_is_said_any_more() -> None:
    world = World(deployment(1, 1))
    world.pods(unschedulable())
    world.turn(0)
    world.pods(pod())
    world.turn(1)
    assert world.condition(Condition.BOTTLENECKED)[:2] == ("Unknown", Reason.UNKNOWN)
    assert "bottleneck" not in world.api.status
    assert world.condition(Condition.LIMITED)[0] == "False"


# -- what is asked of the API server ---------------------------------------------------------------


def test_of_a_healthy_workload_nothing_is_asked_but_the_target_itself() -> None:
    world = World(deployment())
    world.pods(pod("a"), pod("b"))
    world.turn(*range(30))
    assert set(world.api.names()) == {"bottleneckreports", "ranker"}
    assert world.api.names().count("ranker") == 6


@pytest.mark.parametrize(
    ("target", "known", "asked"),
    [
        (deployment(1, 1), [unschedulable()], []),
        (deployment(2, 1), [pod()], ["replicasets", "horizontalpodautoscalers"]),
        (deployment(1, 0), [], ["replicasets", "horizontalpodautoscalers", "pods"]),
        (job(active=0), [], ["events", "pods"]),
        (job(active=1), [], ["pods"]),
        (job(active=0, suspend=True), [], []),
        (deployment(0, 0), [], []),
    ],
    ids=[
        "the pods say it themselves",
        "a pod is missing",
        "all pods are missing",
        "a Job without its pod",
        "a Job whose pod has no sidecar",
        "a suspended Job",
        "no replicas are wanted",
    ],
)
def test_what_is_asked_of_a_workload_that_lacks_pods(
    target: Object, known: list[Object], asked: list[str]
) -> None:
    world = World(target)
    world.pods(*known)
    inquiry = INQUIRY if asked else INQUIRY - {"replicasets", "horizontalpodautoscalers"}
    world.turn(0)
    assert [name for name in world.api.names() if name in inquiry] == asked


def test_while_it_lacks_pods_it_is_asked_every_ten_seconds_and_later_every_minute() -> None:
    world = World(deployment(2, 1))
    world.pods(pod())
    world.turn(*range(60))
    assert world.api.names().count("replicasets") == 6
    world.turn(*range(60, 660))
    # 6 more while the trouble is young, 9 in the nine minutes after that.
    assert 6 + 6 + 8 <= world.api.names().count("replicasets") <= 6 + 7 + 9
    world.api.target["metadata"]["generation"] = 8
    before = world.api.names().count("replicasets")
    world.turn(*range(660, 680))
    assert world.api.names().count("replicasets") > before


@pytest.mark.parametrize(
    "refusal",
    [KubeError(403, "forbidden"), KubeError(500, "etcd"), OSError("gone")],
    ids=["forbidden", "an error", "no answer"],
)
def test_a_question_that_fails_costs_its_answer_and_nothing_else(refusal: Exception) -> None:
    world = World(job(active=0), events=refusal, pods=[])
    world.turn(0)
    assert world.condition(Condition.READY)[0] == "True"
    failed = world.loop._gatherer.inquiry.answers.failed
    assert len(failed) == 1
    assert world.loop._gatherer.inquiry.requests == {"events": 1, "pods": 1}


@pytest.mark.timeout(120)
def test_an_api_server_that_does_not_answer_holds_a_turn_up_for_a_moment_only() -> None:
    async def never() -> None:
        await asyncio.sleep(3600)

    world = World(job(active=0), events=never)
    world.turn(0)
    assert world.condition(Condition.READY)[0] == "True"
    assert len(world.loop._gatherer.inquiry.answers.failed) == 2


def test_when_asking_is_due() -> None:
    inquiry = Inquiry()
    assert inquiry.due(1, NOW)
    inquiry._asked = inquiry._since = NOW
    inquiry._generation = 1
    assert not inquiry.due(1, NOW + 9)
    assert inquiry.due(1, NOW + 10)
    inquiry._asked = NOW + 120
    assert inquiry.due(1, NOW + 180)
    assert not inquiry.due(1, NOW + 179)
    assert inquiry.due(2, NOW + 131)
    inquiry.rest()
    assert not inquiry.due(1, NOW + 129)


def test_the_newest_change_is_known_while_something_is_wrong_and_forgotten_after() -> None:
    world = World(
        deployment(2, 1), replicasets=[replica_set(2, -300), replica_set(1, -900, container())]
    )
    world.pods(pod())
    world.turn(0)
    found = world.loop._gatherer.inquiry.answers.change
    assert found is not None
    assert found.at == NOW - 300
    world.api.target["status"]["replicas"] = 2
    world.turn(6)
    assert world.loop._gatherer.inquiry.answers.change is None


# -- the onset -------------------------------------------------------------------------------------


def _told(status: str, second: float) -> Iterator[ConditionStatus]:
    yield ConditionStatus(
        type=Condition.BOTTLENECKED,
        status=status,
        reason=Reason.OBJECTIVE_BREACHED,
        last_transition_time=moment(second),
    )


@pytest.mark.parametrize(
    ("degraded", "conditions", "since"),
    [
        (None, [], None),
        (None, [("True", -90)], None),
        (NOW - 10, [], NOW - 10),
        (NOW - 10, [("True", -90)], NOW - 90),
        (NOW - 10, [("True", -3)], NOW - 10),
        (NOW - 10, [("False", -90)], NOW - 10),
    ],
    ids=["healthy", "over", "seen", "an earlier process saw it", "written later", "was met"],
)
def test_since_when_it_is_degraded(
    degraded: float | None, conditions: list[tuple[str, float]], since: float | None
) -> None:
    written = [c.dump() for status, second in conditions for c in _told(status, second)]
    onset = Onset(degraded_at=degraded)
    assert onset.since(policy(status={"conditions": written})) == since
