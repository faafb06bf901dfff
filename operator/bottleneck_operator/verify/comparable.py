"""What a verdict is worth where something else happened while it was measured: another change, or
another load. Pure.

Only an improvement is taken back to Inconclusive by another change: nobody can tell then which of
the two it was. What got worse is undone all the same, and so is what made no difference, since
going back to what was there before is safe whoever is to blame. Guardrails are not touched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from ..api.report import BottleneckReport, Phase, Verdict, VerdictResult
from ..observe.changes import CLOCKS_SECONDS
from ..observe.documents import clock, seconds_of
from ..observe.pods import Pod
from ..observe.workload import Workload, listed
from .judge import ALIKE, LOOKS

MOST = 16
"""Most confounders that a verdict names."""


def begin_of(report: BottleneckReport) -> float:
    """When the first of the figures from before was measured, seconds since the Unix epoch."""
    split, width = report.status.split, report.spec.bin_seconds
    if split is not None:
        return split.at.timestamp() - width * len(split.treated_before)
    return report.spec.decided_at.timestamp() - width * len(report.spec.before)


def rollout_in(report: BottleneckReport, workload: Workload, now: float) -> float | None:
    """When the target's pod template was last written, where that was while it was measured. Its
    creation is no rollout."""
    touch = workload.touch
    if touch is None or not begin_of(report) <= touch.at <= now + CLOCKS_SECONDS:
        return None
    created = workload.created
    return None if created is not None and touch.at <= created + CLOCKS_SECONDS else touch.at


def started_since(report: BottleneckReport, pods: Iterable[Pod]) -> list[str]:
    """Replicas that came after the decision and share the load since: moved to another node,
    replaced, or added. Where an action is about replicas they are its doing; where there is a
    control they are in neither group, and take from both alike."""
    action = report.spec.action
    if report.status.split is not None or action is None:
        return []
    if action.replicas or action.hpa or action.image:
        return []
    decided = report.spec.decided_at.timestamp() + CLOCKS_SECONDS
    return [pod.name for pod in pods if (seconds_of(pod.started) or 0.0) > decided]


def acted_beside(
    report: BottleneckReport,
    others: Iterable[BottleneckReport],
    pooled: Collection[str],
    now: float,
) -> list[str]:
    """Actions of other policies on the same workload, or of the same pool (``pooled`` names its
    policies), that came into force or were undone while it was measured. The other side of its own
    trade is part of it."""
    begin, trade = begin_of(report), report.spec.trade
    found = []
    for other in others:
        if other.spec.policy == report.spec.policy or other.spec.action is None:
            continue
        if other.spec.target != report.spec.target and other.spec.policy not in pooled:
            continue
        theirs = other.spec.trade
        names = (trade.report if trade else "", theirs.report if theirs else "")
        if other.metadata.name == names[0] or report.metadata.name == names[1]:
            continue
        undone = other.status.phase in (Phase.REVERTING, Phase.REVERTED)
        status = other.status
        moments = (status.applied_at, status.judged_at if undone else None)
        if any(each is not None and begin <= each.timestamp() <= now for each in moments):
            action = other.spec.action.summary
            found.append(f"{action} by policy {other.spec.policy} ({other.metadata.name})")
    return found


def confounders_of(
    report: BottleneckReport,
    workload: Workload,
    rolled_at: float | None,
    pods: Iterable[Pod],
    beside: Sequence[str],
) -> list[str]:
    """In words for people. ``rolled_at`` is a rollout of somebody else, ``beside`` are actions of
    other policies."""
    found = []
    if rolled_at is not None:
        by = f" by {workload.touch.manager}" if workload.touch and workload.touch.manager else ""
        found.append(f"a rollout of {report.spec.target}{by} at {clock(rolled_at)}")
    if started := started_since(report, pods):
        found.append(f"replicas that started since: {listed(started)}")
    return [*found, *beside][:MOST]


def weakened(
    verdict: Verdict | None, confounders: Sequence[str], load: float | None = None
) -> Verdict | None:
    """The verdict as far as it holds beside ``confounders`` and, where there was no control, at a
    ``load`` that is so many times what it was. At another load it is worth waiting for the last
    look: the load may come back."""
    if verdict is None or verdict.result is VerdictResult.NO_DATA:
        return verdict
    if confounders:
        words = f"{verdict.reason}; confounded by {'; '.join(confounders)}"
        changes: dict[str, object] = {"confounders": list(confounders), "reason": words}
        if verdict.result is VerdictResult.IMPROVED:
            changes["result"] = VerdictResult.INCONCLUSIVE
        verdict = verdict.model_copy(update=changes)
    if verdict.control or load is None or not _unlike(verdict.result, load):
        return verdict
    if verdict.bins and verdict.bins[-1] < LOOKS[-1]:
        return None
    reason = f"not comparable: the load is {load:.2g} times what it was; {verdict.reason}"
    return verdict.model_copy(update={"result": VerdictResult.INCONCLUSIVE, "reason": reason})


def _unlike(result: VerdictResult, load: float) -> bool:
    """Whether the load alone may be behind a result: fewer requests are answered sooner, more of
    them later, and what only kept up with more may have helped."""
    if load < 1 / ALIKE:
        return result is VerdictResult.IMPROVED
    return load > ALIKE and result in (VerdictResult.WORSE, VerdictResult.NO_EFFECT)
