"""What happens in a round: a pure function of the seed and the round's number."""

from __future__ import annotations

import random
from dataclasses import dataclass

KINDS = (
    "kill",
    "kill-before-write",
    "kill-after-write",
    "freeze",
    "restart-apiserver",
    "cut-apiserver",
    "delay-apiserver",
    "cut-sidecars",
    "delay-sidecars",
    "disk-full",
    "skew-clock",
    "answer-409",
    "answer-410",
    "answer-429",
    "answer-500",
    "lost-answer",
    "half-answer",
    "drop-watches",
    "expire-watches",
    "delete-target",
    "delete-policy",
    "telemetry-nan",
    "telemetry-negative",
    "telemetry-huge",
    "telemetry-reset",
    "telemetry-duplicate",
    "telemetry-reordered",
    "telemetry-other-pod",
)

AT_A_WRITE = frozenset(
    kind for kind in KINDS if kind.startswith(("kill-", "answer-", "lost-", "half-"))
)
"""Kinds that strike at the nth write of an action, not at a time."""

DEAFENING = frozenset(
    ("cut-sidecars", "telemetry-nan", "telemetry-negative", "telemetry-huge", "telemetry-other-pod")
)
"""Kinds after which nothing that could be used is heard of a workload."""

FAULTS_A_ROUND = 7

STRIKES_SECONDS = 45.0

TRAINERS = ("helps", "nothing", "hurts", "refuses", "mute")
SERVERS = ("helps", "nothing", "hurts", "surplus", "tight", "mute")


@dataclass(frozen=True)
class Workload:
    """``role`` is trainer or server; ``behaviour`` is how it answers an action. One that is mute
    says nothing all the round."""

    name: str
    role: str
    behaviour: str


@dataclass(frozen=True)
class Fault:
    """``at`` is in seconds of the fast clock since the operator's start, or the number of the write
    for those of ``AT_A_WRITE``; ``seconds`` is how long it lasts, on the same clock."""

    kind: str
    at: float
    seconds: float
    workload: str = ""
    amount: float = 0.0


@dataclass(frozen=True)
class Plan:
    """One round. The deadlines are in seconds of the fast clock, and generous: a busy machine makes
    the operator wait for the API server."""

    workloads: tuple[Workload, ...]
    faults: tuple[Fault, ...] = ()
    reports: int = 0
    """How many there have to be before the world can count as settled."""
    strikes: float = STRIKES_SECONDS
    """How long there is time for something to happen before nothing strikes any more."""
    settles: float = 600.0
    """Longest that an action may take to its end once nothing strikes any more: new replicas may
    take 300 s to become ready, and a verdict 90 after that."""
    goes: float = 600.0
    """Longest that a deleted policy may take to go."""


def plan_of(seed: int, number: int) -> Plan:
    """Each seed deals the kinds of faults like a shuffled deck, so that a few rounds have them
    all."""
    deck = list(KINDS)
    random.Random(seed).shuffle(deck)  # noqa: S311  a seeded plan is no secret
    rng = random.Random(f"{seed}/{number}")  # noqa: S311
    kinds = [deck[(number * FAULTS_A_ROUND + i) % len(deck)] for i in range(FAULTS_A_ROUND)]
    workloads = (
        *(_workload(rng, number, "trainer", TRAINERS, i) for i in range(3)),
        *(_workload(rng, number, "server", SERVERS, i) for i in range(3)),
    )
    return Plan(workloads, tuple(_fault(rng, kind, workloads) for kind in kinds))


def _workload(
    rng: random.Random, number: int, role: str, behaviours: tuple[str, ...], index: int
) -> Workload:
    # The first of each role is always one that gets an action.
    chosen = rng.choice(behaviours[:3] if index == 0 else behaviours)
    return Workload(f"{role}-{number}-{index}", role, chosen)


def _fault(rng: random.Random, kind: str, workloads: tuple[Workload, ...]) -> Fault:
    at = (
        float(rng.randint(1, 30))
        if kind in AT_A_WRITE
        else round(rng.uniform(1, STRIKES_SECONDS), 1)
    )
    seconds = round(rng.uniform(1, 25), 1)
    about = ("telemetry-", "cut-side", "delay-side", "delete-")
    workload = rng.choice(workloads).name if kind.startswith(about) else ""
    amount = rng.choice((-3600.0, -30.0, -5.0, 5.0, 30.0, 3600.0)) if kind == "skew-clock" else 0.0
    return Fault(kind, at, seconds, workload, amount)
