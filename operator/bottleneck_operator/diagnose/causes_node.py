"""The catalogue: shortages of CPU, memory and GPU, which slow down whatever runs there."""

from __future__ import annotations

from ..observe.observation import WorkloadType
from . import shares
from .effects import (
    COMPUTE,
    MODEL_TIME,
    QUEUE_WAIT,
    RANKS_WAIT,
)
from .groups import (
    COMPUTING,
    DATA,
    EFFECTS_OF_A_SHORTAGE,
    FLAG,
    HALF,
    MODEL,
    OTHERS,
    SERVING,
    SOME,
)
from .hypotheses import CauseEntry, Explains, Veto, Why, explains
from .predicates import START, Predicate, all_of, either

KINETO_MEMORY = "Kineto: a device's peak memory over 90%"
NVML = "NVML clock event reasons in mask 0xE8; the power cap (0x4) alone is normal at full load"

_SEVERAL_THROTTLED = Predicate("cpu.throttledReplicas", ">=", 2, FLAG, flag=True)
_SEVERAL_CONTENDED = Predicate("cpu.contendedReplicas", ">=", 2, FLAG, flag=True)

NODE_CAUSES: tuple[CauseEntry, ...] = (
    CauseEntry(
        id="cpu-throttled",
        class_="cpu",
        category="Infrastructure",
        stage="model",
        title="The CPU limit throttles the workload",
        workload=WorkloadType.UNKNOWN,
        predicates=(
            either(
                Predicate("cpu.throttledShare", ">=", 0.25, START),
                Predicate("cpu.throttledTimeShare", ">=", 0.25, START),
            ),
        ),
        vetoes=(
            Veto(
                Predicate("cpu.throttledTimeShare", "<", 0.10, START),
                "the kernel stops it often, but too shortly to matter",
            ),
        ),
        share=shares.signal("cpu.throttledTimeShare", "cpu.throttledShare"),
        explains=(
            *explains("node-oversubscribed"),
            *explains(*OTHERS, proportion=HALF),
            *explains("slow-storage", proportion=HALF),
            *explains("loader-without-workers", "cpu-heavy-preprocessing"),
            *explains(*COMPUTING, *SERVING, "cold-start", *EFFECTS_OF_A_SHORTAGE),
            Explains("straggler-rank", _SEVERAL_THROTTLED),
        ),
        whys=(
            Why(
                "the kernel stopped it in {cpu.throttledShare} of its scheduling periods",
                ("cpu.throttledShare",),
                optional=True,
            ),
            Why(
                "it stood still for {cpu.throttledTimeShare} of the time",
                ("cpu.throttledTimeShare",),
                optional=True,
            ),
            Why(
                "it used {cpu.usedCores} against {cpu.availableCores} that its limit allows",
                ("cpu.usedCores", "cpu.availableCores"),
            ),
        ),
        remedies=("Resources",),
        advice="Raise the container's CPU limit.",
    ),
    CauseEntry(
        id="memory-pressure",
        class_="memory",
        category="Infrastructure",
        stage="model",
        title="Its memory is nearly full, and the kernel makes it wait for room",
        workload=WorkloadType.UNKNOWN,
        predicates=(
            Predicate("memory.usedShare", ">=", 0.90, START),
            either(
                Predicate("memory.pressureShare", ">=", 0.05, START),
                Predicate("memory.majorFaultsPerSecond", ">=", 10, START),
                Predicate("memory.limitHitsPerSecond", ">=", 1, START),
            ),
        ),
        vetoes=(
            Veto(
                Predicate("memory.pressureShare", "<", 0.01, START),
                "what fills it can be dropped at once, so nothing waits",
            ),
        ),
        share=shares.first_of(
            shares.signal("memory.pressureShare", "io.pressureShare"),
            shares.fixed(0.2, "how long it waits is not measured"),
        ),
        explains=(
            *explains(*DATA, "straggler-rank", proportion=SOME),
            *explains(*OTHERS, proportion=HALF),
            *explains(*COMPUTING, *SERVING, *EFFECTS_OF_A_SHORTAGE, proportion=SOME),
        ),
        whys=(
            Why("its memory is at {memory.usedShare} of its limit", ("memory.usedShare",)),
            Why(
                "tasks waited for memory {memory.pressureShare} of the time",
                ("memory.pressureShare",),
                Predicate("memory.pressureShare", ">=", 0.05, START),
                optional=True,
            ),
            Why(
                "it had to read pages back from storage: {memory.majorFaultsPerSecond}",
                ("memory.majorFaultsPerSecond",),
                Predicate("memory.majorFaultsPerSecond", ">=", 10, START),
                optional=True,
            ),
            Why(
                "it met its limit: {memory.limitHitsPerSecond}",
                ("memory.limitHitsPerSecond",),
                Predicate("memory.limitHitsPerSecond", ">=", 1, START),
                optional=True,
            ),
        ),
        remedies=("Resources", "BatchSize"),
        advice="Raise the memory limit before the kernel kills it, or need less memory: a smaller"
        " batch, fewer loader workers, a shorter prefetch.",
    ),
    CauseEntry(
        id="node-oversubscribed",
        class_="cpu",
        category="Infrastructure",
        stage="model",
        title="The node's CPUs are taken by others",
        workload=WorkloadType.UNKNOWN,
        predicates=(
            either(
                Predicate("cpu.contentionShare", ">=", 0.15, START),
                Predicate("cpu.pressureShare", ">=", 0.60, START),
            ),
            Predicate("node.busyShare", ">=", 0.90, START),
            Predicate("node.foreignShare", ">=", 0.33, START),
        ),
        share=shares.signal("cpu.contentionShare", "cpu.pressureShare"),
        explains=(
            *explains(
                "loader-without-workers",
                "cpu-heavy-preprocessing",
                when=Predicate("loader.runQueueShare", ">=", 0.50, START),
                proportion=HALF,
            ),
            *explains(*OTHERS, proportion=HALF),
            *explains(*COMPUTING, *MODEL, "cold-start", *EFFECTS_OF_A_SHORTAGE),
            Explains("queueing", Predicate("cpu.contentionShare", ">=", 0.30, START)),
            Explains("straggler-rank", _SEVERAL_CONTENDED),
        ),
        whys=(
            Why(
                "it was ready to run and got no CPU for {cpu.contentionShare} of the time",
                ("cpu.contentionShare",),
                Predicate("cpu.contentionShare", ">=", 0.05, START),
                optional=True,
            ),
            Why(
                "the node's CPUs are busy {node.busyShare} of the time, and other workloads use"
                " {node.foreignShare} of them",
                ("node.busyShare", "node.foreignShare"),
            ),
            Why(
                "{pods.withoutRequests} of the workload asked for no CPU or memory, so the"
                " scheduler kept none free for it",
                ("pods.withoutRequests",),
                Predicate("pods.withoutRequests", ">=", 1, FLAG, flag=True),
            ),
        ),
        remedies=("Resources",),
        advice="Request the CPU that it needs, so that the scheduler keeps it free, or move it or"
        " its neighbours to another node.",
    ),
    CauseEntry(
        id="gpu-throttled",
        class_="gpu",
        category="Infrastructure",
        stage="model",
        title="The GPU is slowed down by heat or power",
        workload=WorkloadType.UNKNOWN,
        predicates=(Predicate("gpu.throttledShare", ">=", 0.20, f"{NVML}; the share is {START}"),),
        share=shares.signal("gpu.throttledShare"),
        explains=(
            *explains("communication-bound", proportion=HALF),
            *explains("precision-unused", "memory-bandwidth-bound"),
            *explains("compute-bound", "slow-model", "batch-too-large", "queueing"),
            *explains(COMPUTE, MODEL_TIME, QUEUE_WAIT, RANKS_WAIT),
        ),
        whys=(
            Why(
                "in {gpu.throttledShare} of the readings a GPU said that heat or the power supply"
                " holds its clocks down",
                ("gpu.throttledShare",),
            ),
            Why("it draws {gpu.powerShare} of its power limit", ("gpu.powerShare",)),
        ),
        advice="Cool the machine or move the workload; changing the batch does not help.",
    ),
    CauseEntry(
        id="gpu-memory-full",
        class_="memory",
        category="Models",
        stage="model",
        title="The GPU's memory is nearly full",
        workload=WorkloadType.UNKNOWN,
        predicates=(
            Predicate("gpu.memoryShare", ">=", 0.90, KINETO_MEMORY),
            either(
                all_of(
                    Predicate("gpu.memoryShare", ">=", 0.95, START),
                    Predicate("workload.training", ">=", 1, FLAG, flag=True),
                ),
                Predicate("training.restarts", ">=", 1, FLAG, flag=True),
                Predicate("pods.restarts", ">=", 1, FLAG, flag=True),
            ),
        ),
        share=shares.fixed(0.1, "a risk more than a loss: the next larger batch fails"),
        whys=(
            Why("a GPU's memory is at {gpu.memoryShare}", ("gpu.memoryShare",)),
            Why(
                "training began anew: {training.restarts}",
                ("training.restarts",),
                Predicate("training.restarts", ">=", 1, FLAG, flag=True),
            ),
        ),
        remedies=("BatchSize", "Variant"),
        advice="Use a smaller micro-batch with accumulation, activation checkpointing, mixed"
        " precision, or LoRA adapters (frozen weights need no optimizer state). A server that fills"
        " its memory by design (a cache of keys and values) is fine while it does not restart.",
    ),
)
