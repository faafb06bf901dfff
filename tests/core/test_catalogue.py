"""The catalogue of causes: that every entry is whole, and that each cause is found where it is and
only there."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bottleneck_operator.api.policy import Objectives
from bottleneck_operator.decide.remedies import REMEDIES
from bottleneck_operator.diagnose.catalogue import (
    CATALOGUE,
    CATEGORIES,
    EFFECTS,
    STAGES,
    CauseEntry,
    Condition,
    Predicate,
    Why,
    edges,
)
from bottleneck_operator.diagnose.derived import DERIVED
from bottleneck_operator.diagnose.diagnosis import Diagnosis
from bottleneck_operator.diagnose.document import diagnosis_document
from bottleneck_operator.diagnose.engine import diagnose
from bottleneck_operator.diagnose.gaps import GAPS
from bottleneck_operator.diagnose.predicates import predicates
from bottleneck_operator.diagnose.whys import figure_names
from bottleneck_operator.observe.observation import (
    NoData,
    Observation,
    Reading,
    Replica,
    Signal,
    WorkloadType,
)
from hypothesis import given
from hypothesis import strategies as st

from .builders import CASES, NOW

TRAINING, SERVING, ANY = WorkloadType.TRAINING, WorkloadType.INFERENCE, WorkloadType.UNKNOWN
DOCS = Path(__file__).parents[2] / "docs"
BY_ID = {entry.id: entry for entry in CATALOGUE}

# -- healthy workloads -----------------------------------------------------------------------------

CONTAINER = {
    "cpu.usedCores": 1.2,
    "cpu.availableCores": 4.0,
    "cpu.throttledShare": 0.02,
    "cpu.throttledTimeShare": 0.005,
    "cpu.runQueueShare": 0.03,
    "cpu.pressureShare": 0.05,
    "node.busyShare": 0.5,
    "node.othersShare": 0.2,
    "memory.usedShare": 0.5,
    "memory.pressureShare": 0.0,
    "memory.oomKills": 0.0,
    "memory.limitHitsPerSecond": 0.0,
    "memory.majorFaultsPerSecond": 0.1,
    "io.pressureShare": 0.02,
    "gpu.throttledShare": 0.0,
    "gpu.memoryShare": 0.6,
    "gpu.powerShare": 0.8,
}
HEALTHY_TRAINING = CONTAINER | {
    "training.samplesPerSecond": 100.0,
    "training.stepSeconds": 0.30,
    "training.dataShare": 0.05,
    "training.computeShare": 0.85,
    "training.collectiveShare": 0.08,
    "training.checkpointShare": 0.02,
    "training.microBatch": 32.0,
    "training.lowPrecisionShare": 1.0,
    "training.stragglerRatio": 1.05,
    "training.stragglerRank": 1.0,
    "training.cpuShare": 0.9,
    "training.sinceStepSeconds": 0.2,
    "training.usualStepSeconds": 0.3,
    "training.longPhase": 0.0,
    "training.restarts": 0.0,
    "training.stepSlowdown": 1.0,
    "dataLoader.workers": 2.0,
    "loader.cpuShare": 0.4,
    "loader.runQueueShare": 0.05,
    "loader.blockedShare": 0.55,
    "loader.readBytesPerSecond": 1e6,
    "hardware.bf16": 1.0,
}
HEALTHY_SERVING = CONTAINER | {
    "inference.latency": 0.15,
    "inference.errorRate": 0.0,
    "inference.arrivalRate": 5.0,
    "inference.queueShare": 0.25,
    "inference.queueSeconds": 0.03,
    "inference.queued": 0.2,
    "inference.serviceSeconds": 0.08,
    "inference.occupancy": 0.4,
    "inference.dependencyShare": 0.05,
    "inference.dependencySeconds": 0.005,
    "inference.restShare": 0.02,
    "inference.batchSize": 1.0,
    "inference.batchLimit": 1.0,
    "inference.uptimeSeconds": 3600.0,
    "inference.firstServiceRatio": 2.0,
    "inference.firstServiceSeconds": 0.2,
    "inference.latencySlowdown": 1.0,
    "inference.serviceSlowdown": 1.0,
    "inference.dependencySlowdown": 1.0,
    "inference.loadRatio": 1.0,
    "inference.retryShare": 0.0,
}
FACTS = {
    "pods.unschedulable": 0.0,
    "pods.quotaRefused": 0.0,
    "pods.oomKilled": 0.0,
    "pods.restarts": 0.0,
    "pods.notReady": 0.0,
    "replicas.desired": 2.0,
}
UNITS = {
    "Seconds": "s",
    "Cores": "cores",
    "samplesPerSecond": "samples/s",
    "BytesPerSecond": "bytes/s",
    "arrivalRate": "requests/s",
    "latency": "s",
    "workers": "workers",
    "oomKills": "kills",
    "microBatch": "samples",
}
POLICY = {
    TRAINING: Objectives.model_validate({"goodput": {"min": "500"}}),
    SERVING: Objectives.model_validate({"latency": {"percentile": 95, "target": "250ms"}}),
}


def reading(name: str, value: float, source: str = "sidecar") -> Reading:
    unit = next((unit for end, unit in UNITS.items() if name.endswith(end)), "")
    return Reading(value, unit, 10.0, "mean", 0.0, source)


def seen(
    kind: WorkloadType,
    changes: dict[str, float | None],
    replicas: tuple[dict[str, float], ...] = (),
) -> tuple[Observation, dict[str, Signal]]:
    """A healthy workload with some figures changed; None takes one away."""
    healthy = HEALTHY_TRAINING if kind is TRAINING else HEALTHY_SERVING
    wanted = healthy | changes
    signals: dict[str, Signal] = {n: reading(n, v) for n, v in wanted.items() if v is not None}
    facts: dict[str, Signal] = {
        name: reading(name, value, "API server")
        for name, value in (FACTS | changes).items()
        if name.startswith(("pods.", "change.", "replicas.")) and value is not None
    }
    signals = {name: signal for name, signal in signals.items() if name not in facts}
    pods = tuple(
        Replica(f"pod-{i}", {n: reading(n, v) for n, v in each.items()})
        for i, each in enumerate(replicas)
    )
    return Observation(NOW, kind, signals, pods, (), 1, 1, NOW), facts


def find(
    kind: WorkloadType,
    changes: dict[str, Any],
    objectives: Objectives | None = None,
    replicas: tuple[dict[str, float], ...] = (),
    texts: dict[str, str] | None = None,
) -> Diagnosis:
    observation, facts = seen(kind, changes, replicas)
    return diagnose(observation, objectives, facts, texts)


def ids(diagnosis: Diagnosis) -> list[str]:
    return [cause.id for cause in diagnosis.causes]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (TRAINING, {}),
        (SERVING, {}),
        (TRAINING, {"training.dataShare": 0.10, "dataLoader.workers": 0.0}),
        (TRAINING, {"training.dataShare": 0.4, "training.stepSeconds": 0.005}),
        (TRAINING, {"training.sinceStepSeconds": 60.0, "training.longPhase": 1.0}),
        (TRAINING, {"training.sinceStepSeconds": 60.0, "training.usualStepSeconds": 20.0}),
        (TRAINING, {"training.sinceStepSeconds": 9.0, "training.usualStepSeconds": 0.01}),
        (TRAINING, {"node.busyShare": 1.0, "node.othersShare": 0.5, "cpu.pressureShare": 0.2}),
        (TRAINING, {"cpu.runQueueShare": 0.4, "node.busyShare": 1.0, "node.othersShare": 0.05}),
        (TRAINING, {"cpu.throttledShare": 0.6, "cpu.throttledTimeShare": 0.03}),
        (TRAINING, {"memory.usedShare": 0.97}),
        (TRAINING, {"memory.limitHitsPerSecond": 50.0, "memory.usedShare": 0.7}),
        (TRAINING, {"training.collectiveShare": 0.35, "training.stepSeconds": 0.02}),
        (TRAINING, {"training.stragglerRatio": 1.5, "training.collectiveShare": 0.05}),
        (TRAINING, {"training.lowPrecisionShare": 0.0}),
        (TRAINING, {"training.microBatch": 1.0, "training.stepSeconds": 0.002}),
        (TRAINING, {"gpu.memoryShare": 0.92}),
        (SERVING, {"gpu.memoryShare": 0.97}),
        (SERVING, {"inference.queueShare": 0.75, "inference.occupancy": 0.75}),
        (SERVING, {"inference.queueShare": 0.9, "inference.occupancy": 0.5}),
        (SERVING, {"inference.dependencyShare": 0.6}),
        (SERVING, {"inference.dependencyShare": 0.8, "inference.dependencySeconds": 0.01}),
        (SERVING, {"inference.uptimeSeconds": 20.0, "inference.firstServiceRatio": 9.0}),
        (SERVING, {"inference.batchSize": 6.0, "inference.batchLimit": 8.0}),
        (
            SERVING,
            {
                "inference.batchLimit": 8.0,
                "inference.queueShare": 0.6,
                "inference.queueSeconds": 0.005,
            },
        ),
        (SERVING, {"inference.serviceSlowdown": 1.3, "inference.loadRatio": 2.0}),
        (SERVING, {"inference.errorRate": 0.04}),
        (SERVING, {"change.precedes": 1.0, "change.ageSeconds": 60.0}),
        (SERVING, {"pods.unschedulable": 1.0, "pods.unschedulableSeconds": 5.0}),
        (SERVING, {"pods.notReady": 1.0, "inference.uptimeSeconds": 10.0}),
    ],
    ids=str,
)
def test_nothing_is_named_on_a_healthy_workload(
    kind: WorkloadType, changes: dict[str, float]
) -> None:
    diagnosis = find(kind, changes)
    assert diagnosis.known
    assert (diagnosis.causes, diagnosis.symptom, diagnosis.whys) == ((), None, ())
    assert diagnosis.fault_tree is not None
    assert diagnosis.fault_tree.state != "Confirmed"


# -- each cause, where it is and where it is not ---------------------------------------------------

DATA = {"training.dataShare": 0.6, "training.computeShare": 0.35}
WAITING = {"inference.queueShare": 0.9, "inference.occupancy": 0.95, "inference.latency": 0.9}
CHANGED = {"change.precedes": 1.0, "change.ageSeconds": 90.0}
SLOW_STORAGE = DATA | {"loader.cpuShare": 0.1, "loader.runQueueShare": 0.0}
OVERSUBSCRIBED = {
    "cpu.runQueueShare": 0.5,
    "node.busyShare": 0.99,
    "node.othersShare": 0.6,
    "pods.withoutRequests": 1.0,
}
MEMORY = {
    "memory.usedShare": 0.97,
    "memory.pressureShare": 0.3,
    "memory.majorFaultsPerSecond": 200.0,
    "memory.limitHitsPerSecond": 20.0,
}

Case = tuple[WorkloadType, dict[str, Any], dict[str, Any]]

CASES_BY_CAUSE: dict[str, list[Case]] = {
    # id: (workload, figures with which it is the first cause, figures with which it is not found)
    "hang": [
        (
            TRAINING,
            {"training.sinceStepSeconds": 40.0, "cpu.usedCores": 0.01},
            {"training.longPhase": 1.0},
        ),
        (
            TRAINING,
            {"training.sinceStepSeconds": 10.0, "training.usualStepSeconds": 0.5},
            {"training.sinceStepSeconds": 9.9},
        ),
    ],
    "straggler-rank": [
        (
            TRAINING,
            {"training.stragglerRatio": 1.8, "training.collectiveShare": 0.5},
            {"training.stragglerRatio": 1.3, "training.collectiveShare": 0.2},
        ),
    ],
    "slow-storage": [
        (TRAINING, SLOW_STORAGE | {"loader.blockedShare": 0.9}, {"loader.blockedShare": 0.49}),
        (
            TRAINING,
            SLOW_STORAGE
            | {"loader.blockedShare": 0.9, "dataLoader.workers": 0.0, "io.pressureShare": 0.5},
            {"loader.blockedShare": 0.05},
        ),
    ],
    "loader-without-workers": [
        (
            TRAINING,
            DATA | {"dataLoader.workers": 0.0, "loader.cpuShare": 0.95, "loader.blockedShare": 0.0},
            {"training.dataShare": 0.19},
        ),
    ],
    "cpu-heavy-preprocessing": [
        (
            TRAINING,
            DATA | {"loader.cpuShare": 0.8, "loader.blockedShare": 0.1, "cpu.usedCores": 3.9},
            {"training.dataShare": 0.19},
        ),
        (
            TRAINING,
            DATA
            | {"loader.cpuShare": 0.4, "loader.runQueueShare": 0.5, "loader.blockedShare": 0.1},
            {"loader.blockedShare": None},
        ),
    ],
    "checkpoint-stalls": [
        (
            TRAINING,
            {"training.checkpointShare": 0.3, "io.pressureShare": 0.4},
            {"training.checkpointShare": 0.049},
        ),
    ],
    "communication-bound": [
        (TRAINING, {"training.collectiveShare": 0.5}, {"training.collectiveShare": 0.29}),
        (
            TRAINING,
            {"training.collectiveShare": 0.5, "training.collectiveFloorShare": 0.45},
            {"training.collectiveFloorShare": 0.25, "training.stragglerRatio": 1.6},
        ),
        (TRAINING, {"training.collectiveShare": 0.5}, {"training.collectiveFloorShare": 0.1}),
    ],
    "host-bound": [
        (
            TRAINING,
            {"training.microBatch": 2.0, "training.stepSeconds": 0.004},
            {"training.microBatch": 64.0},
        ),
        (TRAINING, {"gpu.utilization": 0.2}, {"gpu.utilization": 0.9}),
    ],
    "precision-unused": [
        (TRAINING, {"training.lowPrecisionShare": 0.0}, {"hardware.bf16": 0.0}),
    ],
    "memory-bandwidth-bound": [
        (TRAINING, {"gpu.dramActive": 0.8, "gpu.smActive": 0.3}, {"gpu.smActive": 0.7}),
    ],
    "compute-bound": [
        (TRAINING, {}, {"training.computeShare": 0.5}),
        (
            TRAINING,
            {"training.computeShare": None, "gpu.tensorActive": 0.6, "gpu.smActive": 0.8},
            {"gpu.tensorActive": 0.2},
        ),
    ],
    "unschedulable": [
        (
            SERVING,
            {"pods.unschedulable": 1.0, "pods.unschedulableSeconds": 90.0},
            {"pods.unschedulable": 0.0},
        ),
        (ANY, {"pods.quotaRefused": 2.0}, {"pods.quotaRefused": 0.0}),
    ],
    "oom-loop": [
        (TRAINING, {"memory.oomKills": 1.0, "memory.usedShare": 0.95}, {"memory.oomKills": 0.0}),
        (SERVING, {"pods.oomKilled": 1.0}, {"pods.oomKilled": 0.0}),
        (
            TRAINING,
            {"training.restarts": 3.0, "memory.usedShare": 0.95},
            {"memory.usedShare": 0.5},
        ),
    ],
    "crash-loop": [(ANY, {"pods.crashLooping": 1.0}, {"pods.crashLooping": 0.0})],
    "cpu-throttled": [
        (
            TRAINING,
            DATA
            | {"cpu.throttledShare": 0.9, "cpu.throttledTimeShare": 0.6, "cpu.usedCores": 1.0}
            | {"cpu.availableCores": 1.0, "loader.blockedShare": 0.1, "cpu.runQueueShare": 0.6},
            {"cpu.throttledShare": 0.24, "cpu.throttledTimeShare": 0.24},
        ),
        (
            SERVING,
            WAITING | {"cpu.throttledShare": 0.9, "cpu.throttledTimeShare": None},
            {"cpu.throttledShare": 0.1},
        ),
    ],
    "memory-pressure": [
        (TRAINING, MEMORY, {"memory.usedShare": 0.89}),
        (
            TRAINING,
            MEMORY | {"memory.pressureShare": None, "memory.majorFaultsPerSecond": None},
            {"memory.limitHitsPerSecond": 0.0},
        ),
    ],
    "node-oversubscribed": [
        (TRAINING, OVERSUBSCRIBED, {"node.othersShare": 0.2}),
        (SERVING, WAITING | OVERSUBSCRIBED | {"cpu.usedCores": 0.5}, {"cpu.runQueueShare": 0.1}),
        (
            TRAINING,
            OVERSUBSCRIBED | {"cpu.runQueueShare": None, "cpu.pressureShare": 0.7},
            {"cpu.pressureShare": 0.2},
        ),
    ],
    "gpu-throttled": [
        (TRAINING, {"gpu.throttledShare": 0.7}, {"gpu.throttledShare": 0.1}),
    ],
    "gpu-memory-full": [
        (TRAINING, {"gpu.memoryShare": 0.98, "training.restarts": 1.0}, {"gpu.memoryShare": 0.89}),
        (TRAINING, {"gpu.memoryShare": 0.96}, {"gpu.memoryShare": 0.94}),
    ],
    "recent-change": [
        (TRAINING, CHANGED | {"training.stepSlowdown": 1.5}, {"change.precedes": 0.0}),
        (SERVING, CHANGED | {"inference.errorRate": 0.3}, {"inference.errorRate": 0.0}),
        (
            SERVING,
            CHANGED
            | WAITING
            | {"inference.serviceSlowdown": 1.6, "inference.latencySlowdown": 3.0},
            {"inference.serviceSlowdown": 1.0, "inference.latencySlowdown": 1.1},
        ),
    ],
    "drift": [
        (
            TRAINING,
            {"training.stepSlowdown": 1.3, "pods.unpinnedImage": 1.0},
            {"training.stepSlowdown": 1.19},
        ),
        (
            SERVING,
            WAITING | {"inference.serviceSlowdown": 1.4},
            {"inference.loadRatio": 1.6},
        ),
    ],
    "error-burst": [
        (
            SERVING,
            {"inference.errorRate": 0.3, "inference.retryShare": 0.4},
            {"inference.errorRate": 0.05},
        ),
    ],
    "slow-dependency": [
        (
            SERVING,
            {
                "inference.dependencyShare": 0.8,
                "inference.latency": 0.9,
                "inference.dependencySlowdown": 3.0,
                "inference.restShare": 0.5,
            },
            {"inference.dependencyShare": 0.3, "inference.restShare": 0.1},
        ),
        (
            SERVING,
            {
                "inference.dependencyShare": None,
                "inference.restShare": 0.7,
                "inference.latencySlowdown": 2.0,
            },
            {"inference.serviceSlowdown": 1.6},
        ),
    ],
    "cold-start": [
        (
            SERVING,
            {
                "inference.uptimeSeconds": 30.0,
                "inference.firstServiceRatio": 40.0,
                "inference.firstServiceSeconds": 3.0,
                "pods.notReady": 1.0,
                "pods.withoutProbe": 1.0,
            },
            {"inference.uptimeSeconds": 130.0},
        ),
        (
            SERVING,
            {
                "inference.uptimeSeconds": 30.0,
                "inference.latencySlowdown": 2.0,
                "pods.notReady": 1.0,
            },
            {"pods.notReady": 0.0},
        ),
    ],
    "queueing": [
        (
            SERVING,
            WAITING | {"inference.loadRatio": 3.0, "replicas.unowned": 1.0},
            {"inference.queueShare": 0.49},
        ),
        (SERVING, WAITING | {"inference.latencySlowdown": 3.0}, {"inference.occupancy": 0.6}),
        (
            SERVING,
            WAITING
            | {
                "inference.occupancy": None,
                "inference.queued": 6.0,
                "inference.latencySlowdown": 2.0,
            },
            {"inference.batchLimit": 16.0},
        ),
    ],
    "batching-delay": [
        (
            SERVING,
            {
                "inference.queueShare": 0.8,
                "inference.queueSeconds": 0.2,
                "inference.batchLimit": 16.0,
                "inference.batchSize": 1.5,
                "inference.batchDelaySeconds": 0.25,
            },
            {"inference.occupancy": 0.8},
        ),
    ],
    "batch-too-large": [
        (
            SERVING,
            {
                "inference.batchSize": 16.0,
                "inference.batchLimit": 16.0,
                "inference.serviceSeconds": 0.4,
                "inference.latency": 0.6,
            },
            {"inference.batchSize": 1.0},
        ),
    ],
    "slow-model": [
        (
            SERVING,
            {"inference.serviceSeconds": 0.4, "inference.latency": 0.6},
            {"inference.serviceSeconds": 0.1},
        ),
        (
            SERVING,
            {
                "inference.serviceSeconds": 0.2,
                "inference.latency": 0.3,
                "inference.queueShare": 0.1,
            },
            {"inference.queueShare": 0.4},
        ),
    ],
}
WITH_CASE = [
    pytest.param(id, *case, id=f"{id}-{number}")
    for id, cases in CASES_BY_CAUSE.items()
    for number, case in enumerate(cases)
]
NEEDS_POLICY = {"host-bound", "precision-unused", "memory-bandwidth-bound", "compute-bound"} | {
    "slow-model",
    "batch-too-large",
}
"""Found only with an objective: constraints of any healthy workload, and what a target tells."""


def objectives_for(id: str, kind: WorkloadType) -> Objectives | None:
    return POLICY[kind] if id in NEEDS_POLICY else None


def test_every_cause_has_a_case() -> None:
    assert set(CASES_BY_CAUSE) == set(BY_ID)


@pytest.mark.parametrize(("id", "kind", "changes", "healed"), WITH_CASE)
def test_a_cause_comes_first_where_it_is(
    id: str, kind: WorkloadType, changes: dict[str, Any], healed: dict[str, Any]
) -> None:
    diagnosis = find(kind, changes, objectives_for(id, kind))
    assert ids(diagnosis)[:1] == [id]
    assert diagnosis.symptom is not None
    assert 0 < diagnosis.causes[0].confidence <= 1


@pytest.mark.parametrize(("id", "kind", "changes", "healed"), WITH_CASE)
def test_a_cause_is_not_found_on_the_other_side(
    id: str, kind: WorkloadType, changes: dict[str, Any], healed: dict[str, Any]
) -> None:
    assert id not in ids(find(kind, changes | healed, objectives_for(id, kind)))


@pytest.mark.parametrize("id", sorted(CASES_BY_CAUSE))
def test_every_line_of_a_chain_is_told_in_some_case(id: str) -> None:
    texts = {
        "pods.crashLooping": "error",
        "pods.unschedulable": "0/1 nodes",
        "pods.quotaRefused": "exceeded quota",
    }
    texts["change.ageSeconds"] = "image v2 by kubectl"
    told = [
        line
        for kind, changes, _ in CASES_BY_CAUSE[id]
        for line in (find(kind, changes, objectives_for(id, kind), texts=texts).whys)
    ]
    for why in BY_ID[id].whys:
        pattern = re.sub(r"\\\{.+?\\\}", ".+", re.escape(why.text))
        assert any(re.search(pattern, line, re.IGNORECASE) for line in told), why.text


@pytest.mark.parametrize("id", sorted(id for id in BY_ID if BY_ID[id].needs_breach))
def test_what_limits_every_healthy_workload_needs_a_breached_objective(id: str) -> None:
    for kind, changes, _ in CASES_BY_CAUSE[id]:
        assert id not in ids(find(kind, changes))


def test_without_a_policy_a_fault_is_its_own_symptom() -> None:
    diagnosis = find(*CASES_BY_CAUSE["checkpoint-stalls"][0][:2])
    assert diagnosis.symptom is not None
    assert diagnosis.symptom.text == (
        "30% of the time goes into writing checkpoints, and no step runs meanwhile"
    )
    assert diagnosis.symptom.evidence.signal == "training.checkpointShare"
    assert diagnosis.whys[0] == diagnosis.symptom.text


# -- which explains which --------------------------------------------------------------------------


def test_what_a_cause_explains_stands_right_behind_it() -> None:
    (kind, changes, _), *_ = CASES_BY_CAUSE["cpu-throttled"]
    more = changes | {"training.checkpointShare": 0.4}
    diagnosis = find(kind, more)
    assert ids(diagnosis) == ["cpu-throttled", "cpu-heavy-preprocessing", "checkpoint-stalls"]
    assert diagnosis.runner_up == ""


def test_two_causes_that_have_nothing_to_do_with_each_other_are_ranked_by_what_they_cost() -> None:
    storage = SLOW_STORAGE | {"loader.blockedShare": 0.9}
    diagnosis = find(TRAINING, storage | {"training.checkpointShare": 0.4})
    assert ids(diagnosis) == ["slow-storage", "checkpoint-stalls"]
    assert diagnosis.runner_up == "checkpoint-stalls"
    less = find(TRAINING, storage | {"training.checkpointShare": 0.4, "training.dataShare": 0.3})
    assert ids(less) == ["checkpoint-stalls", "slow-storage"]


def test_a_close_runner_up_makes_the_first_less_sure() -> None:
    storage = SLOW_STORAGE | {"loader.blockedShare": 0.9}
    alone, close = (
        find(TRAINING, storage | {"training.checkpointShare": share}).causes[0].confidence
        for share in (0.2, 0.55)
    )
    assert close < alone


def test_what_was_not_measured_makes_a_cause_less_sure() -> None:
    case = {"training.sinceStepSeconds": 40.0}
    assert find(TRAINING, case).causes[0].confidence > (
        find(TRAINING, case | {"training.longPhase": None}).causes[0].confidence
    )


def test_a_loader_without_workers_that_waits_for_storage_is_not_the_root() -> None:
    diagnosis = find(*CASES_BY_CAUSE["slow-storage"][1][:2])
    assert ids(diagnosis) == ["slow-storage", "loader-without-workers"]
    assert "dataLoader.workers is 0" in diagnosis.whys[1]
    assert "blocked" in diagnosis.whys[2]


def test_a_straggler_costs_what_it_adds_to_the_step() -> None:
    slow = {"training.stragglerRatio": 1.5, "training.collectiveShare": 0.7}
    exchange = find(TRAINING, slow | {"training.collectiveFloorShare": 0.6})
    assert ids(exchange) == ["communication-bound", "straggler-rank"]
    assert [round(cause.share, 2) for cause in exchange.causes] == [0.6, 0.13]
    assert ids(find(TRAINING, slow | {"training.collectiveFloorShare": 0.05})) == ["straggler-rank"]


@pytest.mark.parametrize(
    ("throttled", "first", "second"),
    [
        ((0.9, 0.0), "straggler-rank", "cpu-throttled"),
        ((0.9, 0.9), "cpu-throttled", "straggler-rank"),
    ],
    ids=["one rank's pod", "all of them"],
)
def test_a_throttled_rank_is_a_straggler_and_throttled_ranks_are_throttled(
    throttled: tuple[float, ...], first: str, second: str
) -> None:
    slow = {"training.stragglerRatio": 2.0, "training.collectiveShare": 0.5}
    limit = {"cpu.throttledShare": 0.5, "cpu.throttledTimeShare": 0.5}
    replicas = tuple({"cpu.throttledShare": share} for share in throttled)
    diagnosis = find(TRAINING, slow | limit, replicas=replicas)
    assert ids(diagnosis)[:2] == [first, second]
    assert any("the kernel stopped it" in line for line in diagnosis.whys)


def test_a_small_shortage_does_not_explain_a_big_wait() -> None:
    starved = DATA | {"dataLoader.workers": 0.0, "loader.blockedShare": 0.0}
    little = starved | OVERSUBSCRIBED | {"cpu.runQueueShare": 0.16}
    assert ids(find(TRAINING, little))[0] == "loader-without-workers"
    computing = starved | OVERSUBSCRIBED | {"loader.runQueueShare": 0.3}
    assert ids(find(TRAINING, computing))[0] == "loader-without-workers"
    much = starved | OVERSUBSCRIBED | {"loader.runQueueShare": 0.6}
    assert ids(find(TRAINING, much))[0] == "node-oversubscribed"


@pytest.mark.parametrize(
    ("cpus", "used", "causes"),
    [(2.0, 0.95, []), (4.0, 1.2, ["node-oversubscribed"]), (2.0, 1.2, ["node-oversubscribed"])],
    ids=["two ranks on one node", "and others beside them", "more than one node gives"],
)
def test_replicas_on_one_node_are_not_strangers(
    cpus: float, used: float, causes: list[str]
) -> None:
    others = cpus - used
    node = {"node.othersCores": others, "node.othersShare": others / cpus, "cpu.usedCores": used}
    full = node | {"cpu.runQueueShare": 0.4, "node.busyShare": 1.0}
    assert ids(find(TRAINING, full, replicas=(node, node))) == causes


def test_many_threads_that_wait_a_little_are_not_one_that_waits_long() -> None:
    full = OVERSUBSCRIBED | {"cpu.runQueueShare": 0.5, "cpu.pressureShare": 0.5}
    assert ids(find(SERVING, full | {"cpu.usedCores": 6.0})) == []
    assert ids(find(SERVING, full | {"cpu.usedCores": 0.5})) == ["node-oversubscribed"]


def test_a_little_contention_does_not_explain_a_server_that_is_far_too_busy() -> None:
    short, long = (
        find(SERVING, WAITING | OVERSUBSCRIBED | {"cpu.runQueueShare": share, "cpu.usedCores": 0.5})
        for share in (0.2, 0.5)
    )
    assert ids(short)[0] == "queueing"
    assert ids(long)[0] == "node-oversubscribed"


def test_a_run_queue_behind_a_limit_is_not_the_node_s() -> None:
    throttled = OVERSUBSCRIBED | {"cpu.throttledShare": 0.9, "cpu.throttledTimeShare": 0.45}
    assert ids(find(TRAINING, throttled)) == ["cpu-throttled"]


def test_a_change_is_the_last_why_of_what_it_brought_about() -> None:
    changes = CHANGED | {"training.checkpointShare": 0.4, "training.stepSlowdown": 1.6}
    diagnosis = find(TRAINING, changes, texts={"change.ageSeconds": "image v2 by kubectl"})
    assert ids(diagnosis) == ["checkpoint-stalls", "recent-change", "drift"]
    assert diagnosis.whys[-1] == "Because the change was: image v2 by kubectl"


def test_failures_come_first_where_failures_are_the_objective() -> None:
    both = WAITING | {"inference.errorRate": 0.1, "inference.latencySlowdown": 3.0}
    errors = Objectives.model_validate({"errorRate": {"max": "1%"}})
    assert ids(find(SERVING, both, errors))[0] == "error-burst"
    assert ids(find(SERVING, both, POLICY[SERVING]))[0] == "queueing"


def test_a_slow_model_alone_is_no_reason_for_more_replicas() -> None:
    slow = WAITING | {"inference.serviceSeconds": 0.3}
    assert "queueing" not in ids(find(SERVING, slow, POLICY[SERVING]))


# -- objectives ------------------------------------------------------------------------------------


def test_a_hang_breaches_every_objective_of_training() -> None:
    goals = Objectives.model_validate(
        {"goodput": {"min": "10"}, "dataWait": {"max": "20%"}, "stepTime": {"maxRegression": "20%"}}
    )
    hung = {"training.sinceStepSeconds": 40.0, "training.samplesPerSecond": None}
    diagnosis = find(TRAINING, hung, goals)
    assert [(s.name, s.current, s.met) for s in diagnosis.objectives] == [
        ("Goodput", "0 samples/s", False),
        ("DataWait", "no steps", False),
        ("StepTime", "no steps", False),
    ]
    assert ids(diagnosis)[0] == "hang"
    assert diagnosis.symptom is not None
    assert diagnosis.symptom.objective == "Goodput"
    assert "no step has ended for 40.0 s" in diagnosis.whys[0].lower()


@pytest.mark.parametrize("id", ["unschedulable", "oom-loop"])
def test_a_workload_that_cannot_run_breaches_any_policy(id: str) -> None:
    kind, changes, _ = next(case for case in CASES_BY_CAUSE[id] if case[0] is SERVING)
    diagnosis = find(kind, changes, POLICY[SERVING])
    assert [(s.name, s.met) for s in diagnosis.objectives] == [
        ("Running", False),
        ("Latency", True),
    ]
    assert ids(diagnosis)[0] == id


def test_without_telemetry_the_cluster_alone_can_tell_that_nothing_runs() -> None:
    observation = Observation(NOW, ANY, {}, (), (), 1, 0)
    facts: dict[str, Signal] = {
        name: reading(name, value, "API server")
        for name, value in {"pods.unschedulable": 1.0, "pods.unschedulableSeconds": 60.0}.items()
    }
    diagnosis = diagnose(observation, POLICY[TRAINING], facts)
    assert ids(diagnosis) == ["unschedulable"]


def test_a_step_time_without_a_baseline_does_not_leave_the_others_unknown() -> None:
    goals = {"stepTime": {"maxRegression": "20%"}}
    unlearnt = {"training.stepSlowdown": None}
    alone = find(TRAINING, unlearnt, Objectives.model_validate(goals))
    assert (alone.known, alone.objectives[0].met) == (False, None)
    beside = Objectives.model_validate(goals | {"dataWait": {"max": "20%"}})
    assert find(TRAINING, unlearnt, beside).known
    assert not find(TRAINING, unlearnt | {"training.dataShare": None}, beside).known


@pytest.mark.parametrize(
    ("slowdown", "met"), [(1.2, True), (1.21, False)], ids=["at the limit", "over it"]
)
def test_a_step_time_is_held_against_the_baseline(slowdown: float, met: bool) -> None:
    goals = Objectives.model_validate({"stepTime": {"maxRegression": "20%"}})
    (state,) = find(TRAINING, {"training.stepSlowdown": slowdown}, goals).objectives
    assert (state.met, state.target) == (met, "≤ 1.20 times")


@pytest.mark.parametrize(
    ("device", "signals", "current", "met"),
    [
        ("GPU", {"gpu.utilization": 0.3}, "30%", False),
        ("GPU", {"gpu.utilization": 0.95}, "95%", False),
        ("GPU", {"gpu.utilization": 0.6}, "60%", True),
        ("GPU", {}, "no data", None),
        ("CPU", {"cpu.usedCores": 1.0}, "25%", False),
        ("CPU", {"cpu.busyShare": 0.5}, "50%", True),
        ("CPU", {"cpu.usedCores": None}, "no data", None),
    ],
)
def test_a_utilization_has_two_sides(
    device: str, signals: dict[str, float], current: str, met: bool | None
) -> None:
    goals = Objectives.model_validate({"utilization": {"device": device, "min": 40, "max": 90}})
    (state,) = find(TRAINING, signals, goals).objectives
    assert (state.current, state.met) == (current, met)
    assert (state.symptom is not None) is (met is False)


# -- the pictures ----------------------------------------------------------------------------------


def test_the_pictures_show_every_hypothesis_that_was_tried() -> None:
    kind, changes, _ = CASES_BY_CAUSE["slow-storage"][0]
    diagnosis = find(kind, changes | {"training.checkpointShare": None})
    bone, tree = diagnosis.fishbone, diagnosis.fault_tree
    assert bone is not None
    assert tree is not None
    assert list(bone.bones) == list(CATEGORIES)
    assert [stage.id for stage in tree.stages] == list(STAGES)
    tried = {entry.id for entry in CATALOGUE if entry.workload in (TRAINING, ANY)}
    bones = {each.id: each for bones in bone.bones.values() for each in bones}
    causes = {each.id: each for stage in tree.stages for each in stage.causes}
    gaps = {gap.id for gap in GAPS}
    assert set(causes) == tried
    assert set(bones) == tried | gaps
    assert bone.effect == tree.top == "60% of each step waits for input"
    assert {id for id, each in bones.items() if each.state == "Confirmed"} == {"slow-storage"}
    assert bones["no-probe"].state == "NoData"
    assert bones["host-bound"].state == "RuledOut"
    assert bones["checkpoint-stalls"].state == "NoData"
    assert all(each.reason for each in bones.values())
    assert tree.stages[0].state == tree.state == "Confirmed"


def test_what_people_left_out_is_a_bone_and_no_cause() -> None:
    diagnosis = find(SERVING, {"pods.withoutProbe": 2.0, "pods.withoutLimits": 0.0})
    assert diagnosis.fishbone is not None
    people = {bone.id: bone for bone in diagnosis.fishbone.bones["People"]}
    assert people["no-probe"].state == "Confirmed"
    assert people["no-limits"].state == "RuledOut"
    assert (diagnosis.causes, diagnosis.symptom) == ((), None)


def test_an_and_gate_agrees_with_its_conditions() -> None:
    for kind, changes, _ in (case for cases in CASES_BY_CAUSE.values() for case in cases):
        tree = find(kind, changes).fault_tree
        assert tree is not None
        for cause in (cause for stage in tree.stages for cause in stage.causes):
            holds = [condition.holds for condition in cause.conditions]
            state = "RuledOut" if False in holds else "NoData" if None in holds else "Confirmed"
            assert cause.state == state, cause


def test_the_document_has_every_key_and_says_null_for_what_is_not_known() -> None:
    healthy = diagnosis_document(find(TRAINING, {}))
    assert list(healthy) == [
        "symptom",
        "causes",
        "ruledOut",
        "whys",
        "runnerUp",
        "fishbone",
        "faultTree",
    ]
    assert (healthy["symptom"], healthy["causes"], healthy["whys"]) == (None, [], [])
    causes = [cause for stage in healthy["faultTree"]["stages"] for cause in stage["causes"]]
    assert any(each["holds"] is None for cause in causes for each in cause["conditions"])
    (cause,) = diagnosis_document(find(TRAINING, {"training.checkpointShare": 0.3}))["causes"]
    described = ["id", "class", "category", "title", "share", "confidence", "evidence"]
    assert list(cause) == [*described, "explainedBy"]
    assert set(cause["evidence"][0]) >= {
        "signal",
        "window",
        "statistic",
        "value",
        "threshold",
        "source",
    }


# -- the catalogue itself --------------------------------------------------------------------------


def conditions(entry: CauseEntry) -> Iterator[Condition]:
    yield from entry.predicates
    yield from (veto.condition for veto in entry.vetoes)
    yield from (edge.when for edge in entry.explains if edge.when is not None)
    yield from (why.when for why in entry.whys if why.when is not None)


def tried_by(entry: CauseEntry) -> list[Predicate]:
    return [each for condition in conditions(entry) for each in predicates(condition)]


def known_signals() -> set[str]:
    named = set(re.findall(r"^\| `([\w.]+)` \|", (DOCS / "signals.md").read_text(), re.M))
    return named | DERIVED


def test_every_cause_has_its_own_id() -> None:
    assert len(BY_ID) == len(CATALOGUE) >= 26


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.id)
def test_a_catalogue_entry_is_complete(entry: CauseEntry) -> None:
    assert entry.predicates
    assert entry.whys
    assert entry.title
    assert entry.category in CATEGORIES
    assert entry.stage in STAGES
    assert set(entry.remedies) <= set(REMEDIES)
    assert entry.advice, "people need to know what they can do"
    for predicate in tried_by(entry):
        assert predicate.source, predicate
        assert predicate.op in (">=", ">", "<")
    assert all(veto.reason for veto in entry.vetoes)
    assert {edge.id for edge in entry.explains} <= set(BY_ID) | {effect.id for effect in EFFECTS}


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.id)
def test_a_line_of_a_chain_cites_the_figures_that_it_tells(entry: CauseEntry) -> None:
    for why in entry.whys:
        assert set(figure_names(why.text)) <= set(why.signals), why.text
        assert why.signals or "{text:" in why.text, f"nothing is behind it: {why.text}"


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.id)
def test_a_catalogue_entry_names_signals_that_are_explained(entry: CauseEntry) -> None:
    named = {predicate.signal for predicate in tried_by(entry)}
    named |= {p.threshold for p in tried_by(entry) if isinstance(p.threshold, str)}
    named |= {signal for why in entry.whys for signal in why.signals}
    named |= set(re.findall(r"`([a-zA-Z]+\.\w+)`", entry.share.text))
    assert named <= known_signals()


def test_no_cause_explains_itself_over_any_way() -> None:
    """But for the two that take turns: then one number decides, and only one direction holds."""
    graph = {entry.id: [edge for edge in edges(entry) if edge.id in BY_ID] for entry in CATALOGUE}
    turns = {("straggler-rank", "cpu-throttled"), ("straggler-rank", "node-oversubscribed")}
    for deep, shallow in turns:
        (down,) = [edge.when for edge in graph[deep] if edge.id == shallow]
        (up,) = [edge.when for edge in graph[shallow] if edge.id == deep]
        assert isinstance(down, Predicate)
        assert isinstance(up, Predicate)
        assert (down.signal, down.op, up.op) == (up.signal, "<", ">=")
        assert down.threshold == up.threshold

    def reach(id: str, over: tuple[str, ...]) -> None:
        assert id not in over, (*over, id)
        for edge in graph[id]:
            if (id, edge.id) not in turns:
                reach(edge.id, (*over, id))

    for id in graph:
        reach(id, ())


# -- properties ------------------------------------------------------------------------------------

NAMES = sorted(
    {p.signal for e in CATALOGUE for p in tried_by(e)} | set(HEALTHY_SERVING) | set(FACTS)
)
VALUES = st.one_of(st.floats(0, 2), st.floats(0, 2.0**63), st.sampled_from([0.0, 1.0, 100.0]))
ANY_SIGNAL = st.one_of(
    st.builds(NoData, st.text(max_size=5)),
    st.builds(
        Reading,
        VALUES,
        st.sampled_from(["", "s", "cores", "samples/s", "bytes/s"]),
        st.floats(0, 600),
        st.sampled_from(["mean", "p95"]),
        st.floats(0, 60),
        st.just("sidecar"),
    ),
)
ANY_SIGNALS = st.dictionaries(st.sampled_from(NAMES), ANY_SIGNAL, max_size=60)
ANY_OBJECTIVES = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {},
        optional={
            "latency": st.just({"target": "250ms"}),
            "errorRate": st.just({"max": "1%"}),
            "goodput": st.just({"min": "500"}),
            "dataWait": st.just({"max": "20%"}),
            "stepTime": st.just({"maxRegression": "20%"}),
            "utilization": st.just({"device": "CPU", "min": 40, "max": 90}),
        },
    ).map(Objectives.model_validate),
)
KINDS = st.sampled_from(WorkloadType)


def bare(kind: WorkloadType, signals: dict[str, Signal]) -> Observation:
    return Observation(NOW, kind, signals, (), (), 1, 1, NOW)


def figures(document: Any) -> Iterator[float]:
    if isinstance(document, float):
        yield document
    elif isinstance(document, dict | list):
        for each in document.values() if isinstance(document, dict) else document:
            yield from figures(each)


@CASES
@given(ANY_SIGNALS, ANY_SIGNALS, ANY_OBJECTIVES, KINDS)
def test_any_signals_give_one_and_the_same_sound_diagnosis(
    signals: dict[str, Signal],
    facts: dict[str, Signal],
    objectives: Objectives | None,
    kind: WorkloadType,
) -> None:
    observation = bare(kind, signals)
    diagnosis = diagnose(observation, objectives, facts)
    assert diagnose(observation, objectives, facts) == diagnosis
    assert bool(diagnosis.causes) is bool(diagnosis.whys)
    if not diagnosis.breached:
        assert diagnosis.causes == ()
    document = diagnosis_document(diagnosis)
    assert all(math.isfinite(figure) for figure in figures(document))
    json.dumps(document, allow_nan=False)
    for cause in diagnosis.causes:
        assert 0 <= cause.confidence <= 1
        for item in cause.evidence:
            known = facts.get(item.signal, signals.get(item.signal))
            assert isinstance(known, Reading) or item.signal in DERIVED
    named = [*ids(diagnosis), *(item.id for item in diagnosis.ruled_out)]
    assert len(named) == len(set(named))


@CASES
@given(st.sets(st.sampled_from(NAMES)), ANY_OBJECTIVES, KINDS)
def test_without_data_nothing_is_ever_named(
    names: set[str], objectives: Objectives | None, kind: WorkloadType
) -> None:
    diagnosis = diagnose(bare(kind, dict.fromkeys(names, NoData("silent"))), objectives)
    assert diagnosis.causes == ()
    assert diagnosis.symptom is None


AGAINST = {p.signal for e in CATALOGUE for v in e.vetoes for p in predicates(v.condition)}
"""Figures that speak against a cause: without them more can be confirmed, not less."""
LESSEN = {"cpu.throttledTimeShare", "inference.batchSize", "inference.batchLimit"}
"""Figures that lessen a derived one, such as contention, which is what throttling leaves."""
LESSEN |= {"inference.dependencyShare", "inference.restShare", "inference.queueShare"}


@CASES
@given(
    st.sampled_from([case for cases in CASES_BY_CAUSE.values() for case in cases]),
    st.sets(st.sampled_from(sorted(set(NAMES) - AGAINST - LESSEN)), max_size=5),
)
def test_losing_data_never_confirms_more(case: Case, lost: set[str]) -> None:
    kind, changes, _ = case
    observation, facts = seen(kind, changes)
    before = set(ids(diagnose(observation, None, facts)))
    silent: dict[str, Signal] = dict.fromkeys(lost, NoData("silent"))
    signals = {**observation.signals, **{n: s for n, s in silent.items() if n not in facts}}
    after = diagnose(
        bare(kind, signals), None, {**facts, **{n: s for n, s in silent.items() if n in facts}}
    )
    assert set(ids(after)) <= before


@CASES
@given(
    st.sampled_from(sorted(CASES_BY_CAUSE)),
    st.floats(1.0, 3.0),
)
def test_a_worse_figure_does_not_make_its_cause_go_away(id: str, factor: float) -> None:
    entry = BY_ID[id]
    kind, changes, _ = CASES_BY_CAUSE[id][0]
    worse = dict(changes)
    for predicate in (p for c in entry.predicates for p in predicates(c)):
        value = worse.get(predicate.signal)
        if value is not None and predicate.op == ">=" and predicate.signal not in AGAINST:
            # A share cannot grow beyond all.
            worse[predicate.signal] = min(
                value * factor, 1.0 if predicate.signal.endswith("Share") else math.inf
            )
    assert id in ids(find(kind, worse, objectives_for(id, kind)))


@CASES
@given(st.permutations(list(CATALOGUE)), st.sampled_from(sorted(CASES_BY_CAUSE)))
def test_the_first_cause_does_not_depend_on_the_order_of_the_catalogue(
    catalogue: list[CauseEntry], id: str
) -> None:
    kind, changes, _ = CASES_BY_CAUSE[id][0]
    observation, facts = seen(kind, changes)
    diagnosis = diagnose(observation, objectives_for(id, kind), facts, None, catalogue)
    assert ids(diagnosis)[0] == id


def test_a_why_is_data() -> None:
    assert Why("a {b.c} {text:d.e}").signals == ()
    assert figure_names("a {b.c} {text:d.e}") == ["b.c"]
