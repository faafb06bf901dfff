"""``kubectl bottleneck resume``: let a policy go on."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from ..api.conditions import PAUSED_ANNOTATION, RESUMED_ANNOTATION
from .pause import add_policies, annotate, policies, show, state
from .talk import talk

if TYPE_CHECKING:
    from ..kube import Kube

EXAMPLES = """\
Examples:
  kubectl bottleneck resume ranker -n ml
  kubectl bottleneck resume --all -A"""


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand to ``argparse``'s subparsers."""
    parser = subparsers.add_parser(
        "resume",
        help="let policies go on",
        description="Let one policy go on, or all of them: after a pause, and also after what the"
        " operator could not settle (an action that is held undecided, or an undoing after which"
        " not all was as before). What missed stays in quarantine until something changes.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_policies(parser)
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Resumes the policies that were named."""
    return talk("resume", lambda kube: _resume(kube, arguments))


async def _resume(kube: Kube, arguments: argparse.Namespace) -> int:
    told = []
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    for policy in await policies(kube, arguments):
        paused = PAUSED_ANNOTATION in policy["metadata"].get("annotations", {})
        by_spec = policy["spec"].get("paused", False)
        metadata = {"annotations": {PAUSED_ANNOTATION: None, RESUMED_ANNOTATION: now}}
        body = {"spec": {"paused": False}} if by_spec else {}
        await annotate(kube, policy, metadata, **body)
        told.append(state(policy, "", paused or by_spec))
    return show(arguments, told)
