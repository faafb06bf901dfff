"""What a policy's status tells of the consequences of its actions. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ..api.conditions import Reason
from ..api.consequences import RevertResult
from ..api.policy_status import Recommendation
from ..api.report import BottleneckReport
from ..decide.decision import Facts
from ..decide.holds import is_undecided, released, unverified

Told = tuple[bool | None, Reason, str]


def restored(reports: Sequence[BottleneckReport], facts: Facts | None, now: float) -> Told:
    """Whether the newest action that was undone left everything as it was before; ``reports`` are
    oldest first, ``now`` in seconds since the Unix epoch."""
    for report in reversed(reports):
        name, revert = report.metadata.name, report.status.revert
        if unverified(report, now):
            return None, Reason.VERIFYING, f"{name} was undone; whether all is as before is seen"
        if revert is None:
            continue
        why = f"{name}: {revert.reason}"
        if revert.result is RevertResult.NO_DATA:
            return None, Reason.NO_DATA, why
        if revert.result is RevertResult.RESTORED:
            return True, Reason.RESTORED, why
        if facts is not None and (word := released(report, facts)):
            return True, Reason.RESTORED, f"{why}; since then {word}"
        reason = Reason.STATE_DIFFERS if revert.differences else Reason.NOT_RESTORED
        return False, reason, why
    return True, Reason.RESTORED, "nothing was undone"


def undecided_ones(
    reports: Sequence[BottleneckReport], facts: Facts | None
) -> list[Recommendation]:
    """For each action that is held with an unclear verdict what people can do about it, the newest
    first."""
    found = []
    for report in reversed(reports):
        action, verdict = report.spec.action, report.status.verdict
        if facts is None or action is None or verdict is None or not is_undecided(report, facts):
            continue
        name, namespace = report.metadata.name, report.metadata.namespace
        found.append(
            Recommendation(
                cause=action.cause,
                title=f"{name} is undecided: {action.summary}",
                how=f"Look whether it helped: kubectl describe bnr {name} -n {namespace}. To take"
                f" it back: kubectl bottleneck rollback {name} -n {namespace}. To keep it and let"
                f" the operator go on: kubectl bottleneck resume {report.spec.policy}"
                f" -n {namespace}",
                expected_gain=f"not clear: {verdict.reason}",
            )
        )
    return found
