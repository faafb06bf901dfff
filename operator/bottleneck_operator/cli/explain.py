"""``kubectl bottleneck explain``: what is wrong with a workload now, why, and what was done."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .output import RefusedError, add_output_options, refuse, show
from .record import positive

if TYPE_CHECKING:
    from ..api.policy import BottleneckPolicy
    from ..api.report import BottleneckReport
    from ..diagnose.diagnosis import Diagnosis
    from ..report.render.parts import Section

DESCRIPTION = """\
Say what is wrong with the workload of a policy, and why: listen to its sidecars for a moment, look
at its objectives, and diagnose with the operator's own code. Then what the operator did last, and
what keeps it from acting. With --report, show what was found at the time of a BottleneckReport."""

EXAMPLES = """\
Exit codes: 0 explained, whether something is wrong or not; 1 refused, not found or no telemetry;
2 wrong usage.

Examples:
  kubectl bottleneck explain ranker -n ml
  kubectl bottleneck explain ranker -n ml --seconds 60 -o html > ranker.html
  kubectl bottleneck explain --report ranker-3 -n ml"""

PURPOSES = {
    "Save": "No cause was sought: every objective was met, and less should do.",
    "Wake": "No cause was sought: somebody waited, and nothing ran.",
}
"""What actions are for that no cause asks for, by their ``aim``."""


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand to ``argparse``'s subparsers."""
    parser = subparsers.add_parser(
        "explain",
        help="say what is wrong with a workload, and why",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("policy", nargs="?", metavar="POLICY", help="name of the BottleneckPolicy")
    what.add_argument("--report", metavar="NAME", help="show what this BottleneckReport holds")
    parser.add_argument("-n", "--namespace", default="default", help="its namespace (default)")
    parser.add_argument(
        "--seconds", type=positive, default=12.0, help="how long to listen (%(default)g)"
    )
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the explanation."""
    try:
        asyncio.run(_report(arguments) if arguments.report else _explain(arguments))
    except RefusedError as error:
        return refuse("explain", error)
    return 0


async def _report(arguments: argparse.Namespace) -> None:
    from ..report.render.incident import report_sections
    from ..report.render.parts import Context
    from ..report.render.story import story
    from .knowledge import advice, hints
    from .live import connected, read_report

    async with connected() as kube:
        report = await read_report(kube, arguments.namespace, arguments.report)
    spec = report.spec
    context = Context(
        title=f"Report {report.metadata.name} of {spec.target} in namespace"
        f" {report.metadata.namespace}",
        basis=f"as it was at {spec.decided_at:%Y-%m-%d %H:%M:%S} UTC",
        purpose=PURPOSES.get(spec.action.aim, "") if spec.action else "",
        sections=report_sections(report),
    )
    kept = ("symptom", "causes", "ruledOut", "whys", "runnerUp", "fishbone", "faultTree")
    dumped = spec.dump()
    document = {key: dumped.get(key) for key in kept} | {
        "report": report.metadata.name,
        "namespace": report.metadata.namespace,
        **_report_document(report),
    }
    show(story(document, context, advice(), hints()), document, arguments)


async def _explain(arguments: argparse.Namespace) -> None:
    from ..diagnose.document import diagnosis_document
    from ..observe.selectors import to_string
    from ..report.render.parts import Context
    from ..report.render.story import story
    from .knowledge import advice, hints
    from .live import connected, pods_of, read_policy, read_target_of, reports_of
    from .sample import look

    async with connected() as kube:
        policy = await read_policy(kube, arguments.namespace, arguments.policy)
        reports = await reports_of(kube, arguments.namespace, arguments.policy)
        target = await read_target_of(kube, policy)
        pods = await pods_of(kube, arguments.namespace, to_string(target.selector))
        seen = await look(kube, policy, target, pods, arguments.seconds)
    document = diagnosis_document(seen.diagnosis)
    context = Context(
        title=f"Policy {policy.metadata.name} ({policy.spec.target_ref} in namespace"
        f" {policy.metadata.namespace})",
        basis=seen.basis,
        unknown=seen.unknown,
        healthy="Every objective is met.",
        sections=_sections(policy, reports, seen.diagnosis),
        notes=seen.notes,
    )
    told = story(document, context, advice(), hints())
    last = next((report for report in reversed(reports) if report.spec.action), None)
    whole = document | {
        "policy": policy.metadata.name,
        "namespace": policy.metadata.namespace,
        "target": policy.spec.target_ref.dump(),
        "conditions": [condition.dump() for condition in policy.status.conditions],
        "lastReport": last and {"name": last.metadata.name, **_report_document(last)},
    }
    show(told, whole, arguments)


def _report_document(report: BottleneckReport) -> dict[str, object]:
    return {"action": report.spec.dump().get("action"), "status": report.status.dump()}


def _sections(
    policy: BottleneckPolicy, reports: Sequence[BottleneckReport], diagnosis: Diagnosis
) -> list[Section]:
    from ..report.render.incident import (
        action_section,
        limits_section,
        objectives_section,
        operator_section,
    )

    first = diagnosis.causes[0].id if diagnosis.causes else ""
    sections = (
        objectives_section(diagnosis.objectives),
        operator_section(policy, first),
        action_section(reports),
        limits_section(policy),
    )
    return [section for section in sections if section is not None]
