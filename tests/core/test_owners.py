"""Who else owns the replicas: how each is found, what is left to the operator, what people read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from bottleneck_operator.api.conditions import Condition, Reason
from bottleneck_operator.api.meta import TargetRef
from bottleneck_operator.api.report import Action, HpaBounds, Phase
from bottleneck_operator.decide.decision import Facts, Plan, Refusal
from bottleneck_operator.decide.remedies.owners import (
    replicas_with,
    room_for,
    saving_of_replicas,
    through_hpa,
)
from bottleneck_operator.kube import KubeError
from bottleneck_operator.observe.observation import WorkloadType
from bottleneck_operator.observe.owners import (
    Hpa,
    ScaledObject,
    hpa_of,
    kueue_of,
    scaled_object,
    scales,
)
from bottleneck_operator.observe.scale import scale_of

from .builders import NOW, hpa_action, moment, observation, policy, replicas_action, report, spec
from .loop_world import World
from .objects import Object, deployment, managed, pod
from .scaled import batch_job, pytorch_job, ray_cluster
from .telemetry import model_server
from .telemetry import pod as told
from .test_remedies import cause

BOUNDS = HpaBounds(min=1, max=4)
FACTS = Facts(replicas=2, ready=2)
SCALED = replace(FACTS, hpa=Hpa("autoscaler", BOUNDS))
ADJUST = {"replicas": {"min": 1, "max": 6, "hpa": "AdjustBounds"}}
KEDA = ScaledObject("queue-length", paused=False)


def autoscaler(least: int | None = 1, most: int = 4, **metadata: Any) -> Object:
    bounds = {"maxReplicas": most} | ({} if least is None else {"minReplicas": least})
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "ranker"}
    found = {"name": "autoscaler", "namespace": "ml", "resourceVersion": "5", **metadata}
    return {"metadata": found, "spec": {"scaleTargetRef": target, **bounds}}


# -- how they are found ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "found"),
    [
        (autoscaler(), Hpa("autoscaler", BOUNDS)),
        (autoscaler(None), Hpa("autoscaler", BOUNDS)),
        (autoscaler(0), Hpa("autoscaler", HpaBounds(min=0, max=4))),
        (
            autoscaler(ownerReferences=[{"kind": "ScaledObject", "name": "queue-length"}]),
            Hpa("autoscaler", BOUNDS, scaled_object="queue-length"),
        ),
        (
            autoscaler(managedFields=[managed("argocd-controller", -9, "maxReplicas")]),
            Hpa("autoscaler", BOUNDS, gitops="argocd-controller"),
        ),
        (
            autoscaler(managedFields=[managed("argocd-controller", -9, "metrics")]),
            Hpa("autoscaler", BOUNDS),
        ),
    ],
    ids=["plain", "no minimum", "scales to zero", "made by KEDA", "from a repository", "metrics"],
)
def test_an_autoscaler_is_read(document: Object, found: Hpa) -> None:
    assert hpa_of(document) == found


@pytest.mark.parametrize(
    ("annotations", "paused"),
    [
        ({}, False),
        ({"autoscaling.keda.sh/paused": "true"}, True),
        ({"autoscaling.keda.sh/paused": "false"}, False),
        ({"autoscaling.keda.sh/paused-replicas": "0"}, True),
    ],
)
def test_a_scaled_object_is_read(annotations: dict[str, str], paused: bool) -> None:
    document = {"metadata": {"name": "queue-length", "annotations": annotations}}
    assert scaled_object(document) == ScaledObject("queue-length", paused)


def test_what_an_autoscaler_scales() -> None:
    ref = TargetRef(api_version="apps/v1", kind="Deployment", name="ranker")
    nameless = {"spec": {"scaleTargetRef": {"name": "ranker"}}}
    assert scales(autoscaler(), ref)
    assert scales(nameless, ref, "Deployment")
    assert not scales(nameless, ref)
    assert not scales(autoscaler(), ref.model_copy(update={"kind": "StatefulSet"}))
    assert not scales({"spec": None}, ref)


@pytest.mark.parametrize(
    ("labels", "annotations", "queue"),
    [
        ({}, {}, ""),
        ({"kueue.x-k8s.io/queue-name": "team-a"}, {}, "team-a"),
        ({"kueue.x-k8s.io/queue-name": "team-a"}, {"kueue.x-k8s.io/elastic-job": "true"}, ""),
        (
            {"kueue.x-k8s.io/queue-name": "team-a"},
            {"kueue.x-k8s.io/elastic-job": "false"},
            "team-a",
        ),
    ],
)
def test_kueue_is_found(labels: dict[str, str], annotations: dict[str, str], queue: str) -> None:
    assert kueue_of({"metadata": {"labels": labels, "annotations": annotations}}) == queue


# -- what is left to the operator ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "actions", "reason", "words"),
    [
        (FACTS, {}, Reason.ACTION_NOT_ALLOWED, "write actions: {replicas"),
        (SCALED, {}, Reason.ACTION_NOT_ALLOWED, "write actions: {replicas"),
        (
            SCALED,
            {"replicas": {"max": 6}},
            Reason.REPLICAS_OWNED_BY_HPA,
            "HorizontalPodAutoscaler autoscaler owns the replicas; delete it, let its bounds be"
            " changed with actions: {replicas: {hpa: AdjustBounds}}, or leave actions.replicas out",
        ),
        (
            replace(FACTS, hpa=Hpa("autoscaler", BOUNDS, scaled_object="queue-length")),
            ADJUST,
            Reason.REPLICAS_OWNED_BY_KEDA,
            "ScaledObject queue-length owns the replicas; change its minReplicaCount",
        ),
        (
            replace(SCALED, scaled_object=KEDA),
            ADJUST,
            Reason.REPLICAS_OWNED_BY_KEDA,
            "ScaledObject queue-length owns the replicas",
        ),
        (
            replace(FACTS, scaled_object=replace(KEDA, paused=True)),
            ADJUST,
            Reason.REPLICAS_OWNED_BY_KEDA,
            "ScaledObject queue-length is paused, which holds the replicas where they are",
        ),
        (
            replace(FACTS, kueue="team-a"),
            ADJUST,
            Reason.REPLICAS_OWNED_BY_KUEUE,
            "through queue team-a, as many as were asked for; let the workload grow with its"
            ' annotation kueue.x-k8s.io/elastic-job: "true"',
        ),
        (
            replace(FACTS, gitops="argocd-controller"),
            ADJUST,
            Reason.REPLICAS_OWNED_BY_GITOPS,
            "argocd-controller sets the replicas to what its repository says; leave them out",
        ),
        (
            replace(FACTS, hpa=Hpa("autoscaler", BOUNDS, gitops="helm-controller")),
            ADJUST,
            Reason.REPLICAS_OWNED_BY_GITOPS,
            "helm-controller sets the bounds of HorizontalPodAutoscaler autoscaler to what its"
            " repository says; leave minReplicas and maxReplicas out of the manifest there",
        ),
        (
            replace(FACTS, replicas=None),
            ADJUST,
            Reason.TARGET_NOT_SUPPORTED,
            "the target has no scale subresource",
        ),
        (
            replace(FACTS, replicas=None, scale=scale_of(pytorch_job(elasticPolicy=None))),
            ADJUST,
            Reason.REPLICAS_FIXED,
            "its world size is fixed: it has no spec.elasticPolicy; write one",
        ),
        (
            replace(FACTS, scale=scale_of(pytorch_job())),
            {"replicas": {"min": 5, "max": 8}},
            Reason.REPLICAS_FIXED,
            "the policy allows 5 to 8 replicas and the target itself 1 to 4; write bounds that",
        ),
    ],
)
def test_what_others_own_is_left_to_them(
    facts: Facts, actions: Object, reason: Reason, words: str
) -> None:
    answer = room_for(spec(actions=actions), facts)
    assert isinstance(answer, Refusal)
    assert answer.reason == reason
    assert words in answer.message


@pytest.mark.parametrize(
    ("facts", "bounds"),
    [
        (FACTS, (1, 6)),
        (SCALED, (1, 6)),
        # A manifest's own replicas do not matter where an autoscaler sets them.
        (replace(SCALED, gitops="argocd-controller"), (1, 6)),
        (replace(FACTS, scale=scale_of(pytorch_job())), (1, 4)),
        (replace(FACTS, scale=scale_of(ray_cluster())), (1, 5)),
        (replace(FACTS, scale=scale_of(batch_job({"succeeded": 7}, completions=10))), (1, 3)),
    ],
)
def test_bounds_are_those_of_the_policy_and_of_the_target(
    facts: Facts, bounds: tuple[int, int]
) -> None:
    answer = room_for(spec(actions=ADJUST), facts)
    assert not isinstance(answer, Refusal)
    room, left = answer
    assert room.actions.replicas is not None
    assert (room.actions.replicas.min, room.actions.replicas.max) == bounds
    assert (left.hpa, left.gitops) == (None, "")


@pytest.mark.parametrize(
    ("old", "desired", "new", "summary"),
    [
        ((1, 4), 3, (3, 4), "autoscaler: minReplicas 1 → 3"),
        ((1, 4), 6, (6, 6), "autoscaler: minReplicas 1 → 6, maxReplicas 4 → 6"),
        ((5, 8), 3, (3, 8), "autoscaler: minReplicas 5 → 3"),
    ],
    ids=["below its maximum", "beyond its maximum", "fewer"],
)
def test_an_autoscaler_gets_other_bounds(
    old: tuple[int, int], desired: int, new: tuple[int, int], summary: str
) -> None:
    facts = replace(FACTS, hpa=Hpa("autoscaler", HpaBounds(min=old[0], max=old[1])))
    action = through_hpa(replicas_action(desired, 2), facts)
    assert isinstance(action, Action)
    assert action.replicas is None
    assert action.hpa is not None
    assert (action.hpa.desired, action.hpa.replaces) == (
        HpaBounds(min=new[0], max=new[1]),
        HpaBounds(min=old[0], max=old[1]),
    )
    assert action.summary == summary


def test_an_autoscaler_that_has_the_bounds_is_waited_for() -> None:
    facts = replace(FACTS, hpa=Hpa("autoscaler", HpaBounds(min=3, max=4)))
    answer = through_hpa(replicas_action(3, 2), facts)
    assert isinstance(answer, Refusal)
    assert answer.reason == Reason.REPLICAS_PENDING


def test_servers_and_ranks_have_a_model_each() -> None:
    remedy = replicas_with(
        lambda *_: replicas_action(desired=3, replaces=2),
        lambda *_: replicas_action(desired=4, replaces=2),
    )
    for kind, expected in ((WorkloadType.INFERENCE, 3), (WorkloadType.TRAINING, 4)):
        answer = remedy(cause("queueing"), observation(kind), spec(actions=ADJUST), SCALED)
        assert isinstance(answer, Action)
        assert answer.hpa is not None
        assert answer.hpa.desired.min == expected


def test_a_saving_goes_the_same_way_and_stops_at_the_same_owners() -> None:
    saving = saving_of_replicas(lambda *_: Plan(replicas_action(desired=1, replaces=2)))
    two = replace(FACTS, hpa=Hpa("autoscaler", HpaBounds(min=2, max=4)))
    plan = saving(observation(), spec(actions=ADJUST), two, NOW)
    assert plan is not None
    assert plan.action.hpa is not None
    assert plan.action.hpa.desired == HpaBounds(min=1, max=4)
    assert saving(observation(), spec(actions={"replicas": {"max": 6}}), two, NOW) is None
    # It has that minimum already, and what is above it is the autoscaler's.
    assert saving(observation(), spec(actions=ADJUST), SCALED, NOW) is None
    nothing = saving_of_replicas(lambda *_: None)
    assert nothing(observation(), spec(actions=ADJUST), FACTS, NOW) is None


# -- in the loop -----------------------------------------------------------------------------------


def world(target: Object, actions: Object, **lists: Any) -> World:
    """A target of one pod that speaks, with an action under way where one is put in."""
    ref = {key: target[key] for key in ("apiVersion", "kind")}
    ref["name"] = target["metadata"]["name"]
    wanted = {"targetRef": ref, "mode": "Auto", "objectives": {"latency": {"target": "250ms"}}}
    made = World(target, policy(spec={**wanted, "actions": actions}), **lists)
    found = pod("ranker-0")
    found["metadata"]["labels"] |= {"ray.io/cluster": "work", "ray.io/group": "gpu"}
    found["metadata"]["labels"]["batch.kubernetes.io/controller-uid"] = "uid-work"
    made.pods(found)
    made.streams.histories["ranker-0"] = told(
        lambda t: [model_server(t, latency=0.1)], 30, until=NOW, uid="u"
    )
    return made


SETTINGS = {"replicas": {"max": 6}}


def scaled_by_path() -> World:
    made = world(batch_job(), SETTINGS)
    made.report(report(replicas_action(desired=3, replaces=2), Phase.PLANNED))
    return made


def scaled_by_autoscaler() -> World:
    found = autoscaler(1, 3)
    lists: Object = {"horizontalpodautoscalers": [found], "autoscaler": found}
    made = world(deployment(), ADJUST, **lists)
    made.report(report(hpa_action(), Phase.PLANNED))
    return made


BOTH = pytest.mark.parametrize("make", [scaled_by_path, scaled_by_autoscaler])


@BOTH
@pytest.mark.parametrize("status", [409, 429, 500, 503])
def test_what_is_not_taken_now_is_said_and_tried_again(make: Any, status: int) -> None:
    made = make()
    made.api.refuses = KubeError(status, "the object has been modified")
    made.turn(0)
    found = made.condition(Condition.PROGRESSING)
    assert found[:2] == ("True", Reason.RETRYING)
    assert f"{status}: the object has been modified" in found[2]
    assert made.api.reports["p-1"]["status"]["phase"] == "Planned"
    assert made.api.writes == []

    made.api.refuses = None
    made.turn(1)
    assert made.api.reports["p-1"]["status"]["phase"] != "Planned"
    assert len(made.api.writes) == 1


@BOTH
@pytest.mark.parametrize("status", [400, 403, 422])
def test_what_is_refused_leaves_nothing_half_done(make: Any, status: int) -> None:
    made = make()
    made.api.refuses = KubeError(status, "admission webhook denied it: spec is immutable")
    made.turn(0)
    now = made.api.reports["p-1"]["status"]
    assert now["phase"] == "Reverted"
    said = [entry["message"] for entry in now["timeline"]]
    assert any("spec is immutable" in message for message in said)
    assert "ActionRefused" in [event["reason"] for event in made.api.events]
    assert made.api.writes == []


def test_the_bounds_are_written_with_the_version_that_was_read() -> None:
    made = scaled_by_autoscaler()
    made.turn(0)
    assert made.api.writes == [
        {"metadata": {"resourceVersion": "5"}, "spec": {"minReplicas": 4, "maxReplicas": 4}}
    ]


def test_bounds_that_somebody_else_set_are_left_alone() -> None:
    found = autoscaler(2, 9)
    lists: Object = {"horizontalpodautoscalers": [found], "autoscaler": found}
    made = world(deployment(), ADJUST, **lists)
    made.report(report(hpa_action(), Phase.PLANNED))
    made.turn(0)
    assert made.api.reports["p-1"]["status"]["phase"] == "Abandoned"
    assert made.api.writes == []


def test_bounds_are_undone_though_the_policy_allows_nothing_any_more() -> None:
    found = autoscaler(4, 4)
    lists: Object = {"horizontalpodautoscalers": [found], "autoscaler": found}
    made = world(deployment(4, 4), {}, **lists)
    made.report(report(hpa_action(), Phase.REVERTING, applied_at=moment(-9)))
    made.turn(0)
    bounds = {"minReplicas": 1, "maxReplicas": 3}
    assert made.api.writes[0] == {"metadata": {"resourceVersion": "5"}, "spec": bounds}


def test_owners_are_asked_for_at_most_once_a_minute_and_the_autoscaler_with_the_target() -> None:
    made = world(deployment(), SETTINGS)
    made.turn(*range(0, 60, 5))
    assert made.api.names().count("scaledobjects") == 1
    assert made.api.names().count("horizontalpodautoscalers") == 12
    made.turn(60)
    assert made.api.names().count("scaledobjects") == 2

    none = world(deployment(), {})
    none.turn(*range(0, 60, 5))
    assert not {"scaledobjects", "horizontalpodautoscalers"} & set(none.api.names())

    job = world(batch_job(), SETTINGS)  # no autoscaler can scale it
    job.turn(*range(0, 60, 5))
    assert not {"scaledobjects", "horizontalpodautoscalers"} & set(job.api.names())
