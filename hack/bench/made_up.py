"""Made-up systems: a random call graph whose figures behave as those of services do."""

from __future__ import annotations

import numpy as np
from bottleneck_operator.diagnose.components import Key
from bottleneck_operator.diagnose.graph import GraphDiagnosis, diagnose_graph
from numpy.typing import NDArray

Array = NDArray[np.float64]
Samples = dict[Key, tuple[list[float], list[float]]]
"""Timestamps in seconds, and values."""

STEP = 300.0
"""Seconds between samples."""
DAY = 288
"""Steps of a baseline."""
ROWS = slice(-4, -1)
"""The steps of a fault unless others are given: all but the incident's ends."""
FULL = 2.5
"""How much more CPU time a busy component takes."""


class System:
    """A made-up system on a random call graph, for a day and an incident of ``steps`` after it.

    Self times (seconds), failures (shares of calls) and CPU follow an autocorrelated noise, traffic
    and CPU have a season; a caller's latency contains its callees' and a failed callee fails its
    caller. Component 0 is the entry. All arrays are components by steps.
    """

    def __init__(self, seed: int, components: int = 0, chain: bool = False, steps: int = 5) -> None:
        rng = np.random.default_rng(seed)
        self.rng = rng
        self.size = components or int(rng.integers(10, 51))
        self.time = STEP * np.arange(DAY + steps)
        self.edges: dict[tuple[int, int], float] = {}
        for callee in range(1, self.size):
            # More callers or calls than this, and their number explodes on the way down.
            many = 1 + int(rng.random() < 0.3)
            callers = [callee - 1] if chain else rng.integers(max(0, callee - 8), callee, many)
            for caller in callers:
                self.edges[int(caller), callee] = float(rng.choice([0.3, 0.5, 1.0, 2.0]))
        season = 1 + 0.3 * np.sin(2 * np.pi * self.time / 86400)
        self.calls = np.zeros((self.size, len(self.time)))
        self.calls[0] = 1000 * season * np.exp(self._noise(0.03))
        for (caller, callee), ratio in sorted(self.edges.items()):
            self.calls[callee] += ratio * self.calls[caller]
        base = np.exp(rng.uniform(np.log(0.005), np.log(0.1), self.size))
        self.self_time: Array = np.array([one * np.exp(self._noise(0.04)) for one in base])
        self.cpu: Array = np.array([0.3 * season * np.exp(self._noise(0.05)) for _ in base])
        self.failures: Array = np.array([0.0005 * np.exp(self._noise(0.5)) for _ in base])

    def _noise(self, scale: float, memory: float = 0.6) -> Array:
        shocks = self.rng.normal(0, scale * np.sqrt(1 - memory**2), len(self.time))
        series = np.zeros_like(shocks)
        for place in range(1, len(shocks)):
            series[place] = memory * series[place - 1] + shocks[place]
        return series

    def weight(self, component: int) -> float:
        """Calls of a component for one request of the entry."""
        weights = np.zeros(self.size)
        weights[0] = 1
        for (caller, callee), ratio in sorted(self.edges.items()):
            weights[callee] += weights[caller] * ratio
        return float(weights[component])

    def depth(self, component: int) -> int:
        """Calls from the entry to the component, on the shortest way."""
        depths = {0: 0}
        for caller, callee in sorted(self.edges, key=lambda edge: edge[::-1]):
            depths[callee] = min(depths.get(callee, self.size), depths[caller] + 1)
        return depths[component]

    def reach(self, component: int) -> float:
        """The share of the entry's requests that fail when all calls of the component do."""
        alone = np.zeros(self.size)
        alone[component] = 1.0
        return float(1 - self._success(alone)[0])

    def slow(self, component: int, share: float, rows: slice = ROWS) -> None:
        """Adds so much self time that the entry's latency rises by this share."""
        entry = float(np.median(self._latency()[0]))
        self.self_time[component, rows] += share * entry / self.weight(component)

    def busy(self, component: int, share: float, rows: slice = ROWS) -> None:
        """Fills its CPU, which makes it slow."""
        self.cpu[component, rows] *= FULL
        self.slow(component, share, rows)

    def break_(self, component: int, share: float, rows: slice = ROWS) -> None:
        """Fails this share of its calls."""
        failing = self.failures[component, rows] + share
        self.failures[component, rows] = np.minimum(1.0, failing)

    def _latency(self) -> Array:
        latency = self.self_time.copy()
        for (caller, callee), ratio in sorted(self.edges.items(), reverse=True):
            latency[caller] += ratio * latency[callee]
        return latency

    def _success(self, failures: Array) -> Array:
        success = 1 - failures
        for (caller, callee), ratio in sorted(self.edges.items(), reverse=True):
            success[caller] *= 1 - min(1.0, ratio) * (1 - success[callee])
        return success

    @property
    def topology(self) -> list[tuple[str, str]]:
        """Pairs of caller and callee."""
        return [(f"s{caller}", f"s{callee}") for caller, callee in self.edges]

    def metrics(self, missing: float = 0.03) -> tuple[Samples, Samples]:
        """Baseline and incident, with some values missing and a series that never changes."""
        latency, success = self._latency(), self._success(self.failures)
        before: Samples = {}
        during: Samples = {}
        for one in range(self.size):
            spread = np.exp(self.rng.normal(0, 0.1, len(self.time)))
            for metric, statistic, values in (
                ("latency", "Average", latency[one]),
                ("latency", "p99", 3 * latency[one] * spread),
                ("availability", "Average", 100 * success[one]),
                ("requests", "Sum", self.calls[one]),
                ("cpu_usage", "Average", self.cpu[one]),
                ("memory_limit", "Maximum", np.full(len(self.time), 5e8)),
            ):
                kept = self.rng.random(len(values)) >= (missing if one else 0.0)
                for some, part in ((before, slice(0, DAY)), (during, slice(DAY, None))):
                    some[f"s{one}", metric, statistic] = (
                        self.time[part][kept[part]].tolist(),
                        values[part][kept[part]].tolist(),
                    )
        return before, during

    def diagnose(self, metric: str = "latency", missing: float = 0.03) -> GraphDiagnosis:
        """What is made of this metric of the entry."""
        return diagnose_graph(self.topology, *self.metrics(missing), ("s0", metric))
