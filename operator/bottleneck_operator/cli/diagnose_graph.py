"""``kubectl bottleneck diagnose-graph``: which component of a pipeline is behind a symptom."""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections.abc import Iterator
from operator import itemgetter
from typing import TYPE_CHECKING

from .output import refuse

if TYPE_CHECKING:
    from ..diagnose.components import Key
    from ..diagnose.graph import GraphDiagnosis

DESCRIPTION = """\
Rank the components of a call graph by how far they explain a symptom, each against its
own baseline. Says that nothing is wrong when the symptom is as it is in health."""

EPILOG = """\
Files are CSV with a header; columns may stand in any order:
  topology            caller,callee
  baseline, incident  timestamp,component,metric,statistic,value
Timestamps are seconds. An empty value, NaN or an infinity is no data, never zero.
Exit codes: 0 judged (healthy or not), 2 input that cannot be read.

Example:
  kubectl bottleneck diagnose-graph --topology calls.csv --baseline yesterday.csv \\
    --incident now.csv --symptom frontend:latency -o json"""

TOPOLOGY = ("caller", "callee")
METRICS = ("timestamp", "component", "metric", "statistic", "value")


class InputError(ValueError):
    """A file or an argument that cannot be read; the message says what to write instead."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the subcommand to ``argparse``'s subparsers."""
    parser = subparsers.add_parser(
        "diagnose-graph",
        help="find the component behind a symptom in a call graph",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, text in (
        ("topology", "who calls whom"),
        ("baseline", "metrics of a healthy time, best of a day or more"),
        ("incident", "metrics of the time in question, best with some steps before it"),
    ):
        parser.add_argument(f"--{name}", required=True, metavar="FILE", help=text)
    parser.add_argument(
        "--symptom",
        required=True,
        metavar="COMPONENT:METRIC",
        help="what is wrong; the metric stands after the last colon",
    )
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the ranking."""
    # Imported here: numpy takes longer to import than the rest of the command line.
    from ..diagnose.graph import SymptomError, diagnose_graph

    try:
        symptom = _symptom(arguments.symptom)
        diagnosis = diagnose_graph(
            read_topology(arguments.topology),
            read_metrics(arguments.baseline),
            read_metrics(arguments.incident),
            symptom,
        )
    except (InputError, SymptomError) as error:
        refuse("diagnose-graph", error)
        return 2
    print(_json(diagnosis) if arguments.output == "json" else _harmless(_text(diagnosis)))
    return 0


def _harmless(text: str) -> str:
    """Names of components are other people's words."""
    from ..report.render.words import clean

    return "\n".join(map(clean, text.split("\n")))


def read_topology(path: str) -> list[tuple[str, str]]:
    """Pairs of caller and callee. Raises InputError."""
    edges = []
    for line, names in read_rows(path, TOPOLOGY):
        caller, callee = (name.strip() for name in names)
        if not caller or not callee:
            raise InputError(f"{path}, line {line}: name a caller and a callee")
        edges.append((caller, callee))
    return edges


def read_metrics(path: str) -> dict[Key, tuple[list[float], list[float]]]:
    """Timestamps and values by component, metric and statistic, as they stand in the file; missing
    values are left out. Raises InputError."""
    series: dict[Key, tuple[list[float], list[float]]] = {}
    as_written: dict[tuple[str, ...], tuple[list[float], list[float]]] = {}
    for line, (timestamp, *names, value) in read_rows(path, METRICS):
        written = tuple(names)
        if written not in as_written:  # cleaned and checked once a series: files can be large
            component, metric, statistic = (name.strip() for name in names)
            if not component or not metric:
                raise InputError(f"{path}, line {line}: name a component and a metric")
            key = component, metric, statistic
            as_written[written] = series.setdefault(key, ([], []))
        time = number(path, line, "timestamp", timestamp)
        if not math.isfinite(time):
            raise InputError(
                f"{path}, line {line}: timestamp {timestamp.strip() or '(empty)'} is no time;"
                " write seconds, as 1694001600"
            )
        figure = number(path, line, "value", value)
        if math.isfinite(figure):
            times, values = as_written[written]
            times.append(time)
            values.append(figure)
    if not series:
        raise InputError(f"{path} has a header and no rows: nothing can be compared")
    return series


def _symptom(text: str) -> tuple[str, str]:
    component, _, metric = text.rpartition(":")
    if not component or not metric:
        raise InputError(f"--symptom {text}: write COMPONENT:METRIC, as frontend:latency")
    return component, metric


def read_rows(path: str, columns: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The line number and the named columns of every row that is not empty. Raises InputError."""
    try:
        # utf-8-sig: spreadsheets write a byte order mark before the first column's name.
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            if not header:
                raise InputError(f"{path} is empty; its first line must be {','.join(columns)}")
            missing = [name for name in columns if name not in header]
            if missing:
                raise InputError(
                    f"{path} has no column {', '.join(missing)}; its first line must be"
                    f" {','.join(columns)}, found: {','.join(header)[:200]}"
                )
            pick = itemgetter(*(header.index(name) for name in columns))
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise InputError(
                        f"{path}, line {reader.line_num}: {len(row)} fields under"
                        f" {len(header)} columns; quote a field that contains a comma"
                    )
                yield reader.line_num, pick(row)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no CSV file in UTF-8: {error}") from error


def number(path: str, line: int, column: str, text: str) -> float:
    """The number, NaN for an empty field. Raises InputError."""
    try:
        return float(text) if text.strip() else math.nan
    except ValueError:
        raise InputError(
            f"{path}, line {line}: {column} {text[:40]!r} is no number;"
            " write one as 0.25, or nothing where it is missing"
        ) from None


def _json(diagnosis: GraphDiagnosis) -> str:
    ranking = [
        {
            "component": suspect.component,
            "metric": suspect.metric,
            "score": suspect.score,
            "evidence": [one.model_dump(by_alias=True) for one in suspect.evidence],
        }
        for suspect in diagnosis.ranking
    ]
    return json.dumps({"healthy": diagnosis.healthy, "ranking": ranking}, indent=2)


def _text(diagnosis: GraphDiagnosis) -> str:
    if diagnosis.healthy:
        return f"healthy: {diagnosis.reason}"
    lines = [diagnosis.reason, ""]
    wide = max(len(suspect.component) for suspect in diagnosis.ranking)
    metric = max(len(suspect.metric) for suspect in diagnosis.ranking)
    lines.append(f"{'':3} {'COMPONENT':{wide}}  {'METRIC':{metric}}  SCORE  WHY")
    for place, suspect in enumerate(diagnosis.ranking, 1):
        why = suspect.evidence[0]
        text = f"{why.statistic} {why.value:.4g} over {why.window}: {why.source}"
        name = f"{suspect.component:{wide}}  {suspect.metric:{metric}}"
        lines.append(f"{place:2}. {name}  {suspect.score:5.2f}  {text}")
    return "\n".join(lines)
