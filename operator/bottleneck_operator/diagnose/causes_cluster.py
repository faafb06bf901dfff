"""The catalogue, part three: what containers, nodes, GPUs and the cluster do to any workload."""

from __future__ import annotations

from ..observe.observation import WorkloadType
from . import shares
from .causes_serving import DEGRADED, GENERIC_SERVING
from .effects import (
    COMPUTE,
    DEPENDENCY_WAIT,
    FAILURES,
    INPUT_WAIT,
    MODEL_TIME,
    QUEUE_WAIT,
    RANKS_WAIT,
)
from .hypotheses import CauseEntry, Explains, Veto, Why, explains
from .predicates import START, Predicate, all_of, either

FLAG = "yes or no"
KERNEL = "a kill is a kill"
KINETO_MEMORY = "Kineto: a device's peak memory over 90%"
NVML = "NVML clock event reasons in mask 0xE8; the power cap (0x4) alone is normal at full load"

_DATA = ("loader-without-workers", "cpu-heavy-preprocessing", "slow-storage")
_WAITING = ("communication-bound", "slow-dependency", "checkpoint-stalls")
_COMPUTING = (
    "host-bound",
    "precision-unused",
    "memory-bandwidth-bound",
    "compute-bound",
)
_MODEL = ("batching-delay", "batch-too-large", "slow-model")
_SERVING = ("queueing", *_MODEL)
_EFFECTS = (INPUT_WAIT, COMPUTE, RANKS_WAIT, QUEUE_WAIT, MODEL_TIME, DEPENDENCY_WAIT)

HALF = 0.5
"""A shortage explains a wait only where it is at least half as large (start)."""

SOME = 0.2
"""What a task waits for memory leaves out the time in which it itself looks for pages to drop, so a
smaller part is enough (start)."""

_SEVERAL_THROTTLED = Predicate("cpu.throttledReplicas", ">=", 2, FLAG, flag=True)
_SEVERAL_CONTENDED = Predicate("cpu.contendedReplicas", ">=", 2, FLAG, flag=True)

CLUSTER_CAUSES: tuple[CauseEntry, ...] = (
    CauseEntry(
        id="unschedulable",
        class_="capacity",
        category="Infrastructure",
        stage="serving",
        title="Pods cannot be placed: no capacity, or a quota",
        workload=WorkloadType.UNKNOWN,
        predicates=(
            either(
                all_of(
                    Predicate("pods.unschedulable", ">=", 1, FLAG, flag=True),
                    Predicate("pods.unschedulableSeconds", ">=", 30, START),
                ),
                Predicate("pods.quotaRefused", ">=", 1, FLAG, flag=True),
            ),
        ),
        share=shares.first_of(
            shares.signal("pods.missingShare"), shares.fixed(1.0, "what it would do is not known")
        ),
        explains=explains("queueing", "cold-start", QUEUE_WAIT),
        breaks=True,
        whys=(
            Why(
                "{pods.unschedulable} could not be placed on any node for"
                " {pods.unschedulableSeconds}",
                ("pods.unschedulable", "pods.unschedulableSeconds"),
                Predicate("pods.unschedulable", ">=", 1, FLAG, flag=True),
                optional=True,
            ),
            Why("the scheduler says: {text:pods.unschedulable}", optional=True),
            Why(
                "the namespace's quota refused {pods.quotaRefused}",
                ("pods.quotaRefused",),
                Predicate("pods.quotaRefused", ">=", 1, FLAG, flag=True),
                optional=True,
            ),
            Why("the API server says: {text:pods.quotaRefused}", optional=True),
        ),
        advice="Add nodes or raise the quota, or ask for less: requests, node selector, affinity.",
    ),
    CauseEntry(
        id="oom-loop",
        class_="memory",
        category="Infrastructure",
        stage="model",
        title="The kernel kills it for want of memory, again and again",
        workload=WorkloadType.UNKNOWN,
        predicates=(
            either(
                Predicate("memory.oomKills", ">=", 1, KERNEL, flag=True),
                Predicate("pods.oomKilled", ">=", 1, KERNEL, flag=True),
                all_of(
                    Predicate("training.restarts", ">=", 2, START, flag=True),
                    Predicate("memory.usedShare", ">=", 0.90, START),
                ),
            ),
        ),
        share=shares.fixed(1.0, "what a killed process had done is lost"),
        explains=explains(
            "hang",
            "crash-loop",
            "memory-pressure",
            "error-burst",
            "cold-start",
            "straggler-rank",
            *_DATA,
            *_WAITING,
            *_COMPUTING,
            *_SERVING,
            *_EFFECTS,
            FAILURES,
        ),
        breaks=True,
        whys=(
            Why(
                "the kernel killed a process for want of memory: {memory.oomKills}",
                ("memory.oomKills",),
                Predicate("memory.oomKills", ">=", 1, KERNEL, flag=True),
                optional=True,
            ),
            Why(
                "{pods.oomKilled} ended as OOMKilled in the last ten minutes",
                ("pods.oomKilled",),
                Predicate("pods.oomKilled", ">=", 1, KERNEL, flag=True),
                optional=True,
            ),
            Why("{text:pods.oomKilled}", optional=True),
            Why(
                "training began anew: {training.restarts}",
                ("training.restarts",),
                Predicate("training.restarts", ">=", 1, FLAG, flag=True),
                optional=True,
            ),
            Why(
                "its memory is at {memory.usedShare} of its limit",
                ("memory.usedShare",),
                Predicate("memory.usedShare", ">=", 0.70, START),
                optional=True,
            ),
        ),
        advice="Raise the memory limit, or need less: a smaller micro-batch with accumulation,"
        " activation checkpointing, fewer loader workers or a shorter prefetch.",
    ),
    CauseEntry(
        id="crash-loop",
        class_="errors",
        category="Models",
        stage="model",
        title="Its containers end with an error as soon as they start",
        workload=WorkloadType.UNKNOWN,
        predicates=(Predicate("pods.crashLooping", ">=", 1, FLAG, flag=True),),
        share=shares.fixed(1.0, "what does not run does nothing"),
        explains=explains("hang", "queueing", "cold-start", "error-burst", QUEUE_WAIT, FAILURES),
        breaks=True,
        whys=(
            Why(
                "the kubelet waits longer and longer before it starts again: {pods.crashLooping}",
                ("pods.crashLooping",),
            ),
            Why("the last end was: {text:pods.crashLooping}"),
        ),
        advice="Read the log of the container's last life (kubectl logs --previous).",
    ),
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
            *explains(*_WAITING, proportion=HALF),
            *explains(*_DATA, *_COMPUTING, *_SERVING, "cold-start", *_EFFECTS),
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
        share=shares.first_of(
            shares.signal("memory.pressureShare", "io.pressureShare"),
            shares.fixed(0.2, "how long it waits is not measured"),
        ),
        explains=(
            *explains(*_DATA, "straggler-rank", proportion=SOME),
            *explains(*_WAITING, proportion=HALF),
            *explains(*_COMPUTING, *_SERVING, *_EFFECTS, proportion=SOME),
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
            *explains(*_WAITING, proportion=HALF),
            *explains(*_COMPUTING, *_MODEL, "cold-start", *_EFFECTS),
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
        advice="Use a smaller micro-batch with accumulation, activation checkpointing or mixed"
        " precision. A server that fills the memory by design (a cache of keys and values) is fine"
        " as long as it does not restart.",
    ),
    CauseEntry(
        id="recent-change",
        class_="change",
        category="People",
        stage="serving",
        title="It got worse right after a rollout or a configuration change",
        workload=WorkloadType.UNKNOWN,
        predicates=(
            Predicate("change.precedes", ">=", 1, "within ten minutes before it began", flag=True),
            either(
                Predicate("training.stepSlowdown", ">=", 1.20, DEGRADED),
                Predicate("inference.serviceSlowdown", ">=", 1.20, DEGRADED),
                Predicate("inference.latencySlowdown", ">=", 1.20, DEGRADED),
                Predicate("inference.errorRate", ">", "objective.errorRate", "the policy's target"),
            ),
        ),
        share=shares.slowdown(
            "training.stepSlowdown", "inference.serviceSlowdown", "inference.latencySlowdown"
        ),
        explains=(
            *explains("host-bound", "precision-unused", "memory-bandwidth-bound", "compute-bound"),
            *explains("drift", COMPUTE, FAILURES),
            *GENERIC_SERVING,
        ),
        generic=True,
        whys=(
            Why(
                "it began right after a change, which is {change.ageSeconds} old now",
                ("change.ageSeconds",),
            ),
            Why("the change was: {text:change.ageSeconds}"),
        ),
        advice="Compare with the version before it, and roll back (kubectl rollout undo) if that"
        " one was fast.",
    ),
    CauseEntry(
        id="drift",
        class_="drift",
        category="Processes",
        stage="model",
        title="It became slower at the same load, and nothing tells why",
        workload=WorkloadType.UNKNOWN,
        predicates=(
            either(
                Predicate("training.stepSlowdown", ">=", 1.20, DEGRADED),
                Predicate("inference.serviceSlowdown", ">=", 1.20, DEGRADED),
            ),
        ),
        vetoes=(
            Veto(
                Predicate("inference.loadRatio", ">=", 1.50, START),
                "the load rose, too",
            ),
        ),
        share=shares.slowdown("training.stepSlowdown", "inference.serviceSlowdown"),
        explains=(
            *explains("host-bound", "precision-unused", "memory-bandwidth-bound", "compute-bound"),
            *explains(COMPUTE),
            *(edge for edge in GENERIC_SERVING if edge.id != "error-burst"),
        ),
        generic=True,
        whys=(
            Why(
                "a step takes {training.stepSlowdown} what it usually does with this batch and"
                " these ranks",
                ("training.stepSlowdown",),
                Predicate("training.stepSlowdown", ">=", 1.20, DEGRADED),
                optional=True,
            ),
            Why(
                "the model takes {inference.serviceSlowdown} what it usually does at this load",
                ("inference.serviceSlowdown",),
                Predicate("inference.serviceSlowdown", ">=", 1.20, DEGRADED),
                optional=True,
            ),
            Why(
                "{pods.unpinnedImage} run an image without a digest, so what runs may have changed"
                " without anybody changing the workload",
                ("pods.unpinnedImage",),
                Predicate("pods.unpinnedImage", ">=", 1, FLAG, flag=True),
            ),
        ),
        advice="Compare what changed outside the cluster's objects: the data, the length of the"
        " requests, the node, a library that is fetched at start.",
    ),
)
