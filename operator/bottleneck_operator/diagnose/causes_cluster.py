"""The catalogue: workloads that do not run, and what the cluster tells of their past."""

from __future__ import annotations

from ..observe.observation import WorkloadType
from . import shares
from .causes_serving import GENERIC_SERVING
from .effects import (
    COMPUTE,
    FAILURES,
)
from .groups import (
    COMPUTING,
    DATA,
    DEGRADED,
    FLAG,
    OTHERS,
    SERVING,
)
from .hypotheses import CauseEntry, Veto, Why, explains
from .predicates import START, Predicate, all_of, either

KERNEL = "a kill is a kill"

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
        explains=explains("queueing", "cold-start"),
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
            *DATA,
            *OTHERS,
            *COMPUTING,
            *SERVING,
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
        explains=explains("hang", "queueing", "cold-start", "error-burst", FAILURES),
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
