"""Recordings made of figures, for causes that only a GPU can have. Marked so, and counted apart.

Every figure can be given in the fault file; what is not given is that of a healthy job. They are
spread by a few percent from line to line, since real ones never stand still.
"""

from __future__ import annotations

import json
import random
from typing import Any

from bottleneck_sidecar import wire
from bottleneck_sidecar.wire import Container, Gpu, Sample, TrainingRank
from pydantic import Field

from .faultfile import Inject, Part

EPOCH_SECONDS = 1_700_000_000.0
INTERVAL_SECONDS = 1.0
GPU_MEMORY = 80 * 2**30


class SynthesisedGpu(Part):
    """What NVML would say. Shares 0 to 1."""

    utilization: float = Field(0.92, ge=0, le=1)
    memory_share: float = Field(0.62, ge=0, le=1)
    throttle_reasons: int = Field(0x4, ge=0, description="0x4, the power cap, is normal.")
    throttled_share: float = Field(1.0, ge=0, le=1, description="of the samples")
    power_watts: float = 620.0


class Synthesised(Part):
    """A training job on one GPU; ``shares`` are those of the step, and add up to 1."""

    step_seconds: float = Field(0.22, gt=0)
    micro_batch: int = 64
    shares: dict[str, float] = Field(
        default_factory=lambda: {
            "data": 0.03,
            "transfer": 0.02,
            "forward": 0.3,
            "backward": 0.55,
            "optimizer": 0.08,
            "other": 0.02,
        }
    )
    cpu_share: float = Field(0.35, ge=0, le=1, description="of the training thread's time")
    low_precision: bool = True
    capabilities: list[str] = Field(default_factory=lambda: ["cuda", "bf16"])
    gpu: SynthesisedGpu = Field(default_factory=SynthesisedGpu)


def synthesise(wanted: dict[str, Any], seconds: float, seed: int, inject: Inject) -> str:
    """The recording as text, one JSON document per line."""
    job = Synthesised.model_validate(wanted)
    draw = random.Random(seed)  # noqa: S311
    lines: list[dict[str, Any]] = [
        {
            "recording": 1,
            "createdAt": EPOCH_SECONDS,
            "by": "hack.bench.synthetic",
            "pods": ["trainer-0"],
        }
    ]
    steps, step_seconds = 0.0, 0.0
    for number in range(int(seconds / INTERVAL_SECONDS) + 1):
        at = EPOCH_SECONDS + number * INTERVAL_SECONDS
        done = INTERVAL_SECONDS / job.step_seconds * draw.uniform(0.97, 1.03) if number else 1.0
        steps += done
        step_seconds += INTERVAL_SECONDS
        sample = _sample(job, at, number, int(steps), step_seconds, draw)
        lines.append({"received": at, "sample": json.loads(wire.encode(sample))})
    if inject.facts or inject.texts:
        at = EPOCH_SECONDS + seconds
        lines.append({"received": at, "facts": inject.facts, "texts": inject.texts})
    return "".join(json.dumps(line) + "\n" for line in lines)


def _sample(
    job: Synthesised, at: float, number: int, steps: int, step_seconds: float, draw: random.Random
) -> Sample:
    seconds = {phase: step_seconds * job.shares.get(phase, 0.0) for phase in wire.PHASES}
    rank = TrainingRank(
        epoch="synthesised",
        rank=0,
        world_size=1,
        steps=steps,
        samples=steps * job.micro_batch,
        step_seconds=step_seconds,
        seconds=seconds,
        last_step_at=at - 0.1,
        loss=1.0,
        started_at=EPOCH_SECONDS - 600.0,
        phase="step",
        cpu_seconds={phase: value * job.cpu_share for phase, value in seconds.items()},
        run_queue_seconds=0.002 * step_seconds,
        checkpoint_seconds=0.0,
        evaluation_seconds=0.0,
        loader_seconds=4.0 * step_seconds,
        loader_cpu_seconds=0.8 * step_seconds,
        loader_run_queue_seconds=0.01 * step_seconds,
        low_precision_steps=steps if job.low_precision else 0,
        capabilities=job.capabilities,
        knobs={"dataLoader.workers": 4, "dataLoader.prefetch": 2},
        settable=["dataLoader.workers", "dataLoader.prefetch"],
    )
    container = Container(
        cpu_seconds=(job.cpu_share + 0.8) * step_seconds,
        cpu_limit_cores=8.0,
        periods=int(10 * step_seconds),
        throttled_periods=0,
        throttled_seconds=0.0,
        memory_bytes=12 * 2**30,
        memory_limit_bytes=64 * 2**30,
        oom_kills=0,
        cpu_pressure_seconds=0.0,
        memory_pressure_seconds=0.0,
        io_pressure_seconds=0.0,
        read_bytes=int(30e6 * step_seconds),
        memory_limit_hits=0,
        major_faults=0,
        node_cpus=32,
        node_busy_seconds=6.0 * step_seconds,
        cpus=32,
        epoch="synthesised",
    )
    figures = job.gpu
    throttled = draw.random() < figures.throttled_share
    gpu = Gpu(
        index=0,
        uuid="GPU-synthesised",
        name="NVIDIA H100 80GB HBM3",
        utilization=min(1.0, figures.utilization * draw.uniform(0.98, 1.02)),
        memory_used_bytes=int(GPU_MEMORY * figures.memory_share),
        memory_total_bytes=GPU_MEMORY,
        power_watts=figures.power_watts * draw.uniform(0.97, 1.03),
        throttle_reasons=figures.throttle_reasons if throttled else 0,
    )
    return Sample(
        version=wire.VERSION,
        time=at,
        sequence=number,
        agent="synthesised",
        pod="trainer-0",
        namespace="ml",
        uid="",
        container=container,
        gpus=[gpu],
        training=[rank],
        inference=[],
        ages={"synthesised": 0.0},
    )
