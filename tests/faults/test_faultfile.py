"""The format of a fault: what can be written, and what is said about what cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from bottleneck_operator.diagnose.catalogue import CATALOGUE

from hack.bench.faultfile import HEALTHY, FaultError, Kind, plan

SUITE = Path(__file__).parent / "suite"

FAULT = """
truth: cpu-throttled
workload: {type: training, model: [cnn, mlp], options: {workers: 1}}
inject: {options: {batch: 8}}
strengths:
  mild: {inject.cpuQuotaCores: 0.5}
  strong: {inject.cpuQuotaCores: 0.2, workload.options.workers: 0}
"""


def write(folder: Path, text: str, name: str = "fault.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_run_for_each_strength_model_and_seed(tmp_path: Path) -> None:
    write(tmp_path, FAULT)
    runs = plan(tmp_path, range(2), everything=True)
    assert len({run.id for run in runs}) == len(runs) == 8
    strong = [run for run in runs if run.strength == "strong"]
    assert {run.fault.inject.cpu_quota_cores for run in strong} == {0.2}
    assert all(run.options == {"workers": 0, "batch": 8} for run in strong)
    mild = next(run for run in runs if run.strength == "mild")
    assert mild.options == {"workers": 1, "batch": 8}, "a strength changes no other"


def test_each_strength_gets_another_model_with_each_seed(tmp_path: Path) -> None:
    write(tmp_path, FAULT)
    runs = plan(tmp_path, range(2))
    assert [(run.strength, run.model, run.seed) for run in runs] == [
        ("mild", "cnn", 0),
        ("mild", "mlp", 1),
        ("strong", "mlp", 0),
        ("strong", "cnn", 1),
    ]


def test_only_what_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path, FAULT)
    write(tmp_path, FAULT.replace("cpu-throttled", HEALTHY), "other.yaml")
    assert {run.fault.truth for run in plan(tmp_path, [0], ["cpu-throttled"])} == {"cpu-throttled"}
    assert {run.strength for run in plan(tmp_path, [0], ["_strong_"])} == {"strong"}
    with pytest.raises(FaultError, match="--list"):
        plan(tmp_path, [0], ["nonsense"])


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("truth: cpu-throttled", "", "truth: missing"),
        ("inject.cpuQuotaCores: 0.5", "inject.cpuQuota: 0.5", "there are .*cpuQuotaCores"),
        ("inject.cpuQuotaCores: 0.5", "inject.memoryLimit: 5 apples", '"64Mi"'),
        ("model: [cnn, mlp], ", "", "write workload.model"),
        ("type: training", "type: serving", "write load"),
        ("type: training", "type: cooking", "'training' or 'serving'"),
        ("mild: {inject.cpuQuotaCores: 0.5}", "mild: 3", "write what it changes"),
        ("inject.cpuQuotaCores: 0.5", "seconds: 2", "greater than or equal to 6"),
        ("inject.cpuQuotaCores: 0.5", "inject.networkBitsPerSecond: 1M", "workload.ranks: 2"),
        ("inject.cpuQuotaCores: 0.5", "kind: synthesised, recording: x.jsonl", "exactly one"),
        ("truth: cpu-throttled", "truth: [", "not YAML"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in FAULT
    path = write(tmp_path, FAULT.replace(old, new))
    with pytest.raises(FaultError, match=told) as refused:
        plan(tmp_path, [0])
    assert str(path) in str(refused.value)


def test_an_empty_folder_says_where_to_read_on(tmp_path: Path) -> None:
    with pytest.raises(FaultError, match=r"docs/fault-suite\.md"):
        plan(tmp_path, [0])


def test_the_suite_covers_the_catalogue() -> None:
    """Every cause has a fault, and every truth is a cause: a renamed one would else go untested."""
    runs = plan(SUITE, [0])
    causes = {entry.id for entry in CATALOGUE}
    truths = {run.fault.truth for run in runs}
    assert truths == causes | {HEALTHY}
    real = {run.fault.truth for run in runs if run.fault.kind is Kind.REAL} - {HEALTHY}
    assert len(real) >= 18
    for cause in real:
        kinds = {run.fault.workload.type for run in runs if run.fault.truth == cause}
        healthy = {
            run.fault.workload.type
            for run in runs
            if run.fault.truth == HEALTHY and run.fault.workload
        }
        assert kinds <= healthy, f"{cause} has no healthy twin"
