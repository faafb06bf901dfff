"""How well the next minute of a load can be told: our forecast against "as it is now".

    python -m hack.bench.scaling_forecast TRACE.csv [TRACE.csv ...]

For each horizon the mean absolute errors over the whole trace, and over those moments at which the
forecast's own backtest had found it better, which are those at which it is used.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bottleneck_operator.decide.scaling.forecast import (
    BACKTEST_SECONDS,
    STEP_SECONDS,
    forecast,
)

from .scaling_simulation import loads, read

KEPT = int(BACKTEST_SECONDS / STEP_SECONDS)


def rates(arrivals: list[float]) -> list[float]:
    """Requests per second for each step."""
    counts = [0] * (int(arrivals[-1] / STEP_SECONDS) + 1)
    for at in arrivals:
        counts[int(at / STEP_SECONDS)] += 1
    return [count / STEP_SECONDS for count in counts]


def compare(steps: list[float], ahead: int) -> tuple[float, float, float, float, float]:
    """Errors of the forecast and of persistence always, then both where the forecast was used, and
    the share of moments at which it was."""
    every: list[tuple[float, float, bool]] = []
    for end in range(1, len(steps) - ahead):
        told = forecast(steps[max(0, end - KEPT) : end], ahead)
        if told is not None:
            truth = steps[end - 1 + ahead]
            every.append((abs(told.value - truth), abs(steps[end - 1] - truth), told.better))
    used = [each for each in every if each[2]]

    def mean(figures: list[float]) -> float:
        return sum(figures) / len(figures) if figures else float("nan")

    return (
        mean([each[0] for each in every]),
        mean([each[1] for each in every]),
        mean([each[0] for each in used]),
        mean([each[1] for each in used]),
        len(used) / max(1, len(every)),
    )


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("traces", type=Path, nargs="*")
    every = {path.stem[:24]: read(path) for path in parser.parse_args().traces} | loads(1)
    print(f"{'load':26}{'ahead':>6}{'ours':>8}{'as now':>8}{'used':>8}{'as now':>8}{'share':>8}")
    for name, arrivals in every.items():
        for ahead in (3, 6):
            found = compare(rates(arrivals), ahead)
            figures = "".join(f"{figure:>8.2f}" for figure in found[:4])
            print(f"{name:26}{ahead * STEP_SECONDS:>5.0f}s{figures}{found[4]:>8.0%}")


if __name__ == "__main__":
    main()
