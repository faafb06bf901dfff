"""A checkpoint written before a change restores after it, in a new process with new settings."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .checkpoint_ranks import (  # type: ignore[import-not-found]
    ACCUMULATION,
    EPOCHS,
    HALF,
    MICRO,
    SAMPLES,
)


def lived(world: int, folder: Path, life: str) -> list[Any]:
    """What each rank of this life printed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if "BOTTLENECK" not in key}
    program = Path(__file__).with_name("checkpoint_ranks.py")
    ranks = [
        subprocess.Popen(
            [sys.executable, str(program), *map(str, (rank, world, port, folder, life))],
            env={**environment, "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    found = []
    try:
        for rank in ranks:
            out, errors = rank.communicate(timeout=300)
            assert rank.returncode == 0, errors
            found.append(json.loads(out))
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    return found


@pytest.mark.parametrize("world", [1, 2])
def test_the_loss_goes_on_as_if_nothing_had_happened(tmp_path: Path, world: int) -> None:
    whole, first, second = (lived(world, tmp_path, life) for life in ("whole", "first", "second"))
    steps = SAMPLES // world // (MICRO * ACCUMULATION)
    for untouched, before, after in zip(whole, first, second, strict=True):
        losses = untouched[0]
        assert len(losses) == EPOCHS * steps
        assert losses[-1] < losses[0]
        assert before[0] == pytest.approx(losses, rel=1e-9)
        assert after[0] == pytest.approx(losses[HALF * steps :], rel=1e-9)
        for _, told, in_force in (before, after):
            assert told == "Applied"
            assert in_force["batch.micro"] == 2
            assert in_force["dataLoader.workers"] == 1
            assert in_force["dataLoader.persistentWorkers"] == "on"
