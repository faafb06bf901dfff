"""``kubectl bottleneck verify``: whether an action helped, from figures of the replicas."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .diagnose_graph import InputError

if TYPE_CHECKING:
    from ..api.report import Verdict

DESCRIPTION = """\
Judge an action by the figures of the replicas before and after it. Where some replicas were left
as they are, the changed ones are judged against them; else against their own past, with a weaker
word ("likely"). Give all the history that there is: a change has to stand out from it."""

EPILOG = """\
A file is CSV with a header; columns may stand in any order:
  timestamp  seconds, or ISO 8601 as 2026-03-01T12:00:00Z (UTC where it names no zone)
  replica    its name
  treated    1 where the action changed this replica, 0 where it was left as it is
  value      the metric; empty, NaN or an infinity is no data
Bins are as wide as the usual time between two figures of a replica. A verdict is sought with 8,
15, 30 and 60 bins after the action; more are not looked at.
-o json prints verdict (Improved, NoEffect, Worse, Inconclusive, NoData), effect (-0.2 is 20% less),
interval (95%), pValue (two-sided), n (bins after the action), control and reason; for a folder a
line for each *.csv, which names its file.
Exit codes: 0 judged, whatever the verdict; 2 input that cannot be read (other files are judged).

Examples:
  kubectl bottleneck verify samples.csv --acted-at 2026-03-01T12:00:00Z --lower-is-better
  kubectl bottleneck verify incidents/ --acted-at 1772366400 -o json"""


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand to ``argparse``'s subparsers."""
    parser = subparsers.add_parser(
        "verify",
        help="say whether an action helped",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("samples", metavar="SAMPLES.csv", help="the file, or a folder of such")
    parser.add_argument(
        "--acted-at", required=True, metavar="T", help="when it was done: seconds or ISO 8601"
    )
    parser.add_argument(
        "--warm-up",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="left out after the action: until replicas are ready and caches full (%(default)g)",
    )
    parser.add_argument(
        "--lower-is-better", action="store_true", help="for latencies; else higher is better"
    )
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the verdicts."""
    from .verify_samples import read_moment

    try:
        acted_at = read_moment(arguments.acted_at)
        if acted_at is None:
            raise InputError(
                f"--acted-at {arguments.acted_at!r} is no time; write seconds, as 1772366400,"
                " or ISO 8601, as 2026-03-01T12:00:00Z"
            )
        if not 0 <= arguments.warm_up < float("inf"):
            raise InputError("--warm-up: write seconds, 0 or more")
        files = list(_files(Path(arguments.samples)))
    except InputError as error:
        return _refuse(error)
    folder = Path(arguments.samples).is_dir()
    wide = max(len(file.name) for file in files)
    code = 0
    if folder and arguments.output == "text":
        print(f"{'FILE':{wide}}  {'VERDICT':12}  {'EFFECT':>7}  {'N':>3}  CONTROL  REASON")
    for file in files:
        try:
            verdict = _judge(file, acted_at, arguments)
        except InputError as error:
            code = _refuse(error)
            continue
        if arguments.output == "json":
            found = {"file": file.name} if folder else {}
            print(json.dumps(found | _document(verdict), allow_nan=False))
        elif folder:
            print(f"{file.name:{wide}}  {_row(verdict)}")
        else:
            print(f"{verdict.result}: {verdict.reason}")
    return code


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    try:
        found = sorted(each for each in path.iterdir() if each.suffix == ".csv")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if not found:
        raise InputError(f"{path} has no *.csv; name a file, or a folder of files")
    yield from found


def _judge(file: Path, acted_at: float, arguments: argparse.Namespace) -> Verdict:
    # Imported here: scipy takes longer to import than --help should.
    from ..verify.rule import judge_panel
    from .verify_samples import panel, read_samples

    samples = read_samples(str(file))
    values, treated, split = panel(samples, acted_at, arguments.warm_up)
    verdict = judge_panel(values, treated, split, arguments.lower_is_better, final=True)
    assert verdict is not None
    return verdict


def _document(verdict: Verdict) -> dict[str, Any]:
    return {
        "verdict": str(verdict.result),
        "effect": verdict.effect,
        "interval": verdict.interval or None,
        "pValue": verdict.p_value,
        "n": verdict.bins[1] if verdict.bins else 0,
        "control": verdict.control,
        "reason": verdict.reason,
    }


def _row(verdict: Verdict) -> str:
    effect = "" if verdict.effect is None else f"{verdict.effect:+.0%}"
    control = "yes" if verdict.control else "no"
    count = verdict.bins[1] if verdict.bins else 0
    return f"{verdict.result:12}  {effect:>7}  {count:3}  {control:7}  {verdict.reason}"


def _refuse(error: InputError) -> int:
    from ..report.render.words import clean

    print(f"kubectl bottleneck verify: {clean(error)}", file=sys.stderr)
    return 2
