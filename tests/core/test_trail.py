"""What a few signals were over the last minutes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bottleneck_operator.observe.trail import KEPT_SECONDS, SLOT_SECONDS, Trail
from hypothesis import given
from hypothesis import strategies as st

from .builders import observation, reading

NAME = "inference.arrivalRate"


def trail(*figures: tuple[float, float | None], streaming: int = 1) -> Trail:
    """A trail of (seconds, requests per second)."""
    found = Trail()
    for time, value in figures:
        signals = {} if value is None else {NAME: reading(value)}
        seen = observation(signals=signals, streaming=streaming, expected=1)
        found.note(replace(seen, time=time))
    return found


def steady(seconds: float, value: float = 10.0) -> list[tuple[float, float | None]]:
    return [(float(at), value) for at in range(int(seconds) + 1)]


def test_a_stretch_has_its_mean_and_its_extremes() -> None:
    found = trail(*steady(60), (61, 40.0)).over(NAME, 60, 61)
    assert found is not None
    assert (found.least, found.most) == (10, 40)
    assert 10 < found.mean < 11


@pytest.mark.parametrize(
    "figures",
    [
        [],
        [(at + 30, value) for at, value in steady(30)],
        [(at, value) for at, value in steady(60) if not 20 < at < 40],
        [(at, value) for at, value in steady(60) if at < 40],
        [(at, None) for at, _ in steady(60)],
    ],
    ids=["nothing", "not long enough", "a gap", "nothing of late", "no data"],
)
def test_what_was_not_seen_throughout_is_not_known(
    figures: list[tuple[float, float | None]],
) -> None:
    assert trail(*figures).over(NAME, 60, 60) is None


def test_a_turn_with_a_silent_replica_leaves_a_gap() -> None:
    assert trail(*steady(60), streaming=0).over(NAME, 60, 60) is None


def test_a_clock_that_was_set_back_changes_nothing() -> None:
    found = trail(*steady(60), (10, 99.0)).over(NAME, 60, 60)
    assert found is not None
    assert found.most == 10


@given(st.lists(st.floats(0, 3 * KEPT_SECONDS), max_size=60))
def test_it_is_bounded_and_in_order(times: list[float]) -> None:
    found = trail(*((at, 1.0) for at in times))
    begins = [slot.begin for slot in found.series(NAME, 10 * KEPT_SECONDS, 3 * KEPT_SECONDS)]
    assert begins == sorted(set(begins))
    assert not begins or begins[-1] - begins[0] <= KEPT_SECONDS + SLOT_SECONDS
