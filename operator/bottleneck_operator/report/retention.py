"""Which reports may be deleted. Pure.

What a decision of now or later still asks for is never among them: neither how many there are nor
how old they are changes what the operator does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..api import units
from ..api.policy import BottleneckPolicy
from ..api.report import BottleneckReport, Phase
from ..decide.ledger import may_go
from ..decide.lifecycle import desired_knobs

LOOKED_BACK_SECONDS = 3600.0
"""What had an effect within this time counts for cooldown, actions per hour and regret."""

TRIED = 100
"""Most different actions that are remembered as tried under one generation of a policy."""


def expendable(
    policy: BottleneckPolicy,
    reports: Sequence[BottleneckReport],
    others: Sequence[BottleneckReport],
    now: float,
) -> list[BottleneckReport]:
    """Closed reports of a policy beyond ``spec.reports.keep`` or older than ``spec.reports.maxAge``
    that nothing depends on and whose outcome the ledger in the policy's status counts. ``reports``
    are the policy's, oldest first; ``others`` all of the namespace; ``now`` in seconds since the
    Unix epoch."""
    closed = [report for report in reports if _closed(report)]
    oldest = now - units.seconds(policy.spec.reports.max_age)
    beyond = max(0, len(closed) - policy.spec.reports.keep)
    going = [report for i, report in enumerate(closed) if i < beyond or _ended(report) < oldest]
    if not going:
        return []
    wanted = in_force(closed) | tried(policy, closed) | linked(others)
    return [
        report
        for report in going
        if report.metadata.name not in wanted
        and not _lately(report, now)
        and may_go(policy.status.ledger, report)
    ]


def in_force(closed: Iterable[BottleneckReport]) -> set[str]:
    """Names of the reports that desired state and the way back from it follow from."""
    newest: dict[str, str] = {}
    for report in closed:
        action = report.spec.action
        if action is None:
            continue
        kept, name = report.status.phase is Phase.KEPT, report.metadata.name
        if action.knobs is not None and report.status.applied_at:
            newest["knobs"] = name
            if desired_knobs([report]) is not None:
                newest["knobs of all"] = name  # the newest may have been on some replicas only
        if action.replicas is not None and report.status.applied_at:
            newest["replicas"] = name  # whose zero it is
        if kept and action.resources is not None:
            newest[f"size of {action.resources.container}"] = name
        if kept and action.image is not None:
            newest[f"image of {action.image.container}"] = name
    return set(newest.values())


def tried(policy: BottleneckPolicy, closed: Iterable[BottleneckReport]) -> set[str]:
    """Names of the newest report of each different action that had an effect under this generation
    of the policy: what did not help is in quarantine, and no combination is tried twice."""
    newest: dict[str, str] = {}
    for report in closed:
        action = report.spec.action
        if (
            action is not None
            and report.status.applied_at is not None
            and report.spec.policy_generation == policy.metadata.generation
        ):
            changes = (action.knobs, action.replicas, action.resources, action.image, action.hpa)
            said = [each.model_dump(exclude={"generation"}) for each in changes if each is not None]
            key = f"{action.type} {action.cause} {said}"
            newest.pop(key, None)  # the order is that of the newest
            newest[key] = report.metadata.name
    return set(list(newest.values())[-TRIED:])


def linked(others: Sequence[BottleneckReport]) -> set[str]:
    """Names of the reports that one under way refers to: the other side of its trade, and what it
    carries further."""
    found: set[str] = set()
    for report in others:
        if not _closed(report):
            found.add(report.spec.supersedes)
            if report.spec.trade is not None:
                found.add(report.spec.trade.report)
    # One side of a trade may have been closed, the other not yet: it looks at who names it, too.
    under_way = {report.metadata.name for report in others if not _closed(report)}
    for report in others:
        if report.spec.trade is not None and report.spec.trade.report in under_way:
            found.add(report.metadata.name)
    return found


def _closed(report: BottleneckReport) -> bool:
    return not report.status.phase.open and report.status.phase is not Phase.RECOMMENDED


def _ended(report: BottleneckReport) -> float:
    return (report.status.closed_at or report.spec.decided_at).timestamp()


def _lately(report: BottleneckReport, now: float) -> bool:
    return report.status.applied_at is not None and now - _ended(report) < LOOKED_BACK_SECONDS
