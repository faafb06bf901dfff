"""The loop of a workload with a gate: it sleeps, wakes, and nobody who waits is forgotten."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from bottleneck_operator.api.conditions import Condition, Reason
from bottleneck_operator.api.report import Aim, Phase
from bottleneck_operator.observe.history import History

from .builders import NOW, history, policy, sample
from .loop_world import World
from .objects import Object, deployment
from .objects import pod as pod_document
from .telemetry import model_server
from .telemetry import pod as told
from .test_idle import gate

RANKER = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "ranker"}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Zero:
    return Zero(monkeypatch)


class Zero(World):
    """A server of two replicas that has had no request for long, and the gate before it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(deployment(2, 2), self.allowed())
        self.monkeypatch = monkeypatch
        self.pods(pod_document("ranker-0"), pod_document("ranker-1"))
        document = pod_document("gate-0")
        document["metadata"]["labels"] = {
            "bottleneck.dev/gate-for": "ranker",
            "bottleneck.dev/injected": "true",
        }
        self.gate_pod = document
        self.pods(document)

    def allowed(self, mode: str = "Auto", least: int = 0) -> Any:
        spec = {
            "targetRef": RANKER,
            "mode": mode,
            "objectives": {"latency": {"target": "250ms"}},
            "actions": {"replicas": {"min": least, "max": 4}},
        }
        return policy(spec=spec)

    def at(self, second: float, **figures: Any) -> None:
        """A turn; the gate has just said this, unless it is silent."""
        self.monkeypatch.setattr(time, "time", lambda: NOW + second)
        if figures:
            line = sample(NOW + second, int(1000 + second), gate=gate(**figures))
            self.streams.histories["gate-0"] = history(line)
        for name in ("ranker-0", "ranker-1"):
            self.streams.histories[name] = self.unasked(second)
        self.turn(second)

    def unasked(self, second: float) -> History:
        return told(lambda t: [model_server(100, in_flight=0)], 30, until=NOW + second)

    @property
    def replicas(self) -> int:
        return int(self.api.target["spec"]["replicas"])

    def last(self) -> Object:
        return list(self.api.reports.values())[-1]

    def goes_to_sleep(self) -> None:
        """Scaled to zero, and the pods are gone."""
        self.at(0, idle_seconds=400.0)
        assert self.replicas == 0
        for name in ("ranker-0", "ranker-1"):
            self.services.pods.update(pod_document(name), deleted=True)
        self.api.target["status"] = {}


def test_who_is_idle_sleeps_and_that_is_no_trouble(world: Zero) -> None:
    world.at(0, idle_seconds=299.0)
    assert world.replicas == 2
    world.at(1, idle_seconds=300.0)
    assert world.replicas == 0
    assert world.last()["spec"]["action"]["aim"] == Aim.SAVE
    assert world.last()["spec"]["symptom"]["text"] == "No request for 300s; 2 replicas run"
    assert world.last()["status"]["phase"] == Phase.KEPT
    for name in ("ranker-0", "ranker-1"):
        world.services.pods.update(pod_document(name), deleted=True)
    world.api.target["status"] = {}
    world.at(10, idle_seconds=310.0)
    assert world.condition(Condition.TELEMETRY_AVAILABLE)[:2] == ("False", Reason.SCALED_TO_ZERO)
    assert world.condition(Condition.BOTTLENECKED)[:2] == ("Unknown", Reason.SCALED_TO_ZERO)
    assert world.condition(Condition.LIMITED)[0] == "False"
    assert world.condition(Condition.PROGRESSING)[0] == "False"
    assert world.api.status["lastAction"]["summary"] == "replicas 2 → 0"
    world.at(600, idle_seconds=900.0)
    assert len(world.api.reports) == 1, "it sleeps on"
    assert {event["reason"] for event in world.api.events} <= {
        Reason.ACTION_PLANNED,
        Reason.ACTION_APPLIED,
        Reason.ACTION_KEPT,
    }


def test_who_waits_wakes_it_at_once(world: Zero) -> None:
    world.goes_to_sleep()
    world.at(6, held=1, idle_seconds=0.0)
    assert world.replicas == 1
    report = world.last()
    assert report["spec"]["action"]["aim"] == Aim.WAKE
    assert report["spec"]["symptom"]["text"] == "1 connections wait at the gate, and nothing runs"
    assert report["status"]["phase"] == Phase.APPLIED
    assert world.condition(Condition.PROGRESSING)[:2] == ("True", Reason.AWAITING_REPLICAS)
    world.at(7, held=9, idle_seconds=0.0)
    assert world.replicas == 1, "one waking at a time"
    world.pods(pod_document("ranker-0"))
    world.api.target["status"] = {"replicas": 1, "readyReplicas": 1}
    world.at(9, in_flight=9, idle_seconds=0.0)
    assert world.last()["status"]["phase"] == Phase.KEPT
    assert world.condition(Condition.LIMITED)[1] != Reason.COOLDOWN


def test_a_waking_that_takes_long_is_not_taken_back(world: Zero) -> None:
    world.goes_to_sleep()
    world.at(6, held=1, idle_seconds=0.0)
    world.at(400, held=1, idle_seconds=0.0)
    assert world.replicas == 1
    assert world.last()["status"]["phase"] == Phase.KEPT
    assert "please look" in world.last()["status"]["timeline"][-1]["message"]


def test_a_gate_that_falls_silent_wakes_it(world: Zero) -> None:
    world.goes_to_sleep()
    world.at(20)
    assert world.replicas == 0
    world.at(40)
    assert world.replicas == 1
    assert "silent for 40s" in world.last()["spec"]["symptom"]["text"]


def test_a_gate_that_is_taken_away_wakes_it(world: Zero) -> None:
    world.goes_to_sleep()
    world.services.pods.update(world.gate_pod, deleted=True)
    world.at(40)
    assert world.replicas == 1
    assert "no gate any more" in world.last()["spec"]["symptom"]["text"]


def test_a_policy_that_is_deleted_wakes_it(world: Zero) -> None:
    world.goes_to_sleep()
    world.at(10, idle_seconds=410.0)
    asyncio.run(world.loop.release(world.policy))
    assert world.replicas == 2
    assert world.last()["status"]["phase"] == Phase.REVERTED


def test_a_policy_that_is_deleted_leaves_what_others_set(world: Zero) -> None:
    world.goes_to_sleep()
    world.api.target["spec"]["replicas"] = 3
    asyncio.run(world.loop.release(world.policy))
    assert world.replicas == 3


def test_a_new_process_knows_that_it_sleeps_and_wakes_it(world: Zero) -> None:
    world.goes_to_sleep()
    successor = Zero(world.monkeypatch)
    successor.api.target = world.api.target
    for name in ("ranker-0", "ranker-1"):
        successor.services.pods.update(pod_document(name), deleted=True)
    successor.api.reports = world.api.reports
    successor.api.lists["bottleneckreports"] = list(world.api.reports.values())
    successor.at(10, held=1, idle_seconds=0.0)
    assert successor.replicas == 1
    assert successor.last()["spec"]["action"]["replicas"] == {"desired": 1, "replaces": 0}


def test_without_a_gate_nothing_sleeps_and_it_is_said_why(world: Zero) -> None:
    world.services.pods.update(world.gate_pod, deleted=True)
    world.at(0)
    world.at(1000)
    assert world.replicas == 2
    status, reason, message = world.condition(Condition.LIMITED)
    assert (status, reason) == ("True", Reason.NO_GATE)
    assert "bottleneck.dev/gate-for: ranker" in message


def test_a_gate_in_another_namespace_is_no_gate(world: Zero) -> None:
    world.services.pods.update(world.gate_pod, deleted=True)
    world.gate_pod["metadata"]["namespace"] = "other"
    world.pods(world.gate_pod)
    world.at(0, idle_seconds=400.0)
    assert world.replicas == 2
    assert world.condition(Condition.LIMITED)[1] == Reason.NO_GATE


def test_a_recommended_sleep_waits_for_approval_and_the_waking_does_not(world: Zero) -> None:
    world.policy = world.allowed("Recommend")
    world.at(0, idle_seconds=400.0)
    assert world.replicas == 2
    assert world.condition(Condition.LIMITED)[1] == Reason.AWAITING_APPROVAL
    approved = world.last()
    approved["metadata"]["annotations"] = {"bottleneck.dev/approved": "true"}
    world.services.reports.update(approved)
    world.at(1, idle_seconds=401.0)
    assert world.replicas == 0
    world.at(7, held=2, idle_seconds=0.0)
    assert world.replicas == 2


def test_a_recommended_sleep_is_dropped_when_somebody_comes(world: Zero) -> None:
    world.policy = world.allowed("Recommend")
    world.at(0, idle_seconds=400.0)
    world.at(1, in_flight=1, idle_seconds=0.0)
    assert world.last()["status"]["phase"] == Phase.ABANDONED
    assert "no longer idle" in world.last()["status"]["timeline"][-1]["message"]


def test_who_only_observes_is_told_what_would_be_done(world: Zero) -> None:
    world.policy = world.allowed("Observe")
    world.at(0, idle_seconds=400.0)
    assert world.replicas == 2
    message = "the policy only observes; in mode Auto it would do: replicas 2 → 0"
    assert world.condition(Condition.LIMITED)[1:] == (Reason.OBSERVE_ONLY, message)
    assert world.api.events[-1]["message"] == message
