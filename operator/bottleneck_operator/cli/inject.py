"""``kubectl bottleneck inject``: the sidecar in manifests, without the webhook."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ..inject.manifest import inject_manifest
from ..inject.options import add_sidecar_options, sidecar_settings
from .output import refuse, warn

DESCRIPTION = """\
Add the telemetry sidecar to the workloads of manifests and print them, for clusters
without the webhook. Everything else in the manifests is printed as it is."""

EXAMPLES = """\
Examples:
  kubectl bottleneck inject -f deployment.yaml | kubectl apply -f -
  kubectl get deployment ranker -o yaml | kubectl bottleneck inject -f - | kubectl apply -f -"""


def add_parser(subparsers: Any) -> None:
    """Adds the subcommand to ``argparse``'s subparsers."""
    parser = subparsers.add_parser(
        "inject",
        help="add the telemetry sidecar to manifests",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-f",
        "--filename",
        action="append",
        required=True,
        metavar="FILE",
        help="manifest to read, - for standard input; may be given several times",
    )
    add_sidecar_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the injected manifests; what was left as it is, and why, goes to standard error."""
    try:
        documents = [document for name in arguments.filename for document in _read(name)]
    except (OSError, UnicodeDecodeError, ValueError) as error:
        return refuse("inject", error)
    injected = inject_manifest(documents, sidecar_settings(arguments))
    yaml.dump_all(injected.documents, sys.stdout, Dumper=_Dumper, sort_keys=False, width=100)
    for warning in injected.warnings:
        warn(warning)
    return 0


def _read(name: str) -> Iterator[dict[str, Any]]:
    text = sys.stdin.read() if name == "-" else Path(name).read_text()
    try:
        for document in yaml.safe_load_all(text):
            if document is None:  # nothing between two "---"
                continue
            if not isinstance(document, dict):
                raise ValueError(f"{name}: a manifest is a mapping, found: {str(document)[:40]}")
            yield document
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is not YAML: {error}") from error


class _Dumper(yaml.SafeDumper):
    """Writes what kubectl reads as the same text: it takes 1e3 and y for a number and a truth,
    which PyYAML takes for strings and leaves unquoted."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    ambiguous = re.match(r"([-+.]?[0-9][-+.:_0-9a-fA-FoOxX]*|[yYnN])$", text) is not None
    style = "|" if "\n" in text else '"' if ambiguous else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _string)
