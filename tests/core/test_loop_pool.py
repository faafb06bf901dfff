"""Two policies of one pool, each with its own loop: a trade from its beginning to both verdicts,
and whatever may happen in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from bottleneck_operator.api.conditions import Condition, Reason
from bottleneck_operator.controller.pools import Pools
from bottleneck_operator.kube import KubeError

from .builders import policy
from .pool_world import GPU, PoolWorld, Workload

Make = Callable[..., PoolWorld]

HELPED = {1: 0.41}
"""Latency of the ranker by its replicas; more of them bring it down."""


def ranker(replicas: int = 1, **latencies: float) -> Workload:
    by_count = HELPED | {int(count.strip("n")): value for count, value in latencies.items()}
    return Workload("ranker", replicas, lambda ready: by_count.get(ready, 0.12))


def indexer(broken: bool = False, replicas: int = 3) -> Workload:
    """Three replicas at half of what they can do; ``broken`` is what no model can foresee."""
    return Workload(
        "indexer", replicas, lambda ready: 0.5 if broken and ready < 3 else 0.06, rate=24.0
    )


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    def made(*workloads: Workload, devices: int = 4, **policies: Any) -> PoolWorld:
        world = PoolWorld(monkeypatch, devices, *workloads)
        for workload in workloads:
            world.policy(workload.name, **policies.get(workload.name, {}))
        return world

    return made


def applied(world: PoolWorld) -> bool:
    return world.phase("indexer-1") in ("Applied", "Verifying")


def test_an_idle_policy_gives_to_one_that_is_breached(make: Make) -> None:
    world = make(ranker(), indexer())
    assert world.run(120, lambda: applied(world))
    growth, gift = world.reports["ranker-1"], world.reports["indexer-1"]
    assert growth["status"]["phase"] == "Applied"
    assert gift["spec"]["trade"]["role"] == "Gives"
    assert gift["spec"]["trade"]["report"] == "ranker-1"
    assert gift["spec"]["action"]["aim"] == "Save"
    assert gift["spec"]["action"]["cause"] == "pool-trade"
    assert gift["spec"]["action"]["prediction"]["after"] > 0.06
    assert world.scaled == [("ranker", 2), ("indexer", 2)]
    assert world.writes == ["ranker-1", "ranker", "indexer-1", "indexer"]

    status, reason, message = world.condition("indexer", Condition.PROGRESSING)
    assert (status, reason) == ("True", Reason.GIVES_TO_POOL)
    assert f"gives 1 of 3 replicas (1 {GPU}) to ranker, whose Latency is 4" in message
    assert "predicted own p95" in message
    world.tick()
    status, reason, message = world.condition("ranker", Condition.PROGRESSING)
    assert (status, reason) == ("True", Reason.TAKES_FROM_POOL)
    assert "indexer gives 1 of 3 replicas" in message
    assert world.condition("ranker", Condition.LIMITED)[0] == "False"

    both = ("ranker-1", "indexer-1")
    assert world.run(150, lambda: [world.phase(name) for name in both] == ["Kept", "Kept"])
    assert growth["status"]["verdict"]["result"] == "Improved"
    assert gift["status"]["verdict"]["result"] == "NoEffect"
    assert gift["status"]["closedAt"] <= growth["status"]["closedAt"]
    world.run(60)
    assert world.scaled == [("ranker", 2), ("indexer", 2)], "and there it stays"


def test_while_nobody_is_short_nothing_is_asked_but_the_targets(make: Make) -> None:
    world = make(ranker(n1=0.1), indexer())
    world.run(40)
    assert set(world.asked) == {
        "bottleneckreports",
        "ranker",
        "indexer",
        "horizontalpodautoscalers",
        "scaledobjects",
    }
    assert world.asked.count("bottleneckreports") == 2


def test_replicas_that_wait_already_get_their_device(make: Make) -> None:
    """Somebody else scaled it. The answer to the giver's report is a report of its own, and comes
    before anything changes."""
    world = make(ranker(2), indexer())
    for loop in world.workloads["indexer"], world.workloads["ranker"]:
        loop.pods = {f"{loop.name}-{n}": 0 for n in range(loop.replicas)}
        loop.made = loop.replicas
    world.workloads["ranker"].pods["ranker-1"] = -1
    assert world.run(120, lambda: world.scaled)
    assert world.writes == ["indexer-1", "ranker-1", "indexer"]
    answer = world.reports["ranker-1"]["spec"]
    assert answer["trade"]["role"] == "Takes"
    assert answer["trade"]["report"] == "indexer-1"
    assert answer["action"]["replicas"] == {"desired": 2, "replaces": 2}
    assert world.reports["indexer-1"]["spec"]["trade"].get("report", "") == ""
    both = ("ranker-1", "indexer-1")
    assert world.run(150, lambda: [world.phase(name) for name in both] == ["Kept", "Kept"])
    assert world.scaled == [("indexer", 2)]
    assert world.reports["ranker-1"]["status"]["verdict"]["result"] == "Improved"


def test_of_some_that_could_give_one_does(make: Make) -> None:
    others = [Workload(name, 3, lambda ready: 0.06, rate=24.0) for name in ("a", "b", "c")]
    world = make(ranker(), *others, devices=10)
    gifts = ("a-1", "b-1", "c-1")
    assert world.run(60, lambda: any(name in world.reports for name in gifts))
    world.run(20)
    assert sum(name in world.reports for name in gifts) == 1
    assert sum(world.workloads[name].replicas for name in ("a", "b", "c")) == 8


def test_a_pool_is_decided_by_one_loop_at_a_time() -> None:
    """What was decided a moment ago is not in the API yet, and figures move on meanwhile."""
    pools, others = Pools(), policy(spec={"capacity": {"pool": "others"}})
    one = policy(spec={"capacity": {"pool": "gpus"}})
    elsewhere = policy(spec={"capacity": {"pool": "gpus"}}, namespace="another")
    with pools.deciding(one) as alone:
        assert alone
        for each, free in ((one, False), (others, True), (elsewhere, True)):
            with pools.deciding(each) as also:
                assert also is free
    with pytest.raises(OSError, match="gone"), pools.deciding(one):
        raise OSError("gone")
    with pools.deciding(one) as again:
        assert again


def test_a_giver_whose_objective_breaks_gets_it_back(make: Make) -> None:
    world = make(ranker(), indexer(broken=True))
    both = ("ranker-1", "indexer-1")
    ended = ["Reverted", "Reverted"]
    assert world.run(200, lambda: [world.phase(name) for name in both] == ended)
    assert world.scaled == [("ranker", 2), ("indexer", 2), ("indexer", 3), ("ranker", 1)]
    assert world.reports["indexer-1"]["status"]["verdict"]["result"] == "Worse"
    said = [entry["message"] for entry in world.reports["ranker-1"]["status"]["timeline"]]
    assert "indexer needs it back" in said
    world.run(5)
    assert world.workloads["indexer"].ready(world.second) == 3
    world.run(120)
    assert len(world.scaled) == 4, "and it is not tried again"


def test_a_taker_that_it_did_not_help_gives_it_back(make: Make) -> None:
    world = make(ranker(n2=0.41), indexer())
    assert world.run(120, lambda: applied(world))
    assert world.run(120, lambda: world.phase("ranker-1") == "Reverted")
    assert world.reports["ranker-1"]["status"]["verdict"]["result"] == "NoEffect"
    assert world.run(5, lambda: world.phase("indexer-1") == "Reverted")
    assert world.scaled[2:] == [("ranker", 1), ("indexer", 3)]


@pytest.mark.parametrize("second", range(0, 70, 10))
def test_another_process_goes_on_wherever_the_first_one_died(make: Make, second: int) -> None:
    world = make(ranker(), indexer())
    assert world.run(120, lambda: "indexer-1" in world.reports)
    world.run(second)
    world.restart()
    both = ("ranker-1", "indexer-1")
    assert world.run(200, lambda: [world.phase(name) for name in both] == ["Kept", "Kept"])
    assert world.scaled == [("ranker", 2), ("indexer", 2)]


def test_a_giver_whose_policy_is_deleted_gets_its_own_and_nothing_hangs(make: Make) -> None:
    world = make(ranker(), indexer())
    assert world.run(120, lambda: applied(world))
    world.run(5)
    world.delete("indexer")
    assert world.workloads["indexer"].replicas == 3
    assert world.run(400, lambda: world.phase("ranker-1") in ("Kept", "Reverted"))


def test_a_taker_whose_policy_is_deleted_gives_it_back(make: Make) -> None:
    world = make(ranker(), indexer())
    assert world.run(120, lambda: applied(world))
    world.run(5)
    world.delete("ranker")
    assert world.workloads["ranker"].replicas == 1
    assert world.run(20, lambda: world.phase("indexer-1") == "Reverted")
    assert world.workloads["indexer"].replicas == 3


def test_nothing_is_taken_from_one_that_is_silent(make: Make) -> None:
    world = make(ranker(), indexer())
    world.run(3)
    world.silent = {"indexer-2"}
    world.run(60)
    assert "indexer-1" not in world.reports
    status, reason, message = world.condition("ranker", Condition.LIMITED)
    assert (status, reason) == ("True", Reason.CAPACITY_EXHAUSTED)
    assert "indexer: it has no data" in message
    assert f"Insufficient {GPU}" in message


BUDGET = {
    "spec": {"minAvailable": 3, "selector": {"matchLabels": {"app": "indexer"}}},
    "status": {"disruptionsAllowed": 0},
}


@pytest.mark.parametrize(
    ("budgets", "gives"),
    [
        ([BUDGET], False),
        (KubeError(403, "forbidden"), False),
        ([BUDGET | {"status": {"disruptionsAllowed": 1}}], True),
        ([BUDGET | {"spec": {"selector": {"matchLabels": {"app": "another"}}}}], True),
        ([BUDGET | {"spec": {"selector": {}}}], False),
    ],
    ids=["allows none", "cannot be read", "allows one", "of another", "of every pod"],
)
def test_disruption_budgets_are_asked_and_kept(make: Make, budgets: Any, gives: bool) -> None:
    world = make(ranker(), indexer())
    world.budgets = budgets
    assert world.run(60, lambda: applied(world)) is gives
    assert "poddisruptionbudgets" in world.asked
    if not gives:
        assert world.condition("ranker", Condition.LIMITED)[1] == Reason.CAPACITY_EXHAUSTED
        assert "PodDisruptionBudget allows 0" in world.condition("ranker", Condition.LIMITED)[2]
        told = [message for reason, message in world.events if reason == "CapacityExhausted"]
        assert told == [f"replicas wait for {GPU}, and in pool gpus nobody gives one"]


@pytest.mark.parametrize(
    ("giver", "why"),
    [
        ({"mode": "Recommend"}, "its mode is Recommend"),
        ({"paused": True}, "it is paused"),
        ({"limits": {"disruption": "HotOnly"}}, "its limits.disruption is HotOnly"),
        ({"actions": {"replicas": {"min": 3, "max": 8}}}, "its minimum is 3"),
        ({"capacity": {"pool": "others"}}, "it has no other policy"),
        ({"objectives": {"latency": {"target": "70ms"}}}, "it has none to spare"),
    ],
)
def test_who_does_not_give(make: Make, giver: dict[str, Any], why: str) -> None:
    world = make(ranker(), indexer(), indexer=giver)
    world.run(45)
    assert "indexer-1" not in world.reports
    assert why in world.condition("ranker", Condition.LIMITED)[2]


def test_what_people_are_asked_is_said_before_what_is_short(make: Make) -> None:
    world = make(ranker(), indexer(), ranker={"mode": "Recommend"})
    world.run(20)
    assert world.condition("ranker", Condition.LIMITED)[1] == Reason.AWAITING_APPROVAL
    world.workloads["ranker"].replicas = 2
    world.run(30)
    assert world.condition("ranker", Condition.LIMITED)[1] == Reason.CAPACITY_EXHAUSTED
    assert "indexer-1" not in world.reports


def test_a_policy_outside_of_all_pools_is_as_it_was(make: Make) -> None:
    world = make(ranker(), indexer(), ranker={"capacity": None}, indexer={"capacity": None})
    world.run(60)
    assert world.scaled == [("ranker", 2)]
    assert world.condition("ranker", Condition.PROGRESSING)[1] == Reason.AWAITING_REPLICAS
