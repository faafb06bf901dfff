"""Replicas that were acted on first, against those beside them that were not: each group after
against before, and then one against the other. What happened to all of them (the hour, the crowd,
the way back to the mean) is in both, and cancels. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ..api.policy import BottleneckPolicy
from ..api.report import BottleneckReport, Metric, Verdict, VerdictResult
from ..api.split import Split
from ..observe.history import History
from ..observe.series import latency_bins
from .canary import failing
from .judge import LOOKS, judge_controlled
from .measure import percentile, settled_from

Histories = Mapping[str, History]


@dataclass(frozen=True, slots=True)
class Beside:
    """The metric of both groups, one figure for each bin in which both have one. ``served`` counts
    the bins in which the untouched ones have; ``failing`` says that the treated ones fail requests
    that the others answer."""

    treated: Sequence[float] = ()
    untouched: Sequence[float] = ()
    served: int = 0
    failing: str = ""


def paired(
    policy: BottleneckPolicy,
    metric: Metric,
    treated: Histories,
    untouched: Histories,
    start: float,
    end: float,
    width: float,
) -> Beside:
    """Both groups between two moments (operator's clock). Only servers are so compared: ranks that
    train together change together."""
    assert metric.lower_is_better, metric
    wanted = percentile(policy)
    ours, others = (
        latency_bins(group.values(), start, end, width, wanted) for group in (treated, untouched)
    )
    both = [(a, b) for a, b in zip(ours, others, strict=True) if a is not None and b is not None]
    return Beside(
        treated=[round(a, 6) for a, _ in both],
        untouched=[round(b, 6) for _, b in both],
        served=sum(figure is not None for figure in others),
    )


def since_split(
    policy: BottleneckPolicy,
    report: BottleneckReport,
    treated: Histories,
    untouched: Histories,
    now: float,
) -> Beside:
    """What there is to judge by at ``now``: since the change was acknowledged, without the
    warm-up."""
    start = settled_from(report, treated)
    if start is None or not treated or not untouched:
        return Beside()
    metric, width = report.spec.metric, report.spec.bin_seconds
    found = paired(policy, metric, treated, untouched, start, now, width)
    return Beside(found.treated, found.untouched, found.served, failing(untouched, treated, start))


def judge_split(
    report: BottleneckReport, split: Split, figures: Beside, left: Collection[str], broken: str = ""
) -> Verdict | None:
    """The verdict on an action that is to improve the metric; None while it is worth waiting.
    ``left`` names the treated pods that still run."""
    broken = broken or figures.failing
    if not broken and figures.served >= LOOKS[-1] and len(figures.treated) < LOOKS[0]:
        return Verdict(
            result=VerdictResult.INCONCLUSIVE,
            bins=[len(split.treated_before), len(figures.treated)],
            control=True,
            reason="the replicas that have it give no figures while the others do",
        )
    verdict = judge_controlled(
        split.treated_before,
        figures.treated,
        split.untouched_before,
        figures.untouched,
        report.spec.metric.lower_is_better,
        broken,
    )
    gone = len(split.treated) - len(left)
    if verdict is None or not gone:
        return verdict
    reason = f"{verdict.reason}; {gone} of {len(split.treated)} treated replicas went away"
    return verdict.model_copy(update={"reason": reason})
