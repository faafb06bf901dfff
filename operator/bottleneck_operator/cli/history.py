"""``kubectl bottleneck history``: what was done, and what became of it."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from ..api.conditions import POLICIES, POLICY_LABEL, REPORTS
from .talk import found, path, talk

if TYPE_CHECKING:
    from ..api.meta import Model
    from ..kube import Kube

Read = TypeVar("Read", bound="Model")

EXAMPLES = """\
Examples:
  kubectl bottleneck history ranker -n ml
  kubectl bottleneck history -A -o json"""


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand to ``argparse``'s subparsers."""
    parser = subparsers.add_parser(
        "history",
        help="show what was done and what became of it",
        description="One line for each report: the cause, the action, what was predicted and"
        " measured (relative changes of the metric, with a 95%% interval), the verdict, and whether"
        " the action is kept, held or undone. The totals count the actions whose reports are gone,"
        " too.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("policy", nargs="?", help="of this BottleneckPolicy only")
    parser.add_argument("-n", "--namespace", default="default", help="its namespace (default)")
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="of every namespace")
    parser.add_argument("-o", "--output", choices=["table", "json", "yaml"], default="table")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the history of one policy, of a namespace, or of the cluster."""
    return talk("history", lambda kube: _history(kube, arguments))


async def _history(kube: Kube, arguments: argparse.Namespace) -> int:
    from ..api.policy import BottleneckPolicy
    from ..api.report import BottleneckReport
    from ..report.history import document, history_of, table

    where = None if arguments.all_namespaces else arguments.namespace
    if arguments.policy and where is not None:
        listed = [await found(kube, POLICIES, "policy", where, arguments.policy)]
    else:
        listed = (await kube.get(path(POLICIES, where))).get("items", [])
    query = {"labelSelector": f"{POLICY_LABEL}={arguments.policy}"} if arguments.policy else {}
    items = (await kube.get(path(REPORTS, where), **query)).get("items", [])
    policies = [_read(BottleneckPolicy, _slim(item)) for item in listed]
    lines, sums = history_of(
        [report for item in items if (report := _read(BottleneckReport, item)) is not None],
        [
            ((policy.metadata.namespace, policy.metadata.name), policy.status.ledger)
            for policy in policies
            if policy is not None and arguments.policy in (None, policy.metadata.name)
        ],
    )
    if arguments.output == "table":
        print(table(lines, sums, arguments.all_namespaces), end="")
    elif arguments.output == "json":
        print(json.dumps(document(lines, sums), indent=2, allow_nan=False))
    else:
        import yaml

        print(yaml.safe_dump(document(lines, sums), sort_keys=False, allow_unicode=True), end="")
    return 0


def _read(kind: type[Read], document: dict[str, Any]) -> Read | None:
    from pydantic import ValidationError

    try:
        return kind.model_validate(document)
    except ValidationError as error:
        # Written by another version: what can be read is shown all the same.
        meta, reason = document["metadata"], error.errors()[0]["msg"]
        print(f"{meta['namespace']}/{meta['name']} cannot be read: {reason}", file=sys.stderr)
        return None


def _slim(document: dict[str, Any]) -> dict[str, Any]:
    return {key: document[key] for key in ("metadata", "spec", "status") if key in document}
