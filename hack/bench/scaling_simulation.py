"""Compares our rule with models of others on a trace and on made-up loads: a table, in seconds.

    python -m hack.bench.scaling_simulation [--trace CSV] [--from SECONDS] [--to SECONDS]

The first column of the trace holds times. What is shown is a simulation; the closed-loop benchmark
runs the real autoscalers.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from bottleneck_operator.api.policy import PolicySpec

from .scaling.ours import Ours
from .scaling.rules import HpaLike, KpaLike, Rule
from .scaling.world import Model, Service, poisson


def policy(model: Model, stabilization: str = "10m") -> PolicySpec:
    """The policy that goes with a model."""
    return PolicySpec.model_validate(
        {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "work"},
            "mode": "Auto",
            "objectives": {
                "latency": {
                    "percentile": model.percentile,
                    "target": f"{model.target * 1000:.0f}ms",
                }
            },
            "actions": {
                "replicas": {"min": model.least, "max": model.most, "stabilization": stabilization}
            },
            "limits": {"actionsPerHour": 30},
        }
    )


def read(trace: Path) -> list[float]:
    """Arrivals in seconds since the first one. Raises ValueError for a file without times."""
    with trace.open(newline="") as lines:
        rows = [row[0] for row in csv.reader(lines) if row]
    moments: list[float] = []
    for number, text in enumerate(rows):
        try:
            # Python reads at most six digits of a second.
            whole, _, part = text.partition(".")
            moments.append(datetime.fromisoformat(f"{whole}.{part[:6] or '0'}").timestamp())
        except ValueError:
            if number:  # the first line may be a header
                message = f"{trace}, line {number + 1}: {text!r} is no time"
                raise ValueError(message) from None
    if not moments:
        raise ValueError(f"{trace} has no times in its first column")
    moments.sort()
    return [each - moments[0] for each in moments]


def loads(seed: int) -> dict[str, list[float]]:
    """Made-up loads of half an hour to an hour, by name."""
    diurnal = [12 + 10 * math.sin(2 * math.pi * at / 1200) for at in range(3600)]
    ramp = [2 + 28 * min(1.0, max(0.0, (at - 300) / 600)) for at in range(1800)]
    crowd = [4 + (36 if 600 <= at < 900 else 0) for at in range(2400)]
    bursts = [3 + (20 if at % 600 < 45 and at >= 600 else 0) for at in range(3600)]
    made = {"diurnal": diurnal, "ramp": ramp, "flash crowd": crowd, "bursts": bursts}
    return {name: poisson(rates, seed) for name, rates in made.items()}


def play(
    model: Model, arrivals: Sequence[float], rule: Rule, seed: int = 1, rest: float = 30
) -> Service:
    """The service at the end of a load under a rule."""
    service = Service.begin(model, arrivals, seed)
    while service.now < (arrivals[-1] if arrivals else 0) + rest:
        service.step()
        rule.look(service)
    return service


RULES: dict[str, Callable[[Model], Rule]] = {
    "ours": lambda model: Ours(policy(model)),
    "HPA (model)": lambda model: HpaLike(),
    "KPA (model)": lambda model: KpaLike(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--from", dest="begin", type=float, default=0.0)
    parser.add_argument("--to", type=float, default=math.inf)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--routing", choices=["central", "random"], default="central")
    chosen = parser.parse_args()
    model = Model(routing=chosen.routing)
    every = loads(chosen.seed)
    if chosen.trace:
        cut = [at - chosen.begin for at in read(chosen.trace) if chosen.begin <= at < chosen.to]
        every = {chosen.trace.stem[:20]: cut, **every}
    print(f"{'load':22}{'rule':14}{'over objective':>15}{'replica-seconds':>17}{'turns':>7}")
    for name, arrivals in every.items():
        for label, make in RULES.items():
            found = play(model, arrivals, make(model), chosen.seed)
            print(f"{name:22}{label:14}{found.over:>15.2%}{found.used:>17.0f}{found.turns:>7}")


if __name__ == "__main__":
    main()
