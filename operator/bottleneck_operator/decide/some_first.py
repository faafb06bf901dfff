"""On which replicas an action begins, so that the others are there to compare with. Pure.

Only servers are split: each answers its own requests. Ranks that train together change together,
and a number of replicas is of the workload as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from ..api.policy import BottleneckPolicy
from ..api.report import BottleneckReport
from ..api.split import MOST_TREATED, Split, Treated
from ..observe.documents import seconds_of
from ..observe.history import History
from ..observe.observation import Observation
from ..observe.pods import Pod
from ..verify.split import paired
from .halves import on_some
from .intent import BEFORE_BINS, BEFORE_SECONDS


def divisible(report: BottleneckReport) -> bool:
    """Whether an action can begin on some of the replicas, where there are several."""
    action = report.spec.action
    if action is None or not (action.knobs or action.resources):
        return False
    return report.spec.metric.lower_is_better  # a latency: they serve


def choose(
    policy: BottleneckPolicy,
    report: BottleneckReport,
    observation: Observation,
    running: Sequence[Pod],
    histories: Mapping[str, History],
    changed_at: float,
    now: float,
) -> Split | None:
    """Every second of the replicas that are ready and speak, the first one never. None where there
    are not two of them, or too few figures of either half to compare with. Figures from before
    ``changed_at`` (the last change by the operator, seconds since the Unix epoch) are not taken."""
    speaking = {replica.pod for replica in observation.replicas}
    able = [pod for pod in running if pod.ready and pod.name in speaking and pod.name in histories]
    treated = able[1::2][:MOST_TREATED]
    if not treated:
        return None
    names = {pod.name for pod in treated}
    figures = paired(
        policy,
        report.spec.metric,
        {name: histories[name] for name in names},
        {pod.name: histories[pod.name] for pod in able if pod.name not in names},
        max(now - BEFORE_SECONDS, changed_at),
        now,
        report.spec.bin_seconds,
    )
    if len(figures.treated) < BEFORE_BINS:
        return None
    chosen = report.status.split.chosen + 1 if report.status.split is not None else 1
    return Split(
        treated=[Treated(name=pod.name, uid=pod.uid) for pod in treated],
        at=datetime.fromtimestamp(now, UTC),
        treated_before=list(figures.treated),
        untouched_before=list(figures.untouched),
        chosen=chosen,
    )


def in_scope(report: BottleneckReport, pods: Sequence[Pod]) -> list[Pod]:
    """Those of some pods that the action is on now: the treated ones until it was judged on them,
    then all."""
    split = report.status.split
    if split is None or not on_some(report):
        return list(pods)
    uids = {pod.uid for pod in split.treated}
    return [pod for pod in pods if pod.uid in uids]


def untouched(split: Split, pods: Sequence[Pod]) -> list[Pod]:
    """Those of some pods to compare with: they were there when the treated ones were chosen."""
    uids, at = {pod.uid for pod in split.treated}, split.at.timestamp()
    return [
        pod
        for pod in pods
        if pod.uid not in uids and (started := seconds_of(pod.started)) and started <= at
    ]


def part_of(
    report: BottleneckReport, observation: Observation, scope: Sequence[Pod]
) -> Observation:
    """The observation as far as it is about the pods in ``scope``; the whole one where the action
    is on all of them."""
    if not on_some(report):
        return observation
    names = {pod.name for pod in scope}
    replicas = tuple(each for each in observation.replicas if each.pod in names)
    return replace(
        observation,
        replicas=replicas,
        ranks=tuple(rank for rank in observation.ranks if rank.pod in names),
        expected=len(names),
        streaming=len(replicas),
    )
