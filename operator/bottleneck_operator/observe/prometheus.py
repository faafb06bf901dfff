"""One look at a Prometheus server: what it has of a workload's pods, as signals.

The client is prometheus-api-client, which is synchronous: a look runs in a thread of its own and
ends by a deadline.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_api_client import PrometheusConnect
from urllib3.util.retry import Retry

from ..api.signals import unit_of
from .observation import NoData, Reading
from .prometheus_address import PrometheusError, named
from .prometheus_machines import SYSTEMS
from .prometheus_queries import VARIANTS, Variant, matchers, range_queries, reach, selectors
from .prometheus_series import (
    LEAST_STALE_SECONDS,
    LONE_STALE_SECONDS,
    POD_LABELS,
    RANGE_SECONDS,
    STALE_SCRAPES,
    WINDOW_SECONDS,
    read_matrix,
    table,
)
from .prometheus_session import Session
from .prometheus_signals import Figure, Sourced, evaluate

DISCOVERY_SECONDS = 60.0
"""How long it is taken as known which metrics there are."""

NAMES_SECONDS = 300.0
"""How far back a metric counts as there: as far as Prometheus itself looks for a sample."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What is wanted to know. ``pods`` are all pods of the target, ``expected`` those that run long
    enough to have figures; ``since`` is the operator's time of the last change."""

    namespace: str
    pods: tuple[str, ...]
    expected: tuple[str, ...]
    queries: Mapping[str, str] = field(default_factory=dict)
    selector: Mapping[str, str] = field(default_factory=dict)
    percentile: int = 95
    since: float = 0.0


class Client:
    """Looks of one policy at one server. Not for two threads at once. ``allowed`` are the servers
    that the operator's settings name; where they name none, any service of the cluster is."""

    def __init__(self, url: str, allowed: Sequence[str] = ()) -> None:
        self.url = url.rstrip("/")
        own = named(url, allowed)
        self._refusal = ""
        if allowed and not own:
            self._refusal = (
                "is not asked: it is none of those that the operator's Helm value"
                f" prometheus.allowedUrls names; write one of them: {', '.join(allowed)}"
            )
        self._session = Session(own)
        self._connect = PrometheusConnect(
            url=self.url, session=self._session, retry=Retry(0, read=False)
        )
        self._known: dict[Variant | None, frozenset[str]] = {}
        self._known_for: object = None
        self._known_until = 0.0
        self._offset = 0.0

    def close(self) -> None:
        self._connect.close()

    def look(self, ask: Ask) -> Sourced:
        """What the server says of the workload now. Never raises for what the server does: what
        went wrong is in ``problem``, and what is not known is no data."""
        self._session.begin()
        try:
            if self._refusal:
                raise PrometheusError(self._refusal)
            self._discover(ask)
            now = time.time()
            there = table(now + self._offset, self._series(ask, now + self._offset))
        except PrometheusError as error:
            problem = f"Prometheus at {self.url} {error}"
            lost = Figure(NoData(problem))
            return Sourced(
                time=time.time(),
                figures=dict.fromkeys(ask.queries, lost),
                explicit=frozenset(ask.queries),
                problem=problem,
                pods=ask.expected,
                since=ask.since,
            )
        told = {each.pod for listed in there.series.values() for each in listed}
        if not told or (None not in told and not told.issuperset(ask.expected)):
            self._known_until = 0.0  # what is missing may have come meanwhile: look again
        since = ask.since + self._offset
        figures, replicas, systems = evaluate(there, ask.expected, ask.percentile, since)
        problems = []
        for signal, query in ask.queries.items():
            found, of_pods, problem = self._explicit(ask, signal, query, now)
            figures[signal] = found
            for pod, figure in of_pods.items():
                replicas.setdefault(pod, {})[signal] = figure
            problems += [problem] if problem else []
        if not there.series and not ask.queries and ask.expected:
            where = " and ".join(f"{k}={v}" for k, v in ask.selector.items())
            problems.append(
                f"Prometheus at {self.url} has no metric that is known here of the pods in "
                f"{where or f'namespace {ask.namespace}'}; docs/prometheus.md tells what to do"
            )
        return Sourced(
            time=now,
            figures=figures,
            replicas=replicas,
            explicit=frozenset(ask.queries),
            workload=next((system.workload for system in systems if system.workload), ""),
            systems=tuple(system.name for system in systems),
            problem="; ".join(problems),
            pods=ask.expected,
            since=ask.since,
        )

    def _discover(self, ask: Ask) -> None:
        """Which of the known metrics there are, under which labels, and what the server's clock
        says: the age of a sample is the difference of two of its times."""
        wanted = (ask.namespace, ask.pods, tuple(sorted(ask.selector.items())))
        if self._known_for == wanted and time.monotonic() < self._known_until:
            return
        before = time.time()
        clock = self._query("time()")
        self._offset = float(clock[1]) - (before + time.time()) / 2
        if abs(self._offset) < 1.0:
            self._offset = 0.0  # within what the request itself takes
        ours = {name for system in SYSTEMS for name in system.metrics()}
        self._known = {}
        for variant in [*VARIANTS, *([None] if ask.selector else [])]:
            inside = matchers(variant, ask.namespace, ask.pods, ask.selector)
            if not ask.pods and variant is not None:
                continue
            names = self._answer(
                self._connect.get_label_values,
                "__name__",
                params={
                    "match[]": f"{{{inside}}}",
                    "start": f"{before + self._offset - NAMES_SECONDS:.3f}",
                    "end": f"{before + self._offset:.3f}",
                },
            )
            self._known[variant] = frozenset(names) & ours
        self._known_for = wanted
        self._known_until = time.monotonic() + DISCOVERY_SECONDS

    def _series(self, ask: Ask, now: float) -> list[Any]:
        found = []
        for variant, names in self._known.items():
            inside = matchers(variant, ask.namespace, ask.pods, ask.selector)
            for seconds, group in _by_range(names).items():
                for query in range_queries(group, inside, seconds):
                    result = self._query(query, now)
                    try:
                        found += read_matrix(result, ask.pods)
                    except ValueError as error:
                        raise PrometheusError(
                            f"gave something else than asked for: {error}"
                        ) from None
        return found

    def _explicit(
        self, ask: Ask, signal: str, query: str, now: float
    ) -> tuple[Figure, dict[str, Figure], str]:
        """A query of the policy: the figure over all, those of pods, and what is wrong with it."""
        server = now + self._offset
        try:
            result = self._query(query, server)
            age, limit = self._freshness(query, server)
        except PrometheusError as error:
            problem = f"the query for {signal}: Prometheus {error}"
            return Figure(NoData(problem)), {}, problem
        back = reach(query)
        if ask.since and now - ask.since < back:
            reason = f"its range of {back:.0f}s reaches back before the last change"
            return Figure(NoData(reason)), {}, ""

        def figure(value: float) -> Figure:
            if not math.isfinite(value):
                return Figure(NoData(f"the query for {signal} gives no finite number"))
            if age is None:
                return Figure(NoData(f"the query for {signal} is about series that ended"))
            if age > limit:
                return Figure(NoData(f"the newest sample behind {signal} is {age:.0f}s old"))
            text = query if len(query) <= 120 else query[:117] + "..."
            source = f"Prometheus: {text}"
            return Figure(Reading(value, unit_of(signal), back, "query", age, source), limit)

        values = _vector(result)
        if values is None:
            problem = (
                f"the query for {signal} gives a range or a text; make it a number, for instance"
                " with rate(...) or max_over_time(...)"
            )
            return Figure(NoData(problem)), {}, problem
        of_pods = {
            pod: figure(value)
            for labels, value in values
            for label in POD_LABELS
            if (pod := labels.get(label)) is not None and pod in ask.pods
        }
        if not values:
            return Figure(NoData(f"the query for {signal} gives nothing")), {}, ""
        if len(values) > 1:
            reason = (
                f"the query for {signal} gives {len(values)} series; make it one, for instance with"
                " sum(...) or max(...)"
            )
            return Figure(NoData(reason)), of_pods, "" if of_pods else reason
        return figure(values[0][1]), of_pods, ""

    def _freshness(self, query: str, now: float) -> tuple[float | None, float]:
        """Age of the oldest of the selectors' newest samples, None where none is left, and the age
        at which it is stale. The instant query above dates everything now and must not be asked."""
        ages, limit = [], LEAST_STALE_SECONDS
        found = selectors(query)
        for selector in found:
            newest = _vector(self._query(f"max(timestamp({selector}))", now))
            if not newest:
                continue
            ages.append(max(0.0, now - newest[0][1]))
            counted = f"max(count_over_time({selector}[{RANGE_SECONDS:.0f}s]))"
            count = _vector(self._query(counted, now))
            scrapes = count[0][1] if count else 1.0
            gap = RANGE_SECONDS / scrapes if scrapes > 1 else LONE_STALE_SECONDS / STALE_SCRAPES
            limit = max(limit, STALE_SCRAPES * gap)
        if not found:
            return 0.0, limit  # a constant is as old as its question
        return (max(ages) if ages else None), limit

    def _query(self, query: str, now: float | None = None) -> Any:
        params = {} if now is None else {"time": f"{now:.3f}"}
        return self._answer(self._connect.custom_query, query=query, params=params)

    def _answer(self, ask: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return ask(*arguments, **options)
        except (ValueError, KeyError, TypeError):
            # A 200 that is not JSON, or not of this form.
            raise PrometheusError(
                "does not answer as a Prometheus server does; check the url"
            ) from None


def _by_range(names: Iterable[str]) -> dict[float, list[str]]:
    """Metrics by how far back their samples are wanted."""
    longest: dict[str, float] = {}
    for system in SYSTEMS:
        for entry in system.entries:
            far = RANGE_SECONDS + entry.window - WINDOW_SECONDS
            for name in entry.metrics():
                longest[name] = max(far, longest.get(name, 0.0))
    groups: dict[float, list[str]] = {}
    for name in names:
        groups.setdefault(longest[name], []).append(name)
    return groups


def _vector(result: Any) -> Sequence[tuple[Mapping[str, str], float]] | None:
    """A scalar or a vector as labelled numbers; None for anything else."""
    try:
        if len(result) == 2 and isinstance(result[1], str):
            return [({}, float(result[1]))]
        return [(item["metric"], float(item["value"][1])) for item in result]
    except (KeyError, TypeError, ValueError, IndexError):
        return None
