"""Pages of ``docs/`` that are generated from data in the code: written, or checked in CI."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path


def main(
    argv: Sequence[str] | None, module: str, page: str, what: str, renew: Callable[[str], str]
) -> int:
    """The command line of a generator: writes the page, or with ``--check`` prints how it differs
    from the code and gives 1. ``renew`` makes the page from what it is now ("" where it is not)."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=f"Generate {what}.",
        epilog=f"Example: python -m {module} --check {page}",
    )
    parser.add_argument("page", type=Path, help=f"the page: {page}")
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    arguments = parser.parse_args(argv)
    path: Path = arguments.page
    present = path.read_text() if path.exists() else ""
    wanted = renew(present)
    if not arguments.check:
        path.write_text(wanted)
        return 0
    before, after = present.splitlines(keepends=True), wanted.splitlines(keepends=True)
    diff = list(difflib.unified_diff(before, after, str(path), f"{path} (from the code)"))
    sys.stdout.writelines(diff)
    if diff:
        print(f"{path} differs from the code: run `make generate`.", file=sys.stderr)
    return 1 if diff else 0
