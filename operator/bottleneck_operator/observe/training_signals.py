"""Signals of training: the step and its parts, how the data is loaded, and how ranks compare. Pure.

See ``docs/signals.md`` for what each signal means.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bottleneck_sidecar.wire import PHASES, TrainingRank

from .counters import Delta, rate_of, total
from .long_view import MIN_STEPS
from .pod_window import MIN_SPAN_SECONDS, Figures, PodWindow, lower_median

COMPUTE = ("forward", "backward", "optimizer", "other")
"""Phases in which the training thread works on the model."""

ACCUMULATION = "batch.accumulation"
WORKERS = "dataLoader.workers"


def training(figures: Figures, parts: Sequence[PodWindow], now: float) -> None:
    """Puts down what is known of the ranks of these pods."""
    growths = [delta for part in parts for delta in part.training]
    figures.span = max((delta.span for delta in growths), default=0.0)
    steps = total(growths, "steps") or 0.0
    _standing(figures, parts, now)
    _long(figures, parts)
    if figures.span < MIN_SPAN_SECONDS or steps < MIN_STEPS:
        names = ["samplesPerSecond", "stepSeconds", *(f"{phase}Share" for phase in PHASES)]
        reason = f"only {steps:.0f} steps over {figures.span:.1f}s so far"
        figures.missing((f"training.{name}" for name in names), reason)
        return
    _step(figures, growths, steps, _accumulation(parts))
    _learning(figures, parts, growths, steps)
    _loading(figures, parts, growths)
    _ranks(figures, parts, growths)


def _step(
    figures: Figures, growths: Sequence[Delta], steps: float, accumulation: float | None
) -> None:
    spent = total(growths, "step_seconds")
    samples = total(growths, "samples")
    figures.put("training.samplesPerSecond", rate_of(growths, "samples"), "samples/s", "rate")
    figures.ratio("training.stepSeconds", spent, steps, "s", "mean")
    # An optimizer step may be of several micro-batches, where the process says so.
    batches = steps * (accumulation or 1.0)
    figures.ratio("training.microBatch", samples, batches, "samples", "mean")
    if accumulation is not None:
        figures.put("training.accumulation", accumulation, "micro-batches", "last")
    low = total(growths, "low_precision_steps")
    figures.ratio("training.lowPrecisionShare", low, steps, most=1.0)
    shares = {phase: _phase(growths, phase) for phase in PHASES}
    for phase, seconds in shares.items():
        figures.ratio(f"training.{phase}Share", seconds, spent)
    working = [shares[phase] for phase in COMPUTE]
    if None not in working:
        figures.ratio("training.computeShare", sum(each or 0.0 for each in working), spent)
    if all(delta.cpu is not None for delta in growths):
        on_cpu = sum(sum((delta.cpu or {}).values()) for delta in growths)
        figures.ratio("training.cpuShare", on_cpu, spent)


def _learning(
    figures: Figures, parts: Sequence[PodWindow], growths: Sequence[Delta], steps: float
) -> None:
    """How learning goes. Losses and norms are of single steps: no mean of them over a window is
    what anybody else calls the loss."""
    ranks = [rank for part in parts for rank in part.ranks]
    for name, unit, values in (
        ("loss", "units", [rank.loss for rank in ranks]),
        ("gradientNorm", "units", [rank.gradient_norm for rank in ranks]),
    ):
        known = [value for value in values if value is not None]
        if known and len(known) == len(values):
            mean = sum(known) / len(known)
            figures.put(f"training.{name}", mean, unit, "mean over ranks, last", 0.0)
    looked, bad = total(growths, "losses"), total(growths, "nonfinite_losses")
    figures.ratio("training.nonFiniteLossShare", bad, looked, most=1.0)
    skipped = total(growths, "skipped_steps")
    figures.ratio("training.skippedStepShare", skipped, steps, most=1.0)
    noise = noise_scale(ranks)
    figures.put("training.noiseScale", noise, "samples", "ratio of sums, smoothed", 0.0)


def noise_scale(ranks: Iterable[TrainingRank]) -> float | None:
    """The gradient noise scale in samples (McCandlish et al. 2018): the variance of one sample's
    gradient over the squared length of the true one. None where a rank does not tell it."""
    square = variance = 0.0
    for rank in ranks:
        if not rank.gradient_square or rank.gradient_variance is None:
            return None
        square += rank.gradient_square
        variance += rank.gradient_variance
    return variance / square if square else None


def _accumulation(parts: Sequence[PodWindow]) -> float | None:
    """Micro-batches of an optimizer step, where all ranks say the same number."""
    told = {(rank.knobs or {}).get(ACCUMULATION) for part in parts for rank in part.ranks}
    value = told.pop() if len(told) == 1 else None
    return float(value) if isinstance(value, int | float) and value >= 1 else None


def _phase(growths: Iterable[Delta], phase: str) -> float | None:
    """Seconds in a phase. One that some rank does not measure is not known; it is not zero."""
    result = 0.0
    for delta in growths:
        seconds = (delta.seconds or {}).get(phase)
        if seconds is None:
            return None
        result += seconds
    return result


def _standing(figures: Figures, parts: Sequence[PodWindow], now: float) -> None:
    """What is known also while no step ends."""
    ranks = [rank for part in parts for rank in part.ranks]
    figures.put("training.ranks", float(len(ranks)), "ranks", "last", 0.0)
    waits = [
        now - part.samples[-1][0] + max(0.0, part.samples[-1][1].time - rank.last_step_at)
        for part in parts
        for rank in part.ranks
        if rank.last_step_at is not None
    ]
    if waits:
        figures.put("training.sinceStepSeconds", max(waits), "s", "maximum over ranks", 0.0)
    busy = [rank.phase for rank in ranks]
    if any(phase in ("checkpoint", "evaluation") for phase in busy):
        figures.put("training.longPhase", 1.0, "ranks", "any rank", 0.0)
    elif None not in busy:
        figures.put("training.longPhase", 0.0, "ranks", "any rank", 0.0)
    workers = [_workers(rank) for rank in ranks]
    told = [count for count in workers if count is not None]
    if told:
        figures.put(WORKERS, min(told), "workers", "minimum over ranks")


def _workers(rank: TrainingRank) -> float | None:
    value = (rank.knobs or {}).get(WORKERS)
    return float(value) if isinstance(value, int | float) else None


def _long(figures: Figures, parts: Sequence[PodWindow]) -> None:
    """What needs more than a window, or the whole history."""
    views = [part.long for part in parts if part.long is not None]
    kept = max(view.kept for view in views)
    usual = [seconds for view in views for seconds in view.usual]
    if usual:
        figures.put("training.usualStepSeconds", lower_median(usual), "s", "median of ranks", kept)
    restarts = sum(view.restarts for view in views)
    figures.put("training.restarts", float(restarts), "restarts", "count", kept)
    rare = [view.rare for view in views if view.rare is not None]
    span = max((each.span for each in rare), default=0.0)
    if len(rare) == len(views) and span >= MIN_SPAN_SECONDS:
        checkpoints = sum(each.checkpoints for each in rare)
        whole = checkpoints + sum(each.steps + each.evaluations for each in rare)
        if whole > 0:
            share = checkpoints / whole
            figures.put("training.checkpointShare", share, "", "ratio of sums", span)


def _loading(figures: Figures, parts: Sequence[PodWindow], growths: Sequence[Delta]) -> None:
    """Where those who load the data spend their time: the loader workers, or without any the
    training thread while it is in the phase ``data``."""
    workers = {(part.number, rank.rank): _workers(rank) for part in parts for rank in part.ranks}
    seconds = on_cpu = in_queue = 0.0
    queue_known = True
    for delta in growths:
        count = workers.get(delta.seat)
        loaded = _loaded_by_workers(delta) if count else _loaded_alone(delta, count)
        if loaded is None:
            return
        seconds += loaded[0]
        on_cpu += loaded[1]
        queue_known = queue_known and loaded[2] is not None
        in_queue += loaded[2] or 0.0
    figures.ratio("loader.cpuShare", on_cpu, seconds, most=1.0)
    if queue_known and seconds > 0:
        figures.ratio("loader.runQueueShare", in_queue, seconds, most=1.0)
        figures.put(
            "loader.blockedShare",
            max(0.0, 1.0 - on_cpu / seconds - in_queue / seconds),
            "",
            "ratio of sums",
        )


Loaded = tuple[float, float, float | None]
"""Seconds that could have been used for loading, those on a CPU, those in the run queue."""


def _loaded_by_workers(delta: Delta) -> Loaded | None:
    counters = delta.counters
    seconds, on_cpu = counters.get("loader_seconds"), counters.get("loader_cpu_seconds")
    if seconds is None or on_cpu is None:
        return None
    return seconds, on_cpu, counters.get("loader_run_queue_seconds")


def _loaded_alone(delta: Delta, count: float | None) -> Loaded | None:
    seconds, on_cpu = (delta.seconds or {}).get("data"), (delta.cpu or {}).get("data")
    if count is None or seconds is None or on_cpu is None:
        return None
    waited, everything = delta.counters.get("run_queue_seconds"), sum((delta.cpu or {}).values())
    if waited is None or everything <= 0:
        return seconds, on_cpu, waited
    # The kernel counts a thread's waiting for a CPU as one figure: it falls to the phases as their
    # use of the CPU does.
    return seconds, on_cpu, min(waited * on_cpu / everything, max(0.0, seconds - on_cpu))


def _ranks(figures: Figures, parts: Sequence[PodWindow], growths: Sequence[Delta]) -> None:
    """How the ranks of one job compare. They run in lock-step, so a rank that is slow by itself
    shows as the others' waiting in collectives: it is told by the rest of its step."""
    names = [f"training.{name}" for name in ("stragglerRatio", "stragglerRank", "rankSpread")]
    if any(rank.world_size < 2 for part in parts for rank in part.ranks):
        return  # each trains for itself
    seats: dict[tuple[int, int], list[float]] = {}
    for delta in growths:
        collective = (delta.seconds or {}).get("collective")
        if collective is None:
            return
        sums = seats.setdefault(delta.seat, [0.0, 0.0, 0.0])
        for index, grown in enumerate(
            (delta.counters["steps"], delta.counters["step_seconds"], collective)
        ):
            sums[index] += grown
    if len(seats) < 2:
        return
    if any(steps < MIN_STEPS for steps, _, _ in seats.values()):
        figures.missing(names, f"a rank has ended less than {MIN_STEPS} steps")
        return
    own = {
        seat: max(0.0, spent - collective) / steps
        for seat, (steps, spent, collective) in seats.items()
    }
    slowest = max(own, key=own.__getitem__)
    median = lower_median(list(own.values()))
    shares = [collective / spent for _, spent, collective in seats.values() if spent > 0]
    if median > 0 and len(shares) == len(seats):
        ratio, spread = own[slowest] / median, (own[slowest] - min(own.values())) / median
        figures.put(names[0], ratio, "×", "slowest over median rank")
        figures.put(names[1], float(slowest[1]), "rank", "slowest")
        figures.put(names[2], spread, "×", "range over median rank")
        # All wait for the slowest, so this much of every step would be gone without it.
        step = own[slowest] + seats[slowest][2] / seats[slowest][0]
        figures.ratio(
            "training.stragglerShare", own[slowest] - median, step, statistic="of the slowest step"
        )
        figures.put("training.collectiveFloorShare", min(shares), "", "minimum over ranks")
