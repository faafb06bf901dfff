"""How often the judge and simpler rules are wrong where nothing was done, and how much they see.

make bench-placebo
python -m hack.bench.placebo --episodes 100
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bottleneck_operator.api.report import VerdictResult

from .episodes import RULES, episodes
from .noise import every

ROOT = Path(__file__).resolve().parents[3]
OUT = Path("build/bench/placebo.json")

EXAMPLES = """examples:
  python -m hack.bench.placebo --episodes 100      more of each series, for narrower intervals
  python -m hack.bench.placebo --after 30 -o json  with 30 bins after the action"""

TIMES = {"0": 1.0, "30%": 1.3, "2x": 2.0}
"""How many times better the changed replicas get; 1 is the placebo."""


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench.placebo",
        description="Take real and made series of several replicas, find moments at which an"
        " objective was breached, do nothing, and ask the judge; then with replicas that did get"
        " better. docs/verification.md explains the figures.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of real data")
    add("--episodes", type=int, default=40, help="of each series (%(default)s)")
    add("--after", type=int, default=15, help="bins after the action (%(default)s)")
    add("--seed", type=int, default=0, help="for the moments that are chosen (%(default)s)")
    add("--out", type=Path, default=OUT, help="where the figures go (%(default)s)")
    add("-o", "--output", choices=["text", "json"], default="text", help="what is printed")
    args = parser.parse_args(words)
    if args.episodes < 1:
        parser.error("--episodes: write 1 or more")
    if args.after < 8:
        parser.error("--after: write 8 or more; there is no verdict before")
    return args


def bench(args: argparse.Namespace) -> dict[str, Any]:
    """Counts by kind of series, rule and change."""
    counts: Counter[tuple[str, str, str, str]] = Counter()
    totals: Counter[str] = Counter()
    rng = np.random.default_rng(args.seed)
    sources = list(every(args.data, args.seed))
    begun = time.monotonic()
    for number, noise in enumerate(sources, 1):
        for episode in episodes(noise, args.episodes, args.after, rng):
            totals[noise.family] += 1
            for change, times in TIMES.items():
                changed = episode.changed(times)
                for name, rule in RULES.items():
                    counts[noise.family, name, change, str(rule(changed))] += 1
        left = (time.monotonic() - begun) / number * (len(sources) - number)
        print(f"{number} of {len(sources)}, about {left:.0f} s left", file=sys.stderr, flush=True)
    kinds = [_kind(family, totals[family], counts) for family in totals]
    real = {family for family in totals if not family.startswith("made")}
    for title, chosen in (("all real", real), ("all made", set(totals) - real)):
        merged: Counter[tuple[str, str, str, str]] = Counter()
        for (family, *rest), count in counts.items():
            if family in chosen:
                merged[(title, *rest)] += count  # type: ignore[index]
        if chosen:
            kinds.append(_kind(title, sum(totals[family] for family in chosen), merged))
    return {"after": args.after, "seed": args.seed, "kinds": kinds}


def _kind(family: str, total: int, counts: Counter[tuple[str, str, str, str]]) -> dict[str, Any]:
    def share(rule: str, change: str, result: VerdictResult) -> float:
        return round(counts[family, rule, change, str(result)] / total, 4)

    return {
        "kind": family,
        "episodes": total,
        "rules": {
            rule: {
                "falseImproved": share(rule, "0", VerdictResult.IMPROVED),
                "falseWorse": share(rule, "0", VerdictResult.WORSE),
                "power30": share(rule, "30%", VerdictResult.IMPROVED),
                "power2x": share(rule, "2x", VerdictResult.IMPROVED),
            }
            for rule in RULES
        },
    }


def table(found: dict[str, Any]) -> str:
    """For people: false Improved, false Worse, power at 30% and at 2x, in per cent."""
    lines = [
        "in %: false Improved / false Worse / power at 30% better / at twice as good",
        f"{'kind':18} {'episodes':>8}  " + "".join(f"{rule:>24}" for rule in RULES),
    ]
    for kind in found["kinds"]:
        cells = [
            " / ".join(f"{100 * figure:.{int(place < 2)}f}" for place, figure in enumerate(each))
            for each in (rule.values() for rule in kind["rules"].values())
        ]
        row = "".join(f"{cell:>24}" for cell in cells)
        lines.append(f"{kind['kind']:18} {kind['episodes']:8}  {row}")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """The command."""
    args = arguments(words)
    found = bench(args)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2) if args.output == "json" else table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
