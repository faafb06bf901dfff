"""``kubectl bottleneck verify``."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from bottleneck_operator.cli.main import main

BEGIN, WIDTH, BEFORE, AFTER = 1_772_366_400, 60, 60, 15
ACTED = BEGIN + WIDTH * BEFORE
HEADER = "timestamp,replica,treated,value"


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def rows(
    change: float = 1.0, replicas: int = 4, treated: int = 2, time: Callable[[float], str] = str
) -> list[str]:
    rng = np.random.default_rng(1)
    found = []
    for place in range(BEFORE + AFTER):
        load = np.exp(np.sin(place / 9))
        for replica in range(replicas):
            value = load * np.exp(0.05 * rng.standard_normal())
            if replica < treated and place >= BEFORE:
                value *= change
            moment = time(BEGIN + WIDTH * place)
            found.append(f"{moment},pod-{replica},{int(replica < treated)},{value:.6f}")
    return found


def write(path: Path, lines: list[str], header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def verify(capsys: pytest.CaptureFixture[str], path: Path, *words: str) -> dict[str, object]:
    assert main(["verify", str(path), "-o", "json", "--acted-at", str(ACTED), *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


KEYS = ["verdict", "effect", "interval", "pValue", "n", "control", "reason"]


@pytest.mark.parametrize(
    ("change", "words", "verdict"),
    [
        (2.0, [], "Improved"),
        (2.0, ["--lower-is-better"], "Worse"),
        (0.5, ["--lower-is-better"], "Improved"),
        (1.0, [], "NoEffect"),
    ],
)
def test_the_verdict_as_json(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: float,
    words: list[str],
    verdict: str,
) -> None:
    found = verify(capsys, write(tmp_path / "a.csv", rows(change)), *words)
    assert list(found) == KEYS
    assert found["verdict"] == verdict
    assert found["n"] == AFTER
    assert found["control"] is True
    assert found["effect"] == pytest.approx(change - 1, abs=0.1)


def test_times_as_iso_8601_and_columns_in_any_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = verify(capsys, write(tmp_path / "a.csv", rows(2.0)))
    turned = [",".join(reversed(row.split(","))) for row in rows(2.0, time=iso)]
    other = write(tmp_path / "b.csv", turned, "value,treated,replica,timestamp")
    assert verify(capsys, other, "--acted-at", iso(ACTED)) == plain


def test_all_treated_is_no_control_and_missing_values_are_no_zeros(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [row.replace(",0,", ",1,") for row in rows()]
    assert verify(capsys, write(tmp_path / "a.csv", lines))["control"] is False
    gone = [row.rpartition(",")[0] + "," for row in rows()]
    found = verify(capsys, write(tmp_path / "b.csv", gone))
    assert (found["verdict"], found["effect"], found["interval"]) == ("NoData", None, None)


def test_warm_up_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.csv", rows(2.0))
    assert verify(capsys, path, "--warm-up", "300")["n"] == LEFT


LEFT = 8
"""Bins of the last look for which the ten that a warm-up of five leaves are enough."""


def test_a_folder_gives_a_line_for_each_file_and_goes_on_after_a_bad_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "b.csv", rows(2.0))
    write(tmp_path / "c.csv", rows(1.0))
    write(tmp_path / "a.csv", ["1,2"], "x,y")
    words = ["verify", str(tmp_path), "--acted-at", str(ACTED)]
    assert main([*words, "-o", "json"]) == 2
    shown = capsys.readouterr()
    lines = [json.loads(line) for line in shown.out.splitlines()]
    assert [line["file"] for line in lines] == ["b.csv", "c.csv"]
    assert [line["verdict"] for line in lines] == ["Improved", "NoEffect"]
    assert "a.csv" in shown.err
    assert HEADER in shown.err
    assert main(words) == 2
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["FILE", "VERDICT"]
    assert first.split()[:2] == ["b.csv", "Improved"]
    assert second.split()[:2] == ["c.csv", "NoEffect"]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("yesterday,a,1,2", "ISO 8601"),
        ("1,a,perhaps,2", "write 1 where"),
        ("1,,1,2", "name a replica"),
        ("1,a,1,much", "no number"),
        ("1,a,0,2", "no replica with treated 1"),
        ("1,a,1", "4 columns"),
    ],
)
def test_a_file_that_cannot_be_used_says_what_to_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, word: str
) -> None:
    path = write(tmp_path / "a.csv", [line])
    assert main(["verify", str(path), "--acted-at", "1"]) == 2
    shown = capsys.readouterr()
    assert word in shown.err
    assert not shown.out


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["--acted-at", "soon"], "ISO 8601"),
        (["--acted-at", "nan"], "is no time"),
        (["--acted-at", "1", "--warm-up", "-1"], "--warm-up"),
    ],
)
def test_arguments_that_cannot_be_used_say_what_to_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], word: str
) -> None:
    assert main(["verify", str(write(tmp_path / "a.csv", rows())), *words]) == 2
    assert word in capsys.readouterr().err


def test_a_file_or_folder_without_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for path, word in (
        (tmp_path / "empty", "no *.csv"),
        (tmp_path / "none.csv", "cannot be read"),
        (write(tmp_path / "a.csv", []), "no rows"),
    ):
        assert main(["verify", str(path), "--acted-at", "1"]) == 2
        assert word in capsys.readouterr().err
