"""PetShop's files: read as they are published, written as the command line reads them.

Data: amazon-science/petshop-root-cause-analysis, CC-BY 4.0 (Hardt et al., "The PetShop Dataset —
Finding Causes of Performance Issues across Microservices", CLeaR 2024).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bottleneck_operator.diagnose.components import Key

Metrics = dict[Key, tuple[list[float], list[float]]]
"""Timestamps in seconds, and values."""


@dataclass(frozen=True)
class Incident:
    """One injected fault: what was noticed, and which component it was injected into."""

    name: str
    symptom: tuple[str, str]
    truth: str
    metrics: Metrics


@dataclass(frozen=True)
class Scenario:
    """One kind of traffic: its call graph, a time without faults, and the training incidents."""

    name: str
    topology: list[tuple[str, str]]
    healthy: Metrics
    incidents: list[Incident]


@dataclass(frozen=True)
class Window:
    """A healthy stretch as long as an incident."""

    scenario: Scenario
    symptom: tuple[str, str]
    times: tuple[float, ...]
    """Its sampling steps, in seconds."""

    def cut(self) -> tuple[Metrics, Metrics]:
        """The healthy time without the stretch, as the baseline, and the stretch."""
        inside = set(self.times)
        rest, window = (
            {key: _only(series, inside, some) for key, series in self.scenario.healthy.items()}
            for some in (False, True)
        )
        return rest, window


def read(folder: Path) -> Scenario:
    """One of PetShop's folders."""
    incidents = []
    for path in sorted(folder.glob("train/*/target.json")):
        truth = json.loads(path.read_text())
        symptom = (truth["target"]["node"], truth["target"]["metric"])
        cause = truth["root_cause"]["node"]
        incidents.append(Incident(path.parent.name, symptom, cause, _metrics(path.parent)))
    return Scenario(
        folder.name, _graph(folder / "graph.csv"), _metrics(folder / "noissue"), incidents
    )


def windows(scenario: Scenario, stride: int) -> list[Window]:
    """Healthy windows ``stride`` steps apart, for each symptom of the scenario's incidents."""
    steps = max(len(_times(one.metrics)) for one in scenario.incidents)
    times = _times(scenario.healthy)
    return [
        Window(scenario, symptom, tuple(times[start : start + steps]))
        for symptom in sorted({one.symptom for one in scenario.incidents})
        for start in range(0, len(times) - steps + 1, stride)
    ]


def write_long(scenario: Scenario, into: Path) -> None:
    """One scenario as the command line reads it."""
    into.mkdir(parents=True, exist_ok=True)
    _write(into / "topology.csv", ("caller", "callee"), iter(scenario.topology))
    _write_metrics(into / "baseline.csv", scenario.healthy)
    for one in scenario.incidents:
        _write_metrics(into / f"{one.name}.csv", one.metrics)


def _graph(path: Path) -> list[tuple[str, str]]:
    """The adjacency matrix as pairs of caller (row) and callee (column)."""
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    return [
        (row[0], callee)
        for row in rows
        for callee, cell in zip(header[1:], row[1:], strict=True)
        if float(cell)
    ]


def _metrics(folder: Path) -> Metrics:
    """The wide table, whose first three lines name component, metric and statistic."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    keys = list(zip(*(row[1:] for row in rows[:3]), strict=True))
    series: Metrics = {}
    for row in rows[3:]:
        if not row or row[0] == "unix_timestamp":
            continue
        for (component, metric, statistic), cell in zip(keys, row[1:], strict=True):
            if cell:
                times, values = series.setdefault((component, metric, statistic), ([], []))
                times.append(float(row[0]))
                values.append(float(cell))
    return series


def _times(metrics: Metrics) -> list[float]:
    return sorted({time for times, _ in metrics.values() for time in times})


def _only(
    series: tuple[list[float], list[float]], times: set[float], inside: bool
) -> tuple[list[float], list[float]]:
    """The samples at these times, or all others."""
    kept = [(t, v) for t, v in zip(*series, strict=True) if (t in times) is inside]
    return [t for t, _ in kept], [v for _, v in kept]


def _write_metrics(path: Path, metrics: Metrics) -> None:
    """The long form: one sample a line."""
    samples = (
        (f"{time:.0f}", *key, repr(value))
        for key, series in metrics.items()
        for time, value in zip(*series, strict=True)
    )
    _write(path, ("timestamp", "component", "metric", "statistic", "value"), samples)


def _write(path: Path, header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
