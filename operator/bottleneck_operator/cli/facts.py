"""What the API server tells of a workload, for the commands that look once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..api.conditions import Condition
from ..api.policy import BottleneckPolicy
from ..kube import Kube
from ..observe.cluster import Target
from ..observe.facts import ClusterFacts, Moments, facts_of
from ..observe.inquiry import Inquiry
from ..observe.observation import Reading, Signal
from ..observe.pods import Pod

NOT_ALLOWED = "you may not ask the API server for it"


async def read_facts(
    kube: Kube, policy: BottleneckPolicy, target: Target, pods: Sequence[Pod]
) -> ClusterFacts:
    """The facts of a policy's target now: everything is asked once. What the API server does not
    answer is ``NoData``, and the reason is there."""
    now = time.time()
    inquiry = Inquiry()
    await inquiry.ask(
        kube,
        policy.metadata.namespace,
        target,
        pods_known=bool(pods),
        hpa_known=False,
        now=now,
    )
    answers = inquiry.answers
    mine = {topic: _mine(why) for topic, why in answers.failed.items()}
    moments = Moments(now, onset(policy), _learnt_since(policy))
    return facts_of(target.workload, target.replicas, pods, replace(answers, failed=mine), moments)


def values(signals: Mapping[str, Signal]) -> dict[str, float]:
    """The facts that are known, as a recording holds them."""
    return {name: s.value for name, s in signals.items() if isinstance(s, Reading)}


def onset(policy: BottleneckPolicy) -> float | None:
    """Since when the operator has seen an objective breached, seconds since the Unix epoch."""
    for condition in policy.status.conditions:
        if condition.type == Condition.BOTTLENECKED and condition.status == "True":
            return condition.last_transition_time.timestamp()
    return None


def _learnt_since(policy: BottleneckPolicy) -> float | None:
    known = [each.since.timestamp() for each in policy.status.baselines if each.since]
    return min(known, default=None)


def _mine(why: str) -> str:
    # The inquiry speaks of the operator's rights; here it is a person who may not ask.
    return NOT_ALLOWED if "may not ask" in why else why
