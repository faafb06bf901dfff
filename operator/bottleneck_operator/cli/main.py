"""``kubectl bottleneck``: a kubectl plugin wherever ``kubectl-bottleneck`` is on the PATH.

Exit codes: 0 done, 1 refused or not found (a message says why), 2 wrong usage or unreadable input.
"""

from __future__ import annotations

import argparse
import sys

from . import approve, diagnose_graph, inject

EPILOG = """\
Examples:
  kubectl bottleneck inject -f deployment.yaml | kubectl apply -f -
  kubectl bottleneck approve ranker-3 -n ml
  kubectl bottleneck diagnose-graph --help"""


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="kubectl bottleneck",
        description="Find, explain, fix and verify the bottlenecks of ML workloads.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    inject.add_parser(subparsers)
    approve.add_parser(subparsers)
    diagnose_graph.add_parser(subparsers)
    options = parser.parse_args(arguments)
    code: int = options.run(options)
    return code


if __name__ == "__main__":
    sys.exit(main())
