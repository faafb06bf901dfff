"""``kubectl bottleneck diagnose``: what was wrong in a recording, without any cluster."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .output import RefusedError, add_output_options, refuse, show

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
    from ..diagnose.document import diagnosis_document
    from ..diagnose.engine import diagnose
    from ..observe.recording import RecordingError, parse, replay
    from ..report.render.incident import objectives_section
    from ..report.render.story import Context, story
    from .knowledge import advice, hints
    from .policyfile import objectives_of, read_objectives

    name = "standard input" if arguments.file == "-" else arguments.file
    if arguments.file == "-" and arguments.policy == "-":
        raise RefusedError("only one of recording and policy can come from standard input")
    given = read_objectives(arguments.policy) if arguments.policy else None
    try:
        recording = parse(_read(arguments.file, name))
        replayed = replay(recording)
    except RecordingError as error:
        raise RefusedError(f"{name}: {error}") from None
    own = recording.policy
    objectives = given or (objectives_of(own, name) if own else None)
    diagnosis = diagnose(replayed.observation, objectives, replayed.facts, replayed.texts)
    document = diagnosis_document(diagnosis)
    section = objectives_section(diagnosis.objectives)
    context = Context(
        title=name,
        basis=replayed.basis,
        unknown=replayed.unknown,
        sections=[section] if section else [],
        notes=replayed.notes,
    )
    show(story(document, context, advice(), hints()), document, arguments)


def _read(file: str, name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise RefusedError(f"{name} cannot be read: {error.strerror or error}") from None
