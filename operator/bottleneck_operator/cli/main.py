"""``kubectl bottleneck``: a kubectl plugin wherever ``kubectl-bottleneck`` is on the PATH.

Exit codes: 0 done; 1 refused, not found or not usable (a message says why and what to do instead);
2 wrong usage, and from ``diagnose-graph`` and ``verify`` a file that cannot be read; 130 ended by
Ctrl-C before there was a result. ``explain`` and ``diagnose`` end with 0 whether something is
wrong with the workload or not: read ``causes`` of ``-o json``. A recording ended by Ctrl-C is
whole, and 0. ``rollback``, ``pause`` and ``resume`` may be repeated: what is so already is 0.
``rollback`` ends with 0 once the operator has begun, also where it did not answer in time (read
``accepted`` of ``-o json``), and with 1 where it refuses. ``history`` without any action is 0.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

COMMANDS = {
    "explain": "say what is wrong with a workload, and why",
    "diagnose": "say what was wrong in a recording",
    "diagnose-graph": "find the component behind a symptom in a call graph",
    "verify": "say whether an action helped",
    "record": "write telemetry of pods to a file",
    "approve": "apply a recommended action",
    "history": "show what was done and what became of it",
    "rollback": "take an action back",
    "pause": "hold policies as they are",
    "resume": "let policies go on",
    "inject": "add the telemetry sidecar to manifests",
}
"""Subcommands in the order of --help. Each is a module of this folder with ``add_parser``, which is
imported only when its command is called: a plugin is started anew for every word that people type.
"""

EPILOG = """\
Examples:
  kubectl bottleneck explain ranker -n ml
  kubectl bottleneck record -l app=ranker -n ml -o incident.jsonl
  kubectl bottleneck diagnose incident.jsonl
  kubectl bottleneck diagnose-graph --help
  kubectl bottleneck verify --help
  kubectl bottleneck approve ranker-3 -n ml
  kubectl bottleneck history ranker -n ml
  kubectl bottleneck rollback ranker-3 -n ml
  kubectl bottleneck pause ranker -n ml --for 2h
  kubectl bottleneck inject -f deployment.yaml | kubectl apply -f -"""

DEBUG = "BOTTLENECK_DEBUG"
"""Environment variable with which an unexpected error shows where it came from."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="kubectl bottleneck",
        description="Find, explain, fix and verify the bottlenecks of ML workloads.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    given = sys.argv[1:] if arguments is None else arguments
    called = next((word for word in given if not word.startswith("-")), "")
    for name, summary in COMMANDS.items():
        if name == called:
            import_module(f".{name.replace('-', '_')}", __package__).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=summary)
    options = parser.parse_args(given)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever reads, such as head, has enough; Python would complain about it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        print(
            f"kubectl bottleneck: this should not happen: {type(error).__name__}: {error};"
            f" please report it with what {DEBUG}=1 shows",
            file=sys.stderr,
        )
        return 1


if __name__ == "__main__":
    sys.exit(main())
