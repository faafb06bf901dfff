"""What the catalogue is made of: causes, the effects between them and a symptom, and the edges that
say which explains which. Pure data."""

from __future__ import annotations

from dataclasses import dataclass

from ..observe.observation import WorkloadType
from .predicates import Condition
from .shares import Share

CATEGORIES = ("Infrastructure", "Data", "Models", "People", "Processes")
"""The fishbone's bones, in their order."""

STAGES = {
    "ingestion": "Ingestion: reading the data",
    "preprocessing": "Preprocessing: making batches of it",
    "model": "Model: computing",
    "serving": "Serving path: from a request to its answer",
    "integration": "Integration points: other ranks, other services",
}
"""The fault tree's stages with their titles, in the order in which data passes them."""


@dataclass(frozen=True, slots=True)
class Why:
    """One line of the chain. ``{name}`` in the text is replaced by that signal's figure, and
    ``{text:key}`` by what the API server says; ``signals`` are cited behind it. The chain stops
    before the first line whose figures or texts are not known or whose condition ``when`` does not
    hold; an ``optional`` line is only left out."""

    text: str
    signals: tuple[str, ...] = ()
    when: Condition | None = None
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Veto:
    """What rules a cause out although its conditions hold, and why that is so. Without data it does
    not: it is a reason against, not a part of the evidence."""

    condition: Condition
    reason: str


@dataclass(frozen=True, slots=True)
class Explains:
    """An edge to a shallower cause or effect: where both are confirmed, the shallower is only a
    consequence and stands behind. It counts only where ``when`` holds, and where this cause's share
    is at least ``proportion`` of the other's: a small trouble does not explain a big one.
    ``deeper`` turns the telling around: the other is told as the last why, not as a way there."""

    id: str
    when: Condition | None = None
    proportion: float = 0.0
    deeper: bool = False


@dataclass(frozen=True, slots=True)
class Effect:
    """A step between a symptom and its causes, such as "the step waits for input"."""

    id: str
    workload: WorkloadType
    condition: Condition
    why: Why


@dataclass(frozen=True, slots=True)
class CauseEntry:
    """One cause. It is confirmed when every predicate holds, no veto does and its share is known.

    ``remedies`` name action types, cheapest first; ``advice`` is for people. ``needs_breach``: it
    is only named where an objective is breached, since every healthy workload is limited by
    something. ``breaks``: with it the workload does not run at all, which breaches any policy.
    ``generic``: it only says when things began, so any cause that says what happened comes first.
    """

    id: str
    class_: str
    category: str
    stage: str
    title: str
    workload: WorkloadType
    predicates: tuple[Condition, ...]
    share: Share
    whys: tuple[Why, ...]
    advice: str = ""
    remedies: tuple[str, ...] = ()
    vetoes: tuple[Veto, ...] = ()
    explains: tuple[Explains, ...] = ()
    needs_breach: bool = False
    breaks: bool = False
    generic: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """What people or their processes left out, as far as the cluster shows it. It is no cause of
    slowness by itself, but it lets causes through, so it is a bone of the fishbone and no more."""

    id: str
    category: str
    title: str
    condition: Condition


def explains(
    *ids: str, when: Condition | None = None, proportion: float = 0.0
) -> tuple[Explains, ...]:
    """Edges to several hypotheses at once."""
    return tuple(Explains(id, when, proportion) for id in ids)
