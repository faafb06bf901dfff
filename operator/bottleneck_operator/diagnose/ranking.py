"""Which confirmed cause is the root, which only follows from it, and how sure one can be. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..api.report import Cause
from .catalogue import AFFECTS, CATALOGUE, CauseEntry, Explains, edges
from .objectives import evidence
from .predicates import Found, Signals, Tried, holds

CLOSE = 0.5
"""From this ratio of the runner-up's share to the first's on, the first is less sure."""


@dataclass(slots=True)
class Confirmed:
    """A confirmed cause: its share, what it was tried with, and what it explains."""

    entry: CauseEntry
    share: float
    found: tuple[Found, ...]
    asked: int
    measured: int
    explains: list[Explains] = field(default_factory=list)
    root: str = ""
    """Id of the cause behind which it stands; its own where nothing explains it."""


def confirmed(entry: CauseEntry, tried: Sequence[Tried], share: float) -> Confirmed:
    """A cause whose conditions all hold; ``share`` is cut to 0..1."""
    return Confirmed(
        entry=entry,
        share=min(1.0, max(0.0, share)),
        found=tuple(found for each in tried for found in each.found),
        asked=sum(each.asked for each in tried),
        measured=sum(each.measured for each in tried),
    )


def ranked(
    found: Mapping[str, Confirmed],
    signals: Signals,
    objective: str | None,
    catalogue: Sequence[CauseEntry],
) -> list[Confirmed]:
    """Roots first by what removing each would return, each followed by what it explains. A cause
    that stops the work comes before all others, and one that every healthy workload has after."""
    order = {entry.id: number for number, entry in enumerate(catalogue)}
    explained: dict[str, list[Confirmed]] = {}
    for cause in found.values():
        for edge in edges(cause.entry, catalogue):
            other = found.get(edge.id)
            if other is not None and cause.share < edge.proportion * other.share:
                continue
            if holds(edge.when, signals):
                cause.explains.append(edge)
                if other is not None:
                    explained.setdefault(edge.id, []).append(cause)

    def importance(cause: Confirmed) -> tuple[int, float, int]:
        entry = cause.entry
        tier = 0 if entry.breaks else 3 if entry.needs_breach else 1
        if tier == 1 and not relevant(entry, objective):
            tier = 2
        return tier, -cause.share, order[entry.id]

    for cause in found.values():
        cause.root = _root(cause, explained, importance)
    roots = sorted((c for c in found.values() if c.root == c.entry.id), key=importance)
    return [
        each
        for root in roots
        for each in (
            root,
            *sorted(
                (c for c in found.values() if c.root == root.entry.id and c is not root),
                key=lambda c: (-c.share, order[c.entry.id]),
            ),
        )
    ]


def _root(
    cause: Confirmed,
    explained: Mapping[str, Sequence[Confirmed]],
    importance: Callable[[Confirmed], tuple[int, float, int]],
) -> str:
    """The deepest cause behind this one, along the most important at each step."""
    seen = {cause.entry.id}
    while above := explained.get(cause.entry.id):
        cause = min(above, key=importance)
        if cause.entry.id in seen:
            raise ValueError(f"{cause.entry.id} explains itself: mend the catalogue's edges")
        seen.add(cause.entry.id)
    return cause.entry.id


def relevant(entry: CauseEntry, objective: str | None) -> bool:
    """Whether a cause can bring about what this objective is about."""
    about = AFFECTS.get(objective or "")
    return about is None or entry.id not in _REACH or bool(_REACH[entry.id] & about)


def _reach() -> dict[str, frozenset[str]]:
    """By cause, everything that it may explain, over any number of edges. Static."""
    direct = {e.id: {edge.id for edge in e.explains} for e in CATALOGUE}
    reach = {id: set(ids) for id, ids in direct.items()}
    for _ in reach:
        for ids in reach.values():
            ids |= {further for id in list(ids) for further in direct.get(id, ())}
    return {id: frozenset(ids) for id, ids in reach.items()}


_REACH = _reach()


def cause_of(cause: Confirmed, runner_up: Confirmed | None = None) -> Cause:
    """As it stands in a report."""
    return Cause(
        id=cause.entry.id,
        class_=cause.entry.class_,
        category=cause.entry.category,
        title=cause.entry.title,
        share=cause.share,
        confidence=confidence(cause, runner_up),
        evidence=[
            evidence(f.predicate.signal, f.reading, f.bound, f.predicate.source)
            for f in _once(cause.found)
        ],
        explained_by="" if cause.root == cause.entry.id else cause.root,
    )


def _once(found: Sequence[Found]) -> list[Found]:
    """One figure for each signal and side: the bound that is harder to meet."""
    kept: dict[tuple[str, str], Found] = {}
    for each in found:
        key = (each.predicate.signal, each.predicate.op)
        before = kept.get(key)
        if before is None or (each.predicate.op == "<") == (each.bound < before.bound):
            kept[key] = each
    return list(kept.values())


def confidence(cause: Confirmed, runner_up: Confirmed | None = None) -> float:
    """How sure one can be, 0..1; an aid to readers, not a probability.

    (0.5 + 0.5 m) × (0.7 + 0.3 q) × (1 − 0.2 c): m is the mean of the least and the average margin
    of its figures, each 0 at its threshold and 1 at twice (or at none of) it; q is the part of its
    conditions, reasons against it included, that was measured; c grows from 0 to 1 as the share of
    the runner-up, which this cause does not explain, grows from half of this one's to all of it.
    """
    margins = [_margin(f) for f in cause.found if not f.predicate.flag]
    margin = (min(margins) + sum(margins) / len(margins)) / 2 if margins else 1.0
    measured = cause.measured / cause.asked if cause.asked else 1.0
    close = 0.0
    if runner_up is not None and cause.share > 0:
        ratio = min(1.0, runner_up.share / cause.share)
        close = max(0.0, (ratio - CLOSE) / (1 - CLOSE))
    return round((0.5 + 0.5 * margin) * (0.7 + 0.3 * measured) * (1 - 0.2 * close), 2)


def _margin(found: Found) -> float:
    value, bound = found.reading.value, found.bound
    room = abs(bound)
    if found.predicate.op != "<" and found.predicate.signal.endswith("Share") and bound < 1:
        # A share ends at 1: from 70% on there is no twice as much.
        room = min(room, 1 - bound)
    return min(1.0, abs(value - bound) / max(room, 1e-9))
