"""The signals that a policy may give a query for, with their units. Pure data.

``docs/signals.md`` and ``docs/prometheus.md`` say what each means. Facts of the API server
(``pods.``, ``replicas.``, ``change.``) are not among them: nobody knows them better than it does.
Neither is what the engine itself derives from others, or from the learnt baseline.
"""

from __future__ import annotations

from collections.abc import Mapping

SHARE = ""
"""A share from 0 to 1 has no unit."""

SIGNALS: Mapping[str, str] = {
    "training.samplesPerSecond": "samples/s",
    "training.stepSeconds": "s",
    "training.sinceStepSeconds": "s",
    "training.usualStepSeconds": "s",
    "training.dataShare": SHARE,
    "training.transferShare": SHARE,
    "training.forwardShare": SHARE,
    "training.backwardShare": SHARE,
    "training.optimizerShare": SHARE,
    "training.collectiveShare": SHARE,
    "training.otherShare": SHARE,
    "training.computeShare": SHARE,
    "training.checkpointShare": SHARE,
    "training.cpuShare": SHARE,
    "training.lowPrecisionShare": SHARE,
    "training.microBatch": "samples",
    "training.accumulation": "micro-batches",
    "training.noiseScale": "samples",
    "training.stragglerRatio": "×",
    "training.rankSpread": "×",
    "training.ranks": "ranks",
    "training.restarts": "restarts",
    "training.longPhase": "ranks",
    "training.collectiveFloorShare": SHARE,
    "dataLoader.workers": "workers",
    "loader.cpuShare": SHARE,
    "loader.runQueueShare": SHARE,
    "loader.blockedShare": SHARE,
    "loader.readBytesPerSecond": "B/s",
    "inference.latency": "s",
    "inference.arrivalRate": "requests/s",
    "inference.errorRate": SHARE,
    "inference.queueShare": SHARE,
    "inference.queueSeconds": "s",
    "inference.queued": "requests",
    "inference.serviceSeconds": "s",
    "inference.concurrency": "requests",
    "inference.occupancy": SHARE,
    "inference.batchSize": "requests",
    "inference.batchLimit": "requests",
    "inference.batchDelaySeconds": "s",
    "inference.dependencySeconds": "s",
    "inference.dependencyShare": SHARE,
    "inference.restShare": SHARE,
    "inference.retryShare": SHARE,
    "inference.uptimeSeconds": "s",
    "inference.firstServiceRatio": "×",
    "inference.firstTokenSeconds": "s",
    "inference.tokensPerSecond": "tokens/s",
    "inference.cacheShare": SHARE,
    "inference.preemptionsPerSecond": "preemptions/s",
    "cpu.usedCores": "cores",
    "cpu.availableCores": "cores",
    "cpu.busyShare": SHARE,
    "cpu.throttledShare": SHARE,
    "cpu.throttledTimeShare": SHARE,
    "cpu.runQueueShare": SHARE,
    "cpu.pressureShare": SHARE,
    "node.busyShare": SHARE,
    "node.othersCores": "cores",
    "node.othersShare": SHARE,
    "memory.usedShare": SHARE,
    "memory.pressureShare": SHARE,
    "memory.oomKills": "kills",
    "memory.limitHitsPerSecond": "hits/s",
    "memory.majorFaultsPerSecond": "faults/s",
    "io.pressureShare": SHARE,
    "io.readBytesPerSecond": "B/s",
    "gpu.utilization": SHARE,
    "gpu.memoryShare": SHARE,
    "gpu.throttledShare": SHARE,
    "gpu.smActive": SHARE,
    "gpu.tensorActive": SHARE,
    "gpu.dramActive": SHARE,
    "gpu.powerShare": SHARE,
    "hardware.bf16": "yes",
}

OWN_PATTERN = r"^(custom|inference\.dependency)(\.[A-Za-z][A-Za-z0-9_-]*)+$"
"""Signals that people name themselves, and the shares of dependencies, which have names of their
own."""


def unit_of(signal: str) -> str:
    """The unit of a signal; figures of people's own count as plain numbers."""
    if signal.startswith("inference.dependency."):
        return SHARE
    return SIGNALS.get(signal, "units")
