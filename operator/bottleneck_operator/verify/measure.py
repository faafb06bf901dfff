"""What an action is judged by: the metric before and after, and the guardrails. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..api import units
from ..api.policy import BottleneckPolicy
from ..api.report import Action, BottleneckReport, Metric
from ..observe.history import History
from ..observe.observation import Observation, WorkloadType
from ..observe.series import arrival_rate, drained_at, goodput_series, latency_series
from .efficiency import discount
from .learning import suffering

HANG_SECONDS = 120.0
"""A training process that speaks but ended no step for so long after a change hangs."""

BIN_SECONDS = 1.0
"""Width of a bin: that of the telemetry's lines. More and shorter bins settle a clear case sooner;
a bin without steps or requests is left out."""

LOAD_ERRORS = 2.0
"""Standard errors by which two arrival rates have to differ to be different: as counts of
independent arrivals (Poisson), log(a / b) has the variance 1/a + 1/b."""

WARM_UP = {
    "BatchSize": 5.0,
    "DataLoader": 5.0,
    "Precision": 5.0,
    "Replicas": 10.0,
    "Resources": 2.0,
    "Variant": 5.0,
}
"""Seconds after the acknowledgement that are left out at least: new workers start, caches
fill, kernels for another shape or type are compiled."""


def metric_of(policy: BottleneckPolicy, workload: WorkloadType) -> Metric:
    """What users of such a workload feel."""
    if workload is WorkloadType.INFERENCE:
        return Metric(name=f"latency p{percentile(policy)}", unit="s", lower_is_better=True)
    return Metric(name="goodput", unit="samples/s")


def percentile(policy: BottleneckPolicy) -> int:
    """The percentile that the policy's latency objective names, 95 without one."""
    latency = policy.spec.objectives.latency
    return latency.percentile if latency else 95


def series(
    policy: BottleneckPolicy,
    metric: Metric,
    histories: Mapping[str, History],
    start: float,
    end: float,
    width: float,
) -> list[float]:
    """The metric between two moments, one figure for each bin."""
    values = histories.values()
    if metric.lower_is_better:
        figures = latency_series(values, start, end, width, percentile(policy))
    else:
        figures = goodput_series(values, start, end, width)
    return [round(value, 6) for value in figures]


def before(
    policy: BottleneckPolicy, report: BottleneckReport, histories: Mapping[str, History]
) -> list[float]:
    """The metric before the action: the recorded figures, and those from the decision until the
    change was in force, as far as they are still known."""
    until = report.status.acknowledged_at
    if until is None:
        return report.spec.before
    start, end = report.spec.decided_at.timestamp(), until.timestamp()
    width = report.spec.bin_seconds
    more = series(policy, report.spec.metric, histories, start, end, width)
    return [*report.spec.before, *more]


def after(
    policy: BottleneckPolicy,
    report: BottleneckReport,
    histories: Mapping[str, History],
    now: float,
) -> list[float]:
    """The metric since the action was acknowledged, without the warm-up: the latency of a request
    that queued behind the old backlog tells of the old state, however late it is answered. In a
    larger global batch a sample counts for what it is worth there."""
    start, action = settled_from(report, histories), report.spec.action
    if start is None or action is None:
        return []
    worth = discount(action, histories.values())
    if worth is None:
        return []  # a sample's worth is not known: neither better nor worse can be said
    width = report.spec.bin_seconds
    figures = series(policy, report.spec.metric, histories, start, now, width)
    return figures if worth == 1 else [round(figure * worth, 6) for figure in figures]


def since_undone(
    policy: BottleneckPolicy,
    report: BottleneckReport,
    histories: Mapping[str, History],
    since: float,
    now: float,
) -> list[float]:
    """The metric since an undone action has no effect any more, without the warm-up."""
    action, metric = report.spec.action, report.spec.metric
    start = _settled(since, action, metric, histories) if action is not None else None
    if start is None:
        return []
    return series(policy, metric, histories, start, now, report.spec.bin_seconds)


def settled_from(report: BottleneckReport, histories: Mapping[str, History]) -> float | None:
    """From when on figures tell of the new state alone; None while that is not known."""
    since, action = report.status.acknowledged_at, report.spec.action
    if since is None or action is None:
        return None
    return _settled(since.timestamp(), action, report.spec.metric, histories)


def _settled(
    since: float, action: Action, metric: Metric, histories: Mapping[str, History]
) -> float | None:
    start = since + WARM_UP.get(action.type, 0.0)
    if metric.lower_is_better:
        backlog = drained_at(histories.values(), since)
        # Who came while the backlog was worked off still stood behind its end.
        follower = None if backlog is None else drained_at(histories.values(), backlog)
        if follower is None:
            return None
        start = max(start, follower)
    return start


def load_change(
    report: BottleneckReport, histories: Mapping[str, History], now: float
) -> float | None:
    """The arrival rate since the action was acknowledged as a multiple of that before it, and 1
    where chance explains the difference; None where either is not known."""
    since, old = report.status.acknowledged_at, report.spec.load
    if since is None or not old:
        return None
    new = arrival_rate(histories.values(), since.timestamp(), now)
    if new is None:
        return None
    came = [
        max(1.0, old * len(report.spec.before) * report.spec.bin_seconds),
        max(1.0, new * (now - since.timestamp())),
    ]
    chance = LOAD_ERRORS * math.sqrt(sum(1 / count for count in came))
    return 1.0 if new > 0 and abs(math.log(new / old)) <= chance else new / old


LEARNS_OTHERWISE = frozenset({"BatchSize", "Precision"})
"""Types of action that change what is computed, so that a loss can tell of them."""


def guardrail(
    policy: BottleneckPolicy,
    report: BottleneckReport,
    observation: Observation,
    histories: Mapping[str, History],
) -> str:
    """What broke since the action and needs no statistics to be undone; empty when nothing did."""
    action, since = report.spec.action, report.status.acknowledged_at
    if action is not None and action.knobs is not None:
        for rank in observation.ranks:
            # It was tried, and then did not do: out of memory, for instance.
            if rank.result == "Refused" and rank.generation == action.knobs.generation:
                return f"rank {rank.rank} of {rank.pod} went back: {rank.message}"
    learns = action is not None and action.type in LEARNS_OTHERWISE
    if learns and since is not None and (word := suffering(histories.values(), since.timestamp())):
        return word
    kills = observation.value("memory.oomKills")
    if kills:
        return f"{kills:.0f} out-of-memory kills"
    waited = observation.value("training.sinceStepSeconds")
    if waited is not None and waited > HANG_SECONDS:
        return f"no step for {waited:.0f}s"
    limit, rate = policy.spec.objectives.error_rate, observation.value("inference.errorRate")
    judged_by = report.spec.symptom.objective
    if limit and rate is not None and judged_by != "ErrorRate" and rate > units.fraction(limit.max):
        return f"error rate {rate:.1%} is over {limit.max}"
    return ""
