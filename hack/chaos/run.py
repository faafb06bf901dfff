"""A run of rounds: progress, the table, and build/bench/chaos.json."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from bottleneck_operator.kube import Kube

from . import cluster
from .operators import Nursery
from .plan import KINDS
from .rounds import Outcome, World

OUT = Path("build/bench/chaos.json")


@contextlib.asynccontextmanager
async def world(name: str, folder: Path) -> AsyncIterator[World]:
    """A world in which rounds can be played; nothing of it is left in the end."""
    nursery = Nursery(folder)
    plane = cluster.up(name)
    try:
        nursery.start()
        async with await Kube.connect(str(plane.kubeconfig)) as kube:
            yield World(plane, kube, nursery, 64 + os.getpid() % 128, folder)
    finally:
        nursery.stop()
        plane.down()


def line(seed: int, outcome: Outcome) -> str:
    """A round in a line, with how to play it again where something was violated."""
    phases = ", ".join(f"{count} {phase}" for phase, count in sorted(outcome.reports.items()))
    struck = sum(outcome.faults.values())
    said = f"round {outcome.number}: {struck} faults, {phases or 'no report'}"
    parts = " ".join(f"{name} {seconds:.1f}" for name, seconds in outcome.waits.items())
    said += f", {outcome.seconds:.1f} s ({parts})"
    for each in outcome.violations:
        said += f"\n  VIOLATION {each.rule}: {each.name}: {each.text}"
    if outcome.violations:
        said += f"\n  again: make chaos SEED={seed} ROUND={outcome.number}"
    return said


def document(seed: int, outcomes: Iterable[Outcome]) -> dict:
    """What is written to build/bench/chaos.json."""
    outcomes = list(outcomes)
    faults: Counter[str] = sum((o.faults for o in outcomes), Counter())
    return {
        "seed": seed,
        "rounds": len(outcomes),
        "faults": {kind: faults[kind] for kind in KINDS},
        "violations": [
            {"round": o.number, **each.document()} for o in outcomes for each in o.violations
        ],
    }


def table(result: dict) -> str:
    """For people."""
    lines = [f"{kind:24}{count:6}" for kind, count in result["faults"].items()]
    count = len(result["violations"])
    total = sum(result["faults"].values())
    return "\n".join([*lines, f"{result['rounds']} rounds, {total} faults, {count} violations"])


def write(result: dict) -> None:
    """As a whole or not at all: a run may be ended at any time."""
    OUT.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=OUT.parent, delete=False) as file:
        json.dump(result, file, indent=2)
    os.replace(file.name, OUT)
