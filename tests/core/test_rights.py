"""Rights, verb by verb: what the chart gives is what the code asks for, no more and no less.

Every place in the operator from which the API server is asked is gone through here, and the list of
those places is read from the source. So a new request fails this test until the chart allows it,
and a rule fails it once nothing asks for it any more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import kopf
import pytest
from bottleneck_operator.act import hpa, images, knobs, replicas, resources
from bottleneck_operator.api.conditions import Reason
from bottleneck_operator.api.meta import TargetRef
from bottleneck_operator.api.report import (
    ContainerResources,
    HpaBounds,
    ImageChange,
    Phase,
    ReportStatus,
    RolloutFields,
)
from bottleneck_operator.controller import handlers, release
from bottleneck_operator.controller.lease import Election
from bottleneck_operator.controller.loop import PolicyLoop
from bottleneck_operator.controller.services import Services
from bottleneck_operator.decide.lifecycle import DesiredKnobs
from bottleneck_operator.inject.policies import Policies
from bottleneck_operator.kube import Kube, KubeError
from bottleneck_operator.observe import cluster, scale
from bottleneck_operator.observe.inquiry import Inquiry
from bottleneck_operator.observe.pods import pod_of
from bottleneck_operator.observe.prometheus_feeds import _Feed
from bottleneck_operator.report import reports
from bottleneck_operator.report.events import Recorder
from bottleneck_operator.report.status import View

from .builders import NOW, knobs_action, policy, report
from .objects import Object, container, deployment, pod
from .recorded import SCALABLE, Recording, Right, chart_rights, right, sites
from .scaled import batch_job, pytorch_job, ray_cluster, ray_service, train_job

PLURALS = {
    "apps/v1/Deployment": "deployments",
    "apps/v1/StatefulSet": "statefulsets",
    "apps/v1/ReplicaSet": "replicasets",
    "leaderworkerset.x-k8s.io/v1/LeaderWorkerSet": "leaderworkersets",
    "batch/v1/Job": "jobs",
    "kubeflow.org/v1/PyTorchJob": "pytorchjobs",
    "trainer.kubeflow.org/v1alpha1/TrainJob": "trainjobs",
    "ray.io/v1/RayCluster": "rayclusters",
    "ray.io/v1/RayService": "rayservices",
    "keda.sh/v1alpha1/ScaledObject": "scaledobjects",
    "autoscaling.k8s.io/v1/VerticalPodAutoscaler": "verticalpodautoscalers",
    "bottleneck.dev/v1alpha1/BottleneckPolicy": "bottleneckpolicies",
    "bottleneck.dev/v1alpha1/BottleneckReport": "bottleneckreports",
}
"""The kinds that the cluster has here."""

BY_PATH = {
    "Job": batch_job(),
    "PyTorchJob": pytorch_job(),
    "TrainJob": train_job(),
    "RayCluster": ray_cluster(),
    "RayService": ray_service("work"),
}
SCALE: Object = {
    "metadata": {"name": "work"},
    "spec": {"replicas": 2},
    "status": {"selector": "app=work"},
}
ROOT = "/apis/bottleneck.dev/v1alpha1"


def root(version: str) -> str:
    return f"/apis/{version}/namespaces/ml"


def target(kind: str, version: str) -> Object:
    """A target named work of that kind."""
    found: Object = dict(BY_PATH.get(kind) or deployment())
    found |= {"kind": kind, "apiVersion": version}
    found["metadata"] = {**found["metadata"], "name": "work"}
    if kind == "LeaderWorkerSet":  # has no selector of its own: its scale is asked
        found["spec"] = {"replicas": 2}
    return found


def objects() -> dict[str, Object | KubeError]:
    answers: dict[str, Object | KubeError] = {}
    for key, plural in PLURALS.items():
        version, _, kind = key.rpartition("/")
        answers[f"{root(version)}/{plural}/work"] = target(kind, version)
        if kind in SCALABLE:
            answers[f"{root(version)}/{plural}/work/scale"] = SCALE
    bounds = {"metadata": {"name": "h"}, "spec": {"minReplicas": 1, "maxReplicas": 2}}
    answers[f"{root('autoscaling/v2')}/horizontalpodautoscalers/h"] = bounds
    answers["/api/v1/namespaces/ml/pods/gone/resize"] = KubeError(404, "no such resource")
    released = {"name": "p", "namespace": "ml", "resourceVersion": "1", "finalizers": ["x"]}
    answers[f"{ROOT}/bottleneckpolicies"] = {"items": [{"metadata": released}]}
    return answers


def door() -> Recording:
    return Recording(objects(), PLURALS)


async def everything(kube: Recording) -> None:
    """Goes through every place from which the operator asks the API server."""
    await _targets(kube)
    await _questions(kube)
    await _effects(kube)
    await _records(kube)
    await _election(kube)
    await _ends_and_beginnings(kube)


async def _election(kube: Recording) -> None:
    """A process that finds no Lease, leads, renews and gives up."""
    election = Election(kube, "ml", "x")
    folder = f"{root('coordination.k8s.io/v1')}/leases"
    kube.objects[f"{folder}/x"] = KubeError(404, "no such lease")
    await election._try()
    await election._renew()
    await election.release()


async def _ends_and_beginnings(kube: Recording) -> None:
    services = Services(kube, Recorder(kube, "test"))
    await handlers._until_served(kube)
    await handlers._claim_all(services)
    loop = PolicyLoop(services, "ml/p")
    await loop.release(policy())
    await loop._actions._read_anew(policy())


async def _targets(kube: Kube) -> None:
    for key in PLURALS:
        version, _, kind = key.rpartition("/")
        if kind not in SCALABLE and (version.partition("/")[0], kind) not in scale.KINDS:
            continue
        ref = TargetRef.model_validate({"apiVersion": version, "kind": kind, "name": "work"})
        found = await cluster.read_target(kube, "ml", ref)
        assert found.replicas is not None
        await replicas.set_replicas(kube, "ml", found, found.replicas, found.replicas + 1)


async def _questions(kube: Kube) -> None:
    for kind in ("Deployment", "StatefulSet"):
        ref = TargetRef.model_validate({"apiVersion": "apps/v1", "kind": kind, "name": "work"})
        found = await cluster.read_target(kube, "ml", ref)
        missing = deployment(2, 0)
        missing["kind"] = kind
        object.__setattr__(found, "workload", cluster.workload_of(missing, 2))
        inquiry = Inquiry()
        await inquiry.ask(kube, "ml", found, pods_known=False, hpa_known=False, now=NOW)
        assert not inquiry.answers.failed
        await cluster.owner_of_resources(kube, "ml", ref)
        await cluster.scaled_object_of(kube, "ml", ref)
        await cluster.disruptions_allowed(kube, "ml", [])


async def _effects(kube: Kube) -> None:
    one, gone = pod_of(pod("one")), pod_of(_sized("gone"))
    await knobs.write(kube, [one], DesiredKnobs(1, {"dataLoader.workers": 2}))
    other = ContainerResources()
    size = gone.containers[0].wanted
    with contextlib.suppress(KubeError):
        await resources.resize(kube, [gone], "main", other, [size])
    await hpa.set_bounds(kube, "ml", "h", HpaBounds(min=1, max=2), HpaBounds(min=1, max=3))
    image = str(container()["image"])
    fields = RolloutFields(max_surge="1")
    change = ImageChange(
        container="main", desired="new", replaces=image, original=image, holds=fields,
        restores=fields,
    )  # fmt: skip
    for kind in ("Deployment", "StatefulSet"):
        ref = TargetRef.model_validate({"apiVersion": "apps/v1", "kind": kind, "name": "work"})
        found = await cluster.read_target(kube, "ml", ref)
        held = change if kind == "Deployment" else _of_a_set(change)
        await images.roll(kube, "ml", found, held, None)
        back = held.model_copy(update={"desired": image, "replaces": "old"})
        await images.undo(kube, "ml", found, back, [pod_of(_sized("broken", ready=False))])


def _of_a_set(change: ImageChange) -> ImageChange:
    partition = RolloutFields(partition=1)
    return change.model_copy(update={"holds": partition, "restores": partition})


def _sized(name: str, ready: bool = True) -> Object:
    """A pod with a container of a size."""
    found = pod(name, conditions=[{"type": "Ready", "status": str(ready)}])
    found["spec"] = {"containers": [container()]}
    return found


async def _records(kube: Recording) -> None:
    services = Services(kube, Recorder(kube, "test"))
    looked_after = policy()
    await reports.load(kube, looked_after, services.reports)
    planned = report(knobs_action(), Phase.PLANNED).spec
    made = await reports.create(kube, services.reports, looked_after, planned, Phase.PLANNED)
    for _ in range(looked_after.spec.reports.keep + 2):
        made = await reports.create(
            kube, services.reports, looked_after, planned, Phase.RECOMMENDED
        )
        closed = ReportStatus(phase=Phase.ABANDONED)
        await reports.set_status(kube, services.reports, made, closed)
    await reports.prune(kube, services.reports, looked_after, NOW)
    await services.recorder.post(looked_after, Reason.ACTION_KEPT, "kept")
    await PolicyLoop(services, "ml/p")._write_status(looked_after, View(), NOW)
    selector: Mapping[str, Any] = {"matchLabels": {"app": "work"}}
    settings: Any = None
    await services.prometheus._pods(_Feed(settings, "ml", selector, 95, 0.0, lambda: None))


def asked_by_kopf() -> set[Right]:
    """What kopf does for the handlers that are registered: it lists and watches their objects, and
    puts the finalizer and its annotations on those that have a daemon. It watches CRDs to notice
    resources that are installed later, and posts no events, since the recorder does."""
    assert handlers  # which registers them
    registry = kopf.get_default_registry()
    found = {
        (verb, "apiextensions.k8s.io", "customresourcedefinitions") for verb in ("list", "watch")
    }
    for handler in registry._watching.get_all_handlers():
        found |= {(verb, *_addressed(handler)) for verb in ("list", "watch")}
    for handler in registry._spawning.get_all_handlers():
        found |= {(verb, *_addressed(handler)) for verb in ("list", "watch", "patch")}
    for handler in registry._changing.get_all_handlers():
        found |= {(verb, *_addressed(handler)) for verb in ("list", "watch", "patch")}
    assert not registry._indexing.get_all_handlers()
    return found


def _addressed(handler: Any) -> tuple[str, str]:
    selector = handler.selector
    assert selector.any_name or selector.plural
    return str(selector.group), str(selector.plural or selector.any_name)


# -- the three accounts ----------------------------------------------------------------------------


def test_the_operator_has_the_rights_that_it_uses_and_no_others() -> None:
    kube = door()
    asyncio.run(everything(kube))
    folders = ("act", "controller", "decide", "diagnose", "observe", "report", "verify")
    unseen = [
        str(site)
        for site in sites(*folders)
        if not site.file.endswith("release.py") and not kube.went_through(site)
    ]
    assert unseen == [], "this test goes through every place that asks the API server"
    given = chart_rights("rbac.yaml", "x") | chart_rights("rbac.yaml", "x", kind="Role")
    used = kube.rights | asked_by_kopf()
    assert used - given == set(), "the chart's rbac.yaml lacks these"
    assert given - used == set(), "nothing uses these rules of the chart's rbac.yaml"


def test_the_webhook_has_the_rights_that_it_uses_and_no_others() -> None:
    kube = door()
    asyncio.run(Policies(kube).of("ml"))
    assert all(kube.went_through(site) for site in sites("inject"))
    assert kube.rights == chart_rights("rbac.yaml", "x.injector")


def test_the_release_hook_has_the_rights_that_it_uses_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kube = door()

    async def connect(*_: object) -> Recording:
        return kube

    monkeypatch.setattr(Kube, "connect", connect)
    asyncio.run(release.release())
    mine = [site for site in sites("controller") if site.file.endswith("release.py")]
    assert mine
    assert all(kube.went_through(site) for site in mine)
    assert kube.rights == chart_rights("release.yaml", "x")


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/api/v1/namespaces/ml/pods", ("list", "", "pods")),
        ("GET", "/api/v1/namespaces/ml/pods/a", ("get", "", "pods")),
        ("PATCH", "/api/v1/namespaces/ml/pods/a/resize", ("patch", "", "pods/resize")),
        ("POST", "/apis/batch/v1/namespaces/ml/jobs", ("create", "batch", "jobs")),
        ("GET", "/apis/batch/v1/jobs", ("list", "batch", "jobs")),
        ("GET", "/api/v1/namespaces", ("list", "", "namespaces")),
        ("DELETE", "/api/v1/nodes/n", ("delete", "", "nodes")),
    ],
)
def test_what_a_request_needs(method: str, path: str, expected: Right) -> None:
    assert right(method, path) == expected
