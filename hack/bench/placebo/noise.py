"""Series of several replicas in which nothing is done: real ones, and made ones over a range.

Real: PetShop's healthy metrics (CC-BY 4.0), its components standing for replicas, and the arrivals
of the Azure LLM inference trace 2023 (CC-BY 4.0), served by replicas of a stated model.
"""

from __future__ import annotations

import csv
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from scipy.signal import lfilter

from ..petshop_data import read as read_petshop

TRACE = Path("azure-llm-2023") / "AzureLLMInferenceTrace_code.csv"
PETSHOP = Path("petshop")


@dataclass(frozen=True, slots=True)
class Noise:
    """Figures of replicas, one row a bin and one column a replica; NaN where there is none."""

    family: str
    name: str
    values: np.ndarray
    lower_is_better: bool


def every(data: Path, seed: int = 0) -> Iterator[Noise]:
    """All that there is; ``data`` is the folder with the trace and PetShop."""
    if (data / TRACE).is_file():
        yield from served(data / TRACE, seed)
    if (data / PETSHOP).is_dir():
        yield from healthy(data / PETSHOP)
    yield from made(seed)


# -- real arrivals ---------------------------------------------------------------------------------

PREFILL, DECODE = 0.00025, 0.02
"""Seconds that a prompt's token and a generated one take in the model of a server."""

BIN = 10.0
"""Seconds of a bin of the served trace: with ten replicas a handful of requests each."""


def served(trace: Path, seed: int) -> Iterator[Noise]:
    """Latency, throughput and busy share of replicas that serve the trace's requests: first come,
    first served at ``places`` of each replica, which a request reaches by chance (as behind a
    Kubernetes Service) or by the shortest queue."""
    requests = list(_requests(trace))
    for replicas, places, routing in (
        (4, 4, "random"),
        (6, 3, "shortest"),
        (10, 2, "random"),
        (8, 1, "random"),
    ):
        latency, tokens, duty = _serve(requests, replicas, places, routing, seed)
        name = f"{replicas} replicas, {routing}"
        yield Noise("served latency", name, latency, True)
        yield Noise("served tokens", name, tokens, False)
        yield Noise("served duty", name, duty, False)


def _requests(trace: Path) -> Iterator[tuple[float, int, int]]:
    """Seconds since the first request, prompt tokens, generated tokens."""
    with trace.open(newline="") as lines:
        begin = None
        for row in csv.reader(lines):
            whole, _, part = row[0].partition(".")
            try:
                moment = datetime.fromisoformat(f"{whole}.{part[:6] or '0'}").timestamp()
            except ValueError:
                continue  # the header
            begin = moment if begin is None else begin
            yield moment - begin, int(row[1]), int(row[2])


def _serve(
    requests: list[tuple[float, int, int]], replicas: int, places: int, routing: str, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, replicas])
    bins = int(requests[-1][0] / BIN)
    free = [[0.0] * places for _ in range(replicas)]
    delay = [[[] for _ in range(replicas)] for _ in range(bins)]  # type: ignore[var-annotated]
    tokens, busy = np.zeros((bins, replicas)), np.zeros((bins, replicas))
    pace = rng.uniform(0.8, 1.25, replicas)  # no two machines are alike
    for arrived, prompt, generated in requests:
        chosen = (
            int(rng.integers(replicas))
            if routing == "random"
            else min(range(replicas), key=lambda each: free[each][0])
        )
        seconds = float(pace[chosen] * (PREFILL * prompt + DECODE * generated))
        begun = max(arrived, free[chosen][0])
        ended = begun + seconds
        heapq.heapreplace(free[chosen], ended)
        place = int(ended / BIN)
        if place < bins:
            delay[place][chosen].append(ended - arrived)
            tokens[place, chosen] += generated
        for part in range(int(begun / BIN), min(place, bins - 1) + 1):
            inside = min(ended, (part + 1) * BIN) - max(begun, part * BIN)
            busy[part, chosen] += inside / (places * BIN)
    latency = np.array([[np.mean(one) if one else np.nan for one in row] for row in delay])
    served = np.isfinite(latency).any(axis=1)  # a bin without requests tells nothing of anything
    return latency[served], tokens[served], busy[served]


# -- a real application without faults -------------------------------------------------------------


def healthy(folder: Path) -> Iterator[Noise]:
    """Components of PetShop that nearly always have a figure, in groups of eight. They do not share
    load as replicas would, which is harder."""
    for traffic in ("high_traffic", "low_traffic"):
        metrics = read_petshop(folder / traffic).healthy
        for metric, statistic, lower in (
            ("latency", "p95", True),
            ("latency", "Average", True),
            ("requests", "Sum", False),
        ):
            times = sorted({t for key in metrics for t in metrics[key][0]})
            place = {moment: row for row, moment in enumerate(times)}
            columns = []
            for key, (moments, figures) in sorted(metrics.items()):
                if key[1:] != (metric, statistic):
                    continue
                column = np.full(len(times), np.nan)
                for moment, figure in zip(moments, figures, strict=True):
                    column[place[moment]] = figure
                if np.isfinite(column).mean() > 0.8 and np.nanmin(column) > 0:
                    columns.append(column)
            for start in range(0, len(columns) - 3, 8):
                group = np.column_stack(columns[start : start + 8])
                name = f"{traffic} {statistic} {start // 8}"
                yield Noise(f"petshop {metric}", name, group, lower)


# -- made ------------------------------------------------------------------------------------------

LENGTH = 600


def made(seed: int) -> Iterator[Noise]:
    """Logarithms that follow each other (AR(1), lag-1 ``phi``), with tails of Student's t, a share
    that all replicas have in common, and some replicas that are twice as noisy."""
    rng = np.random.default_rng([seed, 7])
    for phi in (0.0, 0.5, 0.8, 0.94):
        for tail in (3.0, 30.0):
            for replicas in (2, 4, 12):
                own = _ar(rng, phi, tail, replicas) * rng.uniform(0.1, 0.35, replicas)
                shared = 0.4 * _ar(rng, 0.94, 30.0, 1)
                day = 0.4 * np.sin(np.arange(LENGTH)[:, None] / rng.uniform(30, 100))
                values = np.exp(own + shared + day + rng.uniform(-0.5, 0.5, replicas))
                lower = bool(rng.random() < 0.5)
                yield Noise(f"made φ={phi:g}", f"t{tail:g}, {replicas} replicas", values, lower)
    for replicas in (4, 12):
        own = 0.1 * _ar(rng, 0.5, 4.0, replicas) + _steps(rng, replicas)
        yield Noise("made steps", f"{replicas} replicas", np.exp(own), True)


def _ar(rng: np.random.Generator, phi: float, tail: float, columns: int) -> np.ndarray:
    """Stationary, of variance one."""
    shocks = rng.standard_t(tail, (LENGTH + 100, columns)) * np.sqrt((tail - 2) / tail)
    found = lfilter([np.sqrt(1 - phi**2)], [1.0, -phi], shocks, axis=0)[100:]
    return np.asarray(found)


def _steps(rng: np.random.Generator, columns: int) -> np.ndarray:
    """Levels that jump now and then and stay: 120 bins between two jumps of a replica on average,
    30% each way."""
    jumps = (rng.random((LENGTH, columns)) < 1 / 120) * rng.choice([-0.3, 0.3], (LENGTH, columns))
    return np.asarray(np.cumsum(jumps, axis=0) % 0.6)
