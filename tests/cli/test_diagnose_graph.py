"""``kubectl bottleneck diagnose-graph`` from its files to its output."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from bottleneck_operator.cli.diagnose_graph import read_metrics
from bottleneck_operator.cli.main import main

STEP = 300
SLOW = "shop::db"
"""The component at fault; its name has colons, as names of clouds do."""
LATENCY = {"web": 0.05, "api": 0.02, SLOW: 0.01, "cache": 0.001}
METRICS = "timestamp,component,metric,statistic,value\n"


def rows(first: int, steps: int, added: float, slow: int) -> list[list[Any]]:
    """The chain web → api → db and api → cache; db is slow in the last ``slow`` steps."""
    table = []
    for step in range(first, first + steps):
        extra = added if step >= first + steps - slow else 0.0
        for place, (name, latency) in enumerate(LATENCY.items()):
            value = latency * (1 + 0.02 * math.sin(7 * step + place))
            value += extra if name != "cache" else 0.0
            table.append([step * STEP, name, "latency", "Average", f"{value:.6f}"])
            table.append([step * STEP, name, "requests", "Sum", 600 + step % 5])
    return table


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A healthy baseline, an incident, and the call graph."""
    paths = {name: tmp_path / f"{name}.csv" for name in ("topology", "baseline", "incident")}
    paths["topology"].write_text(f"caller,callee\nweb,api\napi,{SLOW}\napi,cache\n")
    write(paths["baseline"], rows(0, 288, 0.0, 0))
    write(paths["incident"], rows(300, 5, 0.04, 2))
    return paths


def write(path: Path, table: list[list[Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(METRICS.strip().split(","))
        writer.writerows(table)


def diagnose(files: dict[str, Path], symptom: str = "web:latency", *more: str) -> int:
    options = [text for name, path in files.items() for text in (f"--{name}", str(path))]
    return main(["diagnose-graph", *options, "--symptom", symptom, *more])


def test_the_ranking_as_json(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert diagnose(files, "web:latency", "-o", "json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == {"healthy", "ranking"}
    assert answer["healthy"] is False
    first = answer["ranking"][0]
    assert set(first) == {"component", "metric", "score", "evidence"}
    assert (first["component"], first["metric"]) == (SLOW, "latency")
    figure = first["evidence"][0]
    assert {"signal", "window", "statistic", "value", "threshold", "source"} <= set(figure)
    assert figure["value"] == pytest.approx(0.05, rel=0.05)


def test_the_ranking_as_a_table(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert diagnose(files) == 0
    reason, _, head, first, *_ = capsys.readouterr().out.splitlines()
    assert reason == "web:latency is out of its baseline for 600s"
    assert head.split() == ["COMPONENT", "METRIC", "SCORE", "WHY"]
    assert first.startswith(f" 1. {SLOW}")


def test_healthy(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    write(files["incident"], rows(300, 5, 0.0, 0))
    assert diagnose(files, "web:latency", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == {"healthy": True, "ranking": []}
    assert diagnose(files) == 0
    assert capsys.readouterr().out == "healthy: web:latency is within its baseline\n"


def test_the_metric_stands_after_the_last_colon(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert diagnose(files, f"{SLOW}:latency", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["ranking"][0]["component"] == SLOW


def test_order_of_rows_and_columns_does_not_matter(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    diagnose(files, "web:latency", "-o", "json")
    as_is = json.loads(capsys.readouterr().out)
    for name in ("baseline", "incident"):
        lines = list(csv.reader(files[name].open()))
        turned = [[*reversed(line), "extra"] for line in [lines[0], *reversed(lines[1:])]]
        with files[name].open("w", encoding="utf-8-sig", newline="") as file:
            csv.writer(file).writerows(turned)
    diagnose(files, "web:latency", "-o", "json")
    assert json.loads(capsys.readouterr().out) == as_is


def test_missing_values_are_no_data(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    fields = ["0.5", "", "NaN", "inf", "-Infinity", "0"]
    path.write_text(METRICS + "".join(f"{t},a,latency,p50,{v}\n" for t, v in enumerate(fields)))
    assert read_metrics(str(path)) == {("a", "latency", "p50"): ([0.0, 5.0], [0.5, 0.0])}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("incident", "", "is empty; its first line must be timestamp,component,metric"),
        ("incident", METRICS, "has a header and no rows"),
        ("baseline", "timestamp,component,metric,value\n1,a,b,2\n", "has no column statistic"),
        ("topology", "from,to\na,b\n", "has no column caller, callee"),
        ("topology", "caller,callee\nweb,\n", "line 2: name a caller and a callee"),
        ("incident", METRICS + "1,web,latency,p50,fast\n", "line 2: value 'fast' is no number"),
        ("incident", METRICS + "noon,web,latency,p50,1\n", "timestamp 'noon' is no number"),
        ("incident", METRICS + ",web,latency,p50,1\n", "timestamp (empty) is no time"),
        ("incident", METRICS + "1,,latency,p50,1\n", "line 2: name a component and a metric"),
        ("incident", METRICS + "1,web,latency,p50\n", "line 2: 4 fields under 5 columns"),
        ("incident", METRICS + '1,"web"x,latency,p50,1\n', "is no CSV file in UTF-8"),
        ("incident", METRICS + "1,web,\udcff,p50,1\n", "is no CSV file in UTF-8"),
        ("incident", None, "cannot be read: No such file"),
    ],
)
def test_bad_files_are_told_and_how_to_mend_them(
    files: dict[str, Path],
    name: str,
    content: str | None,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files[name].unlink()
    if content is not None:
        files[name].write_bytes(content.encode(errors="surrogateescape"))
    assert diagnose(files) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert str(files[name]) in printed.err
    assert message in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("symptom", "message"),
    [
        ("web", "write COMPONENT:METRIC"),
        ("web:", "write COMPONENT:METRIC"),
        (":latency", "write COMPONENT:METRIC"),
        ("wbe:latency", "did you mean web?"),
        ("web:latencies", "it has: latency, requests"),
    ],
)
def test_a_symptom_that_is_not_there(
    files: dict[str, Path], symptom: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert diagnose(files, symptom) == 2
    assert message in capsys.readouterr().err


def test_help_ends_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["diagnose-graph", "--help"])
    assert stopped.value.code == 0
    *_, before, last = capsys.readouterr().out.rstrip().splitlines()
    assert before.strip().startswith("kubectl bottleneck diagnose-graph")
    assert "--symptom frontend:latency" in last
