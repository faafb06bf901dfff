"""Figures that follow from others: the policy's targets as signals, products, counts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import median

from ..api import units
from ..api.objectives import Objectives
from ..observe.observation import Observation, Reading, Signal, WorkloadType
from .predicates import Signals, value

DERIVED = frozenset(
    {
        "cpu.busyShare",
        "cpu.contendedReplicas",
        "cpu.contentionShare",
        "cpu.throttledReplicas",
        "inference.batching",
        "inference.failures",
        "inference.queuedPerPlace",
        "inference.restSeconds",
        "inference.serviceShare",
        "inference.youngLatencyRatio",
        "node.foreignShare",
        "objective.errorRate",
        "objective.latency",
        "pods.missingShare",
        "training.collectiveSeconds",
        "training.coresPerRank",
        "training.dataSeconds",
        "training.microBatchSeconds",
        "workload.training",
    }
)
"""The signals that are made here; each only where what it is made of is measured."""

ERROR_RATE = 0.05
"""The share of failing requests that is too much where no policy says otherwise (start)."""

YOUNG_SECONDS = 120.0
"""A server that is younger may still be warming up (start)."""

ALIKE = 0.15
"""Nodes whose busy shares differ by no more may be one and the same: each pod samples at moments of
its own (start)."""

ACCUMULATION = "training.accumulation"
"""Absent where a step is one batch, or where the process does not say."""

CONTENDED, THROTTLED = 0.15, 0.25
"""From where a replica counts as one that lacks a CPU, or is throttled; as in the catalogue."""


def with_derived(
    observation: Observation, facts: Mapping[str, Signal], objectives: Objectives | None
) -> dict[str, Signal]:
    """All signals of the workload: measured, from the cluster, and derived."""
    signals: dict[str, Signal] = {**observation.signals, **facts}
    _targets(signals, objectives)
    _flag(signals, "workload.training", observation.type is WorkloadType.TRAINING)
    _quotient(signals, "cpu.busyShare", "cpu.usedCores", "cpu.availableCores")
    _quotient(signals, "pods.missingShare", "pods.unschedulable", "replicas.desired")
    _product(signals, "training.dataSeconds", "training.dataShare", "training.stepSeconds")
    _product(
        signals, "training.collectiveSeconds", "training.collectiveShare", "training.stepSeconds"
    )
    _micro_batch_seconds(signals)
    _quotient(signals, "training.coresPerRank", "cpu.usedCores", "training.ranks", "cores")
    _failures(signals)
    _queued(signals, max(1, len(observation.ranks) or len(observation.replicas)))
    _contention(signals, observation)
    _service_share(signals)
    _rest_seconds(signals)
    _batching(signals)
    _foreign(signals, [replica.signals for replica in observation.replicas])
    if len(observation.replicas) > 1:
        _replicas(signals, [replica.signals for replica in observation.replicas])
    return signals


def _targets(signals: dict[str, Signal], objectives: Objectives | None) -> None:
    if objectives is not None and objectives.latency is not None:
        target = units.seconds(objectives.latency.target)
        signals["objective.latency"] = Reading(target, "s", 0.0, "constant", 0.0, "policy")
    rate, source = ERROR_RATE, "default"
    if objectives is not None and objectives.error_rate is not None:
        rate, source = units.fraction(objectives.error_rate.max), "policy"
    signals["objective.errorRate"] = Reading(rate, "", 0.0, "constant", 0.0, source)


def _flag(signals: dict[str, Signal], name: str, yes: bool) -> None:
    signals[name] = Reading(float(yes), "", 0.0, "yes or no", 0.0, "derived")


def _failures(signals: dict[str, Signal]) -> None:
    share, rate = signals.get("inference.errorRate"), value(signals, "inference.arrivalRate")
    if isinstance(share, Reading) and rate is not None:
        count = share.value * rate * share.window
        signals["inference.failures"] = replace(share, value=count, unit="requests")


def _queued(signals: dict[str, Signal], servers: int) -> None:
    queued, places = signals.get("inference.queued"), value(signals, "inference.concurrency")
    if isinstance(queued, Reading) and places:
        waiting = queued.value / (places * servers)
        signals["inference.queuedPerPlace"] = replace(queued, value=waiting)


def _quotient(
    signals: dict[str, Signal], name: str, above: str, below: str, unit: str = ""
) -> None:
    part, whole = signals.get(above), value(signals, below)
    if name not in signals and isinstance(part, Reading) and whole:
        signals[name] = replace(part, value=part.value / whole, unit=unit)


def _product(signals: dict[str, Signal], name: str, factor: str, of: str) -> None:
    ratio, whole = value(signals, factor), signals.get(of)
    if name not in signals and ratio is not None and isinstance(whole, Reading):
        signals[name] = replace(whole, value=ratio * whole.value)


def _micro_batch_seconds(signals: dict[str, Signal]) -> None:
    step, accumulation = signals.get("training.stepSeconds"), value(signals, ACCUMULATION)
    if isinstance(step, Reading):
        seconds = step.value / (accumulation or 1.0)
        signals.setdefault("training.microBatchSeconds", replace(step, value=seconds))


def _contention(signals: dict[str, Signal], observation: Observation) -> None:
    """A thread that its limit stopped is ready to run as well: that part is not the node's. A
    server's figure is the sum over its threads; it holds up a request by that over the number of
    threads that could run at once."""
    waited = signals.get("cpu.runQueueShare")
    if not isinstance(waited, Reading):
        return
    share = waited.value
    if observation.type is WorkloadType.INFERENCE:
        used = value(signals, "cpu.usedCores") or 0.0
        share /= max(1.0, share + used / max(1, len(observation.replicas)))
    stopped = value(signals, "cpu.throttledTimeShare") or 0.0
    signals["cpu.contentionShare"] = replace(waited, value=max(0.0, share - stopped))


def _service_share(signals: dict[str, Signal]) -> None:
    queue = signals.get("inference.queueShare")
    if "inference.serviceShare" in signals or not isinstance(queue, Reading):
        return
    # A dependency that nobody reports takes no part that is known; what is known is taken away.
    others = (value(signals, f"inference.{name}Share") or 0.0 for name in ("dependency", "rest"))
    share = 1.0 - queue.value - sum(others)
    signals["inference.serviceShare"] = replace(queue, value=max(0.0, share))


def _rest_seconds(signals: dict[str, Signal]) -> None:
    """The mean latency is not a signal of its own; the model's time and its share give it."""
    rest, seconds = value(signals, "inference.restShare"), signals.get("inference.serviceSeconds")
    share = value(signals, "inference.serviceShare")
    if rest is not None and share and isinstance(seconds, Reading):
        signals["inference.restSeconds"] = replace(seconds, value=rest * seconds.value / share)


def _batching(signals: dict[str, Signal]) -> None:
    """Whether requests wait for a batch to fill: something that a server declares, or is seen
    doing. A server of tokens takes each one in as soon as it can, however many it works on."""
    size, limit = (value(signals, f"inference.batch{name}") for name in ("Size", "Limit"))
    continuous = any(isinstance(signals.get(name), Reading) for name in _OF_TOKENS)
    batching = ((size or 0.0) >= 1.2 and not continuous) or (limit or 0.0) >= 2
    _flag(signals, "inference.batching", batching)


_OF_TOKENS = ("inference.tokensPerSecond", "inference.firstTokenSeconds", "inference.cacheShare")


def _foreign(signals: dict[str, Signal], replicas: Sequence[Signals]) -> None:
    """What a node's CPUs do for other workloads. Replicas on one node are each other's others; that
    two see equally busy nodes tells that they may share one, unless together they use more than it
    gives."""
    others = signals.get("node.othersShare")
    if not isinstance(others, Reading):
        return
    seen: list[tuple[int, float, float, float]] = []
    for replica in replicas if len(replicas) > 1 else ():
        names = ("node.othersShare", "node.othersCores", "cpu.usedCores")
        share, cores, used = (value(replica, name) for name in names)
        if share and cores is not None and used is not None:
            cpus = max(1, round(cores / share))
            seen.append((cpus, (cores + used) / cpus, cores, used))
    foreign = [
        (cores - (together - used) if together <= busy * cpus else cores) / cpus
        for pods in _alike(sorted(seen))
        for together in [sum(used for *_, used in pods)]
        for cpus, busy, cores, used in pods
    ]
    most = max(foreign) if foreign else others.value
    signals["node.foreignShare"] = replace(others, value=max(0.0, most))


def _alike(
    pods: Sequence[tuple[int, float, float, float]],
) -> Iterator[list[tuple[int, float, float, float]]]:
    """Pods in order of their node's CPUs and how busy it is, by what may be one node."""
    group: list[tuple[int, float, float, float]] = []
    for pod in pods:
        if group and (pod[0] != group[-1][0] or pod[1] - group[-1][1] > ALIKE):
            yield group
            group = []
        group.append(pod)
    if group:
        yield group


def _replicas(signals: dict[str, Signal], replicas: Iterable[Signals]) -> None:
    """How many replicas lack something, where that is known of each; whether the young are slow."""
    each = list(replicas)
    for name, of, bound in (
        ("cpu.throttledReplicas", "cpu.throttledShare", THROTTLED),
        ("cpu.contendedReplicas", "cpu.runQueueShare", CONTENDED),
    ):
        known = [found for replica in each if (found := value(replica, of)) is not None]
        if len(known) == len(each):
            count = float(sum(found >= bound for found in known))
            signals[name] = Reading(count, "replicas", 0.0, "count", 0.0, "derived")
    young: list[float] = []
    old: list[float] = []
    for replica in each:
        up, latency = (value(replica, f"inference.{n}") for n in ("uptimeSeconds", "latency"))
        if up is not None and latency is not None:
            (young if up < YOUNG_SECONDS else old).append(latency)
    if young and old and median(old) > 0:
        signals["inference.youngLatencyRatio"] = Reading(
            max(young) / median(old), "", 0.0, "slowest young over median old", 0.0, "derived"
        )
