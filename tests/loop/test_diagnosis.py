"""What the cluster alone can tell, end to end: pods that do not run, rollouts, what was learnt."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import pytest

from .conftest import Operator, World, until

pytestmark = pytest.mark.cluster


def test_pods_that_no_node_takes_are_named_with_the_schedulers_words(
    world: World, operator: Operator
) -> None:
    world.deployment("server", resources={"requests": {"cpu": "1000"}})
    world.policy("server", "Deployment", mode="Observe")
    # The scheduler is given half a minute to find a node before anybody is bothered.
    until("it is named", lambda: world.bottleneck("server") == "unschedulable", 120)

    assert world.condition("server", "Bottlenecked") == ("True", "Standstill")
    assert "Insufficient cpu" in world.message("server", "Bottlenecked")
    assert "Insufficient cpu" in world.status("server")["why"]
    assert world.condition("server", "TelemetryAvailable") == ("False", "NoReplicas")
    assert world.condition("server", "Limited") == ("True", "NoRemedy")
    assert "Add nodes" in world.message("server", "Limited")
    assert world.reports() == []
    assert "BottleneckFound" in world.events("server")

    world.deployment("server", "server", "quick")
    until(
        "it serves, and nothing is said any more",
        lambda: world.condition("server", "Bottlenecked") == ("False", "ObjectivesMet"),
        120,
    )
    assert world.bottleneck("server") == ""


def test_in_mode_auto_nothing_is_done_about_pods_that_do_not_run(
    world: World, operator: Operator
) -> None:
    world.deployment("server", resources={"requests": {"cpu": "1000"}})
    world.policy("server", "Deployment")
    until("it is named", lambda: world.bottleneck("server") == "unschedulable", 120)
    assert world.condition("server", "Limited") == ("True", "NoRemedy")
    assert world.reports() == []
    assert world.get("deploy", "server")["spec"]["replicas"] == 1


def test_a_quota_that_refuses_a_jobs_pods_is_named(world: World, operator: Operator) -> None:
    world.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "none"},
            "spec": {"hard": {"pods": "0"}},
        }
    )
    # A quota holds from when its controller has counted for the first time.
    until("the quota holds", lambda: world.get("quota", "none").get("status", {}).get("hard"))
    world.job("trainer")
    world.policy("trainer", mode="Observe")
    until("it is named", lambda: world.bottleneck("trainer") == "unschedulable", 120)
    assert world.condition("trainer", "Bottlenecked") == ("True", "Standstill")
    assert "exceeded quota: none" in world.message("trainer", "Bottlenecked")


def test_a_container_that_is_killed_for_its_memory_again_and_again_is_named(
    world: World, operator: Operator
) -> None:
    world.deployment("server", "hog", resources={"limits": {"memory": "64Mi"}})
    world.policy("server", "Deployment", mode="Observe")
    until("it is named", lambda: world.bottleneck("server") == "oom-loop", 180)

    assert world.condition("server", "Bottlenecked") == ("True", "Standstill")
    until(
        "the kubelet's word for it is cited",
        lambda: "OOMKilled" in world.message("server", "Bottlenecked"),
    )
    assert "its memory limit is 64Mi" in world.message("server", "Bottlenecked")
    assert world.condition("server", "Limited") == ("True", "NoRemedy")
    assert world.reports() == []


def _learnt(world: World, policy: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The baselines of a policy by signal and load."""
    found = world.status(policy).get("baselines", [])
    return {(each["signal"], each["load"]): each for each in found}


def _age(moment: str) -> float:
    return time.time() - datetime.fromisoformat(moment).timestamp()


def _newest(world: World, policy: str) -> str:
    """When the newest of the baselines was learnt, as the API writes it."""
    return max((each["updatedAt"] for each in _learnt(world, policy).values()), default="")


def test_a_rollout_that_made_it_slower_is_held_against_what_was_learnt_before_a_restart(
    world: World, operator: Operator
) -> None:
    world.deployment("server", "server", "quick")
    world.policy("server", "Deployment", mode="Observe")

    def known_long_enough() -> bool:
        learnt = _learnt(world, "server").values()
        return bool(learnt) and min(_age(each["since"]) for each in learnt) > 75

    until("what is usual was learnt for more than a minute", known_long_enough, 300)
    before, newest = _learnt(world, "server"), _newest(world, "server")

    operator.kill()
    operator.start()
    until("it goes on learning", lambda: _newest(world, "server") > newest, 180)
    after = _learnt(world, "server")
    assert {key: each["since"] for key, each in before.items()} == {
        key: each["since"] for key, each in after.items() if key in before
    }
    assert all(after[key]["count"] >= each["count"] for key, each in before.items())

    world.deployment("server", "server", "slow")
    until("the rollout is named", lambda: world.bottleneck("server") == "recent-change", 180)
    assert world.condition("server", "Bottlenecked") == ("True", "ObjectiveBreached")
    why = world.status("server")["why"]
    assert "revision 2 of Deployment/server was rolled out" in why
    assert "command of main" in why
    assert world.reports() == []


def test_a_kept_fix_is_followed_by_what_limits_the_workload_now(
    world: World, operator: Operator
) -> None:
    world.job("trainer")
    world.policy("trainer")
    report = until("a report is kept", lambda: world.reports("Kept"), 120)[0]
    assert report["spec"]["fishbone"]["bones"].keys() == {
        "Infrastructure",
        "Data",
        "Models",
        "People",
        "Processes",
    }
    assert report["spec"]["faultTree"]["gate"] == "OR"
    name = report["metadata"]["name"]
    until("it is diagnosed again", lambda: world.get("bnr", name)["status"].get("next"))
    assert world.get("bnr", name)["status"]["next"].startswith("nothing: every objective is met")
    until(
        "the policy tells it, too",
        lambda: world.status("trainer").get("next", "").startswith("nothing: every objective"),
    )
