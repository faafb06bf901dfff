"""Compares what the operator makes of running workloads with the best that there is.

make bench-tuning
python -m hack.bench.tuning --only serving --seconds 4
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .bench import Plan, run
from .figures import Result, document, table
from .overhead import measure
from .workloads import WORKLOADS, Tunable

OUT = Path("build/bench")
OVERHEAD_SECONDS = 60.0

EXAMPLES = """examples:
  python -m hack.bench.tuning                              every workload, and the SDK's cost
  python -m hack.bench.tuning --only serving-delay         one workload, or a part of the name
  python -m hack.bench.tuning --seconds 15 --rounds 4      longer, for a noisy machine
  python -m hack.bench.tuning --workloads-list             what there is, with the grids
"""


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    plan = Plan()
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench.tuning",
        description="Run real workloads, try every configuration of their knobs, then let the"
        " operator's own loop tune a fresh process, and print how close it came to the best."
        " docs/tuning.md tells how to add a workload.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", action="append", default=[], help="part of a workload's name; repeatable")
    add(
        "--seconds",
        type=float,
        default=plan.measure,
        help=f"of each measurement ({plan.measure:g})",
    )
    add("--rounds", type=int, default=plan.rounds, help=f"final comparisons ({plan.rounds})")
    add(
        "--tuning-seconds",
        type=float,
        default=plan.tuning,
        help=f"most that the operator gets for a workload ({plan.tuning:g})",
    )
    add("--no-overhead", action="store_true", help="leave the SDK's cost (a minute) out")
    add("--workloads-list", action="store_true", help="name the workloads, and run nothing")
    add("--out", type=Path, default=OUT, help=f"where everything goes ({OUT})")
    add("-o", "--output", choices=["text", "json"], default="text", help="what is printed (text)")
    args = parser.parse_args(words)
    if args.seconds < 2:
        parser.error("--seconds: write 2 or more; telemetry comes once a second")
    if args.rounds < 1:
        parser.error("--rounds: write 1 or more")
    return args


def chosen(only: Sequence[str]) -> list[Tunable]:
    """The workloads whose name holds one of these words; all without any."""
    return [work for work in WORKLOADS if not only or any(word in work.name for word in only)]


def say(text: str) -> None:
    """Progress, for whoever watches."""
    print(text, file=sys.stderr, flush=True)


def bench(
    works: Sequence[Tunable],
    plan: Plan,
    logs: Path,
    after: float,
    keep: Callable[[list[Result]], None],
) -> list[Result]:
    """Runs them one by one: two on one machine would disturb each other. ``after`` are the seconds
    that something else takes afterwards; ``keep`` gets what is there after each workload."""
    expected = [plan.expected(work) for work in works]
    begun = time.monotonic()
    results = []
    for number, work in enumerate(works):
        past = sum(expected[:number])
        pace = (time.monotonic() - begun) / past if past else 1.0
        left = sum(expected[number:]) * pace + after
        say(f"{number + 1} of {len(works)}, about {left / 60:.0f} min left: {work.name}")
        results.append(run(work, plan, logs, say))
        if results[-1].failure:
            say(f"  failed: {results[-1].failure}")
        keep(results)
    return results


def main(words: Sequence[str] | None = None) -> int:
    """The command. 0 when every workload has a figure, good or bad; 1 otherwise."""
    args = arguments(words)
    works = chosen(args.only)
    if not works:
        names = ", ".join(work.name for work in WORKLOADS)
        print(f"bench-tuning: --only: no such workload; there are {names}", file=sys.stderr)
        return 1
    if args.workloads_list:
        for work in works:
            grid = "; ".join(f"{k} {', '.join(map(str, v))}" for k, v in work.grid.items())
            print(f"{work.name:<22} {work.about}\n{'':<22} {grid}")
        return 0
    # The operator's log would be in between; what it does is told by its events.
    logging.getLogger("bottleneck_operator").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end what was started
    logs = (args.out / "logs").resolve()
    logs.mkdir(parents=True, exist_ok=True)
    plan = Plan(args.seconds, args.rounds, args.tuning_seconds)
    path = args.out / "tuning.json"

    def keep(results: list[Result], overhead: float | None = None) -> None:
        path.write_text(json.dumps(document(results, overhead), indent=2) + "\n")

    after = 0.0 if args.no_overhead else OVERHEAD_SECONDS
    results = bench(works, plan, logs, after, keep)
    overhead = None
    if not args.no_overhead:
        say("the SDK's cost, about 1 min left")
        overhead = measure()
    keep(results, overhead)
    figures = document(results, overhead)
    if args.output == "json":
        print(json.dumps(figures, indent=2))
    else:
        waits = figures["ackSeconds"]
        cost = "not measured" if overhead is None else f"{overhead:.2%} of a step of 10 ms"
        print("\n" + table(results))
        if waits["p50"] is not None:
            print(f"knobs in force after {waits['p50']} s (p50), {waits['max']} s (most)")
        print(f"SDK: {cost}", f"written to {path}", sep="\n")
    return 1 if any(result.failure for result in results) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("bench-tuning: stopped; nothing is left running", file=sys.stderr)
        os._exit(130)
