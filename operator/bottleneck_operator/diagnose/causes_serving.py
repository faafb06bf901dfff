"""The catalogue: causes of model servers."""

from __future__ import annotations

from ..observe.observation import WorkloadType
from . import shares
from .effects import DEPENDENCY_WAIT, FAILURES, MODEL_TIME, QUEUE_WAIT
from .groups import DEGRADED, FLAG
from .hypotheses import CauseEntry, Explains, Veto, Why, explains
from .predicates import START, Predicate, all_of, any_of, either

TARGET = "the policy's target"

_SLOW = (
    Predicate("inference.latency", ">", "objective.latency", TARGET),
    Predicate("inference.latencySlowdown", ">=", 1.20, DEGRADED),
)
"""That requests take too long at all, by the policy or by what is usual."""

_FEEDING = Predicate("inference.retryShare", ">=", 0.20, START)
"""Enough retries to make a queue of their own."""

SERVING_CAUSES: tuple[CauseEntry, ...] = (
    CauseEntry(
        id="error-burst",
        class_="errors",
        category="Models",
        stage="serving",
        title="Requests fail",
        workload=WorkloadType.INFERENCE,
        predicates=(
            Predicate(
                "inference.errorRate",
                ">",
                "objective.errorRate",
                f"{TARGET}; 5% where it sets none ({START})",
            ),
        ),
        vetoes=(
            Veto(
                Predicate("inference.failures", "<", 3, START),
                "one or two failures are no burst",
            ),
        ),
        share=shares.signal("inference.errorRate"),
        explains=(*explains(FAILURES), *explains("queueing", QUEUE_WAIT, when=_FEEDING)),
        whys=(
            Why(
                "{inference.retryShare} what arrives are retries, which feed the queue",
                ("inference.retryShare",),
                _FEEDING,
                optional=True,
            ),
        ),
        advice="Read the server's log for the first of these errors; roll back the last change if"
        " they began with it.",
    ),
    CauseEntry(
        id="slow-dependency",
        class_="dependency",
        category="Infrastructure",
        stage="integration",
        title="Requests wait for another service",
        workload=WorkloadType.INFERENCE,
        predicates=(
            either(
                Predicate("inference.dependencyShare", ">=", 0.40, START),
                all_of(
                    Predicate("inference.restShare", ">=", 0.40, START),
                    Predicate("inference.occupancy", "<", 0.70, START),
                ),
            ),
            any_of(
                *_SLOW,
                Predicate("inference.dependencySlowdown", ">=", 1.20, DEGRADED),
                all_of(
                    Predicate("inference.dependencyShare", ">=", 0.50, START),
                    Predicate("inference.dependencySeconds", ">=", 0.050, START),
                ),
                all_of(
                    Predicate("inference.restShare", ">=", 0.50, START),
                    Predicate("inference.restSeconds", ">=", 0.100, START),
                ),
            ),
        ),
        vetoes=(
            Veto(
                Predicate("inference.serviceSlowdown", ">=", 1.50, DEGRADED),
                "the model's own time rose as well, so it is not only the other service",
            ),
        ),
        share=shares.signal("inference.dependencyShare", "inference.restShare"),
        explains=explains("queueing", "batching-delay", QUEUE_WAIT, DEPENDENCY_WAIT),
        whys=(
            Why(
                "{inference.dependencyShare} of the latency is waiting for the answer of another"
                " service",
                ("inference.dependencyShare",),
                optional=True,
            ),
            Why(
                "{inference.restShare} of the latency is neither queue nor model nor a dependency"
                " that is known by name: the request waits for something else",
                ("inference.restShare",),
                Predicate("inference.restShare", ">=", 0.40, START),
                optional=True,
            ),
            Why(
                "that service takes {inference.dependencySlowdown} what it usually takes",
                ("inference.dependencySlowdown",),
                Predicate("inference.dependencySlowdown", ">=", 1.20, DEGRADED),
                optional=True,
            ),
            Why(
                "the servers have time left: the model is busy {inference.occupancy} of the time",
                ("inference.occupancy",),
                Predicate("inference.occupancy", "<", 0.70, START),
                optional=True,
            ),
        ),
        advice="Look at that service; more replicas of this one will not help. Give the call a"
        " timeout, and cache what may be old.",
    ),
    CauseEntry(
        id="cold-start",
        class_="cold-start",
        category="Infrastructure",
        stage="serving",
        title="New servers are slow with their first requests",
        workload=WorkloadType.INFERENCE,
        predicates=(
            Predicate("inference.uptimeSeconds", "<", 120, START),
            either(
                all_of(
                    Predicate("inference.firstServiceRatio", ">=", 5, START),
                    Predicate("inference.firstServiceSeconds", ">=", 0.5, START),
                    either(
                        Predicate("inference.queueShare", ">=", 0.50, START),
                        Predicate("inference.firstServiceSeconds", ">=", 2.0, START),
                    ),
                ),
                Predicate("inference.youngLatencyRatio", ">=", 2, START),
                all_of(
                    Predicate("pods.notReady", ">=", 1, FLAG, flag=True),
                    either(*_SLOW),
                ),
            ),
        ),
        share=shares.first_of(
            shares.slowdown("inference.youngLatencyRatio"),
            shares.quotient("inference.firstServiceSeconds", "inference.uptimeSeconds"),
            shares.fixed(0.5, "the missing replicas' share of the load is not known"),
        ),
        explains=explains("queueing", "slow-model", QUEUE_WAIT, MODEL_TIME),
        whys=(
            Why(
                "the youngest server runs for {inference.uptimeSeconds}",
                ("inference.uptimeSeconds",),
            ),
            Why(
                "its first request took {inference.firstServiceSeconds},"
                " {inference.firstServiceRatio} what one takes since: it loads or compiles the"
                " model when somebody already waits",
                ("inference.firstServiceSeconds", "inference.firstServiceRatio"),
                Predicate("inference.firstServiceRatio", ">=", 5, START),
                optional=True,
            ),
            Why(
                "others are not ready yet: {pods.notReady}",
                ("pods.notReady",),
                Predicate("pods.notReady", ">=", 1, FLAG, flag=True),
                optional=True,
            ),
            Why(
                "{pods.withoutProbe} without a readiness probe get requests before they are ready",
                ("pods.withoutProbe",),
                Predicate("pods.withoutProbe", ">=", 1, FLAG, flag=True),
            ),
        ),
        advice="Load the model and send it a request before the readiness probe succeeds; scale up"
        " earlier, or keep a spare replica.",
    ),
    CauseEntry(
        id="queueing",
        class_="queueing",
        category="Infrastructure",
        stage="serving",
        title="Requests queue: more arrive than the replicas can serve",
        workload=WorkloadType.INFERENCE,
        predicates=(
            either(
                Predicate("inference.queueShare", ">=", 0.50, START),
                Predicate("inference.queueSeconds", ">=", "objective.latency", START, factor=0.5),
                # A process that is full is late with its answers, too: a model that holds the
                # interpreter's lock starves the loop that should send what is ready.
                all_of(
                    Predicate("inference.queueShare", ">=", 0.20, START),
                    Predicate("inference.restShare", ">=", 0.20, START),
                    Predicate("inference.occupancy", ">=", 0.80, "M/M/1: waits are 4 services"),
                    Predicate("inference.queued", ">=", 2, START),
                ),
            ),
            either(
                Predicate("inference.occupancy", ">=", 0.70, START),
                all_of(
                    Predicate("inference.queued", ">=", 2, START),
                    Predicate("inference.batching", "<", 1, FLAG, flag=True),
                ),
            ),
            any_of(
                *_SLOW,
                all_of(
                    Predicate("inference.queueShare", ">=", 0.80, "M/M/1: waiting at 80% busy"),
                    either(
                        Predicate("inference.occupancy", ">=", 0.90, START),
                        Predicate(
                            "inference.queuedPerPlace", ">=", 5, "M/M/1: the queue at 85% busy"
                        ),
                    ),
                ),
            ),
        ),
        vetoes=(
            Veto(
                Predicate("inference.serviceSeconds", ">=", "objective.latency", TARGET),
                "the model alone takes longer than the objective: without any queue it would still"
                " be breached",
            ),
        ),
        share=shares.signal("inference.queueShare"),
        explains=explains(QUEUE_WAIT),
        remedies=("BatchSize", "Replicas", "Variant"),
        whys=(
            Why(
                "{inference.arrivalRate} arrive while one takes {inference.serviceSeconds}, so the"
                " servers are busy {inference.occupancy} of the time",
                ("inference.arrivalRate", "inference.serviceSeconds", "inference.occupancy"),
            ),
            Why(
                "another {inference.restShare} waits behind the model: the process is too busy to"
                " send what is ready",
                ("inference.restShare",),
                Predicate("inference.restShare", ">=", 0.20, START),
                optional=True,
            ),
            Why(
                "the load is {inference.loadRatio} what is usual",
                ("inference.loadRatio",),
                Predicate("inference.loadRatio", ">=", 1.20, START),
                optional=True,
            ),
            Why(
                "the number of replicas is fixed at {replicas.desired} and no autoscaler follows"
                " the load",
                ("replicas.desired", "replicas.unowned"),
            ),
        ),
        advice="Add replicas, use a faster variant of the model, or let requests share a batch.",
    ),
    CauseEntry(
        id="batching-delay",
        class_="batching",
        category="Models",
        stage="serving",
        title="Requests wait for a batch to fill while the server is idle",
        workload=WorkloadType.INFERENCE,
        predicates=(
            Predicate("inference.queueShare", ">=", 0.50, START),
            Predicate("inference.occupancy", "<", 0.70, START),
            Predicate("inference.batching", ">=", 1, FLAG, flag=True),
            either(
                Predicate("inference.queueSeconds", ">=", 0.030, START),
                # What is little for one service is much for another.
                Predicate("inference.queueSeconds", ">=", "objective.latency", START, factor=0.5),
            ),
        ),
        vetoes=(
            Veto(
                Predicate(
                    "inference.queueSeconds", ">=", "inference.batchDelaySeconds", START, factor=2.0
                ),
                "they wait much longer than the batcher may make them wait",
            ),
        ),
        share=shares.signal("inference.queueShare"),
        explains=explains(QUEUE_WAIT),
        whys=(
            Why(
                "a request waits {inference.queueSeconds} though the model is busy only"
                " {inference.occupancy} of the time",
                ("inference.queueSeconds", "inference.occupancy"),
            ),
            Why(
                "the batcher waits up to {inference.batchDelaySeconds} for more to arrive",
                ("inference.batchDelaySeconds",),
            ),
            Why(
                "a batch is {inference.batchSize} of at most {inference.batchLimit}, so it seldom"
                " fills",
                ("inference.batchSize", "inference.batchLimit"),
            ),
        ),
        remedies=("BatchSize",),
        advice="Shorten the batcher's delay, or let it start as soon as the model is free.",
    ),
    CauseEntry(
        id="batch-too-large",
        class_="batching",
        category="Models",
        stage="serving",
        title="Batches are too large for the latency that is wanted",
        workload=WorkloadType.INFERENCE,
        predicates=(
            Predicate("inference.batching", ">=", 1, FLAG, flag=True),
            Predicate("inference.batchSize", ">=", 2, START),
            Predicate("inference.serviceShare", ">=", 0.50, START),
            any_of(
                Predicate("inference.serviceSeconds", ">=", "objective.latency", START, factor=0.5),
                Predicate("inference.serviceSlowdown", ">=", 1.50, DEGRADED),
            ),
        ),
        share=shares.signal("inference.serviceShare"),
        explains=explains("slow-model", MODEL_TIME),
        whys=(
            Why(
                "a request takes as long as its whole batch, and a batch holds"
                " {inference.batchSize}",
                ("inference.batchSize",),
            ),
            Why(
                "the server is allowed batches of {inference.batchLimit}",
                ("inference.batchLimit",),
            ),
        ),
        remedies=("BatchSize",),
        advice="Lower the largest batch size until the model's own time is well under the"
        " objective, and add replicas for the throughput that costs.",
    ),
    CauseEntry(
        id="slow-model",
        class_="compute",
        category="Models",
        stage="model",
        title="The model itself is slower than the objective",
        workload=WorkloadType.INFERENCE,
        predicates=(
            any_of(
                Predicate("inference.serviceSeconds", ">=", "objective.latency", TARGET),
                all_of(
                    Predicate(
                        "inference.serviceSeconds", ">=", "objective.latency", START, factor=0.5
                    ),
                    Predicate("inference.serviceShare", ">=", 0.70, START),
                ),
            ),
        ),
        share=shares.signal("inference.serviceShare"),
        explains=explains(MODEL_TIME),
        needs_breach=True,
        whys=(
            Why(
                "the model alone takes {inference.serviceSeconds} on average, without any queue",
                ("inference.serviceSeconds",),
            ),
        ),
        remedies=("Precision", "Variant"),
        advice="More replicas will not help: use a faster or quantized model, or shorter outputs.",
    ),
)

GENERIC_SERVING = (
    Explains("queueing", Predicate("inference.serviceSlowdown", ">=", 1.20, DEGRADED)),
    Explains("slow-model"),
    Explains("error-burst"),
    Explains(QUEUE_WAIT, Predicate("inference.serviceSlowdown", ">=", 1.20, DEGRADED)),
    Explains(MODEL_TIME),
)
"""What a change or a drift makes of a server: a slower model, and with it a queue."""
