"""What was done for a workload, line by line, and what became of it in all. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from ..api.ledger import Ledger
from ..api.report import BottleneckReport, Phase, VerdictResult
from ..decide.ledger import Totals, totals
from ..observe.documents import clean

HEADINGS = (
    "TIME",
    "POLICY",
    "REPORT",
    "CAUSE",
    "ACTION",
    "PREDICTED",
    "MEASURED",
    "VERDICT",
    "OUTCOME",
)


@dataclass(frozen=True, slots=True)
class Line:
    """One report. ``predicted`` and ``measured`` are relative changes of its metric, ``interval``
    the 95% interval of the latter; None where there is none."""

    time: str
    namespace: str
    policy: str
    report: str
    cause: str
    action: str
    metric: str
    predicted: float | None
    measured: float | None
    interval: tuple[float, ...]
    verdict: str
    outcome: str
    revert: str
    by: str
    """Who took it back, where people did."""


def line_of(report: BottleneckReport) -> Line:
    """The line of one report."""
    spec, status = report.spec, report.status
    action, verdict = spec.action, status.verdict
    prediction = action.prediction if action is not None else None
    predicted = None
    if prediction is not None and prediction.before > 0:
        predicted = round(prediction.after / prediction.before - 1, 4)
    taken = status.rollback if status.rollback and not status.rollback.refused else None
    return Line(
        time=f"{spec.decided_at:%Y-%m-%dT%H:%M:%SZ}",
        namespace=report.metadata.namespace,
        policy=spec.policy,
        report=report.metadata.name,
        cause=clean(action.cause) if action is not None else "",
        action=clean(action.summary) if action is not None else "",
        metric=clean(spec.metric.name),
        predicted=predicted,
        measured=verdict.effect if verdict is not None else None,
        interval=tuple(verdict.interval) if verdict is not None else (),
        verdict=str(verdict.result) if verdict is not None else "",
        outcome=outcome_of(report),
        revert=str(status.revert.result) if status.revert is not None else "",
        by=clean(taken.by, 128) if taken is not None else "",
    )


def outcome_of(report: BottleneckReport) -> str:
    """What became of an action, in a word: kept, undone, held (kept with an unclear verdict),
    taken back by people, open, and so on."""
    phase, verdict, taken = report.status.phase, report.status.verdict, report.status.rollback
    if phase is Phase.KEPT:
        unclear = verdict is not None and verdict.result is VerdictResult.INCONCLUSIVE
        return "held" if unclear else "kept"
    if phase is Phase.REVERTED:
        return "taken back" if taken is not None and not taken.refused else "undone"
    return "open" if phase.open else str(phase).lower()


def history_of(
    reports: Iterable[BottleneckReport], ledgers: Sequence[tuple[tuple[str, str], Ledger]]
) -> tuple[list[Line], Totals]:
    """The lines of the reports that are there, oldest first, and the totals, which also count those
    that are gone. ``ledgers`` are by namespace and name of their policy."""
    found = sorted(reports, key=lambda report: (report.spec.decided_at, report.number))
    by_policy: dict[tuple[str, str], list[BottleneckReport]] = {}
    for report in found:
        by_policy.setdefault((report.metadata.namespace, report.spec.policy), []).append(report)
    known = dict(ledgers)
    sums = [
        totals(known.get(policy, Ledger()), by_policy.get(policy, []))
        for policy in {**known, **by_policy}
    ]
    return [line_of(report) for report in found], Totals(
        hits=sum(each.hits for each in sums),
        misses=sum(each.misses for each in sums),
        reverts=sum(each.reverts for each in sums),
    )


def document(lines: Sequence[Line], sums: Totals) -> dict[str, object]:
    """What ``-o json`` and ``-o yaml`` print."""
    names = {"report": "name"}
    reports = []
    for line in lines:
        fields = {names.get(name, name): value for name, value in asdict(line).items()}
        reports.append(fields | {"interval": list(line.interval)})
    rate = sums.hit_rate
    return {
        "reports": reports,
        "totals": {
            "hits": sums.hits,
            "misses": sums.misses,
            "reverts": sums.reverts,
            "hitRate": None if rate is None else round(rate, 4),
        },
    }


def table(lines: Sequence[Line], sums: Totals, namespaces: bool) -> str:
    """The same for people; ``namespaces`` shows which one a policy is in."""
    rows = [HEADINGS, *(_row(line, namespaces) for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    rate = "" if sums.hit_rate is None else f", hit rate {sums.hit_rate:.0%}"
    told = f"{sums.hits} hits, {sums.misses} misses, {sums.reverts} reverts{rate}"
    return "\n".join([*(text if lines else ["no action so far"]), "", told]) + "\n"


def _row(line: Line, namespaces: bool) -> tuple[str, ...]:
    measured = _percent(line.measured)
    if line.measured is not None and line.interval:
        measured += " [" + ", ".join(map(_percent, line.interval)) + "]"
    outcome = line.outcome + (f" by {line.by}" if line.by else "")
    if line.revert and line.revert != "Restored":
        outcome += f" ({line.revert})"
    return (
        line.time,
        f"{line.namespace}/{line.policy}" if namespaces else line.policy,
        line.report,
        line.cause,
        line.action,
        _percent(line.predicted),
        measured,
        line.verdict or "-",
        outcome,
    )


def _percent(change: float | None) -> str:
    return "-" if change is None else f"{change:+.0%}"
