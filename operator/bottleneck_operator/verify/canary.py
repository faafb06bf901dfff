"""A canary against the replicas beside it that were left as they are: the same load at the same
time, so that neither the hour nor the crowd can be mistaken for the image. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from ..api.policy import BottleneckPolicy
from ..api.report import BottleneckReport, Verdict, VerdictResult
from ..observe.history import History
from ..observe.observation import Observation
from .judge import LOOKS, judge
from .measure import after, before, series, settled_from

FASTER = 0.95
"""A canary's model has to take at most this share of the time that it takes elsewhere. Its latency
alone does not do: beside servers that are too busy, it is the one with the shortest queue."""

FAILS = (0.005, 0.01)
"""A canary fails too often when it fails this much more often than the others (half a percentage
point), and that with a smaller error rate than this (Fisher's exact test, one-sided)."""


@dataclass(frozen=True, slots=True)
class Beside:
    """The metric of the untouched replicas and of the canary over the same time, one figure for
    each bin; without a control those of before and after. ``failing`` says that the canary fails
    requests that the others answer."""

    old: Sequence[float]
    new: Sequence[float]
    control: bool
    failing: str = ""


def beside(
    policy: BottleneckPolicy,
    report: BottleneckReport,
    histories: Mapping[str, History],
    canaries: Collection[str],
    now: float,
) -> Beside:
    """What there is to judge by at ``now``; ``canaries`` are names of pods."""
    ours = {name: history for name, history in histories.items() if name in canaries}
    others = {name: history for name, history in histories.items() if name not in canaries}
    if not others:
        old, new = before(policy, report, histories), after(policy, report, histories, now)
        return Beside(old, new, control=False)
    start = settled_from(report, histories)
    if start is None or not ours:
        return Beside((), (), control=True)
    metric, width = report.spec.metric, report.spec.bin_seconds
    return Beside(
        series(policy, metric, others, start, now, width),
        series(policy, metric, ours, start, now, width),
        control=True,
        failing=failing(others, ours, start),
    )


def judge_canary(
    report: BottleneckReport,
    figures: Beside,
    observation: Observation,
    canaries: Collection[str],
    broken: str = "",
) -> Verdict | None:
    """The verdict on a canary that is to improve the metric; None while it is worth waiting."""
    broken = broken or figures.failing
    if figures.control and not broken and len(figures.old) < LOOKS[0]:
        return None
    if figures.control and not broken and silent(figures):
        return Verdict(
            result=VerdictResult.INCONCLUSIVE,
            bins=[len(figures.old), len(figures.new)],
            control=True,
            reason="the canary gives no figures while the others do",
        )
    lower = report.spec.metric.lower_is_better
    verdict = judge(figures.old, figures.new, lower, broken, figures.control)
    if verdict is None or verdict.result is not VerdictResult.IMPROVED or not figures.control:
        return verdict
    ours, others = model_seconds(observation, canaries)
    if ours is None or others is None or ours <= FASTER * others:
        return verdict
    reason = (
        f"{verdict.reason}; but its model takes {ours * 1000:.0f} ms, the others'"
        f" {others * 1000:.0f} ms: only its queue is shorter"
    )
    return verdict.model_copy(update={"result": VerdictResult.NO_EFFECT, "reason": reason})


def silent(figures: Beside) -> bool:
    """Whether the others have served for as long as any verdict takes, and the canary has not."""
    return len(figures.old) >= LOOKS[-1] and len(figures.new) < LOOKS[0]


def judge_rolled(
    canary: Verdict | None, after: Sequence[float], unmet: str = "", broken: str = ""
) -> Verdict | None:
    """After the rest has followed: the canary's verdict stands, unless something broke or, where it
    was to save, an objective is no longer met (``unmet``)."""
    bins = [0, len(after)]
    if broken:
        reason = f"guardrail broken: {broken}"
        return Verdict(result=VerdictResult.WORSE, bins=bins, reason=reason)
    if len(after) < LOOKS[0] or canary is None:
        return None
    if unmet:
        reason = f"{unmet} is no longer met"
        return Verdict(result=VerdictResult.WORSE, bins=bins, reason=reason)
    return canary


def model_seconds(
    observation: Observation, canaries: Collection[str]
) -> tuple[float | None, float | None]:
    """Mean time of the model in the canaries and in the other replicas; None where not measured."""
    ours: list[float] = []
    others: list[float] = []
    for replica in observation.replicas:
        view = of_replica(observation, replica.pod)
        if (value := view.value("inference.serviceSeconds")) is not None:
            (ours if replica.pod in canaries else others).append(value)
    return _mean(ours), _mean(others)


def of_replica(observation: Observation, pod: str) -> Observation:
    """What is known of one replica alone."""
    found = next((each for each in observation.replicas if each.pod == pod), None)
    return Observation(
        time=observation.time,
        type=observation.type,
        signals=found.signals if found is not None else {},
        ranks=tuple(rank for rank in observation.ranks if rank.pod == pod),
        expected=1,
        streaming=int(found is not None),
        newest=observation.newest,
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def failing(others: Mapping[str, History], ours: Mapping[str, History], since: float) -> str:
    """In words that ``ours`` fail more requests since a moment than the ``others``; empty where
    they do not, or where too few were answered to tell."""
    return _failing(_answers(others, since), _answers(ours, since))


def _answers(histories: Mapping[str, History], since: float) -> tuple[int, int]:
    """Requests answered since a moment, and how many of them with an error."""
    first: dict[str, tuple[int, int]] = {}
    last: dict[str, tuple[int, int]] = {}
    for history in histories.values():
        for received, sample in history.samples:
            if received < since:
                continue
            for process in sample.inference:
                counts = (process.requests, process.errors)
                first.setdefault(process.epoch, counts)
                last[process.epoch] = counts
    requests = sum(last[epoch][0] - first[epoch][0] for epoch in first)
    errors = sum(last[epoch][1] - first[epoch][1] for epoch in first)
    return max(0, requests), max(0, min(errors, requests))


def _failing(others: tuple[int, int], ours: tuple[int, int]) -> str:
    if not (others[0] and ours[0]):
        return ""
    more, alpha = FAILS
    rates = [errors / requests for requests, errors in (others, ours)]
    if rates[1] - rates[0] <= more:
        return ""
    table = [[errors, requests - errors] for requests, errors in (ours, others)]
    if stats.fisher_exact(table, alternative="greater").pvalue >= alpha:
        return ""
    return f"{rates[1]:.1%} of the canary's requests fail, of the others' {rates[0]:.1%}"
