"""Lines of an agent in which everything is measured. Every default is a healthy workload's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bottleneck_operator.observe.history import History
from bottleneck_operator.observe.observation import NoData, Observation, Reading
from bottleneck_operator.observe.windows import observe
from bottleneck_sidecar.wire import (
    PHASES,
    Container,
    Gpu,
    InferenceServer,
    Sample,
    TrainingRank,
)

from .builders import NOW, buckets, history, sample

SHARES = {
    "data": 0.05,
    "transfer": 0.05,
    "forward": 0.3,
    "backward": 0.4,
    "optimizer": 0.1,
    "collective": 0.05,
    "other": 0.05,
}
"""Parts of a healthy step."""


def training_rank(t: float, pace: float = 2.0, number: int = 0, **changes: Any) -> TrainingRank:
    """A rank of two that has ended ``pace`` steps a second for ``t`` seconds, and nothing else."""
    shares = changes.pop("shares", SHARES)
    steps = int(pace * t)
    spent = steps / pace
    fields: dict[str, Any] = {
        "epoch": f"e{number}",
        "rank": number,
        "world_size": 2,
        "steps": steps,
        "samples": 32 * steps,
        "step_seconds": spent,
        "seconds": {phase: spent * shares.get(phase, 0.0) for phase in PHASES},
        "last_step_at": NOW - 1000 + spent,
        "started_at": NOW - 1010,
        "phase": "step",
        "cpu_seconds": {phase: spent * shares.get(phase, 0.0) * 0.8 for phase in PHASES},
        "run_queue_seconds": 0.01 * spent,
        "checkpoint_seconds": 0.0,
        "evaluation_seconds": 0.0,
        "loader_seconds": 2.0 * t,
        "loader_cpu_seconds": 0.5 * t,
        "loader_run_queue_seconds": 0.1 * t,
        "low_precision_steps": 0,
        "loss": 0.5,
        "losses": steps,
        "loss_sum": 0.5 * steps,
        "nonfinite_losses": 0,
        "skipped_steps": 0,
        "gradient_norm": 2.0,
        "nonfinite_gradient_norms": 0,
        "gradient_square": 1.0 + number,
        "gradient_variance": 300.0,
        "capabilities": ["bf16"],
        "knobs": {"dataLoader.workers": 2, "batch.accumulation": 2},
        **changes,
    }
    return TrainingRank(**fields)


def model_server(t: float, rate: float = 20.0, number: int = 0, **changes: Any) -> InferenceServer:
    """A server that has answered ``rate`` requests a second of 100 ms each for ``t`` seconds, in
    batches of four."""
    latency = changes.pop("latency", 0.1)
    requests = int(rate * t)
    fields: dict[str, Any] = {
        "epoch": f"s{number}",
        "worker": number,
        "requests": requests,
        "errors": 0,
        "arrivals": requests,
        "latency_buckets": [requests * count for count in buckets([latency])],
        "latency_seconds": latency * requests,
        "queue_seconds": 0.2 * latency * requests,
        "service_seconds": 0.4 * latency * requests,
        "in_flight": 3,
        "queued": 1,
        "concurrency": 8,
        "batches": requests // 4,
        "started_at": NOW - 1000,
        "busy_seconds": 0.1 * latency * requests,
        "first_service_seconds": 0.05,
        "dependency_seconds": 0.3 * latency * requests,
        "dependencies": {"features": 0.2 * latency * requests, "cache": 0.1 * latency * requests},
        "retries": requests // 10,
        "run_queue_seconds": 0.02 * t,
        "capabilities": ["bf16"],
        "knobs": {"batch.maxSize": 8, "batch.delayMilliseconds": 10.0},
        **changes,
    }
    return InferenceServer(**fields)


def container(t: float, **changes: Any) -> Container:
    """A container that uses 1.5 of its 2 cores, on a node of 16 that is half busy."""
    fields: dict[str, Any] = {
        "cpu_seconds": 1.5 * t,
        "cpu_limit_cores": 2.0,
        "periods": int(10 * t),
        "throttled_periods": int(t),
        "throttled_seconds": 0.05 * t,
        "memory_bytes": 3 * 2**29,
        "memory_limit_bytes": 2**31,
        "oom_kills": 0,
        "cpu_pressure_seconds": 0.1 * t,
        "memory_pressure_seconds": 0.0,
        "io_pressure_seconds": 0.2 * t,
        "read_bytes": int(1e6 * t),
        "memory_limit_hits": int(2 * t),
        "major_faults": int(3 * t),
        "node_cpus": 16,
        "node_busy_seconds": 8.0 * t,
        "cpus": 16,
        "epoch": "c0",
        **changes,
    }
    return Container(**fields)


def device(**changes: Any) -> Gpu:
    """A GPU at work."""
    fields: dict[str, Any] = {
        "index": 0,
        "uuid": "GPU-0",
        "utilization": 0.9,
        "memory_used_bytes": 2**35,
        "memory_total_bytes": 2**36,
        "power_watts": 500.0,
        "throttle_reasons": 0x4,
        **changes,
    }
    return Gpu(**fields)


def pod(
    said: Callable[[float], Sequence[object]],
    seconds: float = 20.0,
    every: float = 1.0,
    until: float = NOW,
    **changes: Any,
) -> History:
    """A pod that says ``said(t)`` every second of the last ``seconds``. ``t`` counts the seconds
    since a thousand before ``NOW``."""
    count = round(seconds / every)
    lines: list[Sample] = []
    for number in range(count + 1):
        at = until - seconds + number * every
        parts = said(at - NOW + 1000)
        gpus = [each for each in parts if isinstance(each, Gpu)]
        lines.append(sample(at, number, *parts, gpus=gpus, **changes))
    return history(*lines)


def seen(*pods: History, at: float = NOW, **options: Any) -> Observation:
    """The observation of these pods."""
    named = {f"pod-{number}": each for number, each in enumerate(pods)}
    return observe(named, list(named), at, **options)


def value(observation: Observation, name: str) -> float:
    """A figure that there has to be."""
    signal = observation.signal(name)
    assert isinstance(signal, Reading), f"{name}: {signal}"
    return signal.value


def reason(observation: Observation, name: str) -> str:
    """Why there is no such figure."""
    signal = observation.signal(name)
    assert isinstance(signal, NoData), f"{name}: {signal}"
    return signal.reason
