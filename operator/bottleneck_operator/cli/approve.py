"""``kubectl bottleneck approve``: let a recommended action happen."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from typing import Any

from ..api.conditions import APPROVED_ANNOTATION, GROUP, REPORTS, VERSION
from ..report.render.words import clean

EXAMPLES = """\
Examples:
  kubectl get bnr -n ml                        # which actions are Recommended
  kubectl bottleneck approve ranker-3 -n ml"""


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand to ``argparse``'s subparsers."""
    parser = subparsers.add_parser(
        "approve",
        help="apply a recommended action",
        description="Apply the action that a BottleneckReport recommends. The operator then"
        " verifies it, and reverts it when it did not help, as in mode Auto.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("report", help="name of the BottleneckReport")
    parser.add_argument("-n", "--namespace", default="default", help="its namespace (default)")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Marks the report as approved; refuses one that recommends nothing."""
    return asyncio.run(_approve(arguments))


async def _approve(arguments: argparse.Namespace) -> int:
    # Imported here: the client takes longer to import than the rest of the command line.
    from kubernetes.aio.config import ConfigException

    from ..kube import Kube, KubeError

    name, namespace = arguments.report, arguments.namespace
    path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{REPORTS}/{name}"
    try:
        async with await Kube.connect(os.environ.get("KUBECONFIG")) as kube:
            report = await kube.get(path)
            phase = report.get("status", {}).get("phase", "")
            if phase != "Recommended":
                return _refuse(
                    f"report {name} is {phase or 'not yet marked'}, not Recommended; "
                    f"kubectl get bnr -n {namespace} shows which are"
                )
            body = {
                "metadata": {
                    "annotations": {APPROVED_ANNOTATION: "true"},
                    "resourceVersion": report["metadata"]["resourceVersion"],
                }
            }
            await kube.patch(path, body)
    except ConfigException as error:
        return _refuse(f"no cluster: {error}; set KUBECONFIG")
    except KubeError as error:
        if error.not_found:
            return _refuse(
                f"there is no report {name} in namespace {namespace}; "
                f"kubectl get bnr -n {namespace} shows which there are"
            )
        return _refuse(error.message)
    except (OSError, TimeoutError) as error:
        return _refuse(f"the cluster does not answer: {error}")
    summary = clean(report["spec"]["action"]["summary"])
    if arguments.output == "json":
        print(json.dumps({"report": name, "namespace": namespace, "approved": summary}))
    else:
        print(f"approved: {summary}; follow it with kubectl get bnr {name} -n {namespace} -w")
    return 0


def _refuse(message: str) -> int:
    print(f"kubectl bottleneck approve: {clean(message)}", file=sys.stderr)
    return 1
