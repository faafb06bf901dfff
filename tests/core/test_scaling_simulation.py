"""The whole rule in a closed loop with cold starts: what must hold on every load (seeded)."""

from __future__ import annotations

import pytest
from bottleneck_operator.api.report import Aim

from hack.bench.scaling.ours import Ours
from hack.bench.scaling.world import Model, Service, poisson
from hack.bench.scaling_simulation import play, policy

MODEL = Model(most=20)


def shaped(name: str) -> list[float]:
    at = range(1500)
    return {
        "steady": [8.0 for _ in at],
        "bursts": [3.0 + (20 if s % 400 < 40 and s >= 300 else 0) for s in at],
        "ramp": [2 + 28 * min(1.0, s / 900) for s in at],
        "crowd": [4.0 + (36 if 300 <= s < 500 else 0) for s in at],
        "down": [30.0 if s < 300 else 4.0 for s in at],
    }[name]


def played(
    name: str, silent: tuple[float, float] = (0.0, 0.0), seed: int = 3
) -> tuple[Service, Ours]:
    rule = Ours(policy(MODEL), silent=[silent])
    return play(MODEL, poisson(shaped(name), seed), rule, seed), rule


@pytest.mark.parametrize("name", ["steady", "bursts", "ramp", "crowd", "down"])
def test_it_follows_the_load_within_its_bounds(name: str) -> None:
    service, rule = played(name)
    count = MODEL.least
    for _, change in service.changes:
        count += change
        assert MODEL.least <= count <= MODEL.most
    # The backlog is worked off, and a load is not followed to and fro.
    assert max(service.backlog[-60:]) < 20
    assert service.turns <= 4
    assert len(rule.decisions) <= 20


def test_what_is_too_much_is_given_back_after_the_window() -> None:
    service, rule = played("down")
    savings = [second for second, plan in rule.decisions if plan.action.aim is Aim.SAVE]
    assert savings
    assert len(service.replicas) <= 5
    assert savings[0] >= 600 - 15  # a stretch may lack three slots at its edge


def test_nothing_is_changed_while_nothing_is_heard() -> None:
    hole = (700.0, 1400.0)
    _, rule = played("down", hole)
    assert not [second for second, _ in rule.decisions if hole[0] <= second < hole[1]]
    # And what was not seen counts for nothing afterwards.
    late = [p for second, p in rule.decisions if second >= hole[1] and p.action.aim is Aim.SAVE]
    assert not late


def test_a_burst_is_followed_while_the_growth_before_it_is_open() -> None:
    _, rule = played("crowd")
    assert [plan for _, plan in rule.decisions if plan.supersedes]
