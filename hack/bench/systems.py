"""Measures ``diagnose-graph`` on made-up systems with one known fault each."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .made_up import DAY, System
from .ranks import rank_of, share, told, within

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTION = """\
Each system has a random call graph of 10 to 50 components, a day of healthy figures, and then an
incident of 5 to 12 steps of five minutes. It is diagnosed twice: while it is healthy, and with one
slow, failing or busy component (the kinds in turn) anywhere in the graph, for three steps or more.

AC@k: the share of systems whose faulty component is among the first k; one that is taken for
healthy counts as a miss. Silent: the share of healthy systems in which nothing is blamed."""

EPILOG = """\
Examples:
  python -m hack.bench.systems                         # 150 systems, half a minute
  python -m hack.bench.systems --seed 7 --systems 30   # others"""

Row = dict[str, Any]

SYMPTOMS = {"slow": "latency", "failing": "availability", "busy": "latency"}
SLOWER = (0.15, 0.6)
"""By which share of the entry's latency it rises."""
FAILING = (0.02, 0.2)
"""Which share of the entry's requests fails, more or less."""


def main(argv: list[str] | None = None) -> int:
    """Prints the figures and writes them to build/bench/systems.json."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench.systems",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("-o", "--output", choices=["text", "json"], default="text")
    add("--seed", type=int, default=1, help="of the first system; the next has the next (1)")
    add("--systems", type=int, default=150, help="how many (150)")
    add("--write", type=Path, default=ROOT / "build" / "bench" / "systems.json", metavar="FILE")
    options = parser.parse_args(argv)
    if options.seed < 0 or options.systems < 1:
        parser.error("--seed: write 0 or more, --systems: 1 or more")
    seeds = range(options.seed, options.seed + options.systems)
    rows = [one(seed) for seed in told(seeds, len(seeds), "systems")]
    result = {"summary": summary(rows), "systems": rows}
    options.write.parent.mkdir(parents=True, exist_ok=True)
    options.write.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["summary"], indent=2) if options.output == "json" else table(rows))
    return 0


def one(seed: int) -> Row:
    """One system, healthy and then with its fault."""
    kind = list(SYMPTOMS)[seed % len(SYMPTOMS)]
    # Another stream than the system's own, so that its faults are not tied to its graph.
    rng = np.random.default_rng([seed, 1])
    steps = int(rng.integers(5, 13))
    system = System(seed, steps=steps)
    first = int(rng.integers(0, steps - 2))
    rows = slice(DAY + first, DAY + int(rng.integers(first + 3, steps + 1)))
    strength = float(rng.uniform(*(FAILING if kind == "failing" else SLOWER)))
    places = [int(place) for place in rng.permutation(system.size)]
    quiet = system.diagnose(SYMPTOMS[kind])
    if kind == "failing":
        # A fault that the entry cannot feel is no incident; the entry itself always can.
        cause = next(place for place in places if system.reach(place) >= strength)
        system.break_(cause, strength / system.reach(cause), rows)
    else:
        cause = places[0]
        (system.slow if kind == "slow" else system.busy)(cause, strength, rows)
    found = system.diagnose(SYMPTOMS[kind])
    return {
        "seed": seed,
        "kind": kind,
        "components": system.size,
        "depth": system.depth(cause),
        "strength": round(strength, 3),
        "steps": [rows.start - DAY, rows.stop - DAY, steps],
        "truth": f"s{cause}",
        "rank": rank_of(f"s{cause}", found),
        "first": [suspect.component for suspect in found.ranking[:3]],
        "healthySilent": quiet.healthy,
    }


def summary(rows: Sequence[Row]) -> list[Row]:
    """The figures by kind of fault, and over all."""
    lines = []
    for kind in [*SYMPTOMS, "all"]:
        mine = [row for row in rows if kind in ("all", row["kind"])]
        ranks = [row["rank"] for row in mine]
        lines.append(
            {
                "kind": kind,
                "systems": len(mine),
                "AC@1": within(ranks, 1),
                "AC@3": within(ranks, 3),
                "silent": share([row["healthySilent"] for row in mine]),
            }
        )
    return lines


def table(rows: Sequence[Row]) -> str:
    """For people: what went wrong, then the figures."""
    lines = []
    for row in rows:
        if row["rank"] != 1:
            rank = row["rank"] or ("not ranked" if row["first"] else "silent")
            lines.append(
                f"seed {row['seed']}: {row['truth']} is {row['kind']} at depth {row['depth']}"
                f" of {row['components']} components, rank {rank}"
            )
        if not row["healthySilent"]:
            lines.append(f"seed {row['seed']}: not silent while healthy")
    lines.append(f"\n{'fault':8} systems  AC@1  AC@3  silent")
    lines += [
        f"{line['kind']:8} {line['systems']:7}  {line['AC@1']:4.2f}  {line['AC@3']:4.2f}"
        f"  {line['silent']:6.2f}"
        for line in summary(rows)
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
