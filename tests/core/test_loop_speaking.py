"""The loop with telemetry: what is told of a cause, what is learnt, what comes after a kept fix."""

from __future__ import annotations

from typing import Any

import pytest
from bottleneck_operator.api.conditions import Condition, Reason
from bottleneck_operator.api.policy import BottleneckPolicy
from bottleneck_operator.api.report import BottleneckReport, Phase, Verdict, VerdictResult
from bottleneck_operator.decide.decision import Plan
from bottleneck_operator.decide.intent import intent
from bottleneck_operator.decide.standstill import judge_workload
from bottleneck_operator.kube import KubeError
from bottleneck_operator.observe.history import History
from bottleneck_operator.observe.windows import observe
from bottleneck_operator.observe.workload import Touch

from .builders import NOW, knobs_action, moment, policy, report
from .loop_world import World, looked_after
from .objects import Object, at, container, deployment, job, managed, replica_set, unschedulable
from .objects import pod as pod_document
from .telemetry import model_server, training_rank
from .telemetry import pod as told
from .test_variants import image_action

JOB = {"apiVersion": "batch/v1", "kind": "Job", "name": "trainer"}
RANKER = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "ranker"}
STARVED = {"data": 0.8, "forward": 0.1, "backward": 0.1}


def trainer(until: float = 0, seconds: float = 30, **changes: Any) -> History:
    """A trainer that has spoken for so long."""
    alone = {"world_size": 1, **changes}
    return told(lambda t: [training_rank(t, **alone)], seconds, until=NOW + until, uid="uid-t")


def server(until: float = 0, latency: float = 0.1, seconds: float = 30) -> History:
    """A server that has spoken for so long."""
    return told(lambda t: [model_server(t, latency=latency)], seconds, until=NOW + until, uid="u")


def training(history: History, status: Object | None = None, mode: str = "Observe") -> World:
    """A Job of one pod that speaks."""
    made = looked_after(JOB, mode)
    world = World(job(), made.model_copy(update={"status": _status(status)}))
    found = pod_document("trainer-0")
    found["metadata"]["labels"]["batch.kubernetes.io/controller-uid"] = "uid-job"
    world.pods(found)
    world.streams.histories["trainer-0"] = history
    return world


def serving(history: History, target: Object | None = None, **lists: Any) -> World:
    """A Deployment of one pod that speaks."""
    world = World(target or deployment(1, 1), looked_after(RANKER, "Observe"), **lists)
    world.pods(pod_document("ranker-0"))
    world.streams.histories["ranker-0"] = history
    return world


def _status(document: Object | None) -> Any:
    return policy(status=document or {}).status


def reasons(world: World) -> list[tuple[str, str]]:
    return [(event["reason"], event["message"]) for event in world.api.events]


# -- what is told of a cause -----------------------------------------------------------------------


def test_a_cause_is_told_once_and_so_is_another_one_in_its_place() -> None:
    world = training(trainer(shares=STARVED, knobs={"dataLoader.workers": 0}))
    world.turn(0, 1, 2)
    title = "The training process loads its own data: no loader workers"
    found = [(reason, text) for reason, text in reasons(world) if reason.startswith("Bottleneck")]
    assert found == [("BottleneckFound", f"loader-without-workers: {title}")]

    before = training(
        trainer(shares=STARVED, knobs={"dataLoader.workers": 0}),
        status={"bottleneck": {"id": "slow-storage"}},
    )
    before.turn(0, 1, 2)
    found = [(reason, text) for reason, text in reasons(before) if reason.startswith("Bottleneck")]
    message = f"loader-without-workers: {title}; before it was slow-storage"
    assert found == [("BottleneckChanged", message)]


def test_a_healthy_workload_makes_no_event() -> None:
    world = training(trainer())
    world.turn(0, 1, 2)
    assert world.condition(Condition.BOTTLENECKED)[:2] == ("False", Reason.OBJECTIVES_MET)
    assert world.api.events == []


def test_a_workload_that_meets_its_objectives_is_left_in_peace_whatever_its_pods_lack() -> None:
    world = serving(server(), deployment(2, 2))
    world.pods(unschedulable("ranker-1"))
    world.turn(0)
    assert world.condition(Condition.BOTTLENECKED)[:2] == ("False", Reason.OBJECTIVES_MET)
    assert "bottleneck" not in world.api.status
    assert world.api.events == []


def test_the_same_pod_is_named_once_an_objective_is_breached() -> None:
    world = serving(server(latency=0.5), deployment(2, 2))
    world.pods(unschedulable("ranker-1"))
    world.turn(0)
    assert world.condition(Condition.BOTTLENECKED)[0] == "True"
    assert world.api.status["bottleneck"]["id"] == "unschedulable"


def test_a_process_that_speaks_and_takes_no_step_hangs_though_no_figure_can_be_judged() -> None:
    def stuck(t: float) -> list[object]:
        return [training_rank(min(t, 900), world_size=1, last_step_at=NOW - 100)]

    world = training(told(stuck, 120, uid="uid-t"))
    world.turn(0)
    assert world.api.status["bottleneck"]["id"] == "hang"
    assert world.condition(Condition.BOTTLENECKED)[0] == "True"
    assert world.condition(Condition.LIMITED)[:2] == ("True", Reason.NO_REMEDY)
    assert world.condition(Condition.TELEMETRY_AVAILABLE)[0] == "True"


# -- what is learnt --------------------------------------------------------------------------------

USUAL: Object = {
    "signal": "inference.serviceSeconds",
    "load": "2^4 requests/s a replica",
    "median": 0.04,
    "spread": 0.001,
    "anchor": 0.04,
    "count": 40,
    "since": at(-3000),
    "updatedAt": at(-400),
}


def baselines(world: World) -> dict[str, Object]:
    return {each["signal"]: each for each in world.api.status.get("baselines", [])}


def test_what_is_usual_is_learnt_and_written_once_a_minute() -> None:
    world = serving(server())
    writes = []
    for second in range(0, 130, 10):
        world.streams.histories["ranker-0"] = server(until=second)
        world.turn(second)
        writes.append(world.api.status["baselines"])
    counts = [max((each["count"] for each in written), default=0) for written in writes]
    assert counts == [0] * 6 + [7] * 6 + [13]
    assert {"inference.serviceSeconds", "inference.arrivalRate"} <= baselines(world).keys()


def test_a_restart_goes_on_from_what_was_written() -> None:
    world = serving(server())
    world.policy = world.policy.model_copy(update={"status": _status({"baselines": [USUAL]})})
    world.turn(0)
    assert world.api.status["baselines"] == [USUAL]
    for second in range(10, 80, 10):
        world.streams.histories["ranker-0"] = server(until=second)
        world.turn(second)
    found = baselines(world)["inference.serviceSeconds"]
    assert found["since"] == USUAL["since"]
    assert found["count"] > USUAL["count"]


@pytest.mark.parametrize("why", ["breached", "an action is under way", "a replica is silent"])
def test_nothing_is_learnt_while_something_is_wrong(why: str) -> None:
    world = serving(server())
    if why == "an action is under way":
        world.report(report(knobs_action(), Phase.VERIFYING, applied_at=moment(-60)))
    if why == "a replica is silent":
        world.pods(pod_document("ranker-1"))
        world.api.target = deployment(2, 2)
        world.loop._gatherer._first_seen = {"uid-ranker-1": NOW - 100}
    for second in range(0, 130, 10):
        latency = 0.5 if why == "breached" else 0.1
        world.streams.histories["ranker-0"] = server(until=second, latency=latency)
        world.turn(second)
    assert world.api.status["baselines"] == []


def test_a_target_that_cannot_be_read_costs_nothing_of_what_was_learnt() -> None:
    world = serving(server())
    world.policy = world.policy.model_copy(update={"status": _status({"baselines": [USUAL]})})
    world.api.target["metadata"]["name"] = "another"
    world.api.missing = "ranker"
    world.turn(0)
    assert world.condition(Condition.READY)[:2] == ("False", Reason.TARGET_NOT_FOUND)
    assert world.api.status["baselines"] == [USUAL]


# -- a rollout -------------------------------------------------------------------------------------


def rolled_out(since: float, changed: float = -60) -> World:
    """A Deployment that became five times slower, by a rollout 60 s ago unless told otherwise."""
    target = deployment(1, 1, managedFields=[managed("kubectl", changed, "template")])
    world = serving(
        server(latency=0.5),
        target,
        replicasets=[
            replica_set(2, changed),
            replica_set(1, -86400, container(args=["--threads", "1"])),
        ],
    )
    usual = {**USUAL, "since": at(since)}
    world.policy = world.policy.model_copy(update={"status": _status({"baselines": [usual]})})
    return world


def test_a_rollout_just_before_it_became_slower_is_named_with_what_it_changed() -> None:
    world = rolled_out(since=-3000)
    world.turn(0)
    assert world.api.status["bottleneck"]["id"] == "recent-change"
    why = world.api.status["why"]
    assert "revision 2 of Deployment/ranker was rolled out" in why
    assert "last written by kubectl" in why
    assert "args of main" in why
    assert world.api.names().count("replicasets") == 1


@pytest.mark.parametrize(
    ("since", "changed"),
    [(-3000, -900), (-90, -60)],
    ids=["long before it became slower", "hardly anything was learnt before it"],
)
def test_a_rollout_at_another_time_is_not_suspected(since: float, changed: float) -> None:
    world = rolled_out(since, changed)
    world.turn(0)
    assert world.condition(Condition.BOTTLENECKED)[0] == "True"
    assert world.api.status["bottleneck"]["id"] != "recent-change"


def test_the_operators_own_scaling_is_no_change_of_somebody() -> None:
    world = rolled_out(since=-3000, changed=-5000)
    world.api.target["metadata"]["managedFields"].append(
        managed("bottleneck-operator", -20, "replicas", subresource="scale")
    )
    world.turn(0)
    assert world.api.status["bottleneck"]["id"] != "recent-change"
    target = world.loop._gatherer.target
    assert target is not None
    assert target.workload.touch == Touch("kubectl", NOW - 5000)


@pytest.mark.parametrize(("decided", "suspected"), [(-70, False), (-4000, True)])
def test_neither_is_a_variant_that_it_rolled_out_itself(decided: float, suspected: bool) -> None:
    world = rolled_out(since=-3000)
    times = {"applied_at": moment(decided + 1), "closed_at": moment(decided + 40)}
    made = report(image_action(), Phase.KEPT, **times)
    spec = made.spec.model_copy(update={"decided_at": moment(decided)})
    world.report(made.model_copy(update={"spec": spec}))
    world.turn(0)
    assert (world.api.status["bottleneck"]["id"] == "recent-change") is suspected


# -- what limits it now ----------------------------------------------------------------------------


def kept(second: float) -> BottleneckReport:
    return report(
        knobs_action(),
        Phase.KEPT,
        applied_at=moment(second - 30),
        closed_at=moment(second),
        verdict=Verdict(result=VerdictResult.IMPROVED),
    )


def after(history: History, second: float = -5) -> Object:
    """The report's status after a turn."""
    world = training(history)
    world.report(kept(second))
    world.turn(0, 1)
    found: Object = world.api.reports["p-1"]["status"]
    assert world.api.status.get("next", "") == found["next"]
    return found


def test_after_a_kept_fix_the_report_and_the_policy_tell_what_limits_it_now() -> None:
    status = after(trainer(shares=STARVED, knobs={"dataLoader.workers": 0}))
    assert status["next"].startswith("loader-without-workers, 80% of the step (")
    assert [entry["what"] for entry in status["timeline"]] == ["Next"]
    assert status["phase"] == "Kept"


def test_with_every_objective_met_it_tells_what_would_be_in_the_way_of_more() -> None:
    following = after(trainer(shares={"forward": 0.4, "backward": 0.5, "data": 0.1}))["next"]
    assert following.startswith("nothing: every objective is met; to get further: ")
    assert "% of the step" in following


@pytest.mark.parametrize(
    ("history", "second"),
    [(History(), -5), (trainer(), -700)],
    ids=["no data", "long ago"],
)
def test_nothing_is_said_of_what_is_not_known_or_long_over(history: History, second: float) -> None:
    assert after(history, second)["next"] == ""


def test_the_report_of_an_action_keeps_the_pictures() -> None:
    history = trainer(shares=STARVED, knobs={"dataLoader.workers": 0})
    made: BottleneckPolicy = looked_after(JOB)
    histories = {"trainer-0": history}
    seen = observe(histories, ["trainer-0"], NOW)
    diagnosis = judge_workload(seen, made.spec.objectives, {}, {})
    spec = intent(made, Plan(knobs_action()), diagnosis, seen, histories, NOW, NOW)
    document: Object = spec.dump()  # type: ignore[union-attr]
    assert len(document["fishbone"]["bones"]) == 5
    states = {each["state"] for bones in document["fishbone"]["bones"].values() for each in bones}
    assert {"Confirmed", "RuledOut", "NoData"} <= states
    assert document["faultTree"]["state"] == "Confirmed"
    assert document["runnerUp"] == diagnosis.runner_up
    assert document["ruledOut"]
    assert document["whys"]


# -- what the API server does not take -------------------------------------------------------------


def planned() -> World:
    """A workload whose next step is to write its knobs."""
    world = training(trainer(), mode="Auto")
    world.report(report(knobs_action(), Phase.APPLIED, applied_at=moment(-1)))
    return world


@pytest.mark.parametrize("status", [409, 429, 500, 503])
def test_what_is_not_taken_now_is_said_and_tried_again(status: int) -> None:
    world = planned()
    world.api.refuses = KubeError(status, "too many requests")
    world.turn(0)
    found = world.condition(Condition.PROGRESSING)
    if status == 409:  # the pod has changed meanwhile, and is looked at again
        assert found[1] == "AwaitingAcknowledgement"
        return
    assert found[:2] == ("True", "Retrying")
    assert f"{status}: too many requests" in found[2]
    assert world.api.reports["p-1"]["status"]["phase"] == "Applied"

    world.api.refuses = None
    world.turn(1)
    assert world.condition(Condition.PROGRESSING)[1] == "AwaitingAcknowledgement"


@pytest.mark.parametrize("status", [400, 403, 422])
def test_what_is_refused_is_undone(status: int) -> None:
    world = planned()
    world.api.refuses = KubeError(status, "admission webhook denied it: not on my cluster")
    world.turn(0)
    status_now = world.api.reports["p-1"]["status"]
    assert status_now["phase"] == "Reverting"
    assert "not on my cluster" in status_now["timeline"][-1]["message"]
    # Its undoing is refused too: that is said, and tried again until somebody lets it.
    assert world.condition(Condition.PROGRESSING)[:2] == ("True", "Retrying")
