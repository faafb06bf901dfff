"""Runs the fault suite and says how often the engine names the truth.

make bench-diagnosis
make bench-diagnosis FAULTS=my-faults ONLY=slow-storage
python -m hack.bench.diagnosis --list
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from . import cgroups, network
from .cgroups import CgroupError
from .cost import milliseconds
from .faultfile import Fault, FaultError, Planned, plan
from .judge import judge, named
from .matrix import Outcome, figures, summary, table
from .network import NetworkError
from .processes import RunError
from .run import Place, execute
from .synthetic import synthesise
from .workloads.data import prepare

SUITE = Path("tests/faults/suite")
OUT = Path("build/bench")
LOCK = Path(tempfile.gettempdir(), "bottleneck-faults.lock")
OVERHEAD_SECONDS = 6.0
"""Start and end of a run, for the time left until the first runs have told."""

EXAMPLES = """examples:
  python -m hack.bench.diagnosis                               the whole suite, one seed
  python -m hack.bench.diagnosis --only slow-storage --seeds 3 one cause (or part of a run's name)
  python -m hack.bench.diagnosis --faults ~/my-faults          a folder of your own
  python -m hack.bench.diagnosis --rediagnose                  the kept recordings, with new code
"""


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench.diagnosis",
        description="Run real processes with one labelled fault each, diagnose every recording,"
        " and print how often the named cause was the truth. Needs root for cgroups and network"
        " namespaces. docs/fault-suite.md tells how to write a fault.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--faults", type=Path, default=SUITE, help=f"folder of fault files ({SUITE})")
    add("--only", action="append", default=[], help="a cause, or part of a run's name; repeatable")
    add("--seeds", type=int, default=1, help="so many runs of each fault and strength (1)")
    add("--all", action="store_true", help="every strength with every model, not with one of them")
    add("--jobs", type=int, default=1, help="runs at a time; only 1: they would slow each other")
    add("--rediagnose", action="store_true", help="run nothing: diagnose the kept recordings again")
    add("--list", action="store_true", help="name the runs, and run nothing")
    add("--schema", action="store_true", help="print the JSON schema of a fault file")
    add("--out", type=Path, default=OUT, help=f"where everything goes ({OUT})")
    add("-o", "--output", choices=["text", "json"], default="text", help="what is printed (text)")
    args = parser.parse_args(words)
    if args.jobs != 1:
        parser.error("--jobs: write 1; two runs on one machine would be each other's fault")
    if args.seeds < 1:
        parser.error("--seeds: write 1 or more")
    return args


class Progress:
    """Run k of n, and how long it will still take."""

    def __init__(self, planned: Sequence[Planned], say: Callable[[str], None]) -> None:
        self.expected = [
            each.fault.seconds + OVERHEAD_SECONDS if each.fault.workload else 0.1
            for each in planned
        ]
        self.began = time.monotonic()
        self.say = say

    def line(self, number: int, planned: Planned) -> None:
        """Before run ``number`` (from 0)."""
        passed, past = time.monotonic() - self.began, sum(self.expected[:number])
        pace = passed / past if past else 1.0
        left = sum(self.expected[number:]) * pace
        count = f"run {number + 1} of {len(self.expected)}"
        self.say(f"{count}, about {left / 60:.0f} min left: {planned.id}")


def bench(
    planned: Sequence[Planned], out: Path, rediagnose: bool, say: Callable[[str], None]
) -> list[Outcome]:
    """Runs and diagnoses everything. What fails is an outcome, too."""
    place = Place(out / "data", out / "recordings", out / "logs", out / "scratch")
    for folder in (place.recordings, place.logs, place.scratch):
        folder.mkdir(parents=True, exist_ok=True)
    place = Place(
        *(folder.resolve() for folder in (place.data, place.recordings, place.logs, place.scratch))
    )
    with ExitStack() as stack:
        if not rediagnose:
            stack.enter_context(_alone())
            cgroups.sweep()
            network.sweep()
            prepare(place.data)
        progress = Progress(planned, say)
        outcomes = []
        for number, each in enumerate(planned):
            if not rediagnose:
                progress.line(number, each)
            outcome = _one(each, place, rediagnose)
            outcomes.append(outcome)
            if outcome.failure:
                say(f"  failed: {outcome.failure}")
            elif not rediagnose or not outcome.right:
                verdict = "right" if outcome.right else f"WRONG, the truth is {outcome.truth}"
                at = f"{each.id}: " if rediagnose else "  "
                say(f"{at}named {outcome.named}: {verdict}{_runner_up(outcome)}")
    return outcomes


def _alone() -> TextIO:
    """A lock that is held for as long as its file is open. Raises ``RunError`` if it is taken."""
    file = LOCK.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise RunError("another benchmark runs on this machine: wait for its end") from None
    return file


def _runner_up(outcome: Outcome) -> str:
    others = [f"{each['id']} {each['share']:.0%}" for each in outcome.causes[1:4]]
    return f" (then {', '.join(others)})" if others else ""


def _one(planned: Planned, place: Place, rediagnose: bool) -> Outcome:
    fault = planned.fault
    outcome = Outcome(planned.id, fault.truth, fault.kind.value)
    try:
        recording = _recording(planned, place, rediagnose)
        document = judge(recording, fault.objectives)
        outcome.cpu_milliseconds = milliseconds(recording)
    except (RunError, CgroupError, NetworkError, OSError, ValueError) as error:
        outcome.failure = str(error)
        return outcome
    outcome.causes = document["causes"]
    outcome.named = named(document)
    place.recordings.joinpath(f"{planned.id}.diagnosis.json").write_text(
        json.dumps(document, indent=1) + "\n"
    )
    return outcome


def _recording(planned: Planned, place: Place, rediagnose: bool) -> Path:
    fault = planned.fault
    if fault.recording:
        return planned.path.parent / fault.recording
    kept = place.recordings / f"{planned.id}.jsonl"
    if fault.synthesise is not None:
        kept.write_text(synthesise(fault.synthesise, fault.seconds, planned.seed, fault.inject))
        return kept
    if not rediagnose:
        return execute(planned, place)
    if not kept.exists():
        raise RunError(f"{kept} is not there: run it once without --rediagnose")
    return kept


def main(words: Sequence[str] | None = None) -> int:
    """The command. 0 when every run has a diagnosis, right or wrong; 1 otherwise."""
    args = arguments(words)
    if args.schema:
        print(json.dumps(Fault.model_json_schema(by_alias=True), indent=2))
        return 0
    try:
        planned = plan(args.faults, range(args.seeds), args.only, args.all)
    except FaultError as error:
        print(f"bench-diagnosis: {error}", file=sys.stderr)
        return 1
    if args.list:
        for each in planned:
            print(f"{each.fault.truth:<24} {each.fault.seconds:>4g} s  {each.id}")
        return 0

    def say(text: str) -> None:
        print(text, file=sys.stderr if args.output == "json" else sys.stdout, flush=True)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end what was started
    try:
        outcomes = bench(planned, args.out, args.rediagnose, say)
    except RunError as error:
        print(f"bench-diagnosis: {error}", file=sys.stderr)
        return 1
    document: dict[str, Any] = figures(outcomes)
    path = args.out / "diagnosis.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    if args.output == "json":
        print(json.dumps(document, indent=2))
    else:
        print("\n" + table(outcomes), *summary(document), f"written to {path}", sep="\n")
    return 1 if document["failed"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("bench-diagnosis: stopped; nothing is left running", file=sys.stderr)
        os._exit(130)
