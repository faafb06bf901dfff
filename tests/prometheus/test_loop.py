"""A policy's loop whose only telemetry is a real Prometheus: pods without a sidecar."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from bottleneck_operator.api.conditions import Condition, Reason

from ..core.builders import policy
from ..core.loop_world import World
from ..core.objects import Object, deployment
from . import texts
from .conftest import Server

Found = tuple[str, str, str]
"""Status, reason and message of a condition."""


def plain_pod(name: str) -> Object:
    return {
        "metadata": {"name": name, "namespace": "ml", "uid": name, "labels": {"app": "ranker"}},
        "status": {
            "phase": "Running",
            "startTime": "2026-01-01T00:00:00Z",
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def world(url: str, **prometheus: Any) -> World:
    target = deployment(1)
    target["status"]["readyReplicas"] = 1
    spec = {
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "ranker"},
        "mode": "Auto",
        "objectives": {"latency": {"target": "250ms"}, "errorRate": {"max": "10%"}},
        "actions": {"replicas": {"max": 4}},
        "telemetry": {"prometheus": {"url": url, "interval": "1s", **prometheus}},
    }
    made = World(target, policy(spec=spec), pods=[plain_pod("loop-0")])
    made.services.prometheus.allowed = (url,)
    return made


def live(of: World, until: Callable[[Found, Found], bool]) -> Found:
    """Turns until the conditions TelemetryAvailable and Bottlenecked are so; gives the former."""

    async def turns() -> Found:
        try:
            async with asyncio.timeout(60):
                while True:
                    of.loop.wake.clear()
                    await of.loop.turn(of.policy, time.time())
                    telemetry = of.condition(Condition.TELEMETRY_AVAILABLE)
                    if until(telemetry, of.condition(Condition.BOTTLENECKED)):
                        return telemetry
                    await of.loop.wake.wait()
        finally:
            await of.services.prometheus.close()

    return asyncio.run(turns())


def test_a_workload_without_a_sidecar_is_diagnosed_and_left_alone(prometheus: Server) -> None:
    prometheus.scrape(texts.vllm, namespace="ml", pod="loop-0")
    made = world(prometheus.url)
    telemetry = live(made, lambda _, bottlenecked: bottlenecked[0] == "True")
    assert telemetry == ("True", Reason.STREAMING, "1 of 1 replicas speak")
    objectives = {o["name"]: (o["current"], o["met"]) for o in made.api.status["objectives"]}
    assert objectives["Latency"] == ("950 ms", False)
    assert objectives["ErrorRate"] == ("5.0%", True)
    # Nothing is done that could not be judged afterwards.
    assert made.api.reports == {}


def test_a_server_that_is_away_is_told_in_the_condition() -> None:
    made = world("http://127.0.0.1:1")
    status, reason, _ = live(made, lambda telemetry, _: "Connection refused" in telemetry[2])
    assert (status, reason) == ("False", Reason.PROMETHEUS_FAILED)
    assert made.condition(Condition.BOTTLENECKED)[0] == "Unknown"


def test_a_bad_query_is_told_in_the_servers_own_words(prometheus: Server) -> None:
    made = world(prometheus.url, queries={"inference.latency": "sum(rate("})
    told = live(made, lambda telemetry, _: "parse error" in telemetry[2])
    assert "the query for inference.latency: Prometheus answered 400" in told[2]
