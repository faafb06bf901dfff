"""The intent of an action: what was seen, why, what will be changed, and by what it is judged.
Pure; it is recorded before anything changes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from statistics import median

from ..api.conditions import Reason
from ..api.consequences import Circumstances
from ..api.policy import BottleneckPolicy, Mode
from ..api.report import Action, Aim, BottleneckReport, Phase, ReportSpec
from ..diagnose.diagnosis import Diagnosis
from ..observe.history import History
from ..observe.observation import Observation, WorkloadType
from ..observe.series import arrival_rate
from ..observe.windows import WINDOW_SECONDS
from ..verify.measure import BIN_SECONDS, metric_of, series
from .decision import Plan, Refusal

BEFORE_SECONDS = 60.0
"""Longest stretch before an action that it is compared with."""

BEFORE_BINS = 4
"""Fewest figures before an action. With eight after it, four can reach p = 0.004."""


def intent(
    policy: BottleneckPolicy,
    plan: Plan,
    diagnosis: Diagnosis,
    observation: Observation,
    histories: Mapping[str, History],
    breached_at: float,
    now: float,
    circumstances: Circumstances | None = None,
) -> ReportSpec | Refusal:
    """The spec of the report to record; a refusal while there is too little to compare with, since
    what was never measured before could never be judged after."""
    symptom = plan.symptom or diagnosis.symptom
    assert symptom is not None
    judged = plan.action.judged
    # Of a workload that sleeps it is not seen what it is; a gate stands before servers.
    metric = metric_of(policy, observation.type if judged else WorkloadType.INFERENCE)
    start = max(now - BEFORE_SECONDS, min(breached_at, now) - WINDOW_SECONDS)
    before = series(policy, metric, histories, start, now, BIN_SECONDS)
    if judged and (len(before) < BEFORE_BINS or not median(before) > 0):
        message = f"{len(before)} of {BEFORE_BINS} figures to compare with so far"
        return Refusal(Reason.NO_DATA, message)
    load = arrival_rate(histories.values(), start, now)
    return ReportSpec(
        policy=policy.metadata.name,
        policy_generation=policy.metadata.generation,
        target=policy.spec.target_ref,
        # Who let it sleep has agreed to its waking.
        approval_required=policy.spec.mode is Mode.RECOMMEND and plan.action.aim is not Aim.WAKE,
        breached_at=datetime.fromtimestamp(breached_at, UTC),
        decided_at=datetime.fromtimestamp(now, UTC),
        symptom=symptom,
        causes=list(diagnosis.causes),
        ruled_out=list(diagnosis.ruled_out),
        whys=list(diagnosis.whys),
        runner_up=diagnosis.runner_up,
        fishbone=diagnosis.fishbone,
        fault_tree=diagnosis.fault_tree,
        metric=metric,
        before=before,
        load=None if load is None else round(load, 3),
        bin_seconds=BIN_SECONDS,
        action=plan.action,
        alternatives=list(plan.alternatives),
        trade=plan.trade,
        supersedes=plan.supersedes,
        circumstances=circumstances,
    )


def standing(known: tuple[BottleneckReport, ...], action: Action) -> BottleneckReport | None:
    """The recommendation of this very change that people have not answered yet."""
    for report in known:
        recommended = report.spec.action
        if (
            report.status.phase is Phase.RECOMMENDED
            and recommended is not None
            and (recommended.type, recommended.cause) == (action.type, action.cause)
        ):
            return report
    return None


def awaiting(report: BottleneckReport) -> Refusal:
    """What a recommendation waits for, and how to give it."""
    summary = report.spec.action.summary if report.spec.action else ""
    metadata = report.metadata
    return Refusal(
        Reason.AWAITING_APPROVAL,
        f"{summary}; to apply it: kubectl bottleneck approve {metadata.name} "
        f"-n {metadata.namespace}",
    )
