"""How the figure of an entry is made of the series of its terms. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .prometheus_entries import Across, Entry, Form, Term
from .prometheus_series import Series, Table

OTHERS = frozenset(("POD", "bottleneck-agent"))
"""Containers that are not the workload's: the pause container and what the operator injects."""


class MissingError(Exception):
    """There is no figure; the text says why. With ``absent`` nobody has such a metric at all."""

    def __init__(self, reason: str, absent: bool = False) -> None:
        super().__init__(reason)
        self.absent = absent


@dataclass(frozen=True, slots=True)
class Look:
    """One entry, looked up in a table."""

    table: Table
    entry: Entry
    expected: Sequence[str]
    percentile: int
    since: float

    def series(self, term: Term) -> list[Series]:
        """The term's series, cut to the window, without what is stale beside something fresh.
        Raises ``MissingError`` where a pod lacks it, or has it stale only or as no number."""
        by_pod: dict[str | None, list[Series]] = {}
        suffix = "_bucket" if self.entry.form is Form.PERCENTILE else ""
        for name in term.metrics:
            taken: dict[str | None, list[Series]] = {}
            for each in self.table.of(name + suffix):
                if self._fits(term, each):
                    taken.setdefault(each.pod, []).append(each)
            by_pod = taken | by_pod
        if len(by_pod) > 1:
            by_pod.pop(None, None)  # what names no pod may count the same once more
        if not by_pod:
            if term.lazy:
                return []
            raise MissingError(f"no series {term.metrics[0]} of these pods", absent=True)
        if None not in by_pod and not self.entry.partial and not term.lazy:
            lacking = [pod for pod in self.expected if pod not in by_pod]
            if lacking:
                raise MissingError(
                    f"{len(lacking)} of {len(self.expected)} replicas have no {term.metrics[0]}"
                    f" in Prometheus, {lacking[0]} among them"
                )
        return [each for pod in by_pod for each in self._fresh(term, pod, by_pod[pod])]

    def _fits(self, term: Term, series: Series) -> bool:
        if any(series.labels.get(key) != value for key, value in term.labels.items()):
            return False
        if self.entry.form is Form.QUANTILE:
            return _number(series.labels.get("quantile")) == self.percentile / 100
        return not term.containers or container_of(series) not in OTHERS

    def _fresh(self, term: Term, pod: str | None, listed: list[Series]) -> Iterable[Series]:
        if term.containers and any(container_of(each) for each in listed):
            # The line without a container is the whole pod's: it counts all of them once more.
            listed = [each for each in listed if container_of(each)]
        young = [each for each in listed if self.age(each) <= each.limit]
        of = f" of pod {pod}" if pod else ""
        if not young:
            age = min(self.age(each) for each in listed)
            raise MissingError(f"the newest sample of {listed[0].name}{of} is {age:.0f}s old")
        if any(each.broken for each in young):
            raise MissingError(f"{listed[0].name}{of} is not a number")
        cut = [each.cut(self.since, self.entry.window) for each in young]
        left = [each for each in cut if each.times]
        if not left:
            raise MissingError(f"no sample of {listed[0].name}{of} since the last change")
        return left

    def known(
        self,
        term: Term,
        listed: Sequence[Series],
        read: Callable[[Term, Series], float | None],
    ) -> list[float]:
        """What could be read of the series. Raises ``MissingError`` where a pod has samples for
        too short a time, unless it is so new that nothing is expected of it yet."""
        found = [(each, read(term, each)) for each in listed]
        told = {each.pod for each, value in found if value is not None}
        waiting = {each.pod for each in listed} - told
        gap = bool(waiting) and (not told or bool(waiting & set(self.expected)))
        if gap and not term.lazy:
            short = [each for each in listed if each.pod in waiting]
            longest = max(each.span for each in short)
            of = f" of pod {short[0].pod}" if short[0].pod else ""
            raise MissingError(f"only {longest:.0f}s of {short[0].name}{of} so far")
        return [value for _, value in found if value is not None]

    def age(self, series: Series) -> float:
        return max(0.0, self.table.time - series.times[-1])


Listed = Sequence[Sequence[Series]]


def _growth(look: Look, over: Listed, terms: Sequence[Term], beside: Listed = ()) -> float:
    """Sum of the terms' growths, scaled. A lazy counter whose line begins later than those
    ``beside`` it on the same target began at zero."""
    first: dict[tuple[str | None, str | None], float] = {}
    for listed in beside:
        for each in listed:
            first.setdefault(_target(each), each.times[0])
    total = 0.0
    for term, listed in zip(terms, over, strict=True):
        known = look.known(term, listed, _grown)
        late = [
            each
            for each in listed
            if term.lazy and each.times[0] > first.get(_target(each), each.times[0])
        ]
        total += term.scale * (sum(known) + sum(each.values[0] for each in late))
    return total


def _target(series: Series) -> tuple[str | None, str | None]:
    return series.pod, series.labels.get("instance")


def _grown(term: Term, series: Series) -> float | None:
    if term.change:
        return series.values[-1] - series.values[0] if series.growth is not None else None
    return series.growth


def _rate_of(term: Term, series: Series) -> float | None:
    grown = _grown(term, series)
    return None if grown is None else grown / series.span


def _ratio(look: Look, over: Listed, under: Listed) -> float:
    entry = look.entry
    below = _growth(look, under, entry.under)
    if below <= 0 or below < entry.least:
        what = f"{below:.0f} events" if entry.least else "nothing"
        raise MissingError(f"{what} counted by {entry.under[0].metrics[0]} in the window")
    return max(0.0, _growth(look, over, entry.over, under) / below)


def _rate(look: Look, over: Listed, under: Listed) -> float:
    entry = look.entry
    rates = []
    for term, listed in zip(entry.over, over, strict=True):
        rates += [term.scale * rate for rate in look.known(term, listed, _rate_of)]
    value = max(0.0, _joined(entry.across, rates))
    if not under:
        return value
    below = sum(each.values[-1] for listed in under for each in listed)
    if below <= 0:
        raise MissingError(f"{entry.under[0].metrics[0]} is zero")
    return value / below


def _count(look: Look, over: Listed, under: Listed) -> float:
    return _growth(look, over, look.entry.over)


def _mean(look: Look, over: Listed, under: Listed) -> float:
    scale = look.entry.over[0].scale
    return _joined(look.entry.across, [scale * each.mean for each in over[0]])


def _last(look: Look, over: Listed, under: Listed) -> float:
    scale = look.entry.over[0].scale
    return _joined(look.entry.across, [scale * each.values[-1] for each in over[0]])


def _pairs(look: Look, over: Listed, under: Listed) -> float:
    below: dict[tuple[str | None, ...], float] = {}
    for listed in under:
        for each in listed:
            key = _pair(look.entry, each)
            below[key] = below.get(key, 0.0) + each.values[-1]
    shares: dict[str | None, list[float]] = {}
    for each in over[0]:
        bound, value = below.get(_pair(look.entry, each), 0.0), each.values[-1]
        # No limit is told as zero, no quota as -1: then there is nothing to be a share of.
        if bound > 0 and value >= 0:
            shares.setdefault(each.pod, []).append(value / bound)
    lacking = {each.pod for each in over[0]} - set(shares)
    if lacking:
        raise MissingError(f"{look.entry.under[0].metrics[0]} gives no bound for {over[0][0].name}")
    return _joined(look.entry.across, [share for listed in shares.values() for share in listed])


def _grew(look: Look, over: Listed, under: Listed) -> float:
    grown = {
        _pair(look.entry, each)
        for listed in under
        for each in listed
        if each.growth is not None and each.growth > 0
    }
    return sum(each.values[-1] > 0 and _pair(look.entry, each) in grown for each in over[0])


def _pair(entry: Entry, series: Series) -> tuple[str | None, ...]:
    labels = [
        container_of(series) if label == "container" else series.labels.get(label)
        for label in entry.pair
    ]
    return (series.pod, *labels)


def _mask(look: Look, over: Listed, under: Listed) -> float:
    shares = [
        sum(bool(int(value) & look.entry.bits) for value in each.values) / len(each.values)
        for each in over[0]
    ]
    return _joined(look.entry.across, shares)


def _percentile(look: Look, over: Listed, under: Listed) -> float:
    buckets: dict[float, float] = {}
    for each in over[0]:
        bound = _number(each.labels.get("le"))
        if bound is not None and each.growth is not None:
            buckets[bound] = buckets.get(bound, 0.0) + each.growth
    if not buckets:
        longest = max(each.span for each in over[0])
        raise MissingError(f"only {longest:.0f}s of {over[0][0].name} so far")
    total = max(buckets.values())
    if total <= 0 or total < look.entry.least:
        raise MissingError(f"{total:.0f} requests counted by {over[0][0].name} in the window")
    rank = total * look.percentile / 100
    lower, below = 0.0, 0.0
    for bound in sorted(buckets):
        count = buckets[bound]
        if count >= rank:
            if bound == float("inf"):
                break
            return lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, max(below, count)
    # In the last bucket nothing is known but that it was longer: its lower bound.
    return lower


def _since(look: Look, over: Listed, under: Listed) -> float:
    moments = [each.values[-1] for each in over[0]]
    moment = max(moments) if look.entry.across is Across.MIN else min(moments)
    return max(0.0, look.table.time - moment)


FORMS: Mapping[Form, Callable[[Look, Listed, Listed], float]] = {
    Form.RATIO: _ratio,
    Form.RATE: _rate,
    Form.COUNT: _count,
    Form.MEAN: _mean,
    Form.LAST: _last,
    Form.PAIRS: _pairs,
    Form.MASK: _mask,
    Form.PERCENTILE: _percentile,
    Form.QUANTILE: _last,
    Form.SINCE: _since,
    Form.GREW: _grew,
}


def _joined(across: Across, values: Sequence[float]) -> float:
    if across in (Across.MIN, Across.MAX):
        return min(values) if across is Across.MIN else max(values)
    return sum(values) / (len(values) if across is Across.MEAN else 1)


def container_of(series: Series) -> str:
    """The container's name under the label that it had, has, or gets from a scrape."""
    for label in ("exported_container", "container", "container_name"):
        if label in series.labels:
            return series.labels[label]
    return ""


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
