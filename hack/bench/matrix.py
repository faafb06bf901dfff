"""What came of the runs: figures for the file, a confusion matrix for the eye."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .faultfile import HEALTHY


@dataclass(slots=True)
class Outcome:
    """One run and what the engine made of it. ``named`` is its first cause, or healthy."""

    id: str
    truth: str
    kind: str
    named: str = ""
    causes: list[dict[str, Any]] = field(default_factory=list)
    cpu_milliseconds: float = 0.0
    failure: str = ""
    """Why there is no diagnosis; such a run is counted nowhere, and the command fails."""

    @property
    def right(self) -> bool:
        """Whether the engine named the truth first."""
        return self.named == self.truth


def figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Of real runs, and of the synthesised ones apart."""
    done = [outcome for outcome in outcomes if not outcome.failure]
    document = _counted([outcome for outcome in done if outcome.kind == "real"])
    synthesised = [outcome for outcome in done if outcome.kind != "real"]
    document["synthesised"] = _counted(synthesised)
    document["failed"] = [
        {"id": outcome.id, "reason": outcome.failure} for outcome in outcomes if outcome.failure
    ]
    document["outcomes"] = [
        {
            "id": outcome.id,
            "truth": outcome.truth,
            "kind": outcome.kind,
            "named": outcome.named,
            "causes": [
                {key: cause[key] for key in ("id", "share", "confidence") if key in cause}
                for cause in outcome.causes
            ],
        }
        for outcome in done
    ]
    return document


def _counted(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    faulty = [outcome for outcome in outcomes if outcome.truth != HEALTHY]
    healthy = [outcome for outcome in outcomes if outcome.truth == HEALTHY]
    by_cause: dict[str, dict[str, float | int | None]] = {}
    for truth in sorted({outcome.truth for outcome in faulty}):
        own = [outcome for outcome in faulty if outcome.truth == truth]
        by_cause[truth] = {"runs": len(own), "top1": _share(outcome.right for outcome in own)}
    milliseconds = [outcome.cpu_milliseconds for outcome in outcomes]
    return {
        "runs": len(outcomes),
        "faultyRuns": len(faulty),
        "healthyRuns": len(healthy),
        "causes": len(by_cause),
        "top1": _share(outcome.right for outcome in faulty),
        "falseOnHealthy": _share(not outcome.right for outcome in healthy),
        "byCause": by_cause,
        "cpuMillisecondsPerDiagnosis": (
            round(statistics.median(milliseconds), 3) if milliseconds else None
        ),
    }


def _share(flags: Iterable[bool]) -> float | None:
    """None where there was nothing to count: that is not zero."""
    found = list(flags)
    return round(sum(found) / len(found), 4) if found else None


def table(outcomes: Sequence[Outcome]) -> str:
    """The confusion matrix: a row for each truth, a column for each name that was given."""
    done = [outcome for outcome in outcomes if not outcome.failure]
    if not done:
        return "no run has a diagnosis"
    counts = Counter((outcome.truth, outcome.named) for outcome in done)
    truths = sorted({truth for truth, _ in counts}, key=lambda name: (name == HEALTHY, name))
    named = {name for _, name in counts}
    columns = [*truths, *sorted(named - set(truths))]
    marks = [str(number) for number in range(1, len(columns) + 1)]
    width = max(len(name) for name in columns)
    lines = [f"{'truth, and what was named':>{width + 4}}  " + " ".join(f"{m:>3}" for m in marks)]
    for number, truth in enumerate(columns, start=1):
        cells = []
        for name in columns:
            count = counts[truth, name]
            cells.append(f"{count:>3}" if count else ("  ·" if truth != name else "  -"))
        if truth in truths:
            lines.append(f"{number:>3} {truth:<{width}}  " + " ".join(cells))
        else:
            lines.append(f"{number:>3} {truth:<{width}}  (named, never the truth)")
    return "\n".join(lines)


def summary(document: dict[str, Any]) -> list[str]:
    """The figures in words."""
    lines = []
    for title, part in (("real", document), ("synthesised", document["synthesised"])):
        if not part["runs"]:
            continue
        line = f"{title}: {part['faultyRuns']} faulty runs over {part['causes']} causes"
        if part["top1"] is not None:
            line += f", named first in {part['top1']:.1%}"
        if part["falseOnHealthy"] is not None:
            line += f"; {part['healthyRuns']} healthy runs, a cause named"
            line += f" in {part['falseOnHealthy']:.1%}"
        lines.append(line)
    if document["failed"]:
        lines.append(f"{len(document['failed'])} runs failed and are not counted:")
        lines += [f"  {each['id']}: {each['reason']}" for each in document["failed"]]
    return lines
