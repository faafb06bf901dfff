"""What follows from a verdict, through the whole loop: an undoing is verified, people are told and
can step in, and a new process goes on where the old one was."""

from __future__ import annotations

from typing import Any

import pytest
from bottleneck_operator.api.conditions import (
    PAUSED_ANNOTATION,
    RESUMED_ANNOTATION,
    ROLLBACK_ANNOTATION,
    Condition,
    Reason,
)
from bottleneck_operator.api.report import (
    BottleneckReport,
    Metric,
    Phase,
    Prediction,
    Verdict,
    VerdictResult,
)
from bottleneck_operator.decide.ledger import may_go, record
from bottleneck_operator.decide.rollback import annotation

from .builders import NOW, moment, policy, replicas_action, report
from .loop_world import World, looked_after
from .objects import Object, at, deployment, pod
from .telemetry import model_server
from .telemetry import pod as told

RANKER = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "ranker"}
LATENCY = Metric(name="latency p95", unit="s", lower_is_better=True)
PREDICTION = Prediction(before=0.2, after=0.1, basis="a model")


def world_of(*reports: BottleneckReport, replicas: int = 2, mode: str = "Auto") -> World:
    world = World(deployment(replicas, replicas), looked_after(RANKER, mode))
    for number in range(replicas):
        world.pods(pod(f"ranker-{number}"))
    for each in reports:
        world.report(each)
    return world


def serve(world: World, until: float, latency: float, seconds: float = 170) -> None:
    """Every pod has answered with this latency for so long."""
    for name in [f"ranker-{number}" for number in range(world.api.target["spec"]["replicas"])]:
        world.streams.histories[name] = told(
            lambda t: [model_server(t, latency=latency)],
            seconds,
            until=NOW + until,
            uid=f"uid-{name}",
        )


def live(world: World, latency: float, *seconds: float) -> BottleneckReport:
    for second in seconds:
        serve(world, second, latency)
        world.turn(second)
    return BottleneckReport.model_validate(world.api.reports["p-1"])


def annotate(world: World, name: str, value: str) -> None:
    meta = world.policy.metadata.model_copy(update={"annotations": {name: value}})
    world.policy = world.policy.model_copy(update={"metadata": meta})


def of(
    phase: Phase, result: VerdictResult, closed: float = -40, before: float = 0.2, **status: Any
) -> BottleneckReport:
    """Growth from two replicas to three that was judged."""
    action = replicas_action(3, 2).model_copy(update={"prediction": PREDICTION})
    verdict = Verdict(result=result, before=0.2, after=0.2, reason="median +0%")
    times = {
        "applied_at": moment(closed - 60),
        "acknowledged_at": moment(closed - 50),
        "judged_at": moment(closed - 10),
        "closed_at": moment(closed),
    }
    made = report(action, phase, verdict=verdict, **times, **status)
    changes = {
        "metric": LATENCY,
        "before": [before] * 20,
        "decided_at": moment(closed - 70),
    }
    return made.model_copy(update={"spec": made.spec.model_copy(update=changes)})


def undone(**changes: Any) -> BottleneckReport:
    return of(Phase.REVERTED, VerdictResult.NO_EFFECT, **changes)


def reasons(world: World) -> list[str]:
    return [event["reason"] for event in world.api.events]


# -- the undoing -----------------------------------------------------------------------------------


def test_an_undoing_after_which_all_is_as_before_is_said_and_counted() -> None:
    world = world_of(undone())
    found = live(world, 0.2, 0, 1)
    assert found.status.revert is not None
    assert found.status.revert.result == "Restored"
    assert found.status.revert.bins[1] >= 8
    assert world.condition(Condition.RESTORED)[:2] == ("True", Reason.RESTORED)
    assert "NotRestored" not in reasons(world)
    (entry,) = world.api.status["ledger"]["entries"]
    assert (entry["hits"], entry["misses"], entry["reverts"]) == (0, 1, 1)
    assert world.api.status["ledger"]["counted"] == ["p-1"]


def test_until_then_nothing_else_begins() -> None:
    world = world_of(undone(closed=-3))
    found = live(world, 0.4, 0)
    assert found.status.revert is None
    assert world.condition(Condition.RESTORED)[:2] == ("Unknown", Reason.VERIFYING)


SLOW = (*range(0, 130, 30), 121, 122)


def test_a_workload_that_did_not_come_back_is_left_to_people() -> None:
    world = world_of(undone(before=0.1))
    found = live(world, 0.3, *SLOW)
    revert = found.status.revert
    assert revert is not None
    assert (revert.result, revert.differences) == ("NotRestored", [])
    assert revert.effect is not None
    assert revert.effect > 1
    status, reason, message = world.condition(Condition.RESTORED)
    assert (status, reason) == ("False", Reason.NOT_RESTORED)
    assert f"median {revert.effect:+.0%} against before" in message
    assert reasons(world).count("NotRestored") == 1
    annotate(world, RESUMED_ANNOTATION, at(123))
    live(world, 0.3, 124)
    status, _, message = world.condition(Condition.RESTORED)
    assert status == "True"
    assert "people said so" in message


def test_a_value_that_is_not_as_before_is_named() -> None:
    world = world_of(undone(), replicas=2)
    world.api.target["spec"]["replicas"] = 5
    for number in range(2, 5):
        world.pods(pod(f"ranker-{number}"))
    found = live(world, 0.2, *SLOW)
    assert found.status.revert is not None
    assert found.status.revert.differences == ["replicas 5, before the action 2"]
    status, reason, message = world.condition(Condition.RESTORED)
    assert (status, reason) == ("False", Reason.STATE_DIFFERS)
    assert "replicas 5" in message
    assert "StateDiffers" in reasons(world)


def test_a_silent_replica_is_waited_for() -> None:
    world = world_of(undone())
    world.loop._gatherer._first_seen = {f"uid-ranker-{n}": NOW - 100 for n in range(2)}
    serve(world, 0, 0.2)
    del world.streams.histories["ranker-1"]
    world.turn(0)
    assert BottleneckReport.model_validate(world.api.reports["p-1"]).status.revert is None


# -- a new process ---------------------------------------------------------------------------------


def restarted(world: World, *reports: Object) -> World:
    """Another process with what stands in the API, and nothing else."""
    again = world_of()
    again.policy = again.policy.model_copy(
        update={"status": policy(status=world.api.status).status}
    )
    for document in reports:
        again.report(BottleneckReport.model_validate(document))
    return again


def test_a_new_process_decides_as_the_old_one_did() -> None:
    world = world_of(undone(before=0.1))
    live(world, 0.3, *SLOW)
    again = restarted(world, world.api.reports["p-1"])
    serve(again, 125, 0.3)
    again.turn(125)
    assert again.condition(Condition.RESTORED)[1:] == world.condition(Condition.RESTORED)[1:]
    assert again.api.status["ledger"] == world.api.status["ledger"]


def test_the_ledger_outlives_the_reports() -> None:
    made = undone()
    world = world_of(made)
    found = live(world, 0.2, 0, 1)
    ledger = policy(status=world.api.status).status.ledger
    assert may_go(ledger, found)
    again = restarted(world)
    serve(again, 2, 0.2)
    again.turn(2)
    kept = policy(status=again.api.status).status.ledger
    assert kept == ledger
    assert record([], "queueing", "Replicas", kept) == record([found], "queueing", "Replicas")
    assert record([found], "queueing", "Replicas", kept).tried == 1


# -- people ----------------------------------------------------------------------------------------


def kept(by: str = "alice", **changes: Any) -> BottleneckReport:
    made = of(Phase.KEPT, VerdictResult.IMPROVED, **changes)
    annotations = {ROLLBACK_ANNOTATION: annotation(by, "2027-01-15T08:00:00Z")}
    meta = made.metadata.model_copy(update={"annotations": annotations})
    return made.model_copy(update={"metadata": meta})


@pytest.mark.parametrize("paused", [False, True])
def test_what_people_take_back_is_undone_and_verified(paused: bool) -> None:
    world = world_of(kept(), replicas=3)
    if paused:
        annotate(world, PAUSED_ANNOTATION, "resumed")
    found = live(world, 0.2, 0, 1)
    assert world.api.target["spec"]["replicas"] == 2
    assert found.status.phase == "Reverted"
    assert found.status.rollback is not None
    assert (found.status.rollback.by, found.status.rollback.refused) == ("alice", "")
    assert any("as alice asked" in entry.message for entry in found.status.timeline)
    assert "RolledBack" in reasons(world)
    (entry,) = world.api.status["ledger"]["entries"]
    assert (entry["hits"], entry["misses"], entry["reverts"]) == (1, 0, 0)


def test_what_others_have_changed_since_is_not_taken_back() -> None:
    world = world_of(kept(), replicas=5)
    found = live(world, 0.2, 0, 1)
    assert world.api.target["spec"]["replicas"] == 5
    assert found.status.phase == "Kept"
    assert found.status.closed_at == moment(-40)
    assert found.status.rollback is not None
    assert "replicas 5, as the action left it 3" in found.status.rollback.refused
    assert reasons(world).count("RollbackRefused") == 1


def test_a_pause_holds_until_its_moment_and_keeps_the_generation() -> None:
    world = world_of()
    annotate(world, PAUSED_ANNOTATION, at(60))
    serve(world, 0, 0.2)
    world.turn(0)
    status, reason, message = world.condition(Condition.READY)
    assert (status, reason) == ("False", Reason.PAUSED)
    assert "kubectl bottleneck resume p -n ml" in message
    serve(world, 61, 0.2)
    world.turn(61)
    assert world.condition(Condition.READY)[:2] == ("True", Reason.ACCEPTED)


@pytest.mark.parametrize("text", ["resumed", "soon", ""])
def test_a_pause_without_a_moment_holds_until_it_is_resumed(text: str) -> None:
    world = world_of()
    annotate(world, PAUSED_ANNOTATION, text)
    serve(world, 0, 0.2)
    world.turn(0)
    assert world.condition(Condition.READY)[1] == Reason.PAUSED
    assert "until it is resumed" in world.condition(Condition.READY)[2]


def test_an_undecided_action_is_among_the_recommendations() -> None:
    made = of(Phase.KEPT, VerdictResult.INCONCLUSIVE)
    fewer = replicas_action(2, 3).model_copy(update={"prediction": PREDICTION})
    made = made.model_copy(update={"spec": made.spec.model_copy(update={"action": fewer})})
    world = world_of(made)
    live(world, 0.1, 0)
    (found,) = world.api.status["recommendations"]
    assert found["title"] == "p-1 is undecided: replicas 3 → 2"
    assert "kubectl bottleneck rollback p-1 -n ml" in found["how"]
    assert "kubectl bottleneck resume p -n ml" in found["how"]
    assert "median +0%" in found["expectedGain"]
    annotate(world, RESUMED_ANNOTATION, at(0))
    live(world, 0.1, 1)
    assert world.api.status["recommendations"] == []
