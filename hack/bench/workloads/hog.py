"""Keeps CPUs busy, as other pods of a node would.

python -m hack.bench.workloads.hog --processes 4
"""

from __future__ import annotations

import argparse
import os
import signal


def main() -> None:
    """Runs until it is stopped; the processes end with this one."""
    parser = argparse.ArgumentParser(description="Keep CPUs busy.")
    parser.add_argument("--processes", type=int, default=1, help="how many (1)")
    for _ in range(parser.parse_args().processes - 1):
        if os.fork() == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            break
    while True:
        sum(range(10_000))


if __name__ == "__main__":
    main()
