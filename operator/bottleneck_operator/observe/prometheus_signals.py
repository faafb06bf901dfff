"""Signals from raw series by the catalogue of metric names, for each pod and over all. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..api.signals import unit_of
from .observation import NoData, Reading, Signal
from .prometheus_entries import Form, System
from .prometheus_forms import FORMS, Look, MissingError
from .prometheus_machines import SYSTEMS
from .prometheus_series import Table

NOT_YET = "Prometheus was not looked at yet"


@dataclass(frozen=True, slots=True)
class Figure:
    """A signal and the age in seconds at which it is stale."""

    signal: Signal
    limit: float = 0.0


Figures = Mapping[str, Figure]


@dataclass(frozen=True, slots=True)
class Sourced:
    """What Prometheus said of a workload at ``time`` (operator's clock): figures over all pods and
    of each. ``explicit`` are those for which the policy has a query of its own; ``workload`` says
    what the recognised systems do ("training", "inference" or ""); ``systems`` names them.
    ``problem`` tells what went wrong as a whole or with a query; empty while nothing did."""

    time: float
    figures: Figures = field(default_factory=dict)
    replicas: Mapping[str, Figures] = field(default_factory=dict)
    explicit: frozenset[str] = frozenset()
    workload: str = ""
    systems: tuple[str, ...] = ()
    problem: str = ""
    pods: tuple[str, ...] = ()
    """Running pods that ought to have figures."""
    since: float = 0.0
    """Nothing from before this moment (operator's clock) is in it."""


def evaluate(
    table: Table,
    expected: Sequence[str],
    percentile: int,
    since: float = 0.0,
    systems: Iterable[System] = SYSTEMS,
) -> tuple[dict[str, Figure], dict[str, dict[str, Figure]], tuple[System, ...]]:
    """Figures over all of the pods ``expected``, figures of each, and the systems recognised.
    ``since`` (server's clock) cuts off what is from before a change. A figure over all needs every
    expected pod: a judgement on a part of them would be one on another workload."""
    systems = [
        system for system in systems if any(name in table.series for name in system.metrics())
    ]
    overall = _figures(table, systems, expected, percentile, since)
    for system in systems:
        for signal, reason in system.lacks.items():
            overall.setdefault(signal, Figure(NoData(reason)))
    replicas = {
        pod: _figures(part, systems, (), percentile, since) for pod, part in by_pod(table).items()
    }
    return overall, replicas, tuple(systems)


def by_pod(table: Table) -> dict[str, Table]:
    """The series of each pod for themselves."""
    parts: dict[str, Table] = {}
    for name, listed in table.series.items():
        for each in listed:
            if each.pod is not None:
                part = parts.setdefault(each.pod, Table(table.time))
                part.series.setdefault(name, []).append(each)
    return parts


def _figures(
    table: Table,
    systems: Iterable[System],
    expected: Sequence[str],
    percentile: int,
    since: float,
) -> dict[str, Figure]:
    found: dict[str, Figure] = {}
    for system in systems:
        for entry in system.entries:
            if entry.signal in found and isinstance(found[entry.signal].signal, Reading):
                continue
            figure = _figure(Look(table, entry, expected, percentile, since))
            if figure is not None and (
                entry.signal not in found or isinstance(figure.signal, Reading)
            ):
                found[entry.signal] = figure
    return found


def _figure(look: Look) -> Figure | None:
    """The figure of one entry; None where nobody has its metrics."""
    entry = look.entry
    try:
        over = [look.series(term) for term in entry.over]
        under = [look.series(term) for term in entry.under]
        value = FORMS[entry.form](look, over, under)
    except MissingError as missing:
        return None if missing.absent else Figure(NoData(str(missing)))
    if entry.cap is not None:
        value = min(value, entry.cap)
    used = [each for listed in (*over, *under) for each in listed]
    percentiles = (Form.PERCENTILE, Form.QUANTILE)
    instant = entry.form in (Form.LAST, Form.PAIRS, Form.QUANTILE, Form.SINCE)
    reading = Reading(
        value=value,
        unit=unit_of(entry.signal) if not entry.signal.startswith("pods.") else "",
        window=0.0 if instant else max(each.span for each in used),
        statistic=f"p{look.percentile}" if entry.form in percentiles else entry.statistic,
        age=max(look.age(each) for each in used),
        source=f"Prometheus: {over[0][0].name if over[0] else entry.over[0].metrics[0]}",
    )
    return Figure(reading, min(each.limit for each in used))


def aged(figure: Figure, seconds: float) -> Signal:
    """The signal when it is that much older; stale is no data."""
    signal = figure.signal
    if isinstance(signal, NoData):
        return signal
    age = signal.age + seconds
    if age > figure.limit:
        return NoData(f"the newest sample behind {signal.source} is {age:.0f}s old")
    return replace(signal, age=age)
