"""Conditions over signals, and what becomes of them on an observation. Pure.

Logic has three values: a condition holds, does not hold, or cannot be judged for want of data. What
is missing never makes a condition hold, and never makes it fail.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..observe.observation import NoData, Reading, Signal
from .objectives import shown

Signals = Mapping[str, Signal]

START = "starting value, to be calibrated on labelled faults"


@dataclass(frozen=True, slots=True)
class Predicate:
    """``signal op threshold``; the threshold is a number or the name of another signal, of which
    ``factor`` times is meant. ``flag`` marks what is not a matter of degree (a count, a yes or no):
    how far such a figure is beyond its threshold says nothing about how sure one can be."""

    signal: str
    op: str
    threshold: float | str
    source: str
    factor: float = 1.0
    flag: bool = False


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every one of these holds."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of these holds. ``substitutes`` are ways to measure one and the same thing: the
    ones that are measured then decide alone, where otherwise one without data leaves it open."""

    parts: tuple[Condition, ...]
    substitutes: bool = False


Condition = Predicate | AllOf | AnyOf


@dataclass(frozen=True, slots=True)
class Found:
    """A predicate that holds, with the figures that say so."""

    predicate: Predicate
    reading: Reading
    bound: float


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of a condition. ``found`` are the predicates by which it holds; ``text`` tells
    the figures either way. ``asked`` and ``measured`` count its predicates and those with data."""

    holds: bool | None
    text: str
    found: tuple[Found, ...] = ()
    asked: int = 1
    measured: int = 0


def all_of(*parts: Condition) -> AllOf:
    """Every one of ``parts``."""
    return AllOf(parts)


def any_of(*parts: Condition) -> AnyOf:
    """At least one of ``parts``; open while one that might hold has no data."""
    return AnyOf(parts)


def either(*parts: Condition) -> AnyOf:
    """At least one of ``parts``, which are substitutes for each other."""
    return AnyOf(parts, substitutes=True)


def value(signals: Signals, name: str) -> float | None:
    """A signal's value, or None where there is no data."""
    signal = signals.get(name)
    return signal.value if isinstance(signal, Reading) and math.isfinite(signal.value) else None


def predicates(condition: Condition) -> Iterator[Predicate]:
    """Every predicate in a condition."""
    if isinstance(condition, Predicate):
        yield condition
    else:
        for part in condition.parts:
            yield from predicates(part)


def attempt(condition: Condition, signals: Signals) -> Tried:
    """Tries a condition on the figures."""
    if isinstance(condition, Predicate):
        return _predicate(condition, signals)
    parts = [attempt(part, signals) for part in condition.parts]
    if isinstance(condition, AllOf):
        return _all(parts)
    return _any(parts, condition.substitutes)


def holds(condition: Condition | None, signals: Signals) -> bool:
    """Whether a condition holds on measured figures; without one it always does."""
    return condition is None or attempt(condition, signals).holds is True


def _predicate(predicate: Predicate, signals: Signals) -> Tried:
    signal = signals.get(predicate.signal)
    if not isinstance(signal, Reading):
        reason = f"{predicate.signal} is not measured" if signal is None else signal.reason
        return Tried(None, reason)
    if not math.isfinite(signal.value):
        return Tried(None, f"{predicate.signal} is not a number")
    threshold = predicate.threshold
    if isinstance(threshold, str):
        other = signals.get(threshold)
        if not isinstance(other, Reading) or not math.isfinite(other.value):
            reason = other.reason if isinstance(other, NoData) else f"{threshold} is not set"
            return Tried(None, reason)
        bound = other.value * predicate.factor
    else:
        bound = threshold
    if predicate.op == ">=":
        good, words = signal.value >= bound, "at least"
    elif predicate.op == ">":
        good, words = signal.value > bound, "over"
    else:
        good, words = signal.value < bound, "under"
    over = f" over {signal.window:.0f}s" if signal.window > 0 else ""
    link = "" if good else "not "
    text = (
        f"{predicate.signal} is {shown(predicate.signal, signal.value, signal.unit)}{over},"
        f" {link}{words} {shown(predicate.signal, bound, signal.unit)}"
    )
    found = (Found(predicate, signal, bound),) if good else ()
    return Tried(good, text, found, 1, 1)


def _all(parts: Sequence[Tried]) -> Tried:
    asked, measured = _counts(parts)
    failed = [part for part in parts if part.holds is False]
    open_ = [part for part in parts if part.holds is None]
    if failed or open_:
        # One that fails decides, whatever is missing beside it.
        first = (failed or open_)[0]
        return Tried(first.holds, first.text, (), asked, measured)
    found = tuple(each for part in parts for each in part.found)
    return Tried(True, " and ".join(part.text for part in parts), found, asked, measured)


def _any(parts: Sequence[Tried], substitutes: bool) -> Tried:
    asked, measured = _counts(parts)
    good = [part for part in parts if part.holds]
    if good:
        found = tuple(each for part in good for each in part.found)
        return Tried(True, " and ".join(part.text for part in good), found, asked, measured)
    failed = [part for part in parts if part.holds is False]
    open_ = [part for part in parts if part.holds is None]
    if failed and (substitutes or not open_):
        return Tried(False, "; ".join(part.text for part in failed), (), asked, measured)
    return Tried(None, "; ".join(dict.fromkeys(part.text for part in open_)), (), asked, measured)


def _counts(parts: Sequence[Tried]) -> tuple[int, int]:
    return sum(part.asked for part in parts), sum(part.measured for part in parts)
