"""What an entry of the catalogue of metric names says. Pure.

An entry makes one signal of the metrics of one system. The catalogue itself is data: see
``prometheus_servers`` and ``prometheus_machines``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .prometheus_series import WINDOW_SECONDS


class Form(StrEnum):
    """How a signal is made of its terms. "Growth" is that of a counter over the window."""

    RATIO = "growth over growth"
    RATE = "growth per second, over the newest gauge where there is one below the line"
    COUNT = "growth"
    MEAN = "mean of a gauge over the window"
    LAST = "newest value of a gauge"
    PAIRS = "gauge over gauge, for each device or container"
    MASK = "share of the samples in which one of the bits is set"
    PERCENTILE = "percentile of a histogram's growth"
    QUANTILE = "the quantile that a summary gives"
    SINCE = "time since a timestamp"
    GREW = "how many are set whose counter grew"


class Across(StrEnum):
    """How figures of several series (devices, containers, servers, pods) become one."""

    SUM = "sum"
    MEAN = "mean"
    MIN = "minimum"
    MAX = "maximum"


@dataclass(frozen=True, slots=True)
class Term:
    """One metric above or below the line. ``metrics`` are its names, the newest first: the first
    that a pod has is taken. ``labels`` must be so; ``containers`` leaves out what is not the
    workload's own. ``scale`` brings it to the signal's unit, and is negative where it is taken
    off. ``change`` is for a gauge in a sum of growths: what it rose or fell by. ``lazy`` counters
    have no line before their first event, so that no line means none so far."""

    metrics: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    scale: float = 1.0
    containers: bool = False
    change: bool = False
    lazy: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One signal. ``statistic`` is what people read; ``pair`` names the labels by which terms
    belong together; ``least`` is the fewest events below the line that count as evidence;
    ``partial`` says that a pod without the metric is no gap; ``cap`` is the most it can be."""

    signal: str
    form: Form
    over: tuple[Term, ...]
    under: tuple[Term, ...] = ()
    across: Across = Across.SUM
    statistic: str = ""
    window: float = WINDOW_SECONDS
    pair: tuple[str, ...] = ()
    least: float = 0.0
    bits: int = 0
    cap: float | None = None
    partial: bool = False

    @property
    def terms(self) -> tuple[Term, ...]:
        return (*self.over, *self.under)

    def metrics(self) -> Iterator[str]:
        """Every name under which the metrics may be found, as they stand on a series."""
        suffix = "_bucket" if self.form is Form.PERCENTILE else ""
        for term in self.terms:
            for name in term.metrics:
                yield name + suffix


@dataclass(frozen=True, slots=True)
class System:
    """Something whose metrics are recognised. ``workload`` is what it says the pods do;
    ``lacks`` tells for signals that it cannot give why that is, and what to do."""

    name: str
    entries: tuple[Entry, ...]
    workload: str = ""
    lacks: Mapping[str, str] = field(default_factory=dict)

    def metrics(self) -> Iterator[str]:
        for entry in self.entries:
            yield from entry.metrics()


Terms = Term | tuple[Term, ...]


def share(signal: str, over: Terms, under: Terms, **more: Any) -> Entry:
    """A ratio of sums from 0 to 1."""
    return _ratio(signal, over, under, {"statistic": "ratio of sums", "cap": 1.0} | more)


def mean(signal: str, over: Terms, under: Terms, **more: Any) -> Entry:
    """A sum for each of what is counted below the line."""
    return _ratio(signal, over, under, {"statistic": "mean"} | more)


def rate(signal: str, *over: Term, **more: Any) -> Entry:
    """Growth per second."""
    return Entry(signal, Form.RATE, over, **({"statistic": "rate"} | more))


def gauge(signal: str, term: Term, across: Across = Across.SUM, statistic: str = "mean") -> Entry:
    """The mean over the window."""
    return Entry(signal, Form.MEAN, (term,), across=across, statistic=statistic)


def parts(signal: str, over: Term, under: Terms, *pair: str, **more: Any) -> Entry:
    """Gauge over gauge for each device or container that ``pair`` tells apart."""
    below = under if isinstance(under, tuple) else (under,)
    return Entry(signal, Form.PAIRS, (over,), below, pair=pair, **more)


def _ratio(signal: str, over: Terms, under: Terms, more: dict[str, Any]) -> Entry:
    above = over if isinstance(over, tuple) else (over,)
    below = under if isinstance(under, tuple) else (under,)
    return Entry(signal, Form.RATIO, above, below, **more)


_PROMQL = {Across.SUM: "sum", Across.MEAN: "avg", Across.MIN: "min", Across.MAX: "max"}

SELECTOR = 'namespace="ml",pod=~"ranker-.*"'
"""The pods of the examples."""


def promql(entry: Entry) -> str:
    """What one would type into Prometheus to see about the same figure: for people and the docs.
    The operator itself takes the raw samples, of which it knows the age."""
    window = f"[{entry.window / 60:g}m]"
    join = _PROMQL[entry.across]
    growth = f"rate(%s){window}"
    over = _sum(entry.over, entry, "sum", growth)
    if entry.form is Form.RATIO:
        return f"{over} / {_sum(entry.under, entry, 'sum', growth)}"
    if entry.form is Form.RATE:
        rate = _sum(entry.over, entry, join, growth)
        return f"{rate} / {_sum(entry.under, entry, 'sum', '%s')}" if entry.under else rate
    if entry.form is Form.COUNT:
        return _sum(entry.over, entry, "sum", f"increase(%s){window}")
    if entry.form is Form.MEAN:
        return _sum(entry.over, entry, join, f"avg_over_time(%s){window}")
    if entry.form is Form.PAIRS:
        below = _sum(entry.under, entry, "", "%s")
        below = f"({below})" if len(entry.under) > 1 else below
        labels = ", ".join(("pod", *entry.pair))
        return f"{join}({_sum(entry.over, entry, '', '%s')} / on ({labels}) {below})"
    if entry.form is Form.PERCENTILE:
        return f"histogram_quantile(0.95, {_sum(entry.over, entry, 'sum by (le) ', growth)})"
    if entry.form is Form.MASK:
        bits = f"samples with one of the bits {entry.bits:#x}"
        return f"{_selected(entry.over[0], entry)}{window}: share of the {bits}"
    if entry.form is Form.GREW:
        labels = ", ".join(("pod", *entry.pair))
        grew = _sum(entry.under, entry, "", f"increase(%s){window}")
        return f"count({_sum(entry.over, entry, '', '%s')} and on ({labels}) {grew} > 0)"
    if entry.form is Form.SINCE:
        # The longest time is since the earliest moment.
        moment = "max" if entry.across is Across.MIN else "min"
        return f"time() - {moment}({_selected(entry.over[0], entry)})"
    return _sum(entry.over, entry, join, "%s")


def _sum(terms: tuple[Term, ...], entry: Entry, join: str, around: str) -> str:
    parts = []
    for number, term in enumerate(terms):
        inner = f"deriv(%s)[{entry.window / 60:g}m]" if term.change else around
        function, separator, window = inner.partition("%s")
        selected = _selected(term, entry)
        if window.startswith(")"):
            selected, window = f"{selected}{window[1:]}", ")"
        text = f"{function}{selected}{window}" if separator else selected
        text = f"{join}({text})" if join else text
        scale = abs(term.scale)
        text = text if scale == 1 else f"{text} * {scale:g}"
        sign = "" if number == 0 else (" - " if term.scale < 0 else " + ")
        parts.append(sign + text)
    joined = "".join(parts)
    return f"({joined})" if len(terms) > 1 and entry.form is Form.RATIO else joined


def _selected(term: Term, entry: Entry) -> str:
    suffix = "_bucket" if entry.form is Form.PERCENTILE else ""
    labels = "".join(f',{key}="{value}"' for key, value in term.labels.items())
    labels += ',quantile="0.95"' if entry.form is Form.QUANTILE else ""
    labels += ',container!~"|POD|bottleneck-agent"' if term.containers else ""
    return f"{term.metrics[0]}{suffix}{{{SELECTOR}{labels}}}"
