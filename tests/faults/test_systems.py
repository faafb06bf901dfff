"""The made-up systems of the benchmark: the same seed, the same fault, and one that is felt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hack.bench.made_up import System
from hack.bench.systems import main, one


def test_a_seed_makes_the_same_system() -> None:
    assert System(3).metrics() == System(3).metrics()
    assert one(3) == one(3)


@pytest.mark.parametrize("component", [0, 3, 9])
def test_a_fault_reaches_the_entry_as_strongly_as_it_says(component: int) -> None:
    slow, broken, healthy = (System(4, components=10) for _ in range(3))
    slow.slow(component, 0.4)
    reach = broken.reach(component)
    broken.break_(component, 0.1 / reach)
    key = ("s0", "latency", "Average")
    rise = slow.metrics(0.0)[1][key][1][2] / healthy.metrics(0.0)[1][key][1][2] - 1
    assert rise == pytest.approx(0.4, abs=0.06)
    key = ("s0", "availability", "Average")
    lost = healthy.metrics(0.0)[1][key][1][2] - broken.metrics(0.0)[1][key][1][2]
    assert lost == pytest.approx(10, abs=2)


def test_the_figures_are_printed_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "systems.json"
    assert main(["--systems", "3", "-o", "json", "--write", str(file)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [line["kind"] for line in printed] == ["slow", "failing", "busy", "all"]
    assert [line["systems"] for line in printed] == [1, 1, 1, 3]
    written = json.loads(file.read_text())
    assert written["summary"] == printed
    assert [row["seed"] for row in written["systems"]] == [1, 2, 3]
