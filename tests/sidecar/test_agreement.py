"""Ranks that agree on a step, over a store of torch's, in any order in which they might come."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bottleneck_sidecar.agreement import ATTEMPTS, Agreement, Verdict
from hypothesis import given, settings
from hypothesis import strategies as st


class Rank:
    """Takes steps; sees the wish at one of them."""

    def __init__(self, store: Any, rank: int, world: int, sees_at: int, refusal: str = "") -> None:
        self.store, self.rank, self.world = store, rank, world
        self.sees_at, self.refusal = sees_at, refusal
        self.step = 0
        self.agreement: Agreement | None = None
        self.verdict: Verdict | None = None
        self.at = 0

    def go(self) -> None:
        self.step += 1
        if self.verdict is not None or self.step < self.sees_at:
            return
        if self.agreement is None:
            name = "7/0"
            self.agreement = Agreement(self.store, self.rank, self.world, name, self.refusal)
        self.verdict = self.agreement.look(self.step)
        self.at = self.step


Runs = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 6)), max_size=60)
"""Which rank runs on, and for how many steps before another one does."""


@given(world=st.integers(1, 3), sees_at=st.tuples(*[st.integers(1, 9)] * 3), runs=Runs)
@settings(max_examples=150, deadline=None)
def test_all_change_at_the_same_step_however_far_they_are_apart(
    world: int, sees_at: tuple[int, ...], runs: list[tuple[int, int]]
) -> None:
    store = torch.distributed.HashStore()
    ranks = [Rank(store, rank, world, sees_at[rank]) for rank in range(world)]
    for rank, steps in runs:
        for _ in range(steps):
            ranks[rank % world].go()
    furthest = max(rank.step for rank in ranks)
    for _ in range(2 ** (ATTEMPTS + 1)):  # from here on they keep within one step
        furthest += 1
        for each in ranks:
            while each.step < furthest:
                each.go()
    assert {rank.verdict for rank in ranks} == {Verdict()}
    assert len({rank.at for rank in ranks}) == 1


@given(refusing=st.integers(0, 2), sees_at=st.tuples(*[st.integers(1, 9)] * 3), runs=Runs)
@settings(max_examples=80, deadline=None)
def test_one_that_cannot_makes_all_refuse(
    refusing: int, sees_at: tuple[int, ...], runs: list[tuple[int, int]]
) -> None:
    store = torch.distributed.HashStore()
    ranks = [
        Rank(store, rank, 3, sees_at[rank], "no room" if rank == refusing else "")
        for rank in range(3)
    ]
    for rank, steps in runs:
        for _ in range(steps):
            ranks[rank].go()
    for _ in range(20):
        for each in ranks:
            each.go()
    for each in ranks:
        assert each.verdict is not None
        assert "no room" in each.verdict.refusal
        if each.rank != refusing:
            assert each.verdict.refusal == f"rank {refusing}: no room"


def test_a_rank_that_never_sees_the_wish_holds_nobody_up() -> None:
    store = torch.distributed.HashStore()
    ranks = [Rank(store, 0, 2, 1), Rank(store, 1, 2, 10_000)]
    for _ in range(500):
        for rank in ranks:
            rank.go()
    assert [(rank.step, rank.verdict) for rank in ranks] == [(500, None), (500, None)]
    assert ranks[0].agreement is not None
    assert not ranks[0].agreement.promised, "free to take up a newer wish"


def test_ranks_that_never_find_a_step_give_up() -> None:
    """Rank 1 is always far ahead: whatever is proposed, it has passed."""
    store = torch.distributed.HashStore()
    ahead, behind = Rank(store, 1, 2, 1), Rank(store, 0, 2, 1)
    ahead.step = 10_000
    for _ in range(2 ** (ATTEMPTS + 2)):
        ahead.go()
        behind.go()
    for rank in (ahead, behind):
        assert rank.verdict is not None
        assert "found no step" in rank.verdict.refusal


def test_the_store_is_asked_only_what_is_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    store = torch.distributed.HashStore()

    class Watched:
        def __init__(self, prefix: str, inner: Any) -> None:
            self.inner = real(prefix, inner)

        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            return getattr(self.inner, name)

    real = torch.distributed.PrefixStore
    monkeypatch.setattr(torch.distributed, "PrefixStore", Watched)
    ranks = [Rank(store, rank, 2, 1 + rank) for rank in range(2)]
    for _ in range(10):
        for rank in ranks:
            rank.go()
    assert [rank.verdict for rank in ranks] == [Verdict()] * 2
    assert set(asked) <= {"add", "set", "check", "get", "compare_set"}
    asked.clear()
    ranks[0].go()
    assert asked == [], "nothing after the verdict"
