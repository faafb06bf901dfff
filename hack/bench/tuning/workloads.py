"""The workloads: what runs, what may be changed, and what is asked of it. One entry each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bottleneck_operator.api.meta import Setting

from ..faultfile import Type, Value

Knobs = dict[str, Setting]
"""Dotted names of knobs with their values."""


@dataclass(frozen=True, slots=True)
class Tunable:
    """A workload. ``options`` start it with its defaults. ``grid`` has every value of each knob
    that is tried, its default first. ``actions`` and ``objectives`` are those of its policy. Of a
    server ``pace`` are options of the load generator."""

    name: str
    type: Type
    options: Mapping[str, Value]
    grid: Mapping[str, Sequence[Setting]]
    actions: Mapping[str, Any]
    objectives: Mapping[str, Any]
    fixed: Mapping[str, Setting] = field(default_factory=dict)
    """Knobs that are named in every configuration, since the SDK changes them together."""
    samples: int = 0
    """Global batch of a training: micro-batches are accumulated so that it stays the same."""
    pace: Sequence[str] = ()
    about: str = ""

    @property
    def lower_is_better(self) -> bool:
        """Whether it is judged by latency and not by throughput."""
        return self.type is Type.SERVING

    @property
    def unit(self) -> str:
        """Of the figure that it is judged by."""
        return "s (p95)" if self.lower_is_better else "samples/s"

    @property
    def program(self) -> str:
        """The module that runs it."""
        return f"hack.bench.workloads.tunable_{self.type}"

    def configurations(self) -> list[Knobs]:
        """Every point of the grid, the default first."""
        points = []
        for values in itertools.product(*self.grid.values()):
            point: Knobs = {**self.fixed, **dict(zip(self.grid, values, strict=True))}
            if self.samples:
                point["batch.accumulation"] = self.samples // int(point["batch.micro"])
            points.append(point)
        return points


_ALL = {"goodput": {"min": "100000000"}}
"""More than any machine can do: the operator goes on until nothing helps any more."""

WORKLOADS: tuple[Tunable, ...] = (
    Tunable(
        name="training-loader",
        type=Type.TRAINING,
        about="pictures unpacked in the training process: loader workers pay",
        options={"model": "pictures", "workers": 0, "micro": 16},
        grid={"dataLoader.workers": (0, 1, 2, 3, 4)},
        fixed={"dataLoader.prefetch": 4},
        actions={"dataLoader": {"maxWorkers": 4}},
        objectives=_ALL,
    ),
    Tunable(
        name="training-micro-batch",
        type=Type.TRAINING,
        about="a tiny model in 32 micro-batches of 2: larger ones pay",
        options={"model": "tiny", "micro": 2, "accumulation": 32},
        grid={"batch.micro": (2, 4, 8, 16, 32, 64)},
        samples=64,
        actions={"batchSize": {"max": 64}},
        objectives=_ALL,
    ),
    Tunable(
        name="training-joint",
        type=Type.TRAINING,
        about="small pictures and wide layers: with workers the arithmetic is left, and bf16 pays",
        options={"model": "thumbnails", "workers": 0, "micro": 128},
        grid={"dataLoader.workers": (0, 2, 4), "precision.autocast": ("off", "bf16")},
        fixed={"dataLoader.prefetch": 4},
        actions={"dataLoader": {"maxWorkers": 4}, "precision": {"allowed": ["bf16"]}},
        objectives=_ALL,
    ),
    Tunable(
        name="training-default",
        type=Type.TRAINING,
        about="a tiny model with its data in memory: neither workers nor bf16 pay",
        options={"model": "tiny", "workers": 0, "micro": 64},
        grid={"dataLoader.workers": (0, 2), "precision.autocast": ("off", "bf16")},
        fixed={"dataLoader.prefetch": 2},
        actions={"dataLoader": {"maxWorkers": 2}, "precision": {"allowed": ["bf16"]}},
        objectives=_ALL,
    ),
    Tunable(
        name="serving-batch",
        type=Type.SERVING,
        about="one request at a time under 1.3 times its capacity: batches pay",
        options={"model": "recurrent", "words": 96, "max-size": 1, "delay": 0.0},
        grid={"batch.maxSize": (1, 2, 4, 8, 16, 32)},
        fixed={"batch.delayMilliseconds": 0},
        actions={"batchSize": {"max": 32}},
        # Above the model's own time: else no queue is to blame, but the model.
        objectives={"latency": {"percentile": 95, "target": "30ms"}},
        pace=("--utilization", "1.3"),
    ),
    Tunable(
        name="serving-delay",
        type=Type.SERVING,
        about="a batcher that waits 400 ms for others under a light load",
        options={"model": "recurrent", "max-size": 32, "delay": 0.4},
        grid={"batch.delayMilliseconds": (400, 100, 25, 6, 0)},
        fixed={"batch.maxSize": 32},
        actions={"batchSize": {"max": 32}},
        # Above the model's own time: else the model is to blame, and not the waiting.
        objectives={"latency": {"percentile": 95, "target": "10ms"}},
        pace=("--rate", "20"),
    ),
    Tunable(
        name="serving-joint",
        type=Type.SERVING,
        about="wide layers, one request at a time, 1.3 times its capacity: batches pay, and bf16",
        options={"model": "wide", "max-size": 1, "delay": 0.0},
        grid={"batch.maxSize": (1, 4, 16), "precision.weights": ("fp32", "bf16")},
        fixed={"batch.delayMilliseconds": 0},
        actions={"batchSize": {"max": 16}, "precision": {"allowed": ["bf16"]}},
        objectives={"latency": {"percentile": 95, "target": "5ms"}},
        pace=("--utilization", "1.3"),
    ),
    Tunable(
        name="serving-default",
        type=Type.SERVING,
        about="many small operations: bf16 takes twice as long, and batches hardly form",
        options={"model": "recurrent", "max-size": 8, "delay": 0.0},
        grid={"precision.weights": ("fp32", "bf16"), "batch.maxSize": (8, 1, 32)},
        fixed={"batch.delayMilliseconds": 0},
        actions={"batchSize": {"max": 32}, "precision": {"allowed": ["bf16"]}},
        objectives={"latency": {"percentile": 95, "target": "1ms"}},
        pace=("--utilization", "0.5"),
    ),
)


def policy_of(work: Tunable) -> dict[str, Any]:
    """The policy's document. Short pauses between actions: here no traffic has to settle."""
    training = work.type is Type.TRAINING
    return {
        "apiVersion": "bottleneck.dev/v1alpha1",
        "kind": "BottleneckPolicy",
        "metadata": {"name": work.name, "namespace": "tuning", "uid": "policy", "generation": 1},
        "spec": {
            "targetRef": target_of(work, training),
            "mode": "Auto",
            "objectives": dict(work.objectives),
            "actions": dict(work.actions),
            "limits": {"cooldown": "2s", "actionsPerHour": 1000, "disruption": "HotOnly"},
        },
    }


def target_of(work: Tunable, training: bool) -> dict[str, str]:
    """The reference to the workload, a Job or a Deployment of one pod."""
    if training:
        return {"apiVersion": "batch/v1", "kind": "Job", "name": work.name}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": work.name}
