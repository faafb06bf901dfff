"""Workloads made of formulas, for the planner's decisions without processes, clocks or chance: what
every setting returns is known, and so is the best of them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from bottleneck_operator.api.meta import Setting
from bottleneck_operator.api.report import (
    Action,
    BottleneckReport,
    Metric,
    Phase,
    Verdict,
    VerdictResult,
)
from bottleneck_operator.decide.decision import Facts, Plan
from bottleneck_operator.decide.lifecycle import desired_knobs
from bottleneck_operator.decide.planner import decide
from bottleneck_operator.diagnose.engine import diagnose
from bottleneck_operator.observe.observation import Observation, WorkloadType
from bottleneck_operator.verify.judge import MATTERS

from .builders import NOW, moment, observation, reading, report, spec, talking

Knobs = dict[str, Setting]

REQUESTS = 800
MOST_WAITING = 64


class Simulated(Protocol):
    """A workload: its settings, what the policy allows and wants, and what is seen of it."""

    type: WorkloadType
    start: Knobs
    actions: dict[str, Any]
    objectives: dict[str, Any]

    def value(self, knobs: Knobs) -> float:
        """Samples per second, or one over the p95 latency: more is better."""

    def signals(self, knobs: Knobs) -> Mapping[str, float]:
        """What telemetry would tell."""

    def grid(self) -> Iterator[Knobs]:
        """Every combination of settings that the policy allows."""


@dataclass
class Training:
    """A micro-batch takes a fixed time and one for each sample, which 16 bits change ``bf16``-fold
    and which is ``penalty`` longer above ``knee`` samples; loading takes ``load`` seconds a sample,
    of which ``work`` is on a CPU."""

    load: float
    work: float
    fixed: float
    sample: float
    bf16: float
    knee: int
    penalty: float
    cpus: int
    start: Knobs
    actions: dict[str, Any]
    type: WorkloadType = WorkloadType.TRAINING
    objectives: dict[str, Any] = field(
        default_factory=lambda: {"goodput": {"min": "100000000"}},
    )

    @classmethod
    def drawn(cls, draw: random.Random) -> Training:
        """One of many."""
        micro, samples = draw.choice([2, 4, 16, 64]), draw.choice([64, 128])
        every = {
            "batchSize": {"max": 64},
            "dataLoader": {"maxWorkers": 4},
            "precision": {"allowed": ["bf16"]},
        }
        return cls(
            load=draw.choice([1e-5, 0.0003, 0.001, 0.003]),
            work=draw.choice([0.1, 0.5, 0.95]),
            fixed=draw.choice([0.0002, 0.001, 0.005]),
            sample=draw.choice([2e-5, 0.0002, 0.001]),
            bf16=draw.choice([0.5, 0.8, 1.0, 1.5, 2.5]),
            knee=draw.choice([8, 32, 1000]),
            penalty=draw.choice([0, 0.3, 0.6]),
            cpus=draw.choice([2, 4, 8]),
            start={
                "dataLoader.workers": draw.choice([0, 0, 1, 2]),
                "dataLoader.prefetch": 2,
                "batch.micro": micro,
                "batch.accumulation": samples // micro,
                "precision.autocast": "off",
            },
            actions={
                name: every[name] for name in draw.sample(sorted(every), draw.choice([1, 2, 3]))
            },
        )

    def _seconds(self, knobs: Knobs) -> tuple[float, float]:
        """Computing and the whole of a micro-batch."""
        micro, workers = int(knobs["batch.micro"]), int(knobs["dataLoader.workers"])
        computing = micro * self.sample * (1 + self.penalty if micro > self.knee else 1)
        if knobs["precision.autocast"] == "bf16":
            computing /= self.bf16
        computing += self.fixed
        loading = micro * self.load
        if workers == 0:
            return computing, computing + loading
        on_cpus = (computing + loading * self.work) / self.cpus
        return computing, max(computing + 0.0004, loading / workers, on_cpus)

    def value(self, knobs: Knobs) -> float:
        return int(knobs["batch.micro"]) / self._seconds(knobs)[1]

    def signals(self, knobs: Knobs) -> Mapping[str, float]:
        computing, whole = self._seconds(knobs)
        share, accumulation = computing / whole, float(knobs["batch.accumulation"])
        return {
            "training.samplesPerSecond": self.value(knobs),
            "training.stepSeconds": whole * accumulation,
            "training.dataShare": 1 - share,
            "training.computeShare": share,
            "training.cpuShare": share,
            "training.microBatch": float(knobs["batch.micro"]),
            "training.accumulation": accumulation,
            "training.lowPrecisionShare": float(knobs["precision.autocast"] == "bf16"),
            "dataLoader.workers": float(knobs["dataLoader.workers"]),
            "loader.cpuShare": self.work,
            "loader.blockedShare": 1 - self.work,
            "hardware.bf16": 1.0,
            "cpu.availableCores": float(self.cpus),
        }

    def grid(self) -> Iterator[Knobs]:
        micro, workers = (int(self.start[name]) for name in ("batch.micro", "dataLoader.workers"))
        samples = micro * int(self.start["batch.accumulation"])
        sizes = [1, 2, 4, 8, 16, 32, 64] if "batchSize" in self.actions else [micro]
        counts = range(5) if "dataLoader" in self.actions else [workers]
        words = ["off", "bf16"] if "precision" in self.actions else ["off"]
        for size, count, word in itertools.product(sizes, counts, words):
            yield {
                **self.start,
                "batch.micro": size,
                "batch.accumulation": samples // size,
                "dataLoader.workers": count,
                "precision.autocast": word,
            }


@dataclass
class Serving:
    """A batch takes a fixed time and one for each request, which 16 bits change ``bf16``-fold.
    ``rate`` requests a second come independently of each other; at most 64 wait."""

    fixed: float
    request: float
    bf16: float
    rate: float
    seed: float
    target: float
    start: Knobs
    actions: dict[str, Any]
    type: WorkloadType = WorkloadType.INFERENCE
    _known: dict[str, Mapping[str, float]] = field(default_factory=dict)

    @classmethod
    def drawn(cls, draw: random.Random) -> Serving:
        """One of many."""
        fixed, request = draw.choice([0.001, 0.004, 0.01]), draw.choice([0.0001, 0.0005, 0.002])
        delay = draw.choice([0, 0, 20, 200])
        both = {"batchSize": {"max": 32}, "precision": {"allowed": ["bf16"]}}
        allowed = set(draw.sample(sorted(both), draw.choice([1, 2])))
        if delay:
            allowed.add("batchSize")
        return cls(
            fixed=fixed,
            request=request,
            bf16=draw.choice([0.5, 0.8, 1.5, 2.5]),
            rate=draw.choice([0.2, 0.5, 0.9, 1.3]) / (fixed + request),
            seed=draw.random(),
            target=draw.choice([0.5, 1.1, 4]) * (fixed + request),
            start={
                "batch.maxSize": draw.choice([1, 1, 8, 32]),
                "batch.delayMilliseconds": delay,
                "precision.weights": "fp32",
            },
            actions={name: both[name] for name in sorted(allowed)},
        )

    @property
    def objectives(self) -> dict[str, Any]:
        return {"latency": {"percentile": 95, "target": f"{self.target * 1000:.3f}ms"}}

    def value(self, knobs: Knobs) -> float:
        return 1 / self.signals(knobs)["inference.latency"]

    def signals(self, knobs: Knobs) -> Mapping[str, float]:
        key = repr(sorted(knobs.items()))
        if key not in self._known:
            self._known[key] = self._run(knobs)
        return self._known[key]

    def _run(self, knobs: Knobs) -> Mapping[str, float]:
        """The same requests for every setting, batched as the SDK's batcher does."""
        draw, now = random.Random(self.seed), 0.0
        coming = [now := now + draw.expovariate(self.rate) for _ in range(REQUESTS)]
        size, delay = int(knobs["batch.maxSize"]), float(knobs["batch.delayMilliseconds"]) / 1000
        faster = self.bf16 if knobs["precision.weights"] == "bf16" else 1.0
        waiting: list[float] = []
        waits: list[float] = []
        services: list[float] = []
        batches, free, busy, next_ = 0, 0.0, 0.0, 0
        while next_ < len(coming) or waiting:
            if not waiting:
                waiting.append(coming[next_])
                next_ += 1
            begin = max(free, waiting[0])
            while next_ < len(coming) and coming[next_] <= begin:
                if len(waiting) < MOST_WAITING:
                    waiting.append(coming[next_])
                next_ += 1
            due = waiting[0] + delay
            while len(waiting) < size and next_ < len(coming) and coming[next_] <= due:
                begin = max(begin, coming[next_])
                waiting.append(coming[next_])
                next_ += 1
            if len(waiting) < size:
                begin = max(begin, due)
            batch, waiting = waiting[:size], waiting[size:]
            seconds = (self.fixed + len(batch) * self.request) / faster
            free, busy, batches = begin + seconds, busy + seconds, batches + 1
            waits += [begin - arrived for arrived in batch]
            services += [seconds] * len(batch)
        answered = len(waits)
        latencies = sorted(map(sum, zip(waits, services, strict=True)))
        wait, service = sum(waits) / answered, sum(services) / answered
        return {
            "inference.latency": latencies[int(0.95 * answered)],
            "inference.serviceSeconds": service,
            "inference.queueSeconds": wait,
            "inference.queueShare": wait / (wait + service),
            "inference.serviceShare": service / (wait + service),
            "inference.restShare": 0.0,
            "inference.occupancy": min(1.0, busy / free),
            "inference.queued": self.rate * wait,
            "inference.arrivalRate": self.rate,
            "inference.batchSize": answered / batches,
            "inference.batchLimit": float(size),
            "inference.batchDelaySeconds": delay,
            "inference.concurrency": float(size),
            "hardware.bf16": 1.0,
        }

    def grid(self) -> Iterator[Knobs]:
        size, delay = (self.start[name] for name in ("batch.maxSize", "batch.delayMilliseconds"))
        free = "batchSize" in self.actions
        sizes = [1, 2, 4, 8, 16, 32] if free else [size]
        delays = sorted({0, 5, 20, int(delay)}) if free else [delay]
        words = ["fp32", "bf16"] if "precision" in self.actions else ["fp32"]
        for values in itertools.product(sizes, delays, words):
            yield dict(zip(self.start, values, strict=True))


@dataclass
class Outcome:
    """Where the operator ended: ``share`` of the best, ``actions`` taken, and how many of them were
    worse than the start; ``met`` where it stopped because it had reached its objective."""

    share: float
    actions: int
    harmful: int
    met: bool
    steps: list[str]


def tuned(work: Simulated, most: int = 25) -> Outcome:
    """Lets the planner decide until it wants nothing more, or ``most`` times."""
    limits = {"cooldown": "1s", "actionsPerHour": 1000}
    wanted = spec(objectives=work.objectives, actions=work.actions, limits=limits)
    knobs, reports, met = dict(work.start), list[BottleneckReport](), False
    harmful = 0
    while len(reports) < most:
        seen = _observation(work, knobs)
        kept = desired_knobs(reports)
        facts = Facts(
            policy_generation=3,
            settable=frozenset(knobs),
            generation=2 * len(reports),
            knobs=kept.values if kept else {},
            reports=tuple(reports),
        )
        found = diagnose(seen, wanted.objectives)
        met = not found.breached
        decision = decide(found, seen, wanted, facts, NOW)
        if not isinstance(decision, Plan):
            break
        assert decision.action.knobs is not None
        new = {**knobs, **decision.action.knobs.desired}
        harmful += work.value(new) < 0.95 * work.value(work.start)
        done = _report(decision.action, work, knobs, new, len(reports))
        reports.append(done)
        if done.status.phase is Phase.KEPT:
            knobs = new
    best = max(map(work.value, work.grid()))
    steps = [each.spec.action.summary for each in reports if each.spec.action]
    return Outcome(work.value(knobs) / best, len(reports), harmful, met, steps)


def _observation(work: Simulated, knobs: Knobs) -> Observation:
    signals = {name: reading(value) for name, value in work.signals(knobs).items()}
    rank = talking(knobs=dict(knobs), settable=frozenset(knobs))
    return observation(work.type, signals, [rank])


def _report(
    action: Action, work: Simulated, old: Knobs, new: Knobs, number: int
) -> BottleneckReport:
    """What becomes of an action where nothing is left to chance."""
    latency = work.type is WorkloadType.INFERENCE
    before, after = work.value(old), work.value(new)
    better = after / before
    if better >= 1 + MATTERS:
        phase, result = Phase.KEPT, VerdictResult.IMPROVED
    else:
        worse = better <= 1 / (1 + MATTERS)
        phase, result = Phase.REVERTED, VerdictResult.WORSE if worse else VerdictResult.NO_EFFECT
    verdict = Verdict(
        result=result,
        before=1 / before if latency else before,
        after=1 / after if latency else after,
        p_value=0.001 if abs(better - 1) > 0.02 else 0.5,
    )
    time = moment(10 * number - 1000)
    times = {"applied_at": time, "acknowledged_at": time, "closed_at": time}
    done = report(action, phase, f"p-{number}", verdict=verdict, **times)
    metric = Metric(name="m", unit="", lower_is_better=latency)
    return done.model_copy(update={"spec": done.spec.model_copy(update={"metric": metric})})
