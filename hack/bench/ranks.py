"""What the benchmarks of ``diagnose-graph`` share: AC@k, shares, and progress on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterable, Iterator
from typing import TypeVar

from bottleneck_operator.diagnose.graph import GraphDiagnosis

Item = TypeVar("Item")

EVERY_SECONDS = 5.0


def rank_of(truth: str, found: GraphDiagnosis) -> int | None:
    """The place of the cause in the ranking, from 1; None where it is not in it."""
    order = [suspect.component for suspect in found.ranking]
    return order.index(truth) + 1 if truth in order else None


def within(ranks: Collection[int | None], most: int) -> float:
    """AC@k: the share of incidents, 0 to 1, whose cause has at most this rank."""
    return share([rank is not None and rank <= most for rank in ranks])


def share(answers: Collection[bool]) -> float:
    """The share of what is true, 0 to 1; 0 of nothing."""
    return round(sum(answers) / len(answers), 3) if answers else 0.0


def told(items: Iterable[Item], count: int, what: str) -> Iterator[Item]:
    """The items, so many. Says every few seconds how far it is; a short run says nothing."""
    began = said = time.monotonic()
    for number, item in enumerate(items):
        now = time.monotonic()
        if number and now - said >= EVERY_SECONDS:
            left = (now - began) / number * (count - number)
            print(f"{what}: {number} of {count}, about {left:.0f}s left", file=sys.stderr)
            said = now
        yield item
