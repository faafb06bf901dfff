"""A few strong faults and a healthy twin, run for real. The whole suite: make bench-diagnosis."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from hack.bench.cgroups import Cgroup, CgroupError
from hack.bench.diagnosis import bench
from hack.bench.faultfile import plan

SUITE = Path(__file__).parent / "suite"
OUT = Path("build/bench-quick")
RUNS = (
    "healthy-training_cnn_s0",
    "loader-without-workers_transformer_strong_s0",
    "cpu-throttled-training_cnn_strong_s0",
    "slow-dependency_generator_strong_s0",
    "communication-bound_transformer_strong_s0",
)


def unavailable() -> str:
    """Why processes cannot be limited here; empty where they can."""
    if os.geteuid() != 0:
        return "needs root"
    if shutil.which("tc") is None:
        return "needs iproute2"
    try:
        Cgroup("probe").remove()
    except CgroupError as error:
        return str(error)
    return ""


pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(bool(unavailable()), reason=unavailable() or "available"),
]


@pytest.mark.parametrize("name", RUNS)
def test_the_truth_is_named_first(name: str) -> None:
    (planned,) = [run for run in plan(SUITE, [0], [name], everything=True) if run.id == name]
    said: list[str] = []
    # Once more if it went wrong: others may be using the machine, and then it is oversubscribed.
    for _ in range(2):
        (outcome,) = bench([planned], OUT, rediagnose=False, say=said.append)
        if outcome.right:
            break
    assert not outcome.failure, outcome.failure
    assert outcome.named == outcome.truth, said
    assert left_behind() == []


OWN = """
truth: healthy
seconds: 12
workload:
  type: training
  command: ["{{python}}", "train.py", "{word}"]
"""
PROGRAM = """
import sys
import torch
from bottleneck_sidecar.training import StepMonitor
if sys.argv[1] == "fail":
    sys.exit("this is what the log says")
torch.set_num_threads(1)
monitor = StepMonitor()
network = torch.nn.Linear(512, 512)
optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
for batch in monitor.loader([torch.rand(256, 512)] * 1_000_000):
    optimizer.zero_grad()
    loss = network(batch).square().mean()
    loss.backward()
    optimizer.step()
    monitor.step(samples=len(batch), loss=loss)
"""


def test_a_folder_and_a_program_of_ones_own(tmp_path: Path) -> None:
    tmp_path.joinpath("train.py").write_text(PROGRAM)
    tmp_path.joinpath("works.yaml").write_text(OWN.format(word="{seed}"))
    tmp_path.joinpath("fails.yaml").write_text(OWN.format(word="fail"))
    fails, works = bench(plan(tmp_path, [0]), OUT, rediagnose=False, say=lambda _: None)
    assert "status 1" in fails.failure
    assert "this is what the log says" in fails.failure
    assert not works.failure, works.failure
    recording = OUT / "recordings" / "works_s0.jsonl"
    assert '"steps"' in recording.read_text().splitlines()[-1]
    assert left_behind() == []


def left_behind() -> list[str]:
    """Cgroups and namespaces that this process made and that are still there."""
    own = str(os.getpid())
    places = [*Path("/sys/fs/cgroup").glob("*/bottleneck-faults/*")]
    places += [*Path("/sys/fs/cgroup").glob("bottleneck-faults/*")]
    namespaces = [*Path("/run/netns").glob(f"bnf{own}-*")] if Path("/run/netns").exists() else []
    return [str(p) for p in places if p.name.startswith(f"{own}-")] + [str(p) for p in namespaces]
