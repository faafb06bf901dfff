"""Signals of the workload's containers and of the nodes they run on, from cgroup figures. Pure.

Every pod has its own container, however many processes run in it. A figure that one pod lacks is
not known of the workload: a sum over a part of the pods would read the others as zero. Where one
suffering pod is enough to hold up all, the figure is that of the worst one.
"""

from __future__ import annotations

from collections.abc import Sequence

from bottleneck_sidecar.wire import Container

from .pod_window import Figures, Life, PodWindow

WORST = "maximum over pods"


def container(figures: Figures, parts: Sequence[PodWindow]) -> None:
    """Puts down what is known of the containers of these pods."""
    _run_queue(figures, parts)
    lives = [part.life for part in parts if part.life is not None]
    if not lives or len(lives) < len(parts):
        return
    figures.span = max(life.seconds for life in lives)
    _cpu(figures, lives)
    _memory(figures, lives)
    _node(figures, lives)
    read = _rates(lives, "read_bytes")
    if read is not None:
        figures.put("io.readBytesPerSecond", sum(read), "B/s", "rate")
        if any(part.training for part in parts):
            figures.put("loader.readBytesPerSecond", sum(read), "B/s", "rate")
    for resource in ("cpu", "memory", "io"):
        stalled = _growth(lives, f"{resource}_pressure_seconds")
        observed = sum(life.seconds for life in lives)
        figures.ratio(f"{resource}.pressureShare", stalled, observed)


def _growths(lives: Sequence[Life], name: str) -> list[float] | None:
    """Growth of a counter in each pod; None as soon as one lacks it or it went back."""
    found = []
    for life in lives:
        start, end = getattr(life.first, name), getattr(life.last, name)
        if start is None or end is None or end < start:
            return None
        found.append(float(end - start))
    return found


def _growth(lives: Sequence[Life], name: str) -> float | None:
    found = _growths(lives, name)
    return None if found is None else sum(found)


def _rates(lives: Sequence[Life], name: str) -> list[float] | None:
    found = _growths(lives, name)
    if found is None:
        return None
    return [grown / life.seconds for grown, life in zip(found, lives, strict=True)]


def _run_queue(figures: Figures, parts: Sequence[PodWindow]) -> None:
    """How long processes that could have run waited for a CPU. One that does not tell is left out:
    the worst of the others is still a lower bound."""
    waits = [
        (delta.counters["run_queue_seconds"] / delta.span, delta.span)
        for part in parts
        for delta in (*part.training, *part.inference)
        if "run_queue_seconds" in delta.counters
    ]
    if waits:
        share, span = max(waits)
        figures.put("cpu.runQueueShare", min(1.0, share), "", "maximum over processes", span)


def _cpu(figures: Figures, lives: Sequence[Life]) -> None:
    rates = _rates(lives, "cpu_seconds")
    used = None if rates is None else sum(rates)
    bounds = [bound for life in lives if (bound := _available(life.last)) is not None]
    available = sum(bounds) if len(bounds) == len(lives) else None
    figures.put("cpu.usedCores", used, "cores", "mean")
    figures.put("cpu.mostUsedCores", None if rates is None else max(rates), "cores", WORST)
    figures.put("cpu.availableCores", available, "cores", "last")
    figures.ratio("cpu.busyShare", used, available, statistic="mean")
    throttled, periods = _growth(lives, "throttled_periods"), _growth(lives, "periods")
    figures.ratio("cpu.throttledShare", throttled, periods)
    stopped = _rates(lives, "throttled_seconds")
    if stopped is not None:
        figures.put("cpu.throttledTimeShare", min(1.0, max(stopped)), "", WORST)


def _available(figures: Container) -> float | None:
    bounds = (figures.cpu_limit_cores, figures.cpus)
    return min((float(bound) for bound in bounds if bound is not None), default=None)


def _memory(figures: Figures, lives: Sequence[Life]) -> None:
    shares = [
        life.last.memory_bytes / life.last.memory_limit_bytes
        for life in lives
        if life.last.memory_bytes is not None and life.last.memory_limit_bytes
    ]
    if len(shares) == len(lives):
        figures.put("memory.usedShare", max(shares), "", WORST)
    figures.put("memory.oomKills", _growth(lives, "oom_kills"), "kills", "count")
    for name, counter, unit in (
        ("memory.limitHitsPerSecond", "memory_limit_hits", "hits/s"),
        ("memory.majorFaultsPerSecond", "major_faults", "faults/s"),
    ):
        rates = _rates(lives, counter)
        figures.put(name, None if rates is None else max(rates), unit, WORST)


def _node(figures: Figures, lives: Sequence[Life]) -> None:
    """The node of each pod; nobody tells whether two pods share one, so none is added up."""
    rates = _rates(lives, "node_busy_seconds")
    cpus = [float(life.last.node_cpus) for life in lives if life.last.node_cpus]
    if rates is None or len(cpus) != len(lives):
        return
    shares = [min(1.0, rate / count) for rate, count in zip(rates, cpus, strict=True)]
    figures.put("node.busyShare", max(shares), "", WORST)
    used = _rates(lives, "cpu_seconds")
    if used is None:
        return
    # The two are read one after the other, so the difference can be a little below zero.
    others = [max(0.0, rate - own) for rate, own in zip(rates, used, strict=True)]
    figures.put("node.othersCores", max(others), "cores", WORST)
    of_node = [min(1.0, other / count) for other, count in zip(others, cpus, strict=True)]
    figures.put("node.othersShare", max(of_node), "", WORST)
