"""Does the operator harm and checks what it does then.

make chaos SEED=1 ROUNDS=50
make chaos SEED=7 ROUND=132
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

from . import run

FOLDER = Path("build/chaos")


def main() -> int:
    """The command line; 1 when anything was violated."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.chaos",
        description="Play rounds of faults against a real operator process and a real API server,"
        " and check after each what was done to the cluster (docs/chaos.md). Needs root.",
        epilog=f"Logs of rounds with a violation are kept in {FOLDER}.",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20, help="how many, from --first on (20)")
    parser.add_argument("--first", type=int, default=0, help="number of the first one (0)")
    parser.add_argument("--round", type=int, help="only this one: plays it again")
    name = f"chaos-{os.getpid()}"
    parser.add_argument("--cluster", default=name, help="one that runs is used and left running")
    parser.add_argument("--without", default="", help="switch a safeguard off (see sabotage.py)")
    parsed = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    numbers = range(parsed.first, parsed.first + parsed.rounds)
    if parsed.round is not None:
        numbers = range(parsed.round, parsed.round + 1)
    return asyncio.run(_play(parsed, numbers))


async def _play(parsed: argparse.Namespace, numbers: range) -> int:
    outcomes: list[run.Outcome] = []
    async with run.world(parsed.cluster, FOLDER) as world:
        for number in numbers:
            outcome = await world.round(parsed.seed, number, without=parsed.without)
            outcomes.append(outcome)
            print(run.line(parsed.seed, outcome), flush=True)
            run.write(run.document(parsed.seed, outcomes))
    result = run.document(parsed.seed, outcomes)
    print(run.table(result))
    print(f"written to {run.OUT}")
    return 1 if result["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
