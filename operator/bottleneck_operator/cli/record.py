"""``kubectl bottleneck record``: telemetry into a file, so that an incident can be sent around."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .output import RefusedError, refuse, warn

if TYPE_CHECKING:
    from ..api.policy import BottleneckPolicy
    from ..kube import Kube
    from ..observe.cluster import Target
    from ..observe.pods import Pod

DESCRIPTION = """\
Write the telemetry of running pods to a file, as JSON Lines. It goes through the API server, so
it works from a laptop; the pods need the sidecar. Send the file to a colleague, who can see what
was wrong with kubectl bottleneck diagnose, without your cluster. The format: docs/recording.md."""

EXAMPLES = """\
Examples:
  kubectl bottleneck record trainer-0 -n ml --seconds 60 -o incident.jsonl
  kubectl bottleneck record -l app=ranker -n ml -o - | kubectl bottleneck diagnose -"""


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand to ``argparse``'s subparsers."""
    parser = subparsers.add_parser(
        "record",
        help="write telemetry of pods to a file",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("pod", nargs="?", metavar="POD", help="name of the pod")
    which.add_argument("-l", "--selector", help="labels of the pods, as kubectl takes them")
    parser.add_argument("-n", "--namespace", default="default", help="their namespace (default)")
    parser.add_argument(
        "--seconds", type=positive, default=60.0, help="for how long (%(default)g); Ctrl-C ends it"
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="where to, - for standard output"
    )
    parser.set_defaults(run=run)


def positive(text: str) -> float:
    """A number of seconds above zero, for ``argparse``."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text}: write a number of seconds from 1 to 86400")
    return seconds


def run(arguments: argparse.Namespace) -> int:
    """Records; says on standard error how far it is and what it wrote."""
    try:
        return asyncio.run(_record(arguments))
    except RefusedError as error:
        return refuse("record", error)


async def _record(arguments: argparse.Namespace) -> int:
    from .live import connected
    from .tap import Tap, few

    async with connected() as kube:
        pods, remark = few(await _pods(kube, arguments))
        if remark:
            warn(remark)
        policy, target = await _policy(kube, arguments.namespace, pods)
        with ExitStack() as stack:
            file = _File(arguments.output)
            stack.callback(file.close)
            file.write(header(pods, policy))

            def take(received: float, pod: Pod, sample: object, line: bytes) -> None:
                file.write({"received": round(received, 6), "sample": json.loads(line)})

            tap = Tap(kube, pods, take)
            took = await tap.run(arguments.seconds)
            if not any(tap.lines.values()):
                raise KeyboardInterrupt
            if policy is not None and target is not None:
                await _facts(kube, policy, target, pods, file.write)
            file.finish()
    lines = sum(tap.lines.values())
    about = f"{lines} lines of {len(pods)} pods in {took:.0f} s"
    if arguments.output != "-":
        about += f" to {arguments.output}; look at it with: kubectl bottleneck diagnose"
        about += f" {arguments.output}"
    print(f"recorded {about}", file=sys.stderr)
    for pod, count in tap.lines.items():
        if not count:
            why = tap.troubles.get(pod, "it said nothing")
            warn(f"nothing came of {pod}: {why}")
    return 0


def header(pods: list[Pod], policy: BottleneckPolicy | None) -> dict[str, Any]:
    """The first line of a recording."""
    line: dict[str, Any] = {
        "recording": 1,
        "createdAt": round(time.time(), 3),
        "by": "kubectl bottleneck record",
        "pods": [pod.name for pod in pods],
    }
    if policy is not None:
        line["policy"] = policy.spec.dump()
        if policy.status.baselines:
            line["baselines"] = [baseline.dump() for baseline in policy.status.baselines]
    return line


async def _pods(kube: Kube, arguments: argparse.Namespace) -> list[Pod]:
    from .live import pods_of, read_pod, with_sidecar

    if arguments.selector:
        pods = await pods_of(kube, arguments.namespace, arguments.selector)
        if not pods:
            raise RefusedError(
                f"no pod in namespace {arguments.namespace} has the labels {arguments.selector};"
                f" kubectl get pods -n {arguments.namespace} --show-labels"
            )
        return with_sidecar(pods, f"the selector {arguments.selector}")
    pod = await read_pod(kube, arguments.namespace, arguments.pod)
    return with_sidecar([pod], f"pod {arguments.pod}")


async def _policy(
    kube: Kube, namespace: str, pods: list[Pod]
) -> tuple[BottleneckPolicy | None, Target | None]:
    """The policy that looks after these pods and its target, if any. A recording is worth something
    without it, so what cannot be read is only said."""
    from ..kube import KubeError
    from ..observe.selectors import matches
    from .live import in_words, policies_of, read_target_of

    try:
        for policy in await policies_of(kube, namespace):
            try:
                target = await read_target_of(kube, policy)
            except RefusedError:
                continue
            if all(matches(target.selector, pod.labels) for pod in pods):
                return policy, target
    except KubeError as error:
        if not error.not_found:
            warn(f"recorded without a policy: {in_words(error)}")
    return None, None


async def _facts(
    kube: Kube,
    policy: BottleneckPolicy,
    target: Target,
    pods: list[Pod],
    write: Callable[[Mapping[str, Any]], None],
) -> None:
    """What the API server tells of the workload, as the last line."""
    from .facts import read_facts, values

    facts = await read_facts(kube, policy, target, pods)
    known = values(facts.signals)
    if known:
        write({"received": round(time.time(), 6), "facts": known, "texts": facts.texts})


class _File:
    """The file, under another name until it is whole. Each line is written at once, so that even a
    killed recorder leaves what it had."""

    def __init__(self, name: str) -> None:
        self._path = None if name == "-" else Path(name)
        self._part = None if self._path is None else self._path.with_name(self._path.name + ".part")
        self._lines = 0
        try:
            self._file: BinaryIO = self._part.open("wb") if self._part else sys.stdout.buffer
        except OSError as error:
            raise RefusedError(f"{name} cannot be written: {error.strerror or error}") from None

    def write(self, line: Mapping[str, Any]) -> None:
        data = json.dumps(line, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise RefusedError(f"the recording cannot be written: {error.strerror}") from None
        self._lines += 1

    def finish(self) -> None:
        """Gives the file its name."""
        if self._part is not None and self._path is not None:
            self._file.close()
            os.replace(self._part, self._path)

    def close(self) -> None:
        """Leaves nothing of a recording that never began; keeps one that was cut off."""
        if self._part is not None and self._part.exists():
            self._file.close()
            if self._lines <= 1:
                self._part.unlink()
            else:
                warn(f"what was recorded is in {self._part}")
