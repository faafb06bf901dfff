"""Which lines the operator keeps of a pod."""

from __future__ import annotations

import pytest
from bottleneck_operator.observe.history import KEEP_SECONDS, MAX_SAMPLES, History
from bottleneck_sidecar.wire import Sample
from hypothesis import given
from hypothesis import strategies as st

from .builders import CASES, NOW, sample


@pytest.mark.parametrize(
    ("second", "taken"),
    [
        (sample(NOW + 1, 8), True),
        (sample(NOW, 7), False),
        (sample(NOW - 1, 6), False),
        (sample(NOW + 1, 7), False),
        (sample(NOW + 1, 1), True),
        (sample(NOW - 60, 1), False),
        (sample(NOW - 60, 1, agent="a2"), True),
        (sample(NOW - 60, 8), True),
    ],
    ids=[
        "the next line",
        "a duplicate",
        "an older line that was overtaken",
        "a duplicate with another clock",
        "a stream that was opened anew counts from one",
        "an old line of an old stream",
        "a new agent on a node whose clock was set back",
        "the next line after the clock was set back",
    ],
)
def test_a_line_after_line_7_is_taken_or_refused(second: Sample, taken: bool) -> None:
    kept = History()
    assert kept.add(NOW, sample(NOW, 7))
    assert kept.add(NOW + 1, second) is taken
    assert len(kept.samples) == 1 + taken


def test_lines_are_kept_as_long_as_a_judgement_needs_them() -> None:
    kept = History()
    for second in range(int(KEEP_SECONDS) + 60):
        kept.add(NOW + second, sample(NOW + second, second))
    oldest, newest = kept.samples[0][0], kept.samples[-1][0]
    assert newest - oldest == KEEP_SECONDS


def test_a_talkative_sidecar_cannot_fill_the_memory() -> None:
    kept = History()
    for number in range(3 * MAX_SAMPLES):
        kept.add(NOW + number / 1000, sample(NOW + number / 1000, number))
    assert len(kept.samples) == MAX_SAMPLES


@CASES
@given(
    st.lists(
        st.tuples(
            st.floats(-300, 300), st.integers(0, 50), st.floats(-300, 300), st.sampled_from("ab")
        )
    )
)
def test_times_of_arrival_never_go_back_whatever_comes(
    lines: list[tuple[float, int, float, str]],
) -> None:
    kept = History()
    for received, sequence, time, agent in lines:
        kept.add(NOW + received, sample(NOW + time, sequence, agent=agent))
    times = [received for received, _ in kept.samples]
    assert times == sorted(times)
    assert kept.last == (kept.samples[-1] if kept.samples else None)
