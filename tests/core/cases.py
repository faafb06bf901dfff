"""Figures of healthy workloads, and for each cause those with which it is found."""

from __future__ import annotations

from typing import Any

import pytest
from bottleneck_operator.api.objectives import Objectives
from bottleneck_operator.diagnose.diagnosis import Diagnosis
from bottleneck_operator.diagnose.engine import diagnose
from bottleneck_operator.observe.observation import (
    Observation,
    Reading,
    Replica,
    Signal,
    WorkloadType,
)

from .builders import NOW

TRAINING, SERVING, ANY = WorkloadType.TRAINING, WorkloadType.INFERENCE, WorkloadType.UNKNOWN

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
    "training.collectiveFloorShare": 0.07,
    "training.cpuShare": 0.9,
    "training.ranks": 1.0,
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


# -- each cause, where it is and where it is not

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
        (TRAINING, {"training.sinceStepSeconds": 70.0}, {"training.sinceStepSeconds": 50.0}),
        (
            TRAINING,
            {
                "training.sinceStepSeconds": 10.0,
                "training.usualStepSeconds": 0.5,
                "cpu.usedCores": 0.1,
            },
            {"training.sinceStepSeconds": 9.9},
        ),
    ],
    "straggler-rank": [
        (
            TRAINING,
            {"training.stragglerRatio": 1.8, "training.collectiveShare": 0.5},
            {"training.stragglerRatio": 1.4, "training.collectiveShare": 0.2},
        ),
        (
            TRAINING,
            {"training.stragglerRatio": 1.8, "training.stragglerShare": 0.4}
            | {"training.collectiveShare": 0.5},
            {"training.stragglerShare": 0.09},
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
        (
            TRAINING,
            {"training.collectiveShare": 0.5, "training.collectiveFloorShare": 0.4},
            {"training.collectiveShare": 0.29},
        ),
        (
            TRAINING,
            {"training.collectiveShare": 0.5, "training.collectiveFloorShare": 0.45},
            {"training.collectiveFloorShare": 0.25, "training.stragglerRatio": 1.6},
        ),
        (
            TRAINING,
            {"training.collectiveShare": 0.5, "training.collectiveFloorShare": None},
            {"training.collectiveFloorShare": 0.1},
        ),
    ],
    "host-bound": [
        (
            TRAINING,
            {"training.microBatch": 2.0, "training.stepSeconds": 0.004},
            {"training.microBatch": 64.0},
        ),
        (
            TRAINING,
            {
                "training.microBatch": 2.0,
                "training.accumulation": 50.0,
                "training.stepSeconds": 0.2,
            },
            {"training.accumulation": 1.0},
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
        (TRAINING, MEMORY, {"memory.pressureShare": 0.005}),
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
            WAITING
            | {"inference.occupancy": 0.69, "inference.queued": 11.0, "inference.concurrency": 1.0},
            {"inference.queued": 3.0},
        ),
        (
            SERVING,
            WAITING | {"inference.loadRatio": 3.0, "replicas.unowned": 1.0},
            {"inference.queueShare": 0.49},
        ),
        (
            SERVING,
            # The demo's server: its model holds the interpreter's lock, and answers wait, too.
            WAITING
            | {
                "inference.queueShare": 0.45,
                "inference.restShare": 0.54,
                "inference.queued": 40.0,
                "inference.latencySlowdown": 3.0,
            },
            {"inference.restShare": 0.15},
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
