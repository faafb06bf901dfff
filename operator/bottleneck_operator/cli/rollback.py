"""``kubectl bottleneck rollback``: take an action back."""

from __future__ import annotations

import argparse
import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..api.conditions import REPORTS, ROLLBACK_ANNOTATION
from .output import RefusedError
from .talk import found, path, talk, who

if TYPE_CHECKING:
    from ..api.report import BottleneckReport
    from ..kube import Kube

EXAMPLES = """\
Examples:
  kubectl bottleneck history ranker -n ml      # which actions are kept
  kubectl bottleneck rollback ranker-3 -n ml"""

PAUSE_SECONDS = 0.5


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand to ``argparse``'s subparsers."""
    parser = subparsers.add_parser(
        "rollback",
        help="take an action back",
        description="Take back an action that is under way, kept or held. The operator restores"
        " what was there before, says in the report who asked and when, and looks whether all is"
        " as it was. It refuses where a later action builds on it, and where somebody else has"
        " changed the same thing since. The action is not tried again until something changes.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("report", help="name of the BottleneckReport")
    parser.add_argument("-n", "--namespace", default="default", help="its namespace (default)")
    parser.add_argument(
        "--timeout",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="how long the operator's answer is waited for (%(default)s)",
    )
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Asks for the rollback, and waits for what the operator says to it."""
    return talk("rollback", lambda kube: _rollback(kube, arguments))


async def _rollback(kube: Kube, arguments: argparse.Namespace) -> int:
    from ..decide.rollback import annotation, standing_against, wish_of

    name, namespace = arguments.report, arguments.namespace
    report = await _report(kube, name, namespace)
    if _undone(report):
        return _tell(arguments, report, "is taken back already")
    if wish_of(report) is None:
        refusal = standing_against(report, await _built_upon(kube, report))
        if refusal:
            raise RefusedError(refusal)
        moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        body = {
            "metadata": {
                "annotations": {ROLLBACK_ANNOTATION: annotation(await who(kube), moment)},
                "uid": report.metadata.uid,
            }
        }
        await kube.patch(path(REPORTS, namespace, name), body)
    deadline = asyncio.get_running_loop().time() + arguments.timeout
    while wish_of(report := await _report(kube, name, namespace)) is not None:
        if asyncio.get_running_loop().time() >= deadline:
            return _tell(arguments, report, "is asked for; the operator has not answered yet")
        await asyncio.sleep(PAUSE_SECONDS)
    if report.status.rollback is not None and report.status.rollback.refused:
        raise RefusedError(f"{name} stays: {report.status.rollback.refused}")
    return _tell(arguments, report, "is being taken back")


async def _report(kube: Kube, name: str, namespace: str) -> BottleneckReport:
    from ..api.report import BottleneckReport

    document = await found(kube, REPORTS, "report", namespace, name)
    return BottleneckReport.model_validate(document)


async def _built_upon(kube: Kube, report: BottleneckReport) -> str:
    from pydantic import ValidationError

    from ..api.report import BottleneckReport
    from ..decide.rollback import built_upon

    others = []
    for item in (await kube.get(path(REPORTS, report.metadata.namespace))).get("items", []):
        try:
            other = BottleneckReport.model_validate(item)
        except ValidationError:
            continue  # the operator cannot read it either
        if other.spec.policy == report.spec.policy:
            others.append(other)
    return built_upon(report, others)


def _undone(report: BottleneckReport) -> bool:
    """Whether people's wish has been granted: asking again changes nothing."""
    taken = report.status.rollback
    return taken is not None and not taken.refused


def _tell(arguments: argparse.Namespace, report: BottleneckReport, what: str) -> int:
    action, taken = report.spec.action, report.status.rollback
    summary = action.summary if action is not None else ""
    if arguments.output == "json":
        told = {
            "report": report.metadata.name,
            "namespace": report.metadata.namespace,
            "action": summary,
            "phase": str(report.status.phase),
            "accepted": _undone(report),
            "by": taken.by if taken is not None else "",
        }
        print(json.dumps(told))
        return 0
    name, namespace = report.metadata.name, report.metadata.namespace
    print(f"{summary} {what}; follow it with kubectl get bnr {name} -n {namespace} -w")
    return 0
