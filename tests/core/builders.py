"""Short ways to write the objects that the pure folders take. Every default is a healthy one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bottleneck_operator.api.policy import BottleneckPolicy, PolicySpec
from bottleneck_operator.api.report import (
    Action,
    BottleneckReport,
    ContainerResources,
    HpaBounds,
    HpaChange,
    KnobsChange,
    Phase,
    ReplicasChange,
    ReportSpec,
    ReportStatus,
    ResourcesChange,
)
from bottleneck_operator.observe.containers import ResizeState
from bottleneck_operator.observe.history import History
from bottleneck_operator.observe.observation import (
    NoData,
    Observation,
    Rank,
    Reading,
    Signal,
    WorkloadType,
)
from bottleneck_sidecar.wire import (
    LATENCY_BOUNDS_SECONDS,
    PHASES,
    Container,
    InferenceServer,
    Sample,
    TrainingRank,
)
from hypothesis import settings

CASES = settings(max_examples=60, derandomize=True, deadline=None, database=None)
"""For properties: the same examples in every run, and nothing written into the tree."""

NOW = 1_800_000_000.0
"""The moment at which everything here happens, seconds since the Unix epoch."""


def moment(seconds: float = 0.0) -> datetime:
    """``NOW`` plus some seconds."""
    return datetime.fromtimestamp(NOW + seconds, UTC)


# -- telemetry -------------------------------------------------------------------------------------


def rank(epoch: str, steps: int, at: float, **changes: Any) -> TrainingRank:
    """A rank that took a second for each of ``steps``, half of it waiting for data."""
    fields: dict[str, Any] = {
        "epoch": epoch,
        "rank": 0,
        "world_size": 1,
        "steps": steps,
        "samples": steps * 32,
        "step_seconds": float(steps),
        "seconds": {phase: steps * 0.5 if phase == "data" else 0.0 for phase in PHASES},
        "last_step_at": at,
        **changes,
    }
    return TrainingRank(**fields)


def server(epoch: str, latencies: Sequence[float], **changes: Any) -> InferenceServer:
    """A server that has answered requests of these latencies since it started."""
    fields: dict[str, Any] = {
        "epoch": epoch,
        "worker": 0,
        "requests": len(latencies),
        "errors": 0,
        "arrivals": len(latencies),
        "latency_buckets": buckets(latencies),
        "latency_seconds": sum(latencies),
        **changes,
    }
    return InferenceServer(**fields)


def buckets(latencies: Sequence[float]) -> list[int]:
    """Latencies counted as the middleware counts them."""
    counts = [0] * (len(LATENCY_BOUNDS_SECONDS) + 1)
    for latency in latencies:
        counts[sum(bound < latency for bound in LATENCY_BOUNDS_SECONDS)] += 1
    return counts


def sample(time: float, sequence: int, *processes: object, **changes: Any) -> Sample:
    """One line of an agent whose clock says ``time``."""
    fields: dict[str, Any] = {
        "version": 1,
        "time": time,
        "sequence": sequence,
        "agent": "a1",
        "pod": "pod-0",
        "namespace": "ml",
        "uid": "u0",
        "container": next((p for p in processes if isinstance(p, Container)), None),
        "gpus": [],
        "training": [p for p in processes if isinstance(p, TrainingRank)],
        "inference": [p for p in processes if isinstance(p, InferenceServer)],
        "ages": {},
        **changes,
    }
    return Sample(**fields)


def history(*lines: Sample, offset: float = 0.0) -> History:
    """What the operator keeps of these lines, received ``offset`` after the agent's time."""
    kept = History()
    for line in lines:
        assert kept.add(line.time + offset, line)
    return kept


# -- observations ----------------------------------------------------------------------------------


def reading(value: float, unit: str = "", statistic: str = "ratio of sums") -> Reading:
    return Reading(value, unit, 10.0, statistic, 0.0, "sidecar")


def talking(generation: int | None = None, result: str = "Applied", **changes: Any) -> Rank:
    """A rank of ``pod-0`` that has answered a knobs generation."""
    fields: dict[str, Any] = {
        "pod": "pod-0",
        "epoch": "e0",
        "rank": 0,
        "knobs": {"dataLoader.workers": 0},
        "settable": frozenset({"dataLoader.workers", "dataLoader.prefetch"}),
        "generation": generation,
        "result": result if generation is not None else "",
        "message": "",
        "fresh": True,
        **changes,
    }
    return Rank(**fields)


def observation(
    type: WorkloadType = WorkloadType.TRAINING,
    signals: Mapping[str, Signal] | None = None,
    ranks: Sequence[Rank] = (),
    expected: int = 1,
    streaming: int = 1,
) -> Observation:
    return Observation(
        time=NOW,
        type=type,
        signals=signals or {},
        ranks=tuple(ranks),
        expected=expected,
        streaming=streaming,
        newest=NOW,
    )


SILENT = observation(expected=1, streaming=0)
"""One replica is expected and says nothing."""


def starved(**changes: Signal | None) -> dict[str, Signal]:
    """Signals of a trainer that waits for its data; None takes one away."""
    return _changed(
        {
            "training.samplesPerSecond": reading(100, "samples/s", "rate"),
            "training.stepSeconds": reading(0.32, "s", "mean"),
            "training.dataShare": reading(0.8),
            "dataLoader.workers": reading(0, "workers", "minimum over ranks"),
            "loader.cpuShare": reading(0.95),
            "loader.blockedShare": reading(0.05),
            "cpu.usedCores": reading(1.0, "cores", "mean"),
            "cpu.availableCores": reading(4.0, "cores", "last"),
            "cpu.throttledShare": reading(0.0),
        },
        changes,
    )


def queueing(**changes: Signal | None) -> dict[str, Signal]:
    """Signals of servers that are over 250 ms because requests queue; None takes one away."""
    return _changed(
        {
            "inference.latency": reading(2.0, "s", "p95"),
            "inference.errorRate": reading(0.0),
            "inference.arrivalRate": reading(12.0, "requests/s", "rate"),
            "inference.queueShare": reading(0.9),
            "inference.serviceSeconds": reading(0.1, "s", "mean"),
            "inference.occupancy": reading(0.99, "", "busy time over time"),
            "inference.concurrency": reading(1.0, "requests", "mean"),
            "cpu.throttledShare": reading(0.0),
        },
        changes,
    )


def _changed(signals: dict[str, Signal], changes: Mapping[str, Signal | None]) -> dict[str, Signal]:
    # Dots cannot stand in a keyword, so a change is written with underscores.
    for name, value in changes.items():
        key = name.replace("_", ".", 1)
        assert key in signals, key
        if value is None:
            del signals[key]
        else:
            signals[key] = value
    return signals


MISSING = NoData("not measured")


# -- objects of the API ----------------------------------------------------------------------------


def spec(**changes: Any) -> PolicySpec:
    """A policy's spec, in Auto, that allows everything."""
    document: dict[str, Any] = {
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "work"},
        "mode": "Auto",
        "objectives": {"dataWait": {"max": "20%"}},
        "actions": {
            "replicas": {"min": 1, "max": 6},
            "dataLoader": {"maxWorkers": 4, "maxPrefetch": 4},
        },
        **changes,
    }
    return PolicySpec.model_validate(document)


SERVING: dict[str, Any] = {"objectives": {"latency": {"percentile": 95, "target": "250ms"}}}
"""Changes to ``spec`` for a policy about serving."""


def policy(**changes: Any) -> BottleneckPolicy:
    """A policy object; ``spec`` and ``status`` as documents, the rest is metadata."""
    wanted, status = changes.pop("spec", {}), changes.pop("status", {})
    return BottleneckPolicy.model_validate(
        {
            "metadata": {"name": "p", "namespace": "ml", "generation": 3, "uid": "u", **changes},
            "spec": spec(**wanted).dump(),
            "status": status,
        }
    )


def knobs_action(generation: int = 1, workers: int = 4, before: int = 0) -> Action:
    return Action(
        type="DataLoader",
        summary=f"dataLoader.workers {before} → {workers}",
        cause="loader-without-workers",
        knobs=KnobsChange(
            generation=generation,
            desired={"dataLoader.workers": workers},
            replaces={"dataLoader.workers": before},
        ),
    )


def replicas_action(desired: int = 3, replaces: int = 1) -> Action:
    return Action(
        type="Replicas",
        summary=f"replicas {replaces} → {desired}",
        cause="queueing",
        replicas=ReplicasChange(desired=desired, replaces=replaces),
    )


def hpa_action(old: tuple[int, int] = (1, 3), new: tuple[int, int] = (4, 4)) -> Action:
    bounds = [HpaBounds(min=least, max=most) for least, most in (old, new)]
    return Action(
        type="Replicas",
        summary=f"autoscaler: minReplicas {old[0]} → {new[0]}",
        cause="queueing",
        hpa=HpaChange(name="autoscaler", desired=bounds[1], replaces=bounds[0]),
    )


SMALL = ContainerResources(cpu_request="100m", cpu_limit="500m", memory_limit="1Gi")
LARGE = ContainerResources(cpu_request="100m", cpu_limit="2", memory_limit="1Gi")


def resources_action() -> Action:
    return Action(
        type="Resources",
        summary="main: cpu limit 500m → 2",
        cause="cpu-throttled",
        resources=ResourcesChange(container="main", desired=LARGE, replaces=SMALL),
    )


def sized(
    wanted: ContainerResources = SMALL,
    actual: ContainerResources | None = None,
    reason: str = "",
    message: str = "",
    pod: str = "pod-0",
) -> ResizeState:
    """A container of a pod that the node has resized, unless ``actual`` says otherwise."""
    return ResizeState(pod, wanted, wanted if actual is None else actual, reason, message)


def report(
    action: Action | None,
    phase: Phase = Phase.PLANNED,
    name: str = "p-1",
    approval: bool = False,
    approved: bool = False,
    policy_generation: int = 3,
    **status: Any,
) -> BottleneckReport:
    return BottleneckReport.model_validate(
        {
            "metadata": {
                "name": name,
                "namespace": "ml",
                "annotations": {"bottleneck.dev/approved": "true"} if approved else {},
                "ownerReferences": [{"uid": "u"}],
            },
            "spec": ReportSpec.model_validate(
                {
                    "policy": "p",
                    "policy_generation": policy_generation,
                    "target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "work"},
                    "approval_required": approval,
                    "breached_at": moment(-10),
                    "decided_at": moment(-5),
                    "symptom": {
                        "objective": "DataWait",
                        "text": "Waiting for input is 80%",
                        "evidence": {
                            "signal": "training.dataShare",
                            "window": "10s",
                            "statistic": "ratio of sums",
                            "value": 0.8,
                        },
                    },
                    "metric": {"name": "goodput", "unit": "samples/s"},
                    "before": [100.0] * 10,
                    "action": action,
                }
            ),
            "status": ReportStatus(phase=phase, **status),
        }
    )
