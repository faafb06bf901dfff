"""What it costs to observe one workload of ten replicas, in CPU time.

    PYTHONPATH=operator:sidecar python hack/bench/observe.py

Ten minutes of lines, one a second, are fed to ten histories (which keep three minutes of them).
Then every replica says one line more and the workload is observed, again and again: what is
printed is the mean CPU time of the observation alone, and of taking in the ten lines.
"""

from __future__ import annotations

import time

from bottleneck_operator.observe.history import History
from bottleneck_operator.observe.windows import observe
from bottleneck_sidecar.wire import (
    LATENCY_BOUNDS_SECONDS,
    PHASES,
    Container,
    Gpu,
    InferenceServer,
    Sample,
    TrainingRank,
)

REPLICAS = 10
SECONDS = 600
TURNS = 200
START = 1_800_000_000.0


def rank(pod: int, second: int) -> TrainingRank:
    """A rank that ends four steps a second."""
    seconds = {phase: second / len(PHASES) for phase in PHASES}
    return TrainingRank(
        epoch=f"e{pod}",
        rank=pod,
        world_size=REPLICAS,
        steps=4 * second,
        samples=128 * second,
        step_seconds=float(second),
        seconds=seconds,
        last_step_at=START + second,
        started_at=START,
        phase="step",
        cpu_seconds=seconds,
        run_queue_seconds=0.01 * second,
        checkpoint_seconds=0.02 * second,
        evaluation_seconds=0.0,
        loader_seconds=2.0 * second,
        loader_cpu_seconds=1.0 * second,
        loader_run_queue_seconds=0.1 * second,
        low_precision_steps=0,
        capabilities=["bf16"],
        knobs={"dataLoader.workers": 2, "dataLoader.prefetch": 2},
        settable=["dataLoader.workers", "dataLoader.prefetch"],
    )


def server(pod: int, second: int) -> InferenceServer:
    """A server that answers twenty requests a second."""
    buckets = [0] * (len(LATENCY_BOUNDS_SECONDS) + 1)
    for bucket in range(20, 30):
        buckets[bucket] = 2 * second
    return InferenceServer(
        epoch=f"e{pod}",
        worker=pod,
        requests=20 * second,
        errors=0,
        arrivals=20 * second,
        latency_buckets=buckets,
        latency_seconds=2.0 * second,
        queue_seconds=1.0 * second,
        service_seconds=0.6 * second,
        in_flight=2,
        queued=1,
        concurrency=8,
        batches=5 * second,
        started_at=START,
        busy_seconds=0.4 * second,
        first_service_seconds=0.5,
        dependency_seconds=0.3 * second,
        dependencies={"features": 0.2 * second, "cache": 0.1 * second},
        retries=0,
        run_queue_seconds=0.01 * second,
        capabilities=["bf16"],
        knobs={"batch.maxSize": 8, "batch.delayMilliseconds": 10.0},
        settable=[],
    )


def line(pod: int, second: int, training: bool) -> Sample:
    """What the agent of a pod says in that second, with everything that can be measured."""
    container = Container(
        cpu_seconds=1.5 * second,
        cpu_limit_cores=2.0,
        periods=10 * second,
        throttled_periods=second,
        throttled_seconds=0.01 * second,
        memory_bytes=2**30,
        memory_limit_bytes=2**31,
        oom_kills=0,
        cpu_pressure_seconds=0.1 * second,
        memory_pressure_seconds=0.0,
        io_pressure_seconds=0.0,
        read_bytes=10**6 * second,
        memory_limit_hits=0,
        major_faults=second,
        node_cpus=16,
        node_busy_seconds=8.0 * second,
        cpus=16,
        epoch="c",
    )
    return Sample(
        version=1,
        time=START + second,
        sequence=second,
        agent=f"a{pod}",
        pod=f"pod-{pod}",
        namespace="ml",
        uid=f"u{pod}",
        container=container,
        gpus=[Gpu(0, f"GPU-{pod}", "H100", 0.9, 2**35, 2**36, 500.0, 4)],
        training=[rank(pod, second)] if training else [],
        inference=[] if training else [server(pod, second)],
        ages={f"e{pod}": 0.1},
    )


def measure(training: bool) -> str:
    histories = {f"pod-{pod}": History() for pod in range(REPLICAS)}
    taking = observing = 0.0
    for second in range(SECONDS + TURNS):
        at = START + second + 0.05
        lines = [line(pod, second, training) for pod in range(REPLICAS)]
        begun = time.process_time()
        for each, history in zip(lines, histories.values(), strict=True):
            history.add(at, each)
        taken = time.process_time()
        if second >= SECONDS:
            observation = observe(histories, list(histories), at + 0.1)
            observing += time.process_time() - taken
            taking += taken - begun
    kind = "training" if training else "serving"
    return (
        f"{kind}: observe {observing / TURNS * 1000:.2f} ms for {REPLICAS} replicas"
        f" ({len(observation.signals)} signals), taking in their lines"
        f" {taking / TURNS * 1000:.3f} ms"
    )


if __name__ == "__main__":
    print(measure(training=True))
    print(measure(training=False))
