"""Wherever a process dies, and however late what it sent arrives: each step of an action has its
effect once. The one property behind durability, for every kind of effect (docs/durability.md)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from bottleneck_operator.api.report import Action, Aim, Phase, Verdict, VerdictResult
from bottleneck_operator.kube import KubeError

from .builders import (
    hpa_action,
    knobs_action,
    policy,
    replicas_action,
    report,
    resources_action,
)
from .crash_world import PODS, REPORTS, Door, Store, World, job_of, pod_of
from .objects import Object, deployment
from .test_variants import NEW, image_action

DEPLOYMENT = "/apis/apps/v1/namespaces/ml/deployments/ranker"
JOB = "/apis/batch/v1/namespaces/ml/jobs/work"
HPA = "/apis/autoscaling/v2/namespaces/ml/horizontalpodautoscalers/autoscaler"
STRATEGY = {
    "type": "RollingUpdate",
    "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
}

ACTIONS: dict[str, Callable[[], Action]] = {
    "knobs": knobs_action,
    "replicas": lambda: replicas_action(3, 2),
    "replicas by path": lambda: replicas_action(3, 2),
    "sleep": lambda: replicas_action(0, 2).model_copy(update={"aim": Aim.SAVE}),
    "wake": lambda: replicas_action(2, 0).model_copy(update={"aim": Aim.WAKE}),
    "bounds of an autoscaler": hpa_action,
    "resources": resources_action,
    "image": lambda: image_action(
        replaces="registry.example/ranker:v2", original="registry.example/ranker:v2"
    ),
}
ALLOWED: Object = {
    "dataLoader": {"maxWorkers": 4},
    "replicas": {"min": 0, "max": 6, "hpa": "AdjustBounds"},
    "resources": {"cpu": {"max": "4"}},
    "variants": [{"name": "int8", "image": NEW, "accuracyLoss": "0.4%"}],
}
ENDS = {
    **{(kind, "Improved"): Phase.KEPT for kind in ACTIONS},
    **{(kind, "Worse"): Phase.REVERTED for kind in ACTIONS if kind not in ("sleep", "wake")},
}


def world(monkeypatch: pytest.MonkeyPatch, kind: str, verdict: str) -> World:
    target = deployment(2, 2)
    target["spec"]["strategy"] = {**STRATEGY, "rollingUpdate": dict(STRATEGY["rollingUpdate"])}  # type: ignore[arg-type]
    target["spec"]["progressDeadlineSeconds"] = 600
    names = ["ranker-0", "ranker-1"]
    if kind == "wake":
        target["spec"]["replicas"], names = 0, []
    objects: dict[str, Object] = {f"{PODS}/{name}": pod_of(name) for name in names}
    path, ref = DEPLOYMENT, {"apiVersion": "apps/v1", "kind": "Deployment", "name": "ranker"}
    if kind == "replicas by path":
        path, ref = JOB, {"apiVersion": "batch/v1", "kind": "Job", "name": "work"}
        target = job_of()
        objects[f"{PODS}/ranker-2"] = pod_of("ranker-2")  # of a Job only pods tell who is ready
    objects[path] = target
    if kind == "bounds of an autoscaler":
        scaled = {"minReplicas": 1, "maxReplicas": 3, "scaleTargetRef": ref}
        objects[HPA] = {"metadata": {"name": "autoscaler", "namespace": "ml"}, "spec": scaled}
        target["spec"]["replicas"] = 4
    planned = report(ACTIONS[kind]())
    document: Object = planned.dump()
    document["metadata"]["uid"] = "uid-p-1"
    document["spec"]["target"] = ref
    document["spec"]["targetUid"] = target["metadata"]["uid"]
    objects[f"{REPORTS}/p-1"] = document
    result = Verdict(result=VerdictResult(verdict), reason="as told")
    made = World(
        Store(objects),
        policy(spec={"targetRef": ref, "actions": ALLOWED, "limits": {"accuracyLoss": "1%"}}),
        result,
    )
    made.judged(monkeypatch)
    return made


Case = tuple[str, str]


@pytest.mark.parametrize("case", ENDS, ids=" ".join)
def test_a_new_process_ends_where_the_one_that_died_would_have(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = world(monkeypatch, *case)
    door = Door(whole.store)
    assert whole.live(door)
    assert whole.report.status.phase is ENDS[case]
    assert whole.store.effects
    for dies_at in range(1, door.writes + 1):
        for carried_out in (False, True):
            crashed = world(monkeypatch, *case)
            crashed.live(Door(crashed.store, dies_at, carried_out))
            crashed.live(Door(crashed.store))
            assert crashed.store.state() == whole.store.state()
            assert crashed.store.effects == whole.store.effects


@pytest.mark.parametrize("case", ENDS, ids=" ".join)
def test_what_a_process_sends_late_changes_nothing(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process is held up in the middle of a write; another one takes the action to its end; then
    the write arrives. The state may be the very one that it was meant for: undone."""
    whole = world(monkeypatch, *case)
    door = Door(whole.store)
    assert whole.live(door)
    for late_at in range(1, door.writes + 1):
        made = world(monkeypatch, *case)
        late = Door(made.store, late_at)
        made.live(late)
        made.live(Door(made.store))
        before, effects = made.store.state(), list(made.store.effects)
        assert late.held is not None
        with pytest.raises(KubeError, match="409"):
            made.store.write(*late.held)
        assert made.store.state() == before
        assert made.store.effects == effects


def test_an_action_is_not_carried_on_at_a_namesake(monkeypatch: pytest.MonkeyPatch) -> None:
    made = world(monkeypatch, "replicas", "Improved")
    made.store.objects[DEPLOYMENT]["metadata"]["uid"] = "uid-of-another"
    assert made.live(Door(made.store))
    assert made.report.status.phase is Phase.ABANDONED
    assert not made.store.effects
