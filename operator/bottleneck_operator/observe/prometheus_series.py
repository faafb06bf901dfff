"""Raw series of a Prometheus server, and what is read off one: growth, mean, age. Pure.

Series are taken as they were scraped, with the time of each sample, and not as PromQL would
evaluate them: an instant query answers with the time at which it was asked, and looks up to five
minutes back for a figure without saying so.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from .pod_window import MIN_SPAN_SECONDS

WINDOW_SECONDS = 60.0
"""Width of the window: four scrapes at the usual 15 seconds."""

RANGE_SECONDS = 150.0
"""How far back samples are fetched: one window, and two scrapes more where a server scrapes once a
minute only."""

STALE_SCRAPES = 2.5
"""Scrapes that may be missed before a series is stale: one lost scrape is no news."""

LEAST_STALE_SECONDS = 15.0
"""Nothing is stale sooner; the streams of the sidecars have the same limit."""

LONE_STALE_SECONDS = 60.0
"""The limit for a series of a single sample, whose interval of scrapes nobody can tell."""

POD_LABELS = ("exported_pod", "pod", "pod_name", "kubernetes_pod_name")
"""Labels that name a pod, the surest first: where a scrape has both, ``pod`` is the exporter's."""

_SCRAPE_LABELS = frozenset(
    ("job", "service", "endpoint", "metrics_path", "prometheus", "prometheus_replica")
)
"""What tells two scrapes of one target apart, and not two targets."""


@dataclass(frozen=True, slots=True)
class Series:
    """Samples of one series, oldest first, times in seconds since the Unix epoch on the server's
    clock. ``pod`` is None where it names none of the workload's; ``limit`` is the age in seconds
    beyond which it is stale; ``broken`` where its newest sample is not a finite number."""

    name: str
    labels: Mapping[str, str]
    pod: str | None
    times: Sequence[float]
    values: Sequence[float]
    limit: float
    broken: bool = False

    def cut(self, since: float, window: float) -> Series:
        """Only what lies in the window before its newest sample, and the sample before that, so
        that the window is covered; and nothing from before ``since``."""
        times = self.times
        first = max(0, bisect_right(times, times[-1] - window) - 1)
        first = max(first, bisect_left(times, since))
        if first == 0:
            return self
        return replace(self, times=times[first:], values=self.values[first:])

    @property
    def span(self) -> float:
        """Seconds between the first and the last sample."""
        return self.times[-1] - self.times[0] if self.times else 0.0

    @property
    def growth(self) -> float | None:
        """How much a counter grew; one that went back began anew at zero. None with less than
        ``MIN_SPAN_SECONDS`` of samples."""
        if self.span < MIN_SPAN_SECONDS:
            return None
        return sum(b - a if b >= a else b for a, b in pairwise(self.values))

    @property
    def mean(self) -> float:
        """Mean of a gauge's samples."""
        return sum(self.values) / len(self.values)


@dataclass(slots=True)
class Table:
    """All series of one look, by the metric's name. ``time`` is the server's when it was taken."""

    time: float
    series: dict[str, list[Series]] = field(default_factory=dict)

    def of(self, name: str) -> Sequence[Series]:
        return self.series.get(name, ())


def read_matrix(result: Iterable[Mapping[str, Any]], pods: Iterable[str]) -> list[Series]:
    """The answer to a range selector as series. A series that names a pod which is not one of
    ``pods`` is left out; one that names none has ``pod`` None. Raises ValueError for an answer that
    is not a matrix."""
    known = frozenset(pods)
    found = []
    for item in result:
        try:
            labels = {str(key): str(value) for key, value in item["metric"].items()}
            times = [float(sample[0]) for sample in item["values"]]
            values = [float(sample[1]) for sample in item["values"]]
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            raise ValueError("the answer is not a list of series with samples") from None
        named = [labels[label] for label in POD_LABELS if label in labels]
        pod = next((name for name in named if name in known), None)
        if (named and pod is None) or not times:
            continue
        broken = not math.isfinite(values[-1])
        if not all(map(math.isfinite, values)):
            pairs = zip(times, values, strict=True)
            finite = [(time, value) for time, value in pairs if math.isfinite(value)]
            times = [time for time, _ in finite] or times[-1:]
            values = [value for _, value in finite] or [0.0]
        found.append(
            Series(
                name=labels.pop("__name__", ""),
                labels=labels,
                pod=pod,
                times=times,
                values=values,
                limit=stale_after(times),
                broken=broken,
            )
        )
    return found


def stale_after(times: Sequence[float]) -> float:
    """The age in seconds beyond which a series with samples at these times is stale."""
    if len(times) < 2:
        return LONE_STALE_SECONDS
    gaps = sorted(b - a for a, b in pairwise(times))
    return max(LEAST_STALE_SECONDS, STALE_SCRAPES * gaps[len(gaps) // 2])


def table(time: float, series: Iterable[Series]) -> Table:
    """The series by name, each once: a target that two jobs or two servers scrape must not count
    twice. Of those that differ only in that, the one with the newest sample stands."""
    newest: dict[tuple[object, ...], Series] = {}
    for each in series:
        identity = frozenset(
            (key, value) for key, value in each.labels.items() if key not in _SCRAPE_LABELS
        )
        key = (each.name, identity)
        if key not in newest or newest[key].times[-1] < each.times[-1]:
            newest[key] = each
    found = Table(time)
    for each in newest.values():
        found.series.setdefault(each.name, []).append(each)
    return found
