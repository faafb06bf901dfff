"""The training example: the same files every time, honest work per sample, a clean end."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from examples.training.dataset import COUNT, SAMPLE_SIZE, Digits, complete, write

ROOT = Path(__file__).parents[2]
PYTHONPATH = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
ENVIRONMENT = os.environ | {"PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "digits"
    write(folder)
    return folder


def digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.glob("*.png")):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def test_the_files_are_the_same_every_time(digits: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    write(again)
    assert complete(digits)
    assert digest(digits) == digest(again)


def test_writing_where_another_rank_has_written_already_is_fine(digits: Path) -> None:
    before = digest(digits)
    write(digits)
    assert digest(digits) == before
    assert [path.name for path in digits.parent.iterdir()] == ["digits"]


def test_a_sample_is_the_same_for_the_same_seed_and_rotated_otherwise(digits: Path) -> None:
    data = Digits(digits)
    random.seed(1)
    image, label = data[7]
    random.seed(1)
    same, _ = data[7]
    other, _ = data[7]
    assert len(data) == COUNT
    assert image.shape == (1, SAMPLE_SIZE, SAMPLE_SIZE)
    assert label == 7
    assert torch.equal(image, same)
    assert not torch.equal(image, other)


def test_an_incomplete_folder_is_refused_with_what_to_do(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"0 of 1797 digits.*--out"):
        Digits(tmp_path)


def lines(text: str) -> Iterator[dict[str, float]]:
    return (json.loads(line) for line in text.splitlines() if line.startswith("{"))


def test_it_trains_and_stops_in_time(digits: Path) -> None:
    command = [sys.executable, "-m", "examples.training", "--data", str(digits), "--seconds", "6"]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=True
    )
    found = list(lines(done.stdout))
    assert found[-1]["samples"] > found[0]["samples"] > 0
    assert found[-1]["loss"] < found[0]["loss"]


def test_it_ends_well_on_sigterm_with_workers(digits: Path) -> None:
    command = [sys.executable, "-m", "examples.training", "--data", str(digits), "--workers", "1"]
    with subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert next(lines(process.stdout.readline()))["samples"] > 0
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()


def test_two_ranks_train_together(digits: Path) -> None:
    command = ["--data", str(digits), "--seconds", "6"]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         "-m", "examples.training", *command],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(lines(done.stdout))[-1]["samples"] > 0
