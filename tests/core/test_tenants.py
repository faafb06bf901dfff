"""Nobody makes the operator act on what is not theirs: labels, reports and knobs that lie."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bottleneck_operator.act import knobs as act_knobs
from bottleneck_operator.api.conditions import Condition
from bottleneck_operator.api.policy import BottleneckPolicy
from bottleneck_operator.api.report import (
    Action,
    HpaBounds,
    HpaChange,
    ImageChange,
    Phase,
    RolloutFields,
)
from bottleneck_operator.controller.pools import Pools
from bottleneck_operator.decide.lifecycle import DesiredKnobs
from bottleneck_operator.decide.pool import Member
from bottleneck_operator.decide.within import beyond
from bottleneck_operator.observe.pods import foreign, pod_of
from bottleneck_operator.report.reports import ReportStore
from hypothesis import given
from hypothesis import strategies as st

from .builders import CASES, knobs_action, policy, replicas_action, report
from .loop_world import World, looked_after
from .objects import Object, deployment, pod

DEPLOYMENT = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "ranker"}


# -- pods that claim a workload --------------------------------------------------------------------


def claimed(kind: str, name: str, uid: str = "x", **labels: str) -> Any:
    found = pod("ranker-0")
    found["metadata"]["labels"] |= labels
    reference = {"kind": kind, "name": name, "uid": uid, "controller": True}
    found["metadata"]["ownerReferences"] = [{"kind": "Other", "name": "o", "uid": "o"}, reference]
    return found


HASH = {"pod-template-hash": "5d9c"}


@pytest.mark.parametrize(
    ("document", "kind", "is_foreign"),
    [
        (claimed("ReplicaSet", "ranker-5d9c", **HASH), "Deployment", False),
        (claimed("ReplicaSet", "other-5d9c", **HASH), "Deployment", True),
        (claimed("ReplicaSet", "ranker-5d9c"), "Deployment", True),
        (claimed("StatefulSet", "ranker"), "Deployment", True),
        (claimed("StatefulSet", "ranker", "uid-target"), "StatefulSet", False),
        (claimed("StatefulSet", "ranker", "uid-earlier"), "StatefulSet", True),
        (claimed("Job", "ranker", "uid-other"), "StatefulSet", True),
        (claimed("Job", "ranker-node-0", "j"), "TrainJob", False),
        (claimed("TrainJob", "other", "t"), "TrainJob", True),
        (claimed("RayCluster", "ranker-x", "r"), "RayService", False),
        (pod("ranker-0"), "Deployment", False),
    ],
)
def test_labels_do_not_make_a_pod_somebodys(document: Object, kind: str, is_foreign: bool) -> None:
    assert foreign(pod_of(document), kind, "ranker", "uid-target") == is_foreign


def test_nothing_is_written_to_a_pod_of_another_workload() -> None:
    world = World(deployment(1), looked_after(DEPLOYMENT))
    world.pods(claimed("ReplicaSet", "other-5d9c", **HASH), pod("ranker-1"))
    world.report(report(knobs_action(), Phase.KEPT))
    written: list[str] = []
    patch = world.api.patch

    async def watched(path: str, body: Any, content_type: str = "") -> Object:
        written.append(path)
        return await patch(path, body, content_type)

    world.api.patch = watched  # type: ignore[method-assign]
    world.turn(0, 1)
    assert "/api/v1/namespaces/ml/pods/ranker-1" in written
    assert "/api/v1/namespaces/ml/pods/ranker-0" not in written


def test_every_path_that_is_asked_for_is_of_the_policys_namespace() -> None:
    world = World(deployment(1), looked_after(DEPLOYMENT))
    elsewhere = pod("ranker-2")
    elsewhere["metadata"]["namespace"] = "other"
    world.pods(pod("ranker-1"), elsewhere)
    world.report(report(knobs_action(), Phase.PLANNED))
    paths: list[str] = []
    for name in ("get", "patch", "create"):
        original = getattr(world.api, name)

        async def watched(path: str, *rest: Any, _original: Any = original, **more: Any) -> Any:
            paths.append(path)
            return await _original(path, *rest, **more)

        setattr(world.api, name, watched)
    world.turn(0, 1, 2)
    assert paths
    assert all("/namespaces/ml/" in path for path in paths), paths


def test_pools_of_one_name_in_two_namespaces_are_two() -> None:
    pools, capacity = Pools(), {"capacity": {"pool": "gpus"}}
    here = policy(name="p", namespace="ml", spec=capacity)
    there = policy(name="p", namespace="other", spec=capacity)
    mine: Member = object()  # type: ignore[assignment]
    pools.offer("ml/p", here, mine)
    assert pools.members(here) == [mine]
    assert pools.members(there) == []
    with pools.deciding(here) as one, pools.deciding(there) as other:
        assert one
        assert other


# -- reports that are instructions -----------------------------------------------------------------


def stored(changes: dict[str, Any]) -> tuple[ReportStore, BottleneckPolicy]:
    looked = looked_after(DEPLOYMENT)
    found: Object = report(replicas_action(1, 2), Phase.REVERTING).dump()
    found["metadata"]["resourceVersion"] = "1"
    found["spec"]["target"] = DEPLOYMENT
    for path, value in changes.items():
        inner = found
        *above, last = path.split(".")
        for step in above:
            inner = inner[step]
        inner[last] = value
    store = ReportStore()
    store.update(found)
    return store, looked


def test_a_report_of_this_policy_counts() -> None:
    store, looked = stored({})
    assert [each.metadata.name for each in store.of(looked)] == ["p-1"]


@pytest.mark.parametrize(
    "lie",
    [
        {"metadata.namespace": "other"},
        {"metadata.ownerReferences": []},
        {"metadata.ownerReferences": [{"uid": "of-an-earlier-policy"}]},
        {"spec.target": {**DEPLOYMENT, "name": "somebody-elses"}},
        {"spec.target": {**DEPLOYMENT, "kind": "StatefulSet"}},
        {"spec.policy": "another"},
    ],
    ids=str,
)
def test_a_report_of_anything_else_does_not(lie: dict[str, Any]) -> None:
    store, looked = stored(lie)
    assert store.of(looked) == ()


def test_the_name_of_a_report_of_an_earlier_policy_is_not_taken_again() -> None:
    store, looked = stored(
        {"metadata.name": "p-7", "metadata.ownerReferences": [{"uid": "earlier"}]}
    )
    assert store.of(looked) == ()
    assert store.newest_number(looked) == 7


ALLOWED: Object = {
    "replicas": {"min": 1, "max": 4},
    "dataLoader": {"maxWorkers": 4},
    "batchSize": {"max": 64},
    "resources": {"container": "main", "cpu": {"max": "4"}},
    "variants": [{"name": "int8", "image": "r.example/m@sha256:" + "a" * 64, "accuracyLoss": "1%"}],
}
VARIANT = ALLOWED["variants"][0]["image"]


def allowing(**actions: Any) -> BottleneckPolicy:
    return policy(spec={"actions": actions, "limits": {"accuracyLoss": "2%"}})


def change(**what: Any) -> Action:
    return Action.model_validate({"type": "t", "summary": "s", "cause": "c", **what})


def image(desired: str, original: str = "r.example/m:v1") -> Action:
    fields = RolloutFields()
    found = ImageChange(
        container="main",
        desired=desired,
        replaces="r.example/m:v1",
        original=original,
        holds=fields,
        restores=fields,
    )
    return change(image=found.dump())


def knobs(**values: Any) -> Action:
    named = {name.replace("_", "."): value for name, value in values.items()}
    return change(knobs={"generation": 9, "desired": named, "replaces": {}})


def sized(container: str = "main", **desired: str) -> Action:
    now = {"cpuLimit": "1", "memoryLimit": "1Gi"}
    what = {"container": container, "desired": {**now, **desired}, "replaces": now}
    return change(resources=what)


def bounds(most: int) -> Action:
    found = HpaChange(
        name="h", desired=HpaBounds(min=1, max=most), replaces=HpaBounds(min=1, max=3)
    )
    return change(hpa=found.dump())


@pytest.mark.parametrize(
    "action",
    [
        replicas_action(4, 3),
        replicas_action(9, 12),  # towards what is allowed
        knobs(dataLoader_workers=4, batch_micro=64),
        sized(cpuLimit="4"),
        image(VARIANT),
    ],
    ids=lambda action: str(action.dump())[:60],
)
def test_what_the_policy_allows(action: Action) -> None:
    assert beyond(action, allowing(**ALLOWED).spec.actions, {}, ()) == ""


@pytest.mark.parametrize(
    "action",
    [
        replicas_action(5, 3),
        replicas_action(0, 3),
        knobs(dataLoader_workers=5),
        knobs(dataLoader_workers="4"),
        knobs(dataLoader_workers=-1),
        knobs(batch_micro=65),
        knobs(precision_autocast="bf16"),
        knobs(generation_x=1),
        knobs(generation=1),
        knobs(other="rm"),
        sized(cpuLimit="5"),
        sized(memoryLimit="2Gi"),
        sized("other", cpuLimit="2"),
        image("evil.example/miner:v1"),
        image("evil.example/miner:v1", original="evil.example/miner:v1"),
        bounds(4),
    ],
    ids=lambda action: str(action.dump())[:60],
)
def test_what_it_does_not(action: Action) -> None:
    assert beyond(action, allowing(**ALLOWED).spec.actions, {}, ()) != ""
    assert beyond(action, allowing().spec.actions, {}, ()) != ""


def test_knobs_that_are_in_force_already_need_no_leave() -> None:
    action = knobs(dataLoader_workers=9)
    assert beyond(action, allowing().spec.actions, {"dataLoader.workers": 9}, ()) == ""


def test_back_to_an_image_that_was_there_before() -> None:
    kept = report(image(VARIANT), Phase.KEPT)
    back = image("r.example/m:v1")
    assert beyond(back, allowing(**ALLOWED).spec.actions, {}, (kept,)) == ""


@pytest.mark.parametrize(
    "action",
    [replicas_action(900, 1), knobs(dataLoader_workers=64), bounds(900)],
    ids=["replicas", "knobs", "autoscaler"],
)
def test_a_report_that_somebody_else_wrote_has_no_effect(action: Action) -> None:
    autoscaler = {
        "metadata": {"name": "h", "resourceVersion": "1"},
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "ranker"},
            "minReplicas": 1,
            "maxReplicas": 3,
        },
    }
    world = World(
        deployment(1), looked_after(DEPLOYMENT), h=autoscaler, horizontalpodautoscalers=[autoscaler]
    )
    world.pods(pod("ranker-1"))
    world.report(report(action, Phase.PLANNED))
    world.turn(0, 1, 2)
    assert world.api.reports["p-1"]["status"]["phase"] == "Abandoned"
    last = world.api.reports["p-1"]["status"]["timeline"][-1]
    assert "the policy does not allow it" in last["message"]
    assert world.api.writes == []
    assert world.api.target["spec"]["replicas"] == 1
    assert world.condition(Condition.READY)[0] == "True"


# -- knobs -----------------------------------------------------------------------------------------

VALUES = st.one_of(st.integers(-(2**31), 2**31), st.text(max_size=50))


@CASES
@given(st.dictionaries(st.text(max_size=20).map(lambda name: f"group.{name}"), VALUES, max_size=5))
def test_no_value_of_a_knob_becomes_another_part_of_the_annotation(
    values: dict[str, int | str],
) -> None:
    text = act_knobs.annotation(DesiredKnobs(7, values))
    told = json.loads(text)
    assert told.pop("generation") == 7
    assert "\n" not in text
    assert told.get("group", {}) == {name.partition(".")[2]: v for name, v in values.items()}
    assert set(told) <= {"group"}
