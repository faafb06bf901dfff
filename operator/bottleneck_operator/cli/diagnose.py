"""``kubectl bottleneck diagnose``: what was wrong in a recording, without any cluster."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .output import RefusedError, add_output_options, refuse, show

if TYPE_CHECKING:
    from ..observe.recording import Recording, Replay

DESCRIPTION = """\
Replay a recording and say what was wrong, and why. The same code as in the operator; no cluster is
needed. Without a policy, in the file or given, only faults are named: what limits a healthy
workload is no fault unless it misses an objective."""

EXAMPLES = """\
Exit codes: 0 diagnosed, healthy or not; 1 the file or the policy cannot be used; 2 wrong usage.

Examples:
  kubectl bottleneck diagnose incident.jsonl
  kubectl bottleneck diagnose incident.jsonl --policy policy.yaml -o html > incident.html"""


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand to ``argparse``'s subparsers."""
    parser = subparsers.add_parser(
        "diagnose",
        help="say what was wrong in a recording",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="the recording, - for standard input")
    parser.add_argument(
        "--policy",
        metavar="FILE",
        help="BottleneckPolicy in YAML, whose objectives are used instead of the recording's own",
    )
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the diagnosis."""
    try:
        _diagnose(arguments)
    except RefusedError as error:
        return refuse("diagnose", error)
    return 0


def _diagnose(arguments: argparse.Namespace) -> None:
    # Imported here: the engine takes longer to import than --help should.
    from ..decide.standstill import judge_workload
    from ..diagnose.document import diagnosis_document
    from ..diagnose.engine import diagnose
    from ..observe.recording import RecordingError, parse, replay
    from ..report.render.incident import objectives_section
    from ..report.render.parts import Context
    from ..report.render.story import story
    from .knowledge import advice, hints, unknown
    from .policyfile import objectives_of, read_objectives

    name = "standard input" if arguments.file == "-" else arguments.file
    if arguments.file == "-" and arguments.policy == "-":
        raise RefusedError("only one of recording and policy can come from standard input")
    objectives = read_objectives(arguments.policy) if arguments.policy else None
    try:
        recording = parse(_lines(arguments.file, name))
    except RecordingError as error:
        raise RefusedError(f"{name}: {error}") from None
    if objectives is None and recording.policy:
        objectives = objectives_of(recording.policy, name)
    latency = objectives.latency if objectives else None
    seen = replay(recording, latency.percentile if latency else 95)
    if objectives is None:
        diagnosis = diagnose(seen.observation, None, seen.facts, seen.texts)
    else:
        diagnosis = judge_workload(seen.observation, objectives, seen.facts, seen.texts)
    document = diagnosis_document(diagnosis)
    section = objectives_section(diagnosis.objectives)
    context = Context(
        title=name,
        basis=_basis(recording, seen),
        unknown=unknown(diagnosis, seen.observation),
        healthy="Every objective is met." if objectives else "No fault is confirmed.",
        sections=[section] if section else [],
        notes=list(_notes(recording, seen)),
    )
    show(story(document, context, advice(), hints()), document, arguments)


def _basis(recording: Recording, seen: Replay) -> str:
    try:
        moment = datetime.fromtimestamp(recording.created_at, UTC)
        when = f" at {moment:%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, OSError, ValueError):  # a moment outside of the calendar
        when = ""
    by = f" by {recording.by}" if recording.by else ""
    count = len(recording.names)
    pods = "1 pod" if count == 1 else f"{count} pods"
    return f"{seen.span_seconds:.0f} s of telemetry of {pods}, recorded{when}{by}"


def _notes(recording: Recording, seen: Replay) -> Iterator[str]:
    if recording.cut:
        yield "The last line is only half written and was left out."
    if seen.onset is not None:
        since = seen.observation.time - seen.onset
        yield f"It became slower {since:.0f} s before the end; only what came after is judged."


def _lines(file: str, name: str) -> Iterator[str]:
    """Lines with their ends. Only a line feed ends one; of a line without end no more is read than
    a reader needs to refuse it."""
    from ..observe.recording_format import MAX_LINE_BYTES

    try:
        with ExitStack() as stack:
            raw = sys.stdin.buffer if file == "-" else stack.enter_context(open(file, "rb"))
            # Detached again, since standard input is not ours to close.
            text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline="\n")
            stack.callback(text.detach)
            while line := text.readline(MAX_LINE_BYTES + 2):
                yield line
    except OSError as error:
        raise RefusedError(f"{name} cannot be read: {error.strerror or error}") from None
