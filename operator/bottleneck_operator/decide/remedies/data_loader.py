"""More loader workers for training that waits for its input."""

from __future__ import annotations

from collections.abc import Iterator

from ...api.allowed import DataLoaderAction
from ...api.conditions import Reason
from ...api.meta import Setting
from ...api.policy import PolicySpec
from ...api.report import Action, Cause, Prediction
from ...observe.observation import Observation
from ..decision import Facts, Refusal
from .common import WORTH, knobs_change, listed, not_allowed, not_settable, word

WORKERS = "dataLoader.workers"
PREFETCH = "dataLoader.prefetch"
PERSISTENT = "dataLoader.persistentWorkers"
PIN = "dataLoader.pinMemory"


def data_loader(
    cause: Cause, observation: Observation, spec: PolicySpec, facts: Facts
) -> Action | Refusal:
    """More loader workers, as many as the CPUs can feed and the bounds allow.

    Model: with loading time d and other time c of a step on w workers and C CPUs, a step takes
    max(c, d/w, (c + p·d)/C): it can be no shorter than its own work, than its share of the loading,
    and than all the work spread over all CPUs, where p is the part of the loading that is work and
    not waiting for storage.
    """
    bounds = spec.actions.data_loader
    if bounds is None:
        return not_allowed("dataLoader", "actions: {dataLoader: {maxWorkers: 4}}")
    if WORKERS not in facts.settable:
        return not_settable(
            "its loader", "wrap it with StepMonitor.loader of the SDK, with a map-style dataset"
        )
    workers = observation.value(WORKERS)
    step = observation.value("training.stepSeconds")
    share = observation.value("training.dataShare")
    rate = observation.value("training.samplesPerSecond")
    if workers is None or not step or share is None or rate is None:
        return Refusal(Reason.NO_DATA, "step time and loader settings are not known")
    ranks = max(1, len(observation.ranks) // max(1, observation.streaming))
    available = observation.value("cpu.availableCores")
    cpus = available / max(1, len(observation.ranks)) if available else None

    other = step * (1 - share)
    # With workers, what is seen as waiting is only the excess of loading over computing.
    loading = step * share if workers < 1 else step * workers
    # Of the loading only what is work needs a CPU: who waits for storage leaves it to others.
    on_cpu = observation.value("loader.cpuShare")
    work = loading * (1.0 if on_cpu is None else on_cpu)

    def predicted(count: int) -> float:
        floor = (other + work) / cpus if cpus else 0.0
        return max(other, loading / count, floor)

    now = int(workers)
    best, best_step = now, step
    for count in range(max(1, now + 1), bounds.max_workers + 1):
        if best_step / predicted(count) >= WORTH:
            best, best_step = count, predicted(count)
    if best == now:
        return _loader_exhausted(now, bounds, cpus, ranks)
    prefetch = _knob(observation, PREFETCH, 2)
    current: dict[str, Setting] = {WORKERS: now, PREFETCH: prefetch}
    desired: dict[str, Setting] = {
        WORKERS: best,
        PREFETCH: min(bounds.max_prefetch, max(4, prefetch)),
    }
    for name in _with_workers(bounds):
        # More workers start anew with every epoch, and more batches wait to be copied.
        if name in facts.settable and word(observation, name) == "off":
            current[name], desired[name] = "off", "on"
    return Action(
        type="DataLoader",
        summary=listed(current, desired),
        cause=cause.id,
        knobs=knobs_change(facts, current, desired),
        prediction=Prediction(
            before=round(rate, 3),
            after=round(rate * step / best_step, 3),
            basis="step = max(compute, loading / workers, all work / CPUs)",
        ),
    )


def _with_workers(bounds: DataLoaderAction) -> Iterator[str]:
    if bounds.persistent_workers:
        yield PERSISTENT
    if bounds.pin_memory:
        yield PIN


def _loader_exhausted(
    now: int, bounds: DataLoaderAction, cpus: float | None, ranks: int
) -> Refusal:
    if now >= bounds.max_workers:
        return Refusal(
            Reason.AT_MAXIMUM,
            f"dataLoader.workers is {now}, the policy's maximum; raise actions.dataLoader."
            "maxWorkers, or make preprocessing cheaper. More replicas would not help",
        )
    return Refusal(
        Reason.NO_REMEDY,
        f"more than {now} workers would not be faster on {cpus or 0:.1f} CPUs for each of {ranks} "
        "ranks; make preprocessing cheaper or give it more CPU. More replicas would not help",
    )


def _knob(observation: Observation, name: str, default: int) -> int:
    values = [rank.knobs.get(name) for rank in observation.ranks]
    known = [int(value) for value in values if isinstance(value, int | float)]
    return min(known, default=default)
