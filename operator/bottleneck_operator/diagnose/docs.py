"""``docs/causes.md`` from the catalogue, so that what people read is what the engine does."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .. import pages
from ..observe.observation import WorkloadType
from .catalogue import (
    CATALOGUE,
    CATEGORIES,
    EFFECTS,
    STAGES,
    AllOf,
    CauseEntry,
    Condition,
    Explains,
    Predicate,
    Why,
)
from .gaps import GAPS
from .objectives import shown
from .predicates import predicates

INTRODUCTION = """\
# Causes

<!-- Generated from operator/bottleneck_operator/diagnose/catalogue.py by `make generate`. -->

What the operator can find. A cause is *confirmed* when every one of its conditions holds on
measured figures and nothing that is measured speaks against it. It is *ruled out* by the first
condition that does not hold, and the report says by which figure. Where a figure is missing it is
neither: the report says "no data". Signals are explained in [signals.md](signals.md).

With a policy nothing is looked for while every objective is met. Without one, as `kubectl
bottleneck diagnose FILE` works, a fault that is confirmed is itself the symptom. Some causes are no
faults but what limits every healthy workload, such as its own computing: these are named only where
an objective is breached. A hang, a kill for want of memory or a pod that cannot be placed breaches
any policy: such a workload does not run.

## How causes are ranked

1. A cause *explains* those that are only its consequence: a CPU limit that stops the loader workers
   explains that they cannot keep up. The consequence stands right behind its cause.
2. Causes that stop the work come first, then faults that bear on the breached objective, then other
   faults, then what limits every healthy workload. Within each, the one whose removal would return
   the largest share of the step, or of the latency, comes first (Amdahl's law).
3. The *runner-up* is the strongest cause that the first does not explain.

*Confidence* is (0.5 + 0.5 m) × (0.7 + 0.3 q) × (1 − 0.2 c). m tells how far the figures are beyond
their thresholds: the mean of their least and their average margin, where a margin is 0 at the
threshold and 1 at twice of it (or at none of it; or, for a share, at the whole). q is the part of
the conditions that was measured. c grows from 0 to 1 as the runner-up's share grows from half of
the first one's to all of it. It is an aid to readers, not a probability.

The whys belong to the first cause. They lead from the symptom over what it explains to the cause;
each line appears only if its figures are measured, and the chain ends at the first line that cannot
be shown. "START" marks thresholds without a published source: starting values, calibrated on the
[fault suite](fault-suite.md).
"""

_WHERE = {
    WorkloadType.TRAINING: "training",
    WorkloadType.INFERENCE: "inference",
    WorkloadType.UNKNOWN: "any workload",
}
_SYMBOLS = {">=": "≥", "<": "<", ">": ">"}
_SOURCES = {"starting value, to be calibrated on labelled faults": "START"}


def document() -> str:
    """The page."""
    lines = [INTRODUCTION]
    for category in CATEGORIES:
        lines += [f"## {category}", "", "| cause | where | stage | remedy |", "|---|---|---|---|"]
        for entry in CATALOGUE:
            if entry.category == category:
                link = f"[{entry.id}](#{entry.id})"
                stage = STAGES[entry.stage].partition(":")[0]
                where = _WHERE[entry.workload]
                lines.append(f"| {link}: {entry.title} | {where} | {stage} | {_remedy(entry)} |")
        lines.append("")
    lines += ["## What people left out", "", *_gaps(), ""]
    lines += ["## Between a symptom and its causes", "", *_effects()]
    for entry in CATALOGUE:
        lines += ["", *_section(entry)]
    return "\n".join(lines) + "\n"


def _gaps() -> Iterator[str]:
    yield "Bones of the fishbone, and no causes: what lets causes through, as the cluster shows it."
    yield ""
    yield "| bone | category | confirmed when |"
    yield "|---|---|---|"
    for gap in GAPS:
        yield f"| `{gap.id}`: {gap.title} | {gap.category} | {_condition(gap.condition)} |"


def _effects() -> Iterator[str]:
    yield "Where the time goes; the first why of a chain is one of these."
    yield ""
    yield "| effect | where | holds when | told as |"
    yield "|---|---|---|---|"
    for effect in EFFECTS:
        where, text = _WHERE[effect.workload], _told(effect.why)
        yield f"| `{effect.id}` | {where} | {_condition(effect.condition)} | {text} |"


def _section(entry: CauseEntry) -> Iterator[str]:
    yield f"## {entry.id}"
    yield ""
    yield f"{entry.title}. Class `{entry.class_}`, category {entry.category}, stage {entry.stage}."
    if entry.needs_breach:
        yield "It is a limit, not a fault: it is named only where an objective is breached."
    if entry.breaks:
        yield "With it the workload does not run: it breaches any policy."
    if entry.generic:
        yield "It says when it began, not what happened: any cause that says what comes first."
    yield ""
    yield "Confirmed when all of these hold:"
    yield ""
    yield "| condition | where the threshold is from |"
    yield "|---|---|"
    for condition in entry.predicates:
        yield f"| {_condition(condition)} | {_sources(condition)} |"
    if entry.vetoes:
        yield ""
        yield "Ruled out by:"
        yield ""
        for veto in entry.vetoes:
            yield f"- {_condition(veto.condition)}: {veto.reason} ({_sources(veto.condition)})"
    if entry.explains:
        yield ""
        yield f"Explains {', '.join(_edge(edge) for edge in entry.explains)}."
    yield ""
    yield f"Removing it would return: {entry.share.text}."
    yield ""
    yield "Why:"
    yield ""
    for number, why in enumerate(entry.whys, 1):
        when = f" (if {_condition(why.when)})" if why.when else ""
        yield f"{number}. Because {_told(why)}{when}"
    yield ""
    advice = f" Advice: {entry.advice}" if entry.advice else ""
    yield f"Remedy: {_remedy(entry)}.{advice}"


def _told(why: Why) -> str:
    return re.sub(r"\{(?:text:)?([\w.]+)\}", r"`\1`", why.text)


def _edge(edge: Explains) -> str:
    text = f"`{edge.id}`"
    if edge.when is not None:
        text += f" (where {_condition(edge.when)})"
    if edge.proportion:
        text += f" (where it is at least {edge.proportion:.0%} as large)"
    return text


def _remedy(entry: CauseEntry) -> str:
    actions = ", ".join(f"action `{remedy}`" for remedy in entry.remedies)
    return actions or "none; it only advises"


def _condition(condition: Condition, nested: bool = False) -> str:
    if not isinstance(condition, Predicate):
        link = " and " if isinstance(condition, AllOf) else " or "
        text = link.join(_condition(part, True) for part in condition.parts)
        return f"({text})" if nested else text
    threshold = condition.threshold
    if isinstance(threshold, str):
        times = "" if condition.factor == 1 else f"{condition.factor:g} × "
        bound = f"{times}`{threshold}`"
    elif condition.signal.endswith(("Share", "Active", "utilization")):
        bound = shown(condition.signal, threshold, "")
    else:
        bound = f"{threshold:g}"
    return f"`{condition.signal}` {_SYMBOLS[condition.op]} {bound}"


def _sources(condition: Condition) -> str:
    found = dict.fromkeys(predicate.source for predicate in predicates(condition))
    text = "; ".join(found)
    for long, short in _SOURCES.items():
        text = text.replace(long, short)
    return text


def main(argv: list[str] | None = None) -> int:
    """Writes or checks the page."""
    module = "bottleneck_operator.diagnose.docs"
    return pages.main(argv, module, "docs/causes.md", "the list of causes", lambda _: document())


if __name__ == "__main__":
    raise SystemExit(main())
