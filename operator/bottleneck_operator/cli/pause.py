"""``kubectl bottleneck pause``: hold a policy, for a while or until it is resumed."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..api.conditions import PAUSED_ANNOTATION, POLICIES
from .output import RefusedError
from .talk import found, path, talk

if TYPE_CHECKING:
    from ..kube import Kube

EXAMPLES = """\
Examples:
  kubectl bottleneck pause ranker -n ml --for 2h
  kubectl bottleneck pause --all -A"""


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand to ``argparse``'s subparsers."""
    parser = subparsers.add_parser(
        "pause",
        help="hold policies as they are",
        description="Hold one policy, or all of them: no action begins. What is under way is"
        " finished first, and what is kept stays. It is an annotation, so what was tried under"
        " this policy stays known as tried.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_policies(parser)
    parser.add_argument(
        "--for",
        dest="duration",
        metavar="DURATION",
        help="for how long, such as 30m, 2h or 1h30m; without it until it is resumed",
    )
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    parser.set_defaults(run=run)


def add_policies(parser: argparse.ArgumentParser) -> None:
    """Adds the ways to say which policies are meant."""
    parser.add_argument("policy", nargs="?", help="name of the BottleneckPolicy")
    parser.add_argument("--all", action="store_true", help="all policies of the namespace")
    parser.add_argument("-n", "--namespace", default="default", help="its namespace (default)")
    parser.add_argument(
        "-A", "--all-namespaces", action="store_true", help="with --all: of every namespace"
    )


def run(arguments: argparse.Namespace) -> int:
    """Pauses the policies that were named."""
    return talk("pause", lambda kube: _pause(kube, arguments))


async def _pause(kube: Kube, arguments: argparse.Namespace) -> int:
    until = _until(arguments.duration, time.time())
    told = []
    for policy in await policies(kube, arguments):
        before = policy["metadata"].get("annotations", {}).get(PAUSED_ANNOTATION)
        if before != until:
            await annotate(kube, policy, {"annotations": {PAUSED_ANNOTATION: until}})
        told.append(state(policy, until, before != until))
    return show(arguments, told)


def _until(duration: str | None, now: float) -> str:
    from ..api import units
    from ..api.pause import UNTIL_RESUMED

    if duration is None:
        return UNTIL_RESUMED
    try:
        seconds = units.seconds(duration)
    except ValueError:
        raise RefusedError(
            f'"{duration}" is no duration: write --for with a unit (s, m or h), such as 30m or 2h'
        ) from None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + seconds))


async def policies(kube: Kube, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The policies that are meant. Raises ``RefusedError`` where that is not clear, or where there
    are none."""
    if bool(arguments.policy) is arguments.all:
        raise RefusedError("name one policy, or write --all")
    if arguments.all_namespaces and not arguments.all:
        raise RefusedError("-A goes with --all; a single policy has a namespace: -n")
    namespace = arguments.namespace
    if arguments.policy:
        return [await found(kube, POLICIES, "policy", namespace, arguments.policy)]
    where = None if arguments.all_namespaces else namespace
    listed = (await kube.get(path(POLICIES, where))).get("items", [])
    if not listed:
        place = "any namespace" if where is None else f"namespace {namespace}"
        raise RefusedError(f"there is no policy in {place}")
    return list(listed)


async def annotate(
    kube: Kube, policy: Mapping[str, Any], metadata: Mapping[str, Any], **body: Any
) -> None:
    """Writes metadata (and more) of a policy, if it is the one that was read."""
    meta = policy["metadata"]
    # Not its version: the operator writes its status all the time, and takes nothing away by that.
    whole = {"metadata": {**metadata, "uid": meta["uid"]}, **body}
    await kube.patch(path(POLICIES, meta["namespace"], meta["name"]), whole)


def state(policy: Mapping[str, Any], until: str, changed: bool) -> dict[str, Any]:
    """What a command tells of a policy."""
    meta = policy["metadata"]
    return {
        "policy": meta["name"],
        "namespace": meta["namespace"],
        "paused": bool(until),
        "until": until,
        "changed": changed,
    }


def show(arguments: argparse.Namespace, told: list[dict[str, Any]]) -> int:
    """Prints what became of each policy."""
    if arguments.output == "json":
        print(json.dumps({"policies": told}))
        return 0
    for each in told:
        words = "goes on"
        if each["paused"]:
            word = each["until"]
            words = "is paused until " + ("it is resumed" if word == "resumed" else word)
        print(f"{each['namespace']}/{each['policy']} {words}")
    return 0
