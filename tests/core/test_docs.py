"""What people read about causes and signals is what the engine does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bottleneck_operator.diagnose.catalogue import CATALOGUE
from bottleneck_operator.diagnose.docs import document, main
from bottleneck_operator.observe.windows import observe
from bottleneck_sidecar.wire import Container, WireError, decode_sample, encode

from .builders import NOW, history, rank, sample, server
from .test_diagnose import DERIVED, FIXED_REPLICAS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_causes_is_the_one_that_the_catalogue_gives() -> None:
    assert (DOCS / "causes.md").read_text() == document(), "run: make generate"


def test_the_page_tells_every_cause_with_its_thresholds_and_advice() -> None:
    page = document()
    for entry in CATALOGUE:
        assert f"## {entry.id}\n" in page
        assert entry.title in page
        assert entry.advice in page
        for predicate in entry.predicates:
            assert f"`{predicate.signal}`" in page
            assert predicate.source in page


def test_a_page_that_differs_is_shown_and_fails_the_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "causes.md"
    assert main([str(page), "--check"]) == 1
    assert "make generate" in capsys.readouterr().err
    assert not page.exists()
    assert main([str(page)]) == 0
    assert main([str(page), "--check"]) == 0
    page.write_text(page.read_text() + "more\n")
    assert main([str(page), "--check"]) == 1
    assert "-more" in capsys.readouterr().out


def test_the_page_of_signals_names_exactly_those_that_there_are() -> None:
    def lines(kind: str) -> list[object]:
        found: list[object] = []
        for i in range(11):
            container = Container(
                cpu_seconds=1.0 * i,
                cpu_limit_cores=2.0,
                periods=10 * i,
                throttled_periods=0,
                memory_bytes=1,
                memory_limit_bytes=2,
                oom_kills=0,
                cpu_pressure_seconds=0.0,
                memory_pressure_seconds=0.0,
                io_pressure_seconds=0.0,
            )
            busy = {"queue_seconds": 0.1 * i, "service_seconds": 0.1 * i, "concurrency": 1}
            process = (
                rank("e0", i, NOW - 10 + i, knobs={"dataLoader.workers": 0})
                if kind == "training"
                else server("s0", [0.1] * 2 * i, **busy)
            )
            found.append(sample(NOW - 10 + i, i, process, container))
        return found

    known = set(FIXED_REPLICAS) | DERIVED
    for kind in ("training", "inference"):
        pod = history(*lines(kind))  # type: ignore[arg-type]
        known |= set(observe({"pod-0": pod}, ["pod-0"], NOW).signals)
    named = set(re.findall(r"^\| `([\w.]+)` \|", (DOCS / "signals.md").read_text(), re.M))
    assert named == known


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "-Infinity", "1e999", "-1"])
def test_no_figure_that_is_not_a_number_gets_past_the_wire(bad: str) -> None:
    good = encode(sample(NOW, 1, rank("e0", 10, NOW, step_seconds=7.5)))
    assert decode_sample(good).training[0].step_seconds == 7.5
    with pytest.raises(WireError, match="step_seconds"):
        decode_sample(good.replace(b":7.5", b":" + bad.encode()))
