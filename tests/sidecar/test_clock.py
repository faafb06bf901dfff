"""The clock of the training thread, on clocks that the tests move."""

from __future__ import annotations

import pytest
from bottleneck_sidecar import clock
from bottleneck_sidecar.clock import CHECKPOINT, COLLECTIVE, DATA, EVALUATION, OTHER, Clock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


class Time:
    """Stands in for the module ``time``: seconds that have passed, and those on a CPU."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.cpu = 0.0
        self.asked = 0

    def perf_counter(self) -> float:
        return self.now

    def thread_time(self) -> float:
        self.asked += 1
        return self.cpu

    def work(self, seconds: float, cpu: float) -> None:
        self.now += seconds
        self.cpu += cpu


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Time:
    standing = Time()
    monkeypatch.setattr(clock, "time", standing)
    return standing


def step(watch: Clock, now: Time, seconds: float) -> None:
    """Waits for data without a CPU for one half and computes in the other."""
    watch.enter(DATA)
    now.work(seconds / 2, 0.0)
    watch.leave()
    now.work(seconds / 2, seconds / 2)
    watch.end_step()


@pytest.mark.parametrize(
    ("seconds", "asked"), [(1.0, 3.01), (0.05, 2.01), (0.01, 0.45), (0.002, 0.45)]
)
def test_short_steps_are_sampled_and_long_ones_all_asked(
    now: Time, seconds: float, asked: float
) -> None:
    watch = Clock()
    watch.end_step()
    for _ in range(2000):
        step(watch, now, seconds)
    total = 2000 * seconds
    assert watch.seconds[DATA] == pytest.approx(total / 2)
    assert watch.seconds[OTHER] == pytest.approx(total / 2)
    assert watch.cpu_seconds[DATA] == pytest.approx(0, abs=1e-9)
    # At most one block at either end is not whole.
    assert watch.cpu_seconds[OTHER] == pytest.approx(total / 2, abs=20 * seconds)
    assert now.asked / 2000 <= asked


def test_a_stall_in_every_fifth_step_is_not_missed(now: Time) -> None:
    """Blocks are ten steps long here: always asking the same one would see all or nothing."""
    watch = Clock()
    watch.end_step()
    for number in range(20000):
        busy = 0.03 if number % 5 == 0 else 0.005
        watch.enter(DATA)
        now.work(busy, busy)
        watch.leave()
        watch.end_step()
    assert watch.cpu_seconds[DATA] == pytest.approx(watch.seconds[DATA], rel=0.1)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("enter"), st.integers(0, EVALUATION), st.booleans()),
            st.tuples(st.just("leave"), st.just(0), st.just(False)),
            st.tuples(st.just("step"), st.just(0), st.just(False)),
        ),
        max_size=40,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_slots_add_up_whatever_is_opened_and_left(
    now: Time, actions: list[tuple[str, int, bool]]
) -> None:
    watch = Clock()
    begun = None
    for action, slot, user in actions:
        if action == "enter":
            watch.enter(slot, user)
        elif action == "leave":
            watch.leave()
        else:
            watch.end_step()
            assert (watch.slot, watch.held) == (OTHER, 0)
        begun = now.now if begun is None and watch.mark >= 0 else begun
        now.work(1.0, 0.5)
        assert watch.held >= 0
    watch.switch(OTHER)
    passed = 0.0 if begun is None else now.now - begun
    assert sum(watch.seconds) == pytest.approx(passed)


def test_the_rest_of_a_phase_can_be_given_to_another(now: Time) -> None:
    watch = Clock()
    watch.enter(DATA)
    now.work(1.0, 1.0)
    at, cpu = now.now, now.cpu
    now.work(3.0, 0.25)
    watch.since(at, cpu, COLLECTIVE)
    now.work(0.5, 0.5)
    watch.leave()
    assert (watch.seconds[DATA], watch.seconds[COLLECTIVE]) == (1.5, 3.0)
    assert (watch.cpu_seconds[DATA], watch.cpu_seconds[COLLECTIVE]) == (1.5, 0.25)
    watch.since(at, cpu, COLLECTIVE)  # of a time that has been given out
    watch.enter(CHECKPOINT)
    now.work(1.0, 1.0)
    watch.since(now.now, None, COLLECTIVE)
    watch.leave()
    assert watch.seconds[COLLECTIVE] == 3.0, "nothing in a checkpoint is part of a step"
    watch.enter(DATA)
    now.work(1.0, 0.5)
    at = now.now
    now.work(2.0, 0.0)
    watch.since(at, None, COLLECTIVE)  # seen by another thread
    assert (watch.seconds[COLLECTIVE], watch.cpu_seconds[COLLECTIVE]) == (5.0, 0.25)
    assert watch.cpu_seconds[DATA] == 2.0
