"""The loop with a variant under way, over an API server that dies on it and a Deployment controller
that does what the real one does."""

from __future__ import annotations

import types
from typing import Any

import pytest
from bottleneck_operator.api.conditions import Condition
from bottleneck_operator.api.report import Aim, BottleneckReport, ImageChange
from bottleneck_operator.controller import actions
from bottleneck_operator.controller.loop import PolicyLoop
from bottleneck_operator.kube import KubeError
from bottleneck_operator.observe.rollout import rollout_of

from .builders import NOW, SERVING, moment, policy, report
from .loop_world import FakeApi, World
from .objects import Object, deployment, pod
from .telemetry import model_server
from .telemetry import pod as told
from .test_variants import INT8, NEW, image_action

OLD = "registry.example/ranker:v2"
THEIRS = "registry.example/ranker:v3"
STRATEGY = {
    "type": "RollingUpdate",
    "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
}
TURNS = [0, 1, 2, 3, 4, 40, 41, 42, 43, 44, 45, 80, 81, 82, 83, 84, 85, 86]
"""Seconds of the turns: long pauses where only figures are waited for."""


class Death(BaseException):
    """The process ends here."""


class Controller:
    """The Deployment controller and the kubelet: pods follow the template at once, but for those
    that a rolling update with such a ``minReadySeconds`` has to wait for."""

    def __init__(self, world: World, broken: str = "") -> None:
        self.world, self.broken, self.made = world, broken, 0
        self.pods: dict[str, str] = {}

    def act(self) -> None:
        target = self.world.api.target
        spec, wanted = target["spec"], target["spec"]["replicas"]
        (image,) = rollout_of(target).images.values()
        held = spec.get("minReadySeconds", 0) > 3600
        new = [name for name, each in self.pods.items() if each == image]
        while len(new) < (max(1, len(new)) if held else wanted):
            new.append(f"ranker-{self.made}")
            self.pods[new[-1]] = image
            self.made += 1
        stale = [name for name in self.pods if name not in new]
        surplus = stale if not held else stale[wanted:]
        for name in surplus:
            self._tell(name, deleted=True)
            del self.pods[name]
        for name in self.pods:
            self._tell(name)
        ready = sum(each != self.broken for each in self.pods.values())
        generation = target["metadata"]["generation"]
        target["status"] |= {
            "replicas": len(self.pods),
            "readyReplicas": ready,
            "updatedReplicas": len(new),
            "observedGeneration": generation,
        }

    def _tell(self, name: str, deleted: bool = False) -> None:
        image, found = self.pods[name], pod(name)
        found["spec"] = {"containers": [{"name": "main", "image": image}]}
        if image == self.broken:
            message = f"failed to pull {image}"
            waiting = {"reason": "ImagePullBackOff", "message": message}
            found["status"] |= {
                "phase": "Pending",
                "conditions": [{"type": "Ready", "status": "False"}],
                "containerStatuses": [{"name": "main", "state": {"waiting": waiting}}],
            }
        self.world.services.pods.update(found, deleted)


class Life:
    """A world whose operator dies at its nth write, and is started again at every death."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        dies_at: int = 0,
        before: bool = False,
        fast: float = 0.05,
        slow: float = 0.4,
        broken: str = "",
        aim: Aim = Aim.IMPROVE,
    ) -> None:
        target = deployment(2, 2)
        target["spec"]["strategy"] = STRATEGY | {"rollingUpdate": {**STRATEGY["rollingUpdate"]}}  # type: ignore[dict-item]
        target["spec"]["progressDeadlineSeconds"] = 600
        target["metadata"]["resourceVersion"] = "7"
        spec = {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "ranker"},
            **SERVING,
            "actions": {"variants": [INT8]},
            "limits": {"disruption": "RollingRestart", "accuracyLoss": "1%", "cooldown": "1h"},
        }
        self.world = World(target, policy(spec=spec))
        self.before = {**target["spec"]["strategy"]["rollingUpdate"]}
        self.fast, self.slow, self.now = fast, slow, NOW
        self.controller = Controller(self.world, broken)
        self.controller.act()
        self.images: list[list[str]] = []
        self.writes, self.dies_at, self.dies_before = 0, dies_at, before
        clock = types.SimpleNamespace(time=lambda: self.now)
        monkeypatch.setattr(actions, "time", clock)
        self._mortal(monkeypatch)
        change = image_action().image
        assert change is not None
        action = image_action(replaces=OLD, original=OLD).model_copy(update={"aim": aim})
        planned = report(action)
        metric = planned.spec.metric.model_copy(
            update={"name": "latency p95", "unit": "s", "lower_is_better": True}
        )
        changes = {"metric": metric, "before": [0.4] * 10, "decided_at": moment(-5)}
        self.world.report(
            planned.model_copy(update={"spec": planned.spec.model_copy(update=changes)})
        )

    def _mortal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        patch = FakeApi.patch

        async def mortal(api: FakeApi, path: str, body: Any, content_type: str = "") -> Object:
            if "bottleneckpolicies" in path:
                return await patch(api, path, body, content_type)
            self.writes += 1
            if self.writes == self.dies_at and self.dies_before:
                raise Death
            answer = await patch(api, path, body, content_type)
            if self.writes == self.dies_at:
                raise Death
            return answer

        monkeypatch.setattr(FakeApi, "patch", mortal)

    def live(self, *seconds: float) -> BottleneckReport:
        for second in seconds or TURNS:
            self.now = NOW + second
            for name, image in self.controller.pods.items():
                if image == self.controller.broken:
                    continue
                latency = self.fast if image == NEW else self.slow
                self.world.streams.histories[name] = told(
                    lambda t, latency=latency: [model_server(t, latency=latency)],  # type: ignore[misc]
                    150,
                    until=self.now,
                    uid=f"uid-{name}",
                )
            try:
                self.world.turn(second)
            except Death:
                stored = self.world.api.reports["p-1"]
                self.world.services.reports.update(stored)
                self.world.loop = PolicyLoop(self.world.services, "ml/p")
            self.controller.act()
            self.images.append(sorted(self.controller.pods.values()))
        return BottleneckReport.model_validate(self.world.api.reports["p-1"])

    @property
    def untouched(self) -> bool:
        """Whether everything but the image is as it was found."""
        spec = self.world.api.target["spec"]
        return (
            spec["strategy"]["rollingUpdate"] == self.before
            and "minReadySeconds" not in spec
            and spec["progressDeadlineSeconds"] == 600
        )

    @property
    def image(self) -> str:
        (found,) = rollout_of(self.world.api.target).images.values()
        return found


def told_stages(found: BottleneckReport) -> list[str]:
    """What became of the action, without the constraint that it left behind."""
    return [entry.what for entry in found.status.timeline if entry.what != "Next"]


def test_one_pod_first_and_the_rest_after_its_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life(monkeypatch)
    found = life.live()
    assert (found.status.phase, found.status.stage) == ("Kept", "Rolled")
    assert told_stages(found) == [
        "ActionApplied",
        "ActionAcknowledged",
        "ActionApplied",
        "ActionAcknowledged",
        "ActionKept",
    ]
    assert life.images[1] == [NEW, OLD, OLD], "two untouched ones beside the canary"
    assert life.images[-1] == [NEW, NEW]
    assert life.image == NEW
    assert life.untouched
    verdict = found.status.verdict
    assert verdict is not None
    assert verdict.control
    assert verdict.result == "Improved"
    assert "2 untouched" in found.status.timeline[1].message


def test_the_status_tells_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life(monkeypatch, broken=NEW)
    life.live(0, 1)
    status, reason, message = life.world.condition(Condition.PROGRESSING)
    assert (status, reason) == ("True", "AwaitingRollout")
    assert message.endswith("(Canary)")


@pytest.mark.parametrize("before", [True, False], ids=["before the write", "after the write"])
@pytest.mark.parametrize("dies_at", range(1, 8))
@pytest.mark.parametrize("fast", [0.05, 0.8], ids=["faster", "slower"])
def test_wherever_the_operator_dies_nothing_is_lost_or_left_half_done(
    monkeypatch: pytest.MonkeyPatch, dies_at: int, before: bool, fast: float
) -> None:
    life = Life(monkeypatch, dies_at, before, fast)
    found = life.live()
    better = fast < 0.4
    assert found.status.phase == ("Kept" if better else "Reverted")
    assert life.image == (NEW if better else OLD)
    assert life.untouched
    assert all(images.count(NEW) <= 1 for images in life.images if OLD in images)
    assert all(len(images) >= 2 for images in life.images), "never fewer than wanted"


def test_a_variant_that_never_becomes_ready_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life(monkeypatch, broken=NEW)
    found = life.live(*range(0, 75, 5))
    assert found.status.phase == "Reverted"
    assert any("ImagePullBackOff: failed to pull" in e.message for e in found.status.timeline)
    assert life.image == OLD
    assert life.untouched


@pytest.mark.parametrize(("latency", "phase"), [(0.15, "Kept"), (0.4, "Reverted")])
def test_what_is_given_back_may_be_slower_within_the_objective(
    monkeypatch: pytest.MonkeyPatch, latency: float, phase: str
) -> None:
    """Of 250 ms. Among three pods the canary would hardly be seen in the figures of all."""
    life = Life(monkeypatch, fast=latency, slow=0.05, aim=Aim.SAVE)
    found = life.live()
    assert found.status.phase == phase
    assert life.image == (NEW if phase == "Kept" else OLD)
    assert life.untouched
    if phase == "Reverted":
        assert found.status.verdict is not None
        assert "Latency" in found.status.verdict.reason
        assert found.status.stage == "Canary"


def test_somebody_elses_image_gets_its_rollout(monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life(monkeypatch)
    life.live(0, 1, 2)
    (container,) = life.world.api.target["spec"]["template"]["spec"]["containers"]
    container["image"] = THEIRS
    found = life.live(10, 11, 12, 13)
    assert found.status.phase == "Abandoned"
    assert life.image == THEIRS
    assert life.untouched
    assert life.images[-1] == [THEIRS, THEIRS]


def test_a_right_that_is_missing_is_said_and_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    life = Life(monkeypatch)
    patch = FakeApi.patch

    async def forbidden(api: FakeApi, path: str, body: Any, content_type: str = "") -> Object:
        if path.endswith("/ranker"):
            raise KubeError(403, "cannot patch resource deployments")
        return await patch(api, path, body, content_type)

    monkeypatch.setattr(FakeApi, "patch", forbidden)
    found = life.live(0, 1, 2, 3)
    assert found.status.phase == "Reverted"
    assert any("cannot patch resource deployments" in e.message for e in found.status.timeline)


def test_the_change_of_a_report_is_all_that_undoing_needs() -> None:
    change = image_action().image
    assert change is not None
    assert ImageChange.model_validate(change.dump()) == change
