"""A few rounds of a fixed seed, each kind of fault among them; and the checker on an operator that
has one of its safeguards switched off."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path

import pytest

from hack.chaos.plan import AT_A_WRITE, FAULTS_A_ROUND, KINDS, Fault, Plan, Workload, plan_of
from hack.chaos.run import world
from hack.chaos.sabotage import SAFEGUARDS

SEED = 4
ROUNDS = -(-len(KINDS) // FAULTS_A_ROUND)


def scene(role: str, behaviour: str, *faults: Fault, reports: int = 1, **seconds: float) -> Plan:
    seconds = {"strikes": 0.0, **seconds}
    return Plan((Workload("a", role, behaviour),), faults, reports, **seconds)


KILL = Fault("kill-after-write", 3, 1.0)

SCENES = {
    "intent": scene("server", "helps"),
    "absolute": scene("server", "nothing"),
    "bounds": scene("server", "helps"),
    "data": scene("server", "mute", settles=60.0),
    "restore": scene("trainer", "hurts"),
    "finalizer": scene("trainer", "helps", goes=50.0),
    "memory": scene("trainer", "helps", KILL, strikes=30.0, settles=100.0),
    "effect": scene("trainer", "helps", settles=50.0),
    "verdict": scene("trainer", "helps", settles=60.0),
}
"""For each safeguard what has to happen for its lack to be seen."""


def test_a_plan_follows_from_the_seed_and_the_number_of_the_round() -> None:
    assert plan_of(7, 132) == plan_of(7, 132)
    assert plan_of(7, 132) != plan_of(8, 132)
    assert plan_of(7, 132) != plan_of(7, 133)


def test_a_few_rounds_have_every_kind_of_fault() -> None:
    dealt = Counter(fault.kind for n in range(ROUNDS) for fault in plan_of(SEED, n).faults)
    assert set(dealt) == set(KINDS)


@pytest.mark.cluster
def test_the_operator_breaks_no_rule_under_faults_and_without_a_safeguard_it_does(
    tmp_path: Path,
) -> None:
    """In one world, since that takes longer to bring up than a round to play."""
    faults: Counter[str] = Counter()
    missed = {}

    async def play() -> None:
        async with world(f"chaos-{os.getpid()}", tmp_path) as played:
            for number in range(ROUNDS):
                outcome = await played.round(SEED, number)
                assert outcome.violations == [], f"make chaos SEED={SEED} ROUND={number}"
                faults.update(outcome.faults)
            for name, (_, rule) in SAFEGUARDS.items():
                outcome = await played.round(SEED, 0, SCENES[name], without=name)
                found = {each.rule for each in outcome.violations}
                if rule not in found:
                    missed[name] = found

    asyncio.run(play())
    assert missed == {}
    # Those that strike at a write need that many writes, which not every round has.
    assert {kind for kind in KINDS if kind not in AT_A_WRITE} <= set(faults)
    assert set(faults) & AT_A_WRITE
