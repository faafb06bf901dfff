"""The catalogue of causes, as data: adding a cause means adding one entry here.

A cause is confirmed when every one of its predicates holds on measured figures; it is ruled out by
the first predicate that does not; without data it is neither. Thresholds stand here, with their
source, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..observe.observation import WorkloadType

XPROF = "XProf input-pipeline analysis: ≥20% of the step waiting for input is highly input-bound"
START = "starting value, to be calibrated on labelled faults"


@dataclass(frozen=True, slots=True)
class Predicate:
    """``signal op threshold``; the threshold is a number or the name of another signal."""

    signal: str
    op: str
    threshold: float | str
    source: str


@dataclass(frozen=True, slots=True)
class Why:
    """One line of the chain. ``{name}`` in the text is replaced by that signal's figure, and
    ``signals`` are cited behind it. The chain stops before the first line whose figures are not
    known or whose condition ``when`` does not hold."""

    text: str
    signals: tuple[str, ...] = ()
    when: Predicate | None = None


@dataclass(frozen=True, slots=True)
class CauseEntry:
    """One cause. ``share`` names the signal that tells what removing it would return (Amdahl);
    ``remedies`` name action types, cheapest first."""

    id: str
    class_: str
    category: str
    title: str
    workload: WorkloadType
    predicates: tuple[Predicate, ...]
    share: str
    remedies: tuple[str, ...]
    whys: tuple[Why, ...]
    advice: str = ""


CATALOGUE: tuple[CauseEntry, ...] = (
    CauseEntry(
        id="cpu-throttled",
        class_="cpu",
        category="Infrastructure",
        title="The CPU limit throttles the workload",
        workload=WorkloadType.UNKNOWN,
        predicates=(Predicate("cpu.throttledShare", ">=", 0.25, START),),
        share="cpu.throttledShare",
        remedies=(),
        whys=(
            Why(
                "the kernel stopped it in {cpu.throttledShare} of its scheduling periods",
                ("cpu.throttledShare",),
            ),
            Why(
                "it used {cpu.usedCores} against {cpu.availableCores} that its limit allows",
                ("cpu.usedCores", "cpu.availableCores"),
            ),
        ),
        advice="Raise the container's CPU limit.",
    ),
    CauseEntry(
        id="loader-without-workers",
        class_="data-loading",
        category="Data",
        title="The training process loads its own data: no loader workers",
        workload=WorkloadType.TRAINING,
        predicates=(
            Predicate("training.dataShare", ">=", 0.20, XPROF),
            Predicate("dataLoader.workers", "<", 1, "PyTorch: 0 workers load in the main process"),
        ),
        share="training.dataShare",
        remedies=("DataLoader",),
        whys=(
            Why("{training.dataShare} of each step waits for input", ("training.dataShare",)),
            Why(
                "samples are decoded in the training process itself: dataLoader.workers is 0, so"
                " loading and computing never overlap",
                ("dataLoader.workers",),
            ),
            Why(
                "nobody set workers, though the container used only {cpu.usedCores} of the"
                " {cpu.availableCores} it may use: CPUs stood idle while it waited",
                ("cpu.usedCores", "cpu.availableCores"),
                Predicate("cpu.busyShare", "<", 0.8, START),
            ),
        ),
        advice="Set num_workers of the DataLoader.",
    ),
    CauseEntry(
        id="loader-too-slow",
        class_="data-loading",
        category="Data",
        title="The loader workers cannot keep up",
        workload=WorkloadType.TRAINING,
        predicates=(
            Predicate("training.dataShare", ">=", 0.20, XPROF),
            Predicate("dataLoader.workers", ">=", 1, "PyTorch: 0 workers load in the main process"),
        ),
        share="training.dataShare",
        remedies=("DataLoader",),
        whys=(
            Why("{training.dataShare} of each step waits for input", ("training.dataShare",)),
            Why(
                "{dataLoader.workers} prepare it and are behind in every step",
                ("dataLoader.workers",),
            ),
            Why(
                "the container has no CPU left for more: it used {cpu.usedCores} of the"
                " {cpu.availableCores} it may use",
                ("cpu.usedCores", "cpu.availableCores"),
                Predicate("cpu.busyShare", ">=", 0.8, START),
            ),
        ),
        advice="Make preprocessing cheaper (decode once, cache, smaller images) or give it CPU.",
    ),
    CauseEntry(
        id="queueing",
        class_="queueing",
        category="Infrastructure",
        title="Requests queue: more arrive than the replicas can serve",
        workload=WorkloadType.INFERENCE,
        predicates=(
            Predicate("inference.queueShare", ">=", 0.5, START),
            Predicate("inference.serviceSeconds", "<", "objective.latency", "the policy's target"),
        ),
        share="inference.queueShare",
        remedies=("Replicas",),
        whys=(
            Why(
                "{inference.queueShare} of the latency is waiting before the model begins",
                ("inference.queueShare",),
            ),
            Why(
                "{inference.arrivalRate} arrive while one takes {inference.serviceSeconds}, so the"
                " servers are busy {inference.occupancy} of the time",
                ("inference.arrivalRate", "inference.serviceSeconds", "inference.occupancy"),
            ),
            Why(
                "the number of replicas is fixed at {replicas.desired} and no autoscaler follows"
                " the load",
                ("replicas.desired", "replicas.unowned"),
            ),
        ),
    ),
    CauseEntry(
        id="slow-model",
        class_="compute",
        category="Models",
        title="The model itself is slower than the objective",
        workload=WorkloadType.INFERENCE,
        predicates=(
            Predicate("inference.serviceSeconds", ">=", "objective.latency", "the policy's target"),
        ),
        share="inference.serviceShare",
        remedies=(),
        whys=(
            Why(
                "the model alone takes {inference.serviceSeconds} on average, without any queue",
                ("inference.serviceSeconds",),
            ),
        ),
        advice="More replicas will not help: use a faster or quantized model, or shorter outputs.",
    ),
)
