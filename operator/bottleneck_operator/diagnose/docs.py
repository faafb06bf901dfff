"""``docs/causes.md`` from the catalogue, so that what people read is what the engine does."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from ..observe.observation import WorkloadType
from .catalogue import CATALOGUE, CauseEntry, Predicate
from .objectives import figure

INTRODUCTION = """\
# Causes

<!-- Generated from operator/bottleneck_operator/diagnose/catalogue.py by `make generate`. -->

What the operator can find. A cause is *confirmed* when every one of its conditions holds on
measured figures. It is *ruled out* by the first condition that does not hold, and the report says
by which figure. Where a figure is missing it is neither: the report says "no data". Nothing is
looked for while every objective is met.

Confirmed causes are ranked by the share of the step, or of the latency, that removing each would
return. The whys belong to the first of them; each line appears only if its figures are measured,
and the chain ends at the first line that cannot be shown. Signals are explained in
[signals.md](signals.md).
"""

_WHERE = {
    WorkloadType.TRAINING: "training",
    WorkloadType.INFERENCE: "inference",
    WorkloadType.UNKNOWN: "any workload",
}
_SYMBOLS = {">=": "≥", "<": "<"}


def document() -> str:
    """The page."""
    lines = [INTRODUCTION, "| cause | where | what the operator does |", "|---|---|---|"]
    for entry in CATALOGUE:
        link = f"[{entry.id}](#{entry.id})"
        lines.append(f"| {link}: {entry.title} | {_WHERE[entry.workload]} | {_remedy(entry)} |")
    for entry in CATALOGUE:
        lines += ["", *_section(entry)]
    return "\n".join(lines) + "\n"


def _section(entry: CauseEntry) -> Iterator[str]:
    yield f"## {entry.id}"
    yield ""
    yield f"{entry.title}. Class `{entry.class_}`, category {entry.category}."
    yield ""
    yield "Confirmed when all of these hold:"
    yield ""
    yield "| condition | where the threshold is from |"
    yield "|---|---|"
    for predicate in entry.predicates:
        yield f"| {_condition(predicate)} | {predicate.source} |"
    yield ""
    yield f"Removing it would return about `{entry.share}`."
    yield ""
    yield "Why:"
    yield ""
    for number, why in enumerate(entry.whys, 1):
        text = re.sub(r"\{([\w.]+)\}", r"`\1`", why.text)
        when = f" (only if {_condition(why.when)})" if why.when else ""
        yield f"{number}. Because {text}{when}"
    yield ""
    yield f"Remedy: {_remedy(entry)}." + (f" Advice: {entry.advice}" if entry.advice else "")


def _remedy(entry: CauseEntry) -> str:
    actions = ", ".join(f"action `{remedy}`" for remedy in entry.remedies)
    return actions or "none; it only advises"


def _condition(predicate: Predicate) -> str:
    threshold = predicate.threshold
    if isinstance(threshold, str):
        bound = f"`{threshold}`"
    else:
        bound = figure(threshold, "") if predicate.signal.endswith("Share") else f"{threshold:g}"
    return f"`{predicate.signal}` {_SYMBOLS[predicate.op]} {bound}"


def main(argv: list[str] | None = None) -> int:
    """Writes or checks the page."""
    parser = argparse.ArgumentParser(
        prog="python -m bottleneck_operator.diagnose.docs",
        description="Generate the list of causes from the catalogue.",
        epilog="Example: python -m bottleneck_operator.diagnose.docs --check docs/causes.md",
    )
    parser.add_argument("page", type=Path, help="the page: docs/causes.md")
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    arguments = parser.parse_args(argv)
    wanted, page = document(), arguments.page
    if not arguments.check:
        page.write_text(wanted)
        return 0
    present = page.read_text() if page.exists() else ""
    diff = list(
        difflib.unified_diff(
            present.splitlines(keepends=True),
            wanted.splitlines(keepends=True),
            str(page),
            f"{page} (from the catalogue)",
        )
    )
    sys.stdout.writelines(diff)
    if diff:
        print("The causes differ from the catalogue: run `make generate`.", file=sys.stderr)
    return 1 if diff else 0


if __name__ == "__main__":
    raise SystemExit(main())
