"""The catalogue of causes, as data: adding a cause means adding one entry to one of its parts.

A cause is confirmed when every one of its predicates holds on measured figures and nothing rules it
out; it is ruled out by the first predicate that does not hold; without data it is neither.
Thresholds stand in the catalogue, with their source, and nowhere else.

The parts: ``causes_cluster`` and ``causes_node`` (any workload), ``causes_training``,
``causes_data`` and ``causes_compute``, ``causes_serving``; ``effects`` are the steps between a
symptom and its causes. Together they are one graph, from which come the
whys, the fishbone and the fault tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .causes_cluster import CLUSTER_CAUSES
from .causes_compute import COMPUTE_CAUSES
from .causes_data import DATA_CAUSES
from .causes_node import NODE_CAUSES
from .causes_serving import SERVING_CAUSES
from .causes_training import TRAINING_CAUSES
from .effects import AFFECTS, EFFECTS
from .hypotheses import CATEGORIES, STAGES, CauseEntry, Effect, Explains, Veto, Why
from .predicates import START, AllOf, AnyOf, Condition, Predicate

__all__ = [
    "AFFECTS",
    "CATALOGUE",
    "CATEGORIES",
    "EFFECTS",
    "STAGES",
    "START",
    "AllOf",
    "AnyOf",
    "CauseEntry",
    "Condition",
    "Effect",
    "Explains",
    "Predicate",
    "Veto",
    "Why",
    "edges",
]

CATALOGUE: tuple[CauseEntry, ...] = (
    *CLUSTER_CAUSES,
    *NODE_CAUSES,
    *TRAINING_CAUSES,
    *DATA_CAUSES,
    *COMPUTE_CAUSES,
    *SERVING_CAUSES,
)


def edges(entry: CauseEntry, catalogue: Sequence[CauseEntry] = CATALOGUE) -> Iterator[Explains]:
    """The edges of a cause, with those that are not written down: whatever says what happened
    comes before what only says when it began."""
    yield from entry.explains
    if entry.generic or entry.needs_breach:
        return
    written = {edge.id for edge in entry.explains}
    for other in catalogue:
        if other.generic and other.id not in written and not _reaches(other, entry.id):
            yield Explains(other.id, deeper=other.id == "recent-change")


def _reaches(generic: CauseEntry, id: str) -> bool:
    return any(edge.id == id for edge in generic.explains)
