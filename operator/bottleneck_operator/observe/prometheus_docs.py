"""The tables in ``docs/prometheus.md`` from the catalogue of metric names, so that what people read
is what is recognised."""

from __future__ import annotations

from collections.abc import Iterator

from .. import pages
from .prometheus_entries import SELECTOR, Entry, System, promql
from .prometheus_machines import SYSTEMS

BEGIN = "<!-- Generated from the catalogue of metric names by `make generate`. -->"
END = "<!-- End of what is generated. -->"


def tables() -> str:
    """The part of the page between the marks."""
    lines = ["| system | signals |", "|---|---|"]
    for system in SYSTEMS:
        names = dict.fromkeys(f"`{entry.signal}`" for entry in system.entries)
        lines.append(f"| [{system.name}](#{_anchor(system.name)}) | {', '.join(names)} |")
    for system in SYSTEMS:
        lines += ["", *_section(system)]
    return "\n".join(lines) + "\n"


def _section(system: System) -> Iterator[str]:
    yield f"### {system.name}"
    yield ""
    yield "| signal | about what this gives | also recognised |"
    yield "|---|---|---|"
    for entry in system.entries:
        text = promql(entry).replace(SELECTOR, "…").replace("|", "\\|")
        older = ", ".join(f"`{name}`" for name in _older(entry)) or "–"
        yield f"| `{entry.signal}` | `{text}` | {older} |"
    for signal, reason in system.lacks.items():
        yield ""
        yield f"Without `{signal}`: {reason}."


def _older(entry: Entry) -> Iterator[str]:
    """Names that stand for the same, without repeating those in the expression."""
    seen = {term.metrics[0] for term in entry.terms}
    for term in entry.terms:
        for name in term.metrics:
            if name not in seen:
                seen.add(name)
                yield name


def _anchor(title: str) -> str:
    """As the renderers of Markdown make it."""
    kept = "".join(each for each in title.lower() if each.isalnum() or each in " -")
    return kept.replace(" ", "-")


def renewed(page: str) -> str:
    """The page with its tables as the catalogue has them now. Raises ValueError without marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{tables()}\n{END}{after}"


def main(argv: list[str] | None = None) -> int:
    """Writes or checks the page."""
    module = "bottleneck_operator.observe.prometheus_docs"
    return pages.main(argv, module, "docs/prometheus.md", "the tables of known metrics", renewed)


if __name__ == "__main__":
    raise SystemExit(main())
