"""Who of a pool gives devices to whom: a table of cases, and what holds for any pool and loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from bottleneck_operator.decide.guards import REGRET_SECONDS
from bottleneck_operator.decide.marginal import Forecast
from bottleneck_operator.decide.pool import (
    CHECKPOINT_SECONDS,
    HEARD_SECONDS,
    HOLD_SECONDS,
    SHORT_SECONDS,
    Answer,
    Exchange,
    Member,
    Past,
    Shortage,
    settle,
)
from hypothesis import given
from hypothesis import strategies as st

from .builders import CASES, NOW

GPU = "example.com/device"


def loaded(load: float) -> Callable[[int], Forecast | None]:
    """A workload that needs ``load`` replicas to just meet its objective."""

    def at(replicas: int) -> Forecast:
        strain = load / replicas
        return Forecast(strain, 0.2 * strain, f"p95 {200 * strain:.0f} ms of 200 ms")

    return at


def member(policy: str, load: float, **changes: Any) -> Member:
    """A policy with 4 ready replicas of one device each."""
    fields: dict[str, Any] = {
        "policy": policy,
        "time": NOW,
        "priority": 0,
        "minimum": 1,
        "replicas": 4,
        "ready": 4,
        "breached": False,
        "forecast": loaded(load),
        "devices": {GPU: 1.0},
        **changes,
    }
    return Member(**fields)


def lacking(policy: str = "ranker", load: float = 1.5, pending: int = 1, **changes: Any) -> Member:
    """A policy with one ready replica of those that it needs."""
    lack = Shortage(pending, GPU, NOW - 30, f"the scheduler says: Insufficient {GPU}.")
    return member(
        policy,
        load,
        **{
            "replicas": 1 + pending,
            "ready": 1,
            "breached": True,
            "shortage": lack,
            "trouble": "Latency is 410 ms, objective ≤ 250 ms",
            **changes,
        },
    )


IDLE = member("indexer", 1.0)
FULL = member("indexer", 3.8)
TIGHT = member("indexer", 2.8)
"""With one replica fewer it is left with its objective, and no more."""


def traded(*members: Member, past: tuple[Past, ...] = ()) -> Exchange:
    answer = settle(members, past, NOW)
    assert answer.exchange is not None, answer.refusals
    return answer.exchange


def refused(*members: Member, past: tuple[Past, ...] = ()) -> dict[str, str]:
    answer = settle(members, past, NOW)
    assert answer.exchange is None, answer.exchange
    return dict(answer.refusals["ranker"])


# -- who gives -------------------------------------------------------------------------------------


def test_what_is_to_spare_goes_to_whom_it_helps_and_says_so() -> None:
    found = traded(lacking(), IDLE)
    assert (found.giver, found.taker, found.gives, found.gains) == ("indexer", "ranker", 1, 1)
    assert (found.devices, found.resource, found.ready) == (1.0, GPU, 2)
    assert found.surplus
    assert found.sentence == (
        "gives 1 of 4 replicas (1 example.com/device) to ranker, whose Latency is 410 ms,"
        " objective ≤ 250 ms; predicted own p95 67 ms of 200 ms (p95 50 ms now)"
    )


@pytest.mark.parametrize(
    ("members", "giver"),
    [
        ([member("a", 1.0), member("b", 2.0)], "a"),
        ([member("a", 2.0), member("b", 1.0)], "b"),
        ([member("a", 1.0, priority=500), TIGHT], "a"),
        ([member("a", 2.8), member("b", 2.7)], "b"),
        ([member("a", 2.8), member("b", 2.8, priority=50)], "a"),
        ([member("a", 1.0, devices={GPU: 2.0}), member("b", 1.0)], "a"),
    ],
    ids=[
        "who loses least",
        "who loses least, the other way round",
        "what is to spare, before what hurts one of lower priority",
        "of those that it hurts the one that it hurts least",
        "of two alike the one of lower priority",
        "the loss is counted for each device",
    ],
)
def test_the_giver(members: list[Member], giver: str) -> None:
    assert traded(lacking(priority=100), *members).giver == giver
    assert traded(*reversed(members), lacking(priority=100)).giver == giver


@pytest.mark.parametrize(
    ("giver", "why"),
    [
        (FULL, "with 1 fewer it would not meet its own objective: p95 253 ms"),
        (replace(TIGHT, priority=100), "its priority 100 is not lower, and it has none to spare"),
        (replace(TIGHT, priority=200), "its priority 200 is not lower"),
        (replace(IDLE, minimum=4), "it has 4 replicas, its minimum is 4"),
        (replace(IDLE, replicas=1, ready=1), "it has 1 replicas, its minimum is 1"),
        (replace(IDLE, minimum=0, replicas=1, ready=1), "its minimum is 1"),
        (replace(IDLE, ready=3), "only 3 of its 4 replicas are ready"),
        (replace(IDLE, breached=True), "its own objectives are breached"),
        (replace(IDLE, breached=None), "it has no data"),
        (replace(IDLE, forecast=lambda replicas: None), "it cannot be told how it would do"),
        (
            replace(IDLE, forecast=lambda n: loaded(1.0)(n) if n == 4 else None),
            "it cannot be told how it would do",
        ),
        (replace(IDLE, time=NOW - HEARD_SECONDS - 1), "nothing was heard of it for 16s"),
        (replace(IDLE, no_giver="its mode is Recommend"), "its mode is Recommend"),
        (replace(IDLE, disruptions=0), "its PodDisruptionBudget allows 0 of 1 pods to go"),
        (replace(IDLE, devices={"nvidia.com/gpu": 1.0}), f"its replicas have no {GPU}"),
        (replace(IDLE, training=True), "no checkpoint of it was seen"),
        (
            replace(IDLE, training=True, since_checkpoint=CHECKPOINT_SECONDS + 90),
            "its last checkpoint is 120s old; it gives after the next",
        ),
    ],
)
def test_who_gives_nothing_and_why(giver: Member, why: str) -> None:
    assert why in refused(lacking(priority=100), giver)["indexer"]


def test_a_training_giver_gives_right_after_a_checkpoint() -> None:
    saved = replace(IDLE, training=True, since_checkpoint=CHECKPOINT_SECONDS)
    assert traded(lacking(), saved).giver == "indexer"


# -- how many --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("taker", "giver", "sizes"),
    [
        (lacking(load=1.5, pending=3), IDLE, (1, 1)),
        (lacking(load=2.5, pending=3), IDLE, (2, 2)),
        (lacking(load=9.0, pending=3), member("indexer", 0.5), (3, 3)),
        (lacking(load=9.0, pending=3), replace(IDLE, minimum=3), (1, 1)),
        (lacking(load=9.0, pending=3), member("indexer", 1.5), (2, 2)),
        (lacking(load=9.0, pending=3), replace(IDLE, disruptions=1), (1, 1)),
        (lacking(devices={GPU: 2.0}), IDLE, (2, 1)),
        (lacking(load=9.0, pending=3), replace(IDLE, devices={GPU: 2.0}), (2, 3)),
    ],
    ids=[
        "no more than it needs",
        "two where it needs two",
        "all that wait where they are not enough",
        "what the minimum leaves",
        "what can be spared",
        "what the budget leaves",
        "two of the small replicas for a large one",
        "two large replicas for three small ones",
    ],
)
def test_the_size_of_a_trade(taker: Member, giver: Member, sizes: tuple[int, int]) -> None:
    found = traded(taker, giver)
    assert (found.gives, found.gains) == sizes


# -- who takes -------------------------------------------------------------------------------------


def test_the_most_important_is_served_first_then_who_waits_longest() -> None:
    other = replace(lacking("other"), priority=5)
    assert traded(lacking(), other, IDLE).taker == "other"
    lack = Shortage(1, GPU, NOW - 60, "")
    assert traded(lacking(), lacking("other", shortage=lack), IDLE).taker == "other"


def test_who_cannot_be_served_does_not_keep_others_from_it() -> None:
    stuck = lacking(priority=100, no_taker="it is paused")
    answer = settle([stuck, lacking("other"), IDLE], (), NOW)
    assert answer.exchange is not None
    assert answer.exchange.taker == "other"
    assert answer.refusals == {"ranker": {"ranker": "it is paused"}}


@pytest.mark.parametrize(
    ("taker", "past", "why"),
    [
        (lacking(no_taker="it is paused"), (), "it is paused"),
        (lacking(devices={}), (), f"its pods do not say how many {GPU} they take"),
        (lacking(forecast=lambda n: None), (), "it cannot be told what one more replica would do"),
        (
            lacking(forecast=lambda n: Forecast(2.0, 0.4, "p95 400 ms of 200 ms")),
            (),
            "one more replica is not predicted to help: p95 400 ms of 200 ms",
        ),
        (
            lacking(),
            (Past("a", "b", NOW - 5, under_way=True),),
            "another trade of the pool is under way",
        ),
        (
            lacking(),
            (Past("a", "ranker", NOW - 100, failed="ranker"),),
            "what it took last did not help it",
        ),
    ],
)
def test_who_takes_nothing_and_why(taker: Member, past: tuple[Past, ...], why: str) -> None:
    assert why in refused(taker, IDLE, past=past)["ranker"]


@pytest.mark.parametrize(
    "calm",
    [
        lacking(breached=False),
        lacking(breached=None),
        lacking(shortage=None),
        lacking(shortage=Shortage(0, GPU, NOW - 60, "")),
        lacking(shortage=Shortage(1, GPU, NOW - SHORT_SECONDS + 1, "")),
    ],
    ids=["objectives met", "no data", "nothing waits", "none waits", "for a moment only"],
)
def test_who_is_not_short(calm: Member) -> None:
    assert settle([calm, IDLE], (), NOW) == Answer()


# -- what was before -------------------------------------------------------------------------------


def test_who_took_keeps_it_for_a_while() -> None:
    past = (Past("ranker", "indexer", NOW - 100),)
    assert "it took from ranker 100s ago" in refused(lacking(), IDLE, past=past)["indexer"]
    third = (Past("third", "indexer", NOW - 100),)
    assert "it took from third" in refused(lacking(), IDLE, past=third)["indexer"]
    old = (Past("ranker", "indexer", NOW - HOLD_SECONDS),)
    assert traded(lacking(), IDLE, past=old).giver == "indexer"


def test_who_gave_too_much_gives_nothing_for_a_while() -> None:
    past = (Past("indexer", "third", NOW - 100, failed="indexer"),)
    assert "had to be given back" in refused(lacking(), IDLE, past=past)["indexer"]
    old = (Past("indexer", "third", NOW - REGRET_SECONDS, failed="indexer"),)
    assert traded(lacking(), IDLE, past=old).giver == "indexer"


def test_who_gave_well_may_give_again() -> None:
    useless = Past("indexer", "third", NOW - 100, failed="third")
    assert traded(lacking(), IDLE, past=(useless,)).gives == 1
    assert traded(lacking(), IDLE, past=(Past("indexer", "ranker", NOW - 100),)).gives == 1


# -- any pool, any loads ---------------------------------------------------------------------------

TURN = 30.0


@dataclass
class Workload:
    """One workload of the simulated pool: it wants what its load needs, and gets what is there."""

    name: str
    priority: int
    minimum: int
    running: int
    size: int = 1
    load: float = 0.5
    wanted: int = 0

    def member(self, now: float) -> Member:
        breached = self.load > self.running
        need = max(self.running, min(12, int(self.load / 0.9) + 1)) if breached else self.running
        self.wanted = need
        lack = Shortage(need - self.running, GPU, now - 60, "") if need > self.running else None
        return member(
            self.name,
            self.load,
            time=now,
            priority=self.priority,
            minimum=self.minimum,
            replicas=need,
            ready=self.running,
            breached=breached,
            shortage=lack,
            devices={GPU: float(self.size)},
        )


@dataclass
class Pool:
    """Workloads whose trades come about at once."""

    workloads: dict[str, Workload]
    now: float = NOW
    past: list[Past] = field(default_factory=list)
    free: float = 0.0

    @property
    def devices(self) -> float:
        return self.free + sum(each.running * each.size for each in self.workloads.values())

    def turn(self) -> Exchange | None:
        self.now += TURN
        members = [each.member(self.now) for each in self.workloads.values()]
        found = settle(members, self.past, self.now).exchange
        if found is None:
            return None
        giver, taker = self.workloads[found.giver], self.workloads[found.taker]
        self.past.append(Past(found.giver, found.taker, self.now))
        giver.running -= found.gives
        taker.running += found.gains
        self.free += found.gives * giver.size - found.gains * taker.size
        return found


POOLS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 2), st.integers(1, 5), st.integers(1, 2)),
    min_size=2,
    max_size=5,
).map(
    lambda rows: Pool(
        {
            f"w{i}": Workload(f"w{i}", priority, minimum, max(minimum, running), size)
            for i, (priority, minimum, running, size) in enumerate(rows)
        }
    )
)
LOADS = st.lists(st.lists(st.floats(0.05, 8.0), min_size=5, max_size=5), min_size=1, max_size=40)
MANY = CASES.__class__(CASES, max_examples=200)


@MANY
@given(POOLS, LOADS)
def test_whatever_the_loads_do(pool: Pool, loads: list[list[float]]) -> None:
    """Devices are neither made nor lost, minimums and priorities hold, and nothing goes back and
    forth."""
    total = pool.devices
    for row in loads:
        for workload, load in zip(pool.workloads.values(), row, strict=False):
            workload.load = load
        before = {name: replace(each) for name, each in pool.workloads.items()}
        found = pool.turn()
        assert pool.devices == total
        assert pool.free >= 0
        if found is None:
            continue
        giver, taker = before[found.giver], before[found.taker]
        after = pool.workloads[found.giver]
        assert after.running >= giver.minimum
        assert taker.load > taker.running, "only who is breached takes"
        assert giver.load <= giver.running, "nobody gives who is breached"
        assert after.load <= after.running, "nor is breached afterwards"
        assert found.surplus or giver.priority < taker.priority
    for position, one in enumerate(pool.past):
        for later in pool.past[position + 1 :]:
            if later.giver == one.taker:
                assert later.at - one.at >= HOLD_SECONDS


@MANY
@given(POOLS, st.lists(st.floats(0.05, 8.0), min_size=5, max_size=5))
def test_under_a_steady_load_it_comes_to_rest(pool: Pool, loads: list[float]) -> None:
    for workload, load in zip(pool.workloads.values(), loads, strict=False):
        workload.load = load
    start = sum(each.running for each in pool.workloads.values())
    for _ in range(start + 1):
        if pool.turn() is None:
            break
    assert pool.turn() is None
    assert not {past.giver for past in pool.past} & {past.taker for past in pool.past}


@MANY
@given(POOLS, LOADS, st.integers(0, 4))
def test_nothing_is_ever_taken_from_who_has_no_data(
    pool: Pool, loads: list[list[float]], silent: int
) -> None:
    name = f"w{silent % len(pool.workloads)}"
    for row in loads:
        for workload, load in zip(pool.workloads.values(), row, strict=False):
            workload.load = load
        pool.now += TURN
        members = [
            replace(each, breached=None) if each.policy == name else each
            for each in (workload.member(pool.now) for workload in pool.workloads.values())
        ]
        found = settle(members, pool.past, pool.now).exchange
        assert found is None or name not in (found.giver, found.taker)
