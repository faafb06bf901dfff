"""Under what an action was tried, and whether any of that has changed since: what did not help then
may help now. Pure; it is recorded in the report before the action, so a new process sees the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..api.consequences import MOST_NODES, Circumstances
from ..api.report import Action
from ..observe.trail import Trail

LOAD_FACTOR = 1.5
"""A load that is more than so many times what it was, or less than one over that, is another load.
The waits of a queue that is half full grow threefold with it (M/M/1: 1 / (1 - utilisation))."""

LOAD_SECONDS = 60.0
"""Over which a load is averaged."""

DEVIATIONS = 3.0
"""Besides, the counts of these two minutes must differ by more than chance explains: by so many
standard deviations of the difference of two Poisson counts. Few requests vary a lot."""

CHANGES = (
    "the policy, the pod template, the nodes, the number of replicas or the load (by more than"
    f" {LOAD_FACTOR:g} times)"
)
"""What lifts a quarantine, for people."""


def circumstances(
    template: str, nodes: Iterable[str], replicas: int | None, trail: Trail, now: float
) -> Circumstances:
    """What holds at ``now`` (seconds since the Unix epoch)."""
    found = sorted({node for node in nodes if node})
    load = trail.over("inference.arrivalRate", LOAD_SECONDS, now)
    return Circumstances(
        template=template,
        nodes=found if len(found) <= MOST_NODES else [],
        replicas=replicas,
        load=None if load is None else round(load.mean, 3),
    )


def changed(then: Circumstances | None, now: Circumstances, action: Action | None = None) -> str:
    """What has changed, in words; empty where nothing is known to have. What is not known on either
    side has not changed. ``action`` is the one that was tried: what it changes itself, and was
    undone or kept, is nobody's news."""
    if then is None:
        return ""
    image = action is not None and action.image is not None
    scaled = action is not None and (action.replicas is not None or action.hpa is not None)
    if then.template and now.template and then.template != now.template:
        return "the pod template changed"
    if not image and then.nodes and now.nodes and set(then.nodes).isdisjoint(now.nodes):
        return f"it runs on other nodes: {', '.join(now.nodes)}"
    known = then.replicas is not None and now.replicas is not None
    if not scaled and known and then.replicas != now.replicas:
        return f"there are {now.replicas} replicas, and were {then.replicas}"
    if (factor := load_factor(then.load, now.load)) is not None and not alike(factor):
        return f"the load is {factor:.1f} times what it was"
    return ""


def alike(factor: float) -> bool:
    """Whether a load that is ``factor`` times another one counts as the same."""
    return 1 / LOAD_FACTOR <= factor <= LOAD_FACTOR


def load_factor(then: float | None, now: float | None) -> float | None:
    """How many times the load is what it was; 1 where the difference may be chance, None where
    either is not known. Loads in requests per second over ``LOAD_SECONDS``."""
    if then is None or now is None:
        return None
    old, new = then * LOAD_SECONDS, now * LOAD_SECONDS
    if abs(new - old) <= DEVIATIONS * math.sqrt(old + new):
        return 1.0
    return new / old if old > 0 else math.inf
