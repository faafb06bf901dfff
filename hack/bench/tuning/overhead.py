"""The SDK's cost, as ``tests/sidecar/measure.py`` measures it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
SCRIPT = REPOSITORY / "tests" / "sidecar" / "measure.py"
LIMIT_SECONDS = 300.0


def parse(text: str) -> float | None:
    """The cost as a share of a step of 10 ms between matrix products, from what the script prints;
    None if it is not there."""
    found = re.search(r"^SDK, 0 workers, 10 ms of work: .*?, (-?[0-9.]+)% of 10 ms", text, re.M)
    return round(float(found[1]) / 100, 5) if found else None


def measure() -> float | None:
    """Runs the script (about a minute); None where it fails."""
    try:
        done = subprocess.run(
            [sys.executable, str(SCRIPT)],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY / "sidecar"), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return None
    return parse(done.stdout) if done.returncode == 0 else None
