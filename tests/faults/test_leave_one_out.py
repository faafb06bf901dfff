"""Leaving one out: what is left out must not speak for the parameters that it is scored with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from bottleneck_operator.diagnose.parameters import DEFAULT
from hypothesis import given, settings
from hypothesis import strategies as st

from hack.bench.leave_one_out import (
    PRESENT,
    Label,
    Trial,
    choose,
    grid,
    its_like,
    itself,
    leave_out,
)

LABELS = [
    Label(scenario, symptom, f"{symptom}-{number}")
    for scenario in ("high", "low")
    for symptom in ("latency", "availability")
    for number in (0, 1)
]
RANKS = st.sampled_from([1, 2, 4, None])
SHARES = st.sampled_from([0.5, 0.9, 1.0])


def trials() -> st.SearchStrategy[list[Trial]]:
    one = st.tuples(st.lists(RANKS, min_size=len(LABELS), max_size=len(LABELS)), SHARES, SHARES)
    return st.lists(one, min_size=1, max_size=4).map(
        lambda drawn: [
            Trial(str(number), dict(zip(LABELS, ranks, strict=True)), {"high": high, "low": low})
            for number, (ranks, high, low) in enumerate(drawn)
        ]
    )


@pytest.mark.parametrize("alike", [itself, its_like])
@settings(derandomize=True, deadline=None, database=None)
@given(data=st.data(), before=trials(), left=st.sampled_from(LABELS))
def test_what_is_left_out_does_not_matter_to_the_choice(
    alike: Callable[[Label, Label], bool], data: st.DataObject, before: list[Trial], left: Label
) -> None:
    out = [label for label in LABELS if alike(left, label)]
    after = [
        replace(
            trial,
            ranks={**trial.ranks, **{label: data.draw(RANKS) for label in out}},
            silent={**trial.silent, left.scenario: data.draw(SHARES)},
        )
        for trial in before
    ]
    assert choose(before, out).name == choose(after, out).name


def trial(name: str, first: int | None, others: int | None, silent: float = 1.0) -> Trial:
    ranks = dict.fromkeys(LABELS, others) | {LABELS[0]: first}
    return Trial(name, ranks, {"high": silent, "low": silent})


def test_the_left_out_incident_is_scored_with_the_choice_of_the_others() -> None:
    fits_the_first, fits_the_others = trial("a", 1, 2), trial("b", None, 1)
    figures = leave_out([fits_the_first, fits_the_others], itself)
    assert figures["chosen"] == {"b": len(LABELS)}
    assert figures["AC@1"] == figures["AC@3"] == 0.875


def test_first_the_first_place_then_the_third_then_silence_then_what_is_nearest() -> None:
    out = LABELS[:1]
    assert choose([trial("a", 1, 2), trial("b", 1, 1, silent=0.1)], out).name == "b"
    assert choose([trial("a", 1, 4), trial("b", 1, 3, silent=0.1)], out).name == "b"
    assert choose([trial("a", 1, 1, silent=0.9), trial("b", 4, 1)], out).name == "b"
    assert choose([trial("a", 4, 1), trial("b", 1, 1)], out).name == "a"


def test_the_grid_begins_with_the_present_parameters_and_has_each_set_once() -> None:
    sets = grid()
    assert next(iter(sets.items())) == (PRESENT, DEFAULT)
    assert len(set(sets.values())) == len(sets) == 51
    weights = {round(one.kept + one.handed + one.rarity, 9) for one in sets.values()}
    assert weights == {1.0}
