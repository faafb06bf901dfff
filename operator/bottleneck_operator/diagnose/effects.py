"""What a symptom is first explained by: where in the step, or in the request, the time goes.

An effect is no cause. Causes name the effects that they bring about; the whys then lead from the
symptom over the effect to the cause, and ``AFFECTS`` says which effect a symptom is about.
"""

from __future__ import annotations

from ..observe.observation import WorkloadType
from .hypotheses import Effect, Why
from .predicates import START, Predicate, either

XPROF = "XProf input-pipeline analysis: ≥20% of the step waiting for input is highly input-bound"
KINETO = "Kineto's profiler advice: communication of more than 10% of the step"

INPUT_WAIT, RANKS_WAIT = "input-wait", "ranks-wait"
COMPUTE = "compute-dominates"
QUEUE_WAIT, MODEL_TIME = "requests-wait", "model-dominates"
DEPENDENCY_WAIT, FAILURES = "dependency-wait", "requests-fail"

EFFECTS: tuple[Effect, ...] = (
    Effect(
        INPUT_WAIT,
        WorkloadType.TRAINING,
        Predicate("training.dataShare", ">=", 0.20, XPROF),
        Why("{training.dataShare} of each step waits for input", ("training.dataShare",)),
    ),
    Effect(
        RANKS_WAIT,
        WorkloadType.TRAINING,
        Predicate("training.collectiveShare", ">=", 0.10, KINETO),
        Why(
            "{training.collectiveShare} of each step is spent in collectives between the ranks",
            ("training.collectiveShare",),
        ),
    ),
    Effect(
        COMPUTE,
        WorkloadType.TRAINING,
        Predicate("training.computeShare", ">=", 0.50, START),
        Why("{training.computeShare} of each step is computing", ("training.computeShare",)),
    ),
    Effect(
        QUEUE_WAIT,
        WorkloadType.INFERENCE,
        Predicate("inference.queueShare", ">=", 0.20, START),
        Why(
            "{inference.queueShare} of the latency is waiting before the model begins",
            ("inference.queueShare",),
        ),
    ),
    Effect(
        MODEL_TIME,
        WorkloadType.INFERENCE,
        Predicate("inference.serviceShare", ">=", 0.50, START),
        Why(
            "{inference.serviceShare} of the latency is the model's own time:"
            " {inference.serviceSeconds} for a request",
            ("inference.serviceShare", "inference.serviceSeconds"),
        ),
    ),
    Effect(
        DEPENDENCY_WAIT,
        WorkloadType.INFERENCE,
        either(
            Predicate("inference.dependencyShare", ">=", 0.40, START),
            Predicate("inference.restShare", ">=", 0.40, START),
        ),
        Why(
            "{inference.serviceSeconds} of it is the model; the rest is neither that nor the queue",
            ("inference.serviceSeconds",),
        ),
    ),
    Effect(
        FAILURES,
        WorkloadType.INFERENCE,
        Predicate("inference.errorRate", ">", "objective.errorRate", "the policy's target"),
        Why("{inference.errorRate} of the requests fail", ("inference.errorRate",)),
    ),
)

AFFECTS: dict[str, frozenset[str]] = {
    "DataWait": frozenset({INPUT_WAIT}),
    "ErrorRate": frozenset({FAILURES}),
    "Latency": frozenset({QUEUE_WAIT, MODEL_TIME, DEPENDENCY_WAIT}),
}
"""By objective, the effects it is about; causes that bring about one of them come first. Other
objectives are about all of them."""
