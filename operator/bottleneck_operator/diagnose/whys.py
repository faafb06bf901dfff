"""The five whys: the way through the graph from the symptom to the root, told line by line. Pure.

Each line cites the figures behind it, and the chain ends where evidence ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..observe.observation import Reading
from .catalogue import EFFECTS, Effect, Why
from .objectives import shown
from .predicates import Signals, holds
from .ranking import Confirmed

_FIGURE = re.compile(r"\{(text:)?([\w.]+)\}")
_EFFECTS: dict[str, Effect] = {effect.id: effect for effect in EFFECTS}

LINE = 400
"""Longest line, in characters: what the API server says may be long."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line: its text, the signals that it cites, and the citation."""

    text: str
    signals: tuple[str, ...]
    cited: str

    def told(self) -> str:
        """As it stands in a report, under the line that it explains."""
        return f"Because {self.text}" + (f" [{self.cited}]" if self.cited else "")


def chain(
    root: Confirmed,
    found: Mapping[str, Confirmed],
    signals: Signals,
    texts: Mapping[str, str],
) -> list[Line]:
    """The lines from where the time goes down to the root, and beyond it to what is told last."""
    lines: list[Line] = []
    for why in _way(root, found, signals):
        cited = {name for line in lines for name in line.signals}
        if not why.signals or not cited.issuperset(why.signals):
            lines += _lines([why], signals, texts)
    lines += _lines(root.entry.whys, signals, texts)
    for edge in root.explains:
        other = found.get(edge.id)
        if edge.deeper and other is not None:
            lines += _lines(other.entry.whys, signals, texts)
    return lines


def _way(root: Confirmed, found: Mapping[str, Confirmed], signals: Signals) -> list[Why]:
    """One line for each hypothesis between the symptom and the root: along the greatest shares,
    and first of all the effect, if one of those that this cause explains is confirmed."""
    way: list[Why] = []
    # Where nothing runs, it does not matter any more where the time went before.
    cause: Confirmed | None = None if root.entry.breaks else root
    while cause is not None:
        targets = [edge.id for edge in cause.explains if not edge.deeper]
        below = [found[id] for id in targets if id in found and not found[id].entry.generic]
        below = [each for each in below if each.entry.whys and each is not root]
        following = max(below, key=lambda each: each.share, default=None)
        if following is None:
            effects = [_EFFECTS[id] for id in targets if id in _EFFECTS]
            shown_ = [e for e in effects if holds(e.condition, signals)]
            if shown_:
                way.insert(0, shown_[0].why)
        else:
            way.insert(0, following.entry.whys[0])
        cause = following
    return way


def _lines(whys: Iterable[Why], signals: Signals, texts: Mapping[str, str]) -> Iterator[Line]:
    for why in whys:
        line = _line(why, signals, texts)
        if line is not None:
            yield line
        elif not why.optional:
            return


def _line(why: Why, signals: Signals, texts: Mapping[str, str]) -> Line | None:
    readings: list[tuple[str, Reading]] = []
    for name in why.signals:
        reading = signals.get(name)
        if not isinstance(reading, Reading):
            return None
        readings.append((name, reading))
    if not holds(why.when, signals):
        return None
    if any(not texts.get(key) for key in text_keys(why.text)):
        return None

    def fill(match: re.Match[str]) -> str:
        name = match.group(2)
        if match.group(1):
            return " ".join(texts[name].split())
        reading = signals[name]
        assert isinstance(reading, Reading)
        return shown(name, reading.value, reading.unit)

    cited = "; ".join(
        f"{name} {reading.statistic} over {reading.window:.0f}s"
        for name, reading in readings
        if reading.window > 0
    )
    return Line(_FIGURE.sub(fill, why.text)[:LINE], why.signals, cited)


def text_keys(text: str) -> list[str]:
    """The keys of the texts that a line carries."""
    return [name for marked, name in _FIGURE.findall(text) if marked]


def figure_names(text: str) -> list[str]:
    """The signals whose figures stand in a line."""
    return [name for marked, name in _FIGURE.findall(text) if not marked]


def told(symptom: str, lines: Sequence[Line]) -> tuple[str, ...]:
    """The whole chain, the symptom first."""
    return (symptom, *(line.told() for line in lines))
