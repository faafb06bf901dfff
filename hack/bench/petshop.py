"""Measures ``diagnose-graph`` on PetShop, a real application under injected faults."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bottleneck_operator.diagnose.graph import SymptomError, diagnose_graph
from bottleneck_operator.diagnose.parameters import DEFAULT, Parameters

from . import leave_one_out
from .leave_one_out import Label, Trial
from .petshop_data import Incident, Scenario, Window, read, windows, write_long
from .ranks import rank_of, share, told, within

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTION = """\
AC@k: the share of incidents whose true cause is among the first k components; an incident that is
taken for healthy counts as a miss. Silent: the share of healthy windows, as long as an incident and
cut out of noissue with the rest of it as the baseline, in which nothing is blamed.

The method was chosen with these incidents in view: read the figures as those of a training set.
--leave-one-out scores every incident with numbers that were chosen on the others alone."""

EPILOG = """\
Examples:
  python -m hack.bench.petshop ../shared/data/petshop --stride 20
  python -m hack.bench.petshop ../shared/data/petshop --stride 20 --leave-one-out
  python -m hack.bench.petshop ../shared/data/petshop --long build/petshop   # files for the CLI"""

Row = dict[str, Any]

ONLY_WHOM = ("calls_slack", "unknown_calls", "kept", "handed", "rarity", "elsewhere")
"""Parameters that matter to whom is blamed, and not to whether anything is wrong."""


def main(argv: list[str] | None = None) -> int:
    """Prints the figures and writes them to build/bench/petshop.json."""
    options = arguments(argv)
    folders = sorted(path.parent for path in options.data.glob("*/graph.csv"))
    if not folders:
        print(f"{options.data} has no */graph.csv: give the folder of PetShop", file=sys.stderr)
        return 2
    scenarios = [read(folder) for folder in folders]
    if options.long:
        for scenario in scenarios:
            write_long(scenario, options.long / scenario.name)
        return 0
    healthy = [window for scenario in scenarios for window in windows(scenario, options.stride)]
    rows = [incident_row(scenario, one) for scenario in scenarios for one in scenario.incidents]
    quiet = [window_row(window) for window in told(healthy, len(healthy), "healthy windows")]
    result: Row = {"summary": summary(rows, quiet), "incidents": rows, "healthyWindows": quiet}
    printed = result["summary"]
    if options.leave_one_out:
        trials = try_all(scenarios, healthy, leave_one_out.grid())
        result["leaveOneOut"] = leave_one_out.report(trials)
        printed = {key: result[key] for key in ("summary", "leaveOneOut")}
    options.write.parent.mkdir(parents=True, exist_ok=True)
    options.write.write_text(json.dumps(result, indent=1) + "\n")
    if options.output == "json":
        print(json.dumps(printed, indent=2))
        return 0
    print_tables(rows, result["summary"])
    if options.leave_one_out:
        print("\n" + leave_one_out.text(result["leaveOneOut"]))
    return 0


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench.petshop",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    default = ROOT.parent / "shared" / "data" / "petshop"
    add("data", nargs="?", type=Path, default=default, help="folder of PetShop")
    add("-o", "--output", choices=["text", "json"], default="text")
    add("--stride", type=int, default=5, help="steps between healthy windows (5)")
    add("--leave-one-out", action="store_true", help="choose the parameters anew for each incident,"
        " without it; minutes")  # fmt: skip
    add("--long", type=Path, metavar="FOLDER", help="only write the files as the command line reads"
        " them")  # fmt: skip
    add("--write", type=Path, default=ROOT / "build" / "bench" / "petshop.json", metavar="FILE")
    options = parser.parse_args(argv)
    if options.stride < 1:
        parser.error("--stride: write 1 or more")
    return options


def incident_row(scenario: Scenario, one: Incident, parameters: Parameters = DEFAULT) -> Row:
    """What is made of a training incident."""
    row: Row = {
        "scenario": scenario.name,
        "incident": one.name,
        "symptom": ":".join(one.symptom),
        "truth": one.truth,
    }
    try:
        found = diagnose_graph(
            scenario.topology, scenario.healthy, one.metrics, one.symptom, parameters
        )
    except SymptomError as error:
        return row | {"rank": None, "silent": True, "first": [], "reason": str(error)}
    return row | {
        "rank": rank_of(one.truth, found),
        "silent": found.healthy,
        "first": [suspect.component for suspect in found.ranking[:3]],
        "reason": found.reason,
    }


def window_row(window: Window) -> Row:
    """What is made of a healthy window."""
    found = diagnose_graph(window.scenario.topology, *window.cut(), window.symptom)
    return {
        "scenario": window.scenario.name,
        "symptom": ":".join(window.symptom),
        "start": window.times[0],
        "silent": found.healthy,
    }


def try_all(
    scenarios: Sequence[Scenario], healthy: Sequence[Window], sets: dict[str, Parameters]
) -> list[Trial]:
    """Every incident and every healthy window with every set of parameters."""
    cases = [(scenario, one) for scenario in scenarios for one in scenario.incidents]
    whom = {key: getattr(DEFAULT, key) for key in ONLY_WHOM}
    same = {name: replace(parameters, **whom) for name, parameters in sets.items()}
    few = list(dict.fromkeys(same.values()))
    ranks: dict[str, dict[Label, int | None]] = {name: {} for name in sets}
    silent: dict[Parameters, dict[str, list[bool]]] = {one: {} for one in few}
    with ProcessPoolExecutor() as pool:
        every = pool.map(partial(_ranks, list(sets.values())), cases)
        what = f"incidents, with {len(sets)} sets of parameters each"
        for (scenario, one), found in zip(cases, told(every, len(cases), what), strict=True):
            label = Label(scenario.name, ":".join(one.symptom), one.name)
            for name, rank in zip(sets, found, strict=True):
                ranks[name][label] = rank
        answers = pool.map(partial(_silent, few), healthy)
        what = f"healthy windows, with {len(few)} sets of parameters each"
        for window, quiet in zip(healthy, told(answers, len(healthy), what), strict=True):
            for parameters, answer in zip(few, quiet, strict=True):
                silent[parameters].setdefault(window.scenario.name, []).append(answer)
    return [
        Trial(name, ranks[name], {where: share(some) for where, some in silent[one].items()})
        for name, one in same.items()
    ]


def _ranks(sets: Sequence[Parameters], case: tuple[Scenario, Incident]) -> list[int | None]:
    return [incident_row(*case, parameters)["rank"] for parameters in sets]


def _silent(sets: Sequence[Parameters], window: Window) -> list[bool]:
    topology, (rest, inside) = window.scenario.topology, window.cut()
    return [
        diagnose_graph(topology, rest, inside, window.symptom, parameters).healthy
        for parameters in sets
    ]


def summary(rows: list[Row], quiet: list[Row]) -> list[Row]:
    """The figures by scenario and symptom, and over all."""
    groups = sorted({(row["scenario"], row["symptom"]) for row in rows})
    table = []
    for group in [*groups, ("all", "all")]:
        mine, calm = (
            [row for row in some if group[0] == "all" or (row["scenario"], row["symptom"]) == group]
            for some in (rows, quiet)
        )
        ranks = [row["rank"] for row in mine]
        table.append(
            {
                "scenario": group[0],
                "symptom": group[1],
                "incidents": len(mine),
                "AC@1": within(ranks, 1),
                "AC@3": within(ranks, 3),
                "healthyWindows": len(calm),
                "silent": share([row["silent"] for row in calm]),
            }
        )
    return table


def print_tables(rows: list[Row], table: list[Row]) -> None:
    """For people: every incident, then the figures."""
    for row in rows:
        rank = row["rank"] or ("silent" if row["silent"] else "-")
        print(f"{row['scenario']:14} {row['incident']:9} {row['symptom']:22} cause ranked {rank}")
    print(f"\n{'':14} {'symptom':22} incidents  AC@1  AC@3  healthy windows  silent")
    for line in table:
        print(
            f"{line['scenario']:14} {line['symptom']:22} {line['incidents']:9}  {line['AC@1']:4.2f}"
            f"  {line['AC@3']:4.2f}  {line['healthyWindows']:15}  {line['silent']:6.2f}"
        )


if __name__ == "__main__":
    sys.exit(main())
