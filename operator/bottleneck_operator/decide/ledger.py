"""What became of earlier predictions, and what that says of the next one. Pure.

The ledger is kept by workload (a policy has one), cause and type of action: what each action was
predicted to return, and what was measured. Every report is counted once, as soon as it is closed,
in the policy's status; after that it may be deleted (``may_go``). A report that is not counted yet
is read itself, so it makes no difference when that happens.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..api.ledger import MOST_COUNTED, MOST_MISSES, Ledger, LedgerEntry, Miss
from ..api.report import Action, Aim, BottleneckReport, Phase, Prediction, VerdictResult

PRIOR = 1.0
"""Weight of the model itself, in earlier outcomes: after one that brought nothing, half of the next
prediction is believed."""

MOST = 2.0
"""Most that one outcome can say, in predicted gains: a lucky one must not carry all later ones."""

SURE = 0.01
"""Least gain that a prediction must name to be held against its outcome, as a logarithm."""

MOST_ENTRIES = 64

REMEMBERED = 64
"""Names of counted reports that are remembered after these are gone: a late event of the watch may
show one again."""

EMPTY = Ledger()


@dataclass(frozen=True, slots=True)
class Record:
    """Outcomes of one kind of action against one cause. ``realised`` is the part of a predicted
    gain that is to be expected now: 1 without any outcome to compare with a prediction."""

    tried: int = 0
    missed: int = 0
    realised: float = 1.0


@dataclass(frozen=True, slots=True)
class Totals:
    """What became of a number of actions."""

    hits: int = 0
    misses: int = 0
    reverts: int = 0

    @property
    def hit_rate(self) -> float | None:
        """Share of hits among those that were judged, None where none was."""
        judged = self.hits + self.misses
        return self.hits / judged if judged else None


def record(
    reports: Iterable[BottleneckReport], cause: str, type: str, ledger: Ledger = EMPTY
) -> Record:
    """The outcomes of such actions so far, of those that were to make something better."""
    for entry in settled(ledger, reports).entries:
        key = (entry.cause, entry.type, entry.aim)
        if key == (cause, type, Aim.IMPROVE) and entry.compared:
            return Record(
                tried=entry.compared,
                missed=min(entry.misses, entry.compared),
                realised=(PRIOR + entry.realised) / (PRIOR + entry.compared),
            )
    return Record()


def totals(ledger: Ledger, reports: Iterable[BottleneckReport]) -> Totals:
    """Of all causes and types together."""
    entries = settled(ledger, reports).entries
    return Totals(
        hits=sum(entry.hits for entry in entries),
        misses=sum(entry.misses for entry in entries),
        reverts=sum(entry.reverts for entry in entries),
    )


def corrected(
    action: Action,
    reports: Iterable[BottleneckReport],
    lower_is_better: bool,
    ledger: Ledger = EMPTY,
) -> Action:
    """The action with the prediction that earlier outcomes leave of it: gain ** realised, gains
    being factors. Without outcomes, or without a prediction, it stays as it is."""
    found, predicted = record(reports, action.cause, action.type, ledger), action.prediction
    gain = gain_of(predicted, lower_is_better)
    if not found.tried or predicted is None or not 0 < gain < math.inf:
        return action
    believed = gain**found.realised
    after = predicted.before / believed if lower_is_better else predicted.before * believed
    times = "once" if found.tried == 1 else f"{found.tried} times"
    basis = (
        f"{predicted.basis}; tried {times} before, {found.realised:.0%} of such gains are expected"
        " to come true"
    )
    changes = {"after": round(after, 6), "basis": basis}
    return action.model_copy(update={"prediction": predicted.model_copy(update=changes)})


def gain_of(prediction: Prediction | None, lower_is_better: bool) -> float:
    """How many times better the metric is predicted to be; 1 without a prediction."""
    if prediction is None:
        return 1.0
    before, after = prediction.before, prediction.after
    better, worse = (before, after) if lower_is_better else (after, before)
    return better / worse if worse > 0 else math.inf


# -- what outlives the reports ---------------------------------------------------------------------


def settled(ledger: Ledger, reports: Iterable[BottleneckReport]) -> Ledger:
    """The ledger with every closed report that it does not count yet. ``reports`` are oldest first.
    The same reports again change nothing, so a process that dies between writing the ledger and
    deleting a report counts none twice and forgets none."""
    present = list(reports)
    counted = set(ledger.counted)
    entries = {(e.cause, e.type, e.aim): e for e in ledger.entries}
    misses, names = list(ledger.misses), list(ledger.counted)
    for report in present:
        action, name = report.spec.action, report.metadata.name
        if name in counted or action is None or not _countable(report):
            continue
        key = (action.cause, action.type, str(action.aim))
        entries[key] = _with(entries.get(key), key, report)
        names.append(name)
        if (miss := miss_of(report)) is not None:
            misses.append(miss)
    if len(names) == len(ledger.counted):
        return ledger
    return Ledger(
        entries=list(entries.values())[-MOST_ENTRIES:],
        misses=misses[-MOST_MISSES:],
        counted=_remembered(names, {report.metadata.name for report in present}),
    )


def may_go(ledger: Ledger, report: BottleneckReport) -> bool:
    """Whether nothing is lost with a report: ``ledger``, as it was last written, counts it, or it
    has no outcome to count. An undoing that is not judged yet has to be, first."""
    status, action = report.status, report.spec.action
    if status.phase.open:
        return False
    judged = action is not None and action.judged and status.applied_at is not None
    if judged and status.phase is Phase.REVERTED and status.revert is None:
        return False
    return report.metadata.name in ledger.counted or not _countable(report)


def hit(report: BottleneckReport) -> bool | None:
    """Whether an action did what it was for; None where that was not judged. Savings and added
    replicas that made nothing better were enough where they were kept: the objectives are met."""
    verdict, action = report.status.verdict, report.spec.action
    if verdict is None or action is None or verdict.result is VerdictResult.NO_DATA:
        return None
    if verdict.result is VerdictResult.IMPROVED:
        return True
    enough = action.aim is Aim.SAVE or action.grows
    kept = report.status.phase is Phase.KEPT
    return enough and kept and verdict.result is VerdictResult.NO_EFFECT


def reverted(report: BottleneckReport) -> bool:
    """Whether the operator has undone an action, and not people."""
    taken = report.status.rollback
    by_people = taken is not None and not taken.refused
    return report.status.phase is Phase.REVERTED and not by_people


def missed(report: BottleneckReport) -> bool:
    """Whether an action that was to make something better did not, or was taken back."""
    action, verdict = report.spec.action, report.status.verdict
    if action is None or action.aim is not Aim.IMPROVE:
        return False
    unproved = verdict is not None and verdict.result is not VerdictResult.IMPROVED
    return report.status.phase is Phase.REVERTED or unproved


def change_of(action: Action) -> str:
    """What is changed against what, as a text that is the same for the same change; of a resize it
    is the direction, since the amount moves a little with every window."""
    what: object
    if action.knobs is not None:
        what = action.knobs.desired
    elif action.resources is not None:
        change = action.resources
        new, old = change.desired.model_dump(), change.replaces.model_dump()
        what = [change.container, [name for name in new if new[name] != old[name]]]
    else:
        other = action.replicas or action.image or action.hpa
        what = other.model_dump(include={"name", "container", "desired"}) if other else None
    return json.dumps([action.type, action.cause, what], sort_keys=True)[:512]


def miss_of(report: BottleneckReport) -> Miss | None:
    """What is remembered of a miss; None for what is none. Added replicas have a rule of their own,
    which ends after half an hour."""
    action, status = report.spec.action, report.status
    if action is None or not missed(report) or action.grows or status.closed_at is None:
        return None
    return Miss(
        report=report.metadata.name,
        change=change_of(action),
        result=str(status.verdict.result if status.verdict else status.phase),
        policy_generation=report.spec.policy_generation,
        circumstances=report.spec.circumstances,
        closed_at=status.closed_at,
    )


def _countable(report: BottleneckReport) -> bool:
    phase = report.status.phase
    closed = phase in (Phase.KEPT, Phase.REVERTED, Phase.ABANDONED)
    return closed and (hit(report) is not None or reverted(report))


def _with(
    entry: LedgerEntry | None, key: tuple[str, str, str], report: BottleneckReport
) -> LedgerEntry:
    cause, type, aim = key
    entry = entry or LedgerEntry(cause=cause, type=type, aim=aim)
    good, share = hit(report), _share(report)
    return entry.model_copy(
        update={
            "hits": entry.hits + (good is True),
            "misses": entry.misses + (good is False),
            "reverts": entry.reverts + reverted(report),
            "compared": entry.compared + (share is not None),
            "realised": round(entry.realised + (share or 0.0), 6),
        }
    )


def _share(report: BottleneckReport) -> float | None:
    """The part of the predicted gain that came true; None where there is none to compare with."""
    action, verdict = report.spec.action, report.status.verdict
    if action is None or verdict is None or action.prediction is None or hit(report) is None:
        return None
    lower = report.spec.metric.lower_is_better
    expected = _log(gain_of(action.prediction, lower))
    if expected is None or expected < SURE:
        return None
    measured = 0.0
    if verdict.before and verdict.after:
        factor = verdict.before / verdict.after if lower else verdict.after / verdict.before
        measured = _log(factor) or 0.0
    return min(MOST, max(0.0, measured / expected))


def _remembered(names: Sequence[str], present: set[str]) -> list[str]:
    """The names to keep, oldest first: all of reports that are there, and the newest of others."""
    gone = [name for name in names if name not in present]
    forgotten = set(gone[: max(0, len(gone) - REMEMBERED)])
    return [name for name in names if name not in forgotten][-MOST_COUNTED:]


def _log(factor: float) -> float | None:
    return math.log(factor) if 0 < factor < math.inf else None
