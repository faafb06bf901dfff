"""BottleneckReports: created before an effect, then only their status moves on."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import ValidationError

from ..api.conditions import GROUP, POLICY_LABEL, REPORTS, VERSION
from ..api.consequences import RevertVerdict
from ..api.meta import ObjectMeta
from ..api.policy import BottleneckPolicy
from ..api.report import (
    BottleneckReport,
    Phase,
    ReportSpec,
    ReportStatus,
    TimelineEntry,
)
from ..decide.lifecycle import Next
from ..kube import Kube, Object
from .retention import expendable

log = logging.getLogger(__name__)

TIMELINE = 50
"""Entries kept in a report's timeline."""


def path(namespace: str, name: str = "", subresource: str = "") -> str:
    """URL path of the reports of a namespace, of one report, or of its status."""
    parts = [f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{REPORTS}", name, subresource]
    return "/".join(part for part in parts if part)


@dataclass(slots=True)
class ReportStore:
    """All reports that the watch has shown, and those just written, by policy."""

    _reports: dict[tuple[str, str], dict[str, BottleneckReport]] = field(default_factory=dict)

    def update(self, document: Object, deleted: bool = False) -> BottleneckReport | None:
        """Takes a watch event or the answer to a write; an older version than the known one is
        ignored. None for a report that cannot be read (written by another version)."""
        try:
            report = BottleneckReport.model_validate(document)
        except ValidationError as error:
            log.warning(
                "report %s/%s cannot be read and is left alone: %s",
                document["metadata"].get("namespace"),
                document["metadata"]["name"],
                error.errors()[0]["msg"],
            )
            return None
        reports = self._reports.setdefault((report.metadata.namespace, report.spec.policy), {})
        known = reports.get(report.metadata.name)
        if deleted:
            reports.pop(report.metadata.name, None)
        elif known is None or known.metadata.uid != report.metadata.uid or _newer(report, known):
            reports[report.metadata.name] = report
        return report

    def of(self, policy: BottleneckPolicy) -> tuple[BottleneckReport, ...]:
        """Reports of a policy, oldest first. One of an earlier policy of that name, or about
        another target, is none of them: it is an instruction to act, or to undo."""
        found = self._reports.get((policy.metadata.namespace, policy.metadata.name), {})
        own = (report for report in found.values() if belongs(report, policy))
        return tuple(sorted(own, key=lambda report: report.spec.decided_at))

    def newest_number(self, policy: BottleneckPolicy) -> int:
        """The highest number among all reports that are named as the policy's would be."""
        found = self._reports.get((policy.metadata.namespace, policy.metadata.name), {})
        return max((report.number for report in found.values()), default=0)

    def in_namespace(self, namespace: str) -> list[BottleneckReport]:
        """Reports of all policies of a namespace."""
        return [
            report
            for (place, _), found in self._reports.items()
            if place == namespace
            for report in found.values()
        ]


def belongs(report: BottleneckReport, policy: BottleneckPolicy) -> bool:
    """Whether a report is that very policy's, and about what that looks after."""
    owners = {owner.uid for owner in report.metadata.owner_references}
    return policy.metadata.uid in owners and report.spec.target == policy.spec.target_ref


def _newer(one: BottleneckReport, other: BottleneckReport) -> bool:
    # Resource versions of one resource are ordered decimal numbers since Kubernetes 1.35; before,
    # they were so in fact.
    return int(one.metadata.resource_version) >= int(other.metadata.resource_version)


async def load(kube: Kube, policy: BottleneckPolicy, store: ReportStore) -> None:
    """Reads a policy's reports from the API server: what a new process must know before it acts.
    The reports of a trade stand and fall together, so one in a pool needs those of the others."""
    name = policy.metadata.name
    selector = POLICY_LABEL if policy.spec.capacity else f"{POLICY_LABEL}={name}"
    listed = await kube.get(path(policy.metadata.namespace), labelSelector=selector)
    for item in listed.get("items", []):
        store.update(item)


async def create(
    kube: Kube, store: ReportStore, policy: BottleneckPolicy, spec: ReportSpec, phase: Phase
) -> BottleneckReport:
    """Records an intent. The name follows from the number of the newest report, so two processes
    that decide at once collide on it: the second gets ``KubeError`` 409."""
    number = max(store.newest_number(policy), policy.status.next_report - 1) + 1
    meta = ObjectMeta(name=f"{policy.metadata.name}-{number}", namespace=policy.metadata.namespace)
    body = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "BottleneckReport",
        "metadata": {
            "name": meta.name,
            "namespace": meta.namespace,
            "labels": {POLICY_LABEL: policy.metadata.name},
            "ownerReferences": [
                {
                    "apiVersion": policy.api_version,
                    "kind": policy.kind,
                    "name": policy.metadata.name,
                    "uid": policy.metadata.uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "spec": spec.dump(),
    }
    created = await kube.create(path(meta.namespace), body)
    report = store.update(created)
    if report is None:
        raise RuntimeError(f"report {meta.name} came back unreadable")
    entry = TimelineEntry(time=spec.decided_at, what=str(phase), message=spec.refusal)
    return await set_status(kube, store, report, ReportStatus(phase=phase, timeline=[entry]))


async def set_status(
    kube: Kube, store: ReportStore, report: BottleneckReport, status: ReportStatus
) -> BottleneckReport:
    """Writes a report's status. The resource version guards it: a process that works from an old
    view gets ``KubeError`` 409 and reads again."""
    body = {
        "metadata": {"resourceVersion": report.metadata.resource_version},
        "status": status.dump(),
    }
    written = await kube.patch(
        path(report.metadata.namespace, report.metadata.name, "status"), body
    )
    updated = store.update(written)
    if updated is None:
        raise RuntimeError(f"report {report.metadata.name} came back unreadable")
    return updated


async def set_next(
    kube: Kube, store: ReportStore, report: BottleneckReport, constraint: str, now: datetime
) -> BottleneckReport:
    """Writes what limits the workload after a kept action; guarded as ``set_status`` is."""
    entry = TimelineEntry(time=now, what="Next", message=constraint)
    timeline = [*report.status.timeline, entry][-TIMELINE:]
    status = report.status.model_copy(update={"next": constraint, "timeline": timeline})
    return await set_status(kube, store, report, status)


async def set_revert(
    kube: Kube, store: ReportStore, report: BottleneckReport, revert: RevertVerdict
) -> BottleneckReport:
    """Writes whether all is as it was before an action; guarded as ``set_status`` is."""
    entry = TimelineEntry(time=revert.at, what=str(revert.result), message=revert.reason)
    timeline = [*report.status.timeline, entry][-TIMELINE:]
    status = report.status.model_copy(update={"revert": revert, "timeline": timeline})
    return await set_status(kube, store, report, status)


def advanced(
    status: ReportStatus, step: Next, now: datetime, after: list[float] | None = None
) -> ReportStatus:
    """The status after a step to another phase. Pure."""
    phase = step.phase or status.phase
    changes: dict[str, object] = {
        "phase": phase,
        "timeline": [
            *status.timeline,
            TimelineEntry(time=now, what=str(step.reason or phase), message=step.message),
        ][-TIMELINE:],
    }
    if step.rollback is not None:
        changes["rollback"] = step.rollback
        if step.rollback.refused:
            return status.model_copy(update=changes)
    if phase is Phase.APPLIED and status.applied_at is None:
        changes["applied_at"] = now
    if step.stage is not None:
        changes["stage"] = step.stage
    if step.split is not None:
        # Chosen again, it begins again.
        changes |= {"split": step.split, "applied_at": now if phase is Phase.APPLIED else None}
    if phase is Phase.VERIFYING:
        # Not the time of writing: the API server may have been away in between.
        changes["acknowledged_at"] = max(step.at or now, status.applied_at or now)
    if step.verdict is not None:
        changes |= {"judged_at": now, "verdict": step.verdict, "after": after or []}
    elif phase is Phase.REVERTING:
        changes["judged_at"] = now
    if phase in (Phase.KEPT, Phase.REVERTED, Phase.ABANDONED):
        changes["closed_at"] = now
    return status.model_copy(update=changes)


async def prune(kube: Kube, store: ReportStore, policy: BottleneckPolicy, now: float) -> None:
    """Deletes the reports that are neither few nor young nor asked for any more. Raises
    ``KubeError``."""
    others = store.in_namespace(policy.metadata.namespace)
    for report in expendable(policy, store.of(policy), others, now):
        metadata = report.metadata
        where = path(metadata.namespace, metadata.name)
        await kube.delete(where, metadata.uid, metadata.resource_version)
        store.update(report.dump(), deleted=True)


def now_utc(seconds: float) -> datetime:
    """Seconds since the Unix epoch as the API writes a moment."""
    return datetime.fromtimestamp(seconds, UTC)
