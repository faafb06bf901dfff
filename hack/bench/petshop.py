"""Measures ``diagnose-graph`` on PetShop, a real application under injected faults.

Data: amazon-science/petshop-root-cause-analysis, CC-BY 4.0 (Hardt et al., "The PetShop Dataset —
Finding Causes of Performance Issues across Microservices", CLeaR 2024).
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bottleneck_operator.diagnose.components import Key
from bottleneck_operator.diagnose.graph import SymptomError, diagnose_graph

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTION = """\
AC@k: the share of incidents whose true cause is among the first k components; an incident that is
taken for healthy counts as a miss. Silent: the share of healthy windows, as long as an incident and
cut out of noissue with the rest of it as the baseline, in which nothing is blamed.

No number in the method is fitted to an incident, so there is no fold to refit. The method was
chosen with these incidents in view, though: read the figures as those of a training set."""

EPILOG = """\
Examples:
  python hack/bench/petshop.py ../shared/data/petshop
  python hack/bench/petshop.py ../shared/data/petshop --long build/petshop   # files for the CLI"""

Metrics = dict[Key, tuple[list[float], list[float]]]


@dataclass(frozen=True)
class Incident:
    """One injected fault: what was noticed, and which component it was injected into."""

    name: str
    symptom: tuple[str, str]
    truth: str
    metrics: Metrics


def main(argv: list[str] | None = None) -> int:
    """Prints the figures and writes them to build/bench/petshop.json."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = ROOT.parent / "shared" / "data" / "petshop"
    parser.add_argument("data", nargs="?", type=Path, default=default, help="folder of PetShop")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    parser.add_argument("--stride", type=int, default=5, help="steps between healthy windows (5)")
    parser.add_argument("--long", type=Path, metavar="FOLDER", help="only write the files as the"
                        " command line reads them")  # fmt: skip
    parser.add_argument(
        "--write", type=Path, default=ROOT / "build" / "bench" / "petshop.json", metavar="FILE"
    )
    options = parser.parse_args(argv)
    scenarios = sorted(path.parent for path in options.data.glob("*/graph.csv"))
    if not scenarios:
        print(f"{options.data} has no */graph.csv: give the folder of PetShop", file=sys.stderr)
        return 2
    if options.long:
        for folder in scenarios:
            write_long(folder, options.long / folder.name)
        return 0
    rows = [row for folder in scenarios for row in incidents_of(folder)]
    windows = [row for folder in scenarios for row in windows_of(folder, options.stride)]
    result = {"summary": summary(rows, windows), "incidents": rows, "healthyWindows": windows}
    options.write.parent.mkdir(parents=True, exist_ok=True)
    options.write.write_text(json.dumps(result, indent=1) + "\n")
    if options.output == "json":
        print(json.dumps(result["summary"], indent=2))
    else:
        print_tables(rows, result["summary"])
    return 0


def incidents_of(folder: Path) -> list[dict[str, object]]:
    """One row for each training incident of a scenario."""
    topology, baseline = read_graph(folder / "graph.csv"), read_metrics(folder / "noissue")
    rows: list[dict[str, object]] = []
    for one in read_incidents(folder):
        try:
            found = diagnose_graph(topology, baseline, one.metrics, one.symptom)
            order, reason = [suspect.component for suspect in found.ranking], found.reason
        except SymptomError as error:
            order, reason = [], str(error)
        rows.append(
            {
                "scenario": folder.name,
                "incident": one.name,
                "symptom": ":".join(one.symptom),
                "truth": one.truth,
                "rank": order.index(one.truth) + 1 if one.truth in order else None,
                "silent": not order,
                "first": order[:3],
                "reason": reason,
            }
        )
    return rows


def windows_of(folder: Path, stride: int) -> list[dict[str, object]]:
    """One row for each healthy window and symptom of a scenario."""
    topology, healthy = read_graph(folder / "graph.csv"), read_metrics(folder / "noissue")
    incidents = read_incidents(folder)
    steps = max(len({t for times, _ in one.metrics.values() for t in times}) for one in incidents)
    times = sorted({t for all_of, _ in healthy.values() for t in all_of})
    rows: list[dict[str, object]] = []
    for symptom in sorted({one.symptom for one in incidents}):
        for start in range(0, len(times) - steps + 1, stride):
            inside = set(times[start : start + steps])
            window = {key: cut(series, inside, True) for key, series in healthy.items()}
            rest = {key: cut(series, inside, False) for key, series in healthy.items()}
            found = diagnose_graph(topology, rest, window, symptom)
            rows.append(
                {
                    "scenario": folder.name,
                    "symptom": ":".join(symptom),
                    "start": times[start],
                    "silent": found.healthy,
                }
            )
    return rows


def summary(
    rows: list[dict[str, object]], windows: list[dict[str, object]]
) -> list[dict[str, object]]:
    """The figures by scenario and symptom, and over all."""
    groups = sorted({(str(row["scenario"]), str(row["symptom"])) for row in rows})
    table = []
    for scenario, symptom in [*groups, ("all", "all")]:
        mine, quiet = (
            [
                row
                for row in some
                if scenario == "all" or (row["scenario"], row["symptom"]) == (scenario, symptom)
            ]
            for some in (rows, windows)
        )
        table.append(
            {
                "scenario": scenario,
                "symptom": symptom,
                "incidents": len(mine),
                "AC@1": share(mine, 1),
                "AC@3": share(mine, 3),
                "healthyWindows": len(quiet),
                "silent": round(sum(bool(row["silent"]) for row in quiet) / len(quiet), 3),
            }
        )
    return table


def share(rows: list[dict[str, object]], most: int) -> float:
    """The share of incidents whose cause has at most this rank."""
    ranks = [row["rank"] for row in rows]
    return round(sum(isinstance(rank, int) and rank <= most for rank in ranks) / len(rows), 3)


def print_tables(rows: list[dict[str, object]], table: list[dict[str, object]]) -> None:
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


def read_incidents(folder: Path) -> list[Incident]:
    """The training incidents of a scenario."""
    found = []
    for path in sorted(folder.glob("train/*/target.json")):
        truth = json.loads(path.read_text())
        symptom = (truth["target"]["node"], truth["target"]["metric"])
        cause = truth["root_cause"]["node"]
        found.append(Incident(path.parent.name, symptom, cause, read_metrics(path.parent)))
    return found


def read_graph(path: Path) -> list[tuple[str, str]]:
    """The adjacency matrix as pairs of caller (row) and callee (column)."""
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    return [
        (row[0], callee)
        for row in rows
        for callee, cell in zip(header[1:], row[1:], strict=True)
        if float(cell)
    ]


def read_metrics(folder: Path) -> Metrics:
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


def cut(
    series: tuple[list[float], list[float]], times: set[float], inside: bool
) -> tuple[list[float], list[float]]:
    """The samples at these times, or all others."""
    kept = [(t, v) for t, v in zip(*series, strict=True) if (t in times) is inside]
    return [t for t, _ in kept], [v for _, v in kept]


def write_long(folder: Path, into: Path) -> None:
    """One scenario as the command line reads it."""
    into.mkdir(parents=True, exist_ok=True)
    write(into / "topology.csv", ("caller", "callee"), iter(read_graph(folder / "graph.csv")))
    write_metrics(into / "baseline.csv", read_metrics(folder / "noissue"))
    for one in read_incidents(folder):
        write_metrics(into / f"{one.name}.csv", one.metrics)


def write_metrics(path: Path, metrics: Metrics) -> None:
    """The long form: one sample a line."""
    samples = (
        (f"{time:.0f}", *key, repr(value))
        for key, series in metrics.items()
        for time, value in zip(*series, strict=True)
    )
    write(path, ("timestamp", "component", "metric", "statistic", "value"), samples)


def write(path: Path, header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> None:
    """A CSV file."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
