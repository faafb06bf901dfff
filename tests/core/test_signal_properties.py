"""Whatever the sidecars say: nothing raises, nothing is infinite, and order makes no difference."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any

import pytest
from bottleneck_operator.observe.counters import Delta, deltas, speaking
from bottleneck_operator.observe.history import History
from bottleneck_operator.observe.observation import NoData, Observation, Reading
from bottleneck_operator.observe.windows import observe
from bottleneck_sidecar.wire import (
    LATENCY_BOUNDS_SECONDS,
    PHASES,
    Container,
    Gpu,
    InferenceServer,
    Sample,
    TrainingRank,
    decode_sample,
    encode,
)
from hypothesis import given
from hypothesis import strategies as st

from .builders import CASES, NOW, history, sample
from .telemetry import container, device, model_server, seen, training_rank


def check(observation: Observation) -> None:
    """What holds for every observation of anything."""
    for signals in (observation.signals, *(r.signals for r in observation.replicas)):
        for name, signal in signals.items():
            if isinstance(signal, Reading):
                assert math.isfinite(signal.value), name
                assert signal.value >= 0, name
                assert signal.window >= 0, name
                assert signal.age >= 0, name


def same(left: Observation, right: Observation) -> None:
    """That two observations say the same, but for the order of summing."""
    assert left.signals.keys() == right.signals.keys()
    for name, signal in left.signals.items():
        other = right.signals[name]
        if isinstance(signal, Reading) and isinstance(other, Reading):
            assert other.value == pytest.approx(signal.value, rel=1e-9, abs=1e-12), name
        else:
            assert signal == other, name


# -- hostile lines ---------------------------------------------------------------------------------


def anything(hint: Any) -> st.SearchStrategy[Any]:
    """Anything that the wire format lets through for a field of this type."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return st.one_of(*(anything(each) for each in typing.get_args(hint)))
    if hint is type(None):
        return st.none()
    if hint is float:
        return st.one_of(st.floats(0, 2.0**63), st.sampled_from([0.0, 5e-324, 1.0, 2.0**63]))
    if hint is int:
        return st.one_of(st.integers(0, 2**63), st.integers(0, 20))
    if hint is str:
        return st.sampled_from(["e0", "e1", "", "step", "checkpoint"])
    if hint is bool:
        return st.booleans()
    origin = typing.get_origin(hint)
    if origin is list:
        return st.lists(anything(typing.get_args(hint)[0]), max_size=4)
    if origin is dict:
        names = st.sampled_from([*PHASES, "dataLoader.workers", "batch.maxSize", "x y"])
        return st.dictionaries(names, anything(typing.get_args(hint)[1]), max_size=8)
    if dataclasses.is_dataclass(hint):
        return objects(typing.cast(type, hint))
    raise AssertionError(hint)


def objects(kind: type, **fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind)
    fields = {name: anything(hint) for name, hint in hints.items()} | fixed
    return st.builds(kind, **fields)


COUNTS = st.lists(
    st.integers(0, 2**62),
    min_size=len(LATENCY_BOUNDS_SECONDS) + 1,
    max_size=len(LATENCY_BOUNDS_SECONDS) + 1,
)
PROCESSES = st.one_of(
    objects(TrainingRank),
    objects(InferenceServer, latency_buckets=st.one_of(COUNTS, st.just([1, 2]))),
    objects(Container),
    objects(Gpu),
)


@CASES
@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.floats(0, 2.0**63), st.lists(PROCESSES, max_size=3)),
        min_size=2,
        max_size=6,
    ),
    st.sampled_from([10.0, 7.0, 60.0]),
)
def test_whatever_passes_the_wire_is_observed_without_harm(
    lines: list[tuple[float, float, list[Any]]], window: float
) -> None:
    kept = History()
    received = NOW
    for number, (wait, time, parts) in enumerate(lines):
        received += wait
        gpus = [part for part in parts if isinstance(part, Gpu)]
        told = sample(time, number, *parts, gpus=gpus)
        kept.add(received, decode_sample(encode(told)))
    check(seen(kept, kept, at=received + 1, window=window))


# -- missing, restarting, lying --------------------------------------------------------------------


def without(process: Any, names: set[str]) -> Any:
    return dataclasses.replace(process, **dict.fromkeys(names))


def optional(kind: type) -> list[str]:
    return [f.name for f in dataclasses.fields(kind) if f.default is None]


@CASES
@given(
    st.lists(
        st.tuples(
            st.sets(st.sampled_from(optional(TrainingRank))),
            st.sets(st.sampled_from(optional(InferenceServer))),
            st.sets(st.sampled_from(optional(Container))),
        ),
        min_size=11,
        max_size=11,
    )
)
def test_what_is_missing_never_becomes_a_zero_or_an_error(
    missing: list[tuple[set[str], set[str], set[str]]],
) -> None:
    lines, whole = [], []
    for number, (of_rank, of_server, of_container) in enumerate(missing):
        at, t = NOW - 10 + number, 990.0 + number
        parts = (training_rank(t), model_server(t), container(t))
        less = map(without, parts, (of_rank, of_server, of_container))
        whole.append(sample(at, number, *parts, gpus=[device()]))
        lines.append(sample(at, number, *less, gpus=[device()]))
    partly, full = seen(history(*lines)), seen(history(*whole))
    check(partly)
    assert partly.signals.keys() <= full.signals.keys()
    for name in ("cpu.usedCores", "training.dataShare", "inference.serviceSeconds"):
        figure = partly.value(name)
        assert figure is None or figure > 0


@CASES
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 40)), min_size=3, max_size=15),
)
def test_lives_that_end_and_counters_that_go_back_give_no_negative_figures(
    words: list[tuple[str, int]],
) -> None:
    lines = []
    for number, (life, t) in enumerate(words):
        at = NOW - len(words) + number
        parts = (
            training_rank(float(t), epoch=life, last_step_at=at),
            model_server(float(t), epoch=f"s{life}"),
            container(float(t), epoch=life),
        )
        lines.append(sample(at, number, *parts))
    check(seen(history(*lines), at=NOW - 1))


# -- order, duplicates, splitting ------------------------------------------------------------------


def _pod(number: int, pace: float, count: int = 16) -> list[Sample]:
    lines = []
    for i in range(count):
        t = 1000.0 - count + 1 + i
        parts = (
            training_rank(t, pace, number=number),
            model_server(t, 10 * pace, number=number),
            container(t),
        )
        lines.append(sample(NOW - 1000 + t, i, *parts, gpus=[device(uuid=f"GPU-{number}")]))
    return lines


@CASES
@given(st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=2, max_size=5), st.randoms())
def test_the_order_of_the_pods_makes_no_difference(paces: list[float], random: Any) -> None:
    histories = {f"pod-{i}": history(*_pod(i, pace)) for i, pace in enumerate(paces)}
    names = list(histories)
    shuffled = list(names)
    random.shuffle(shuffled)
    left, right = observe(histories, names, NOW), observe(histories, shuffled, NOW)
    slowest = {name for name in left.signals if name.endswith("stragglerRank")}
    if len(set(paces)) < len(paces):  # of two that are equally slow either may be named
        for each in (left, right):
            for name in slowest:
                typing.cast(dict[str, Any], each.signals).pop(name)
    same(left, right)


@CASES
@given(st.lists(st.integers(0, 15), max_size=20))
def test_duplicates_and_late_lines_make_no_difference(again: list[int]) -> None:
    lines = _pod(0, 2.0)
    noisy = History()
    for number, line in enumerate(lines):
        assert noisy.add(line.time, line)
        for index in again:
            if index <= number:
                assert not noisy.add(line.time, lines[index])
    same(seen(history(*lines)), seen(noisy))


def _sums(found: list[Delta]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for delta in found:
        figures = {**delta.counters, **(delta.seconds or {}), "span": delta.span}
        figures |= {f"cpu {name}": grown for name, grown in (delta.cpu or {}).items()}
        figures |= {f"bucket {i}": float(count) for i, count in enumerate(delta.buckets)}
        for name, grown in figures.items():
            sums[name] = sums.get(name, 0.0) + grown
    return sums


@pytest.mark.parametrize("processes", [lambda each: each.training, speaking])
@pytest.mark.parametrize("at", range(1, 15))
def test_two_windows_that_meet_have_the_sums_of_both_together(at: int, processes: Any) -> None:
    lines = [(line.time, line) for line in _pod(0, 2.0)]
    left = deltas(0, lines[: at + 1], processes, False)
    right = deltas(0, lines[at:], processes, False)
    whole = deltas(0, lines, processes, False)
    assert _sums(left + right) == pytest.approx(_sums(whole))
    assert whole == deltas(0, lines, processes, True)


def test_a_rate_without_bounds_is_no_figure() -> None:
    def line(number: int, at: float) -> Sample:
        quick = training_rank(
            990.0, epoch="q", number=1, samples=2**62 * number, last_step_at=5e-324 * number
        )
        return sample(at, number, training_rank(990.0 + number), quick)

    observation = seen(history(*(line(i, NOW - 10 + i) for i in range(11))))
    signal = observation.signal("training.samplesPerSecond")
    assert signal == NoData("the counters give no finite number")
    assert observation.value("training.stepSeconds") is not None


def test_a_replicas_own_signals_are_of_the_moment_whenever_they_are_looked_at() -> None:
    def kept() -> dict[str, History]:
        return {f"pod-{number}": history(*_pod(number, 2.0)) for number in range(2)}

    late, early = kept(), kept()
    unread, read = observe(late, list(late), NOW), observe(early, list(early), NOW)
    expected = [dict(replica.signals) for replica in read.replicas]
    for number, each in enumerate(late.values()):
        for i in range(200):
            t = 1001.0 + i
            line = sample(NOW + 1 + i, 16 + i, training_rank(t, 0.5, number=number))
            assert each.add(line.time, line)
    assert [dict(replica.signals) for replica in unread.replicas] == expected
    assert unread.replicas == read.replicas
