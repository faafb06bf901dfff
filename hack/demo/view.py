"""What the demo shows: a live table on a terminal, lines elsewhere, and the result at the end."""

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

LINE_SECONDS = 10.0
"""How often a line with the figures is printed where there is no terminal."""


@dataclass
class Row:
    """What is known of one workload by now."""

    name: str
    metric: str
    unit: str
    now: float | None = None
    objective: str = ""
    found: str = ""
    action: str = ""
    verdict: str = ""
    before: float | None = None
    after: float | None = None

    def figure(self, value: float | None) -> str:
        """A figure with its unit."""
        return "–" if value is None else f"{value:.0f} {self.unit}"


@dataclass
class Phase:
    """A part of the demo, with its seconds once it is over."""

    title: str
    began: float
    seconds: float | None = None
    failed: bool = False


@dataclass
class View:
    """Keeps the picture. Without a terminal only what is new is printed."""

    console: Console = field(default_factory=lambda: Console(file=sys.stderr, highlight=False))
    phases: list[Phase] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    note_text: str = ""
    _live: Live | None = None
    _said: str = ""
    _said_at: float = 0.0

    def __enter__(self) -> "View":
        if self.console.is_terminal:
            self._live = Live(get_renderable=self._picture, console=self.console)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.note_text = ""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def row(self, name: str, metric: str, unit: str) -> Row:
        """A new workload in the table."""
        self.rows.append(Row(name, metric, unit))
        return self.rows[-1]

    @contextlib.contextmanager
    def phase(self, title: str) -> Iterator[Phase]:
        """Shows a part of the demo while it runs, and its seconds afterwards."""
        phase = Phase(title, time.monotonic())
        self.phases.append(phase)
        if self._live is None:
            self._print(f"… {title}")
        try:
            yield phase
        except BaseException:
            phase.failed = True
            raise
        finally:
            phase.seconds = time.monotonic() - phase.began
            self.note_text = ""
            if self._live is None:
                self._print(f"{'✗' if phase.failed else '✓'} {title}: {phase.seconds:.1f} s")

    def note(self, line: str) -> None:
        """What the running part says itself."""
        self.note_text = line
        if self._live is None:
            self._print(f"  {line}")

    def refresh(self) -> None:
        """The rows have changed."""
        if self._live is not None or not self.rows:
            return
        row = self.rows[-1]
        said = " | ".join(filter(None, (row.found, row.action, row.verdict)))
        if said != self._said or time.monotonic() - self._said_at > LINE_SECONDS:
            self._said, self._said_at = said, time.monotonic()
            parts = (f"{row.name}: {row.metric} {row.figure(row.now)}", row.objective, said)
            self._print("  " + " | ".join(filter(None, parts)))

    def _print(self, line: str) -> None:
        self.console.print(escape(line), soft_wrap=True)

    def _picture(self) -> Group:
        lines = []
        for phase in self.phases:
            running = phase.seconds is None
            seconds = time.monotonic() - phase.began if running else phase.seconds
            mark, style = ("▸", "bold cyan") if running else ("✓", "green")
            if phase.failed:
                mark, style = "✗", "bold red"
            lines.append(Text(f"{mark} {phase.title}  {seconds:.0f} s", style=style))
        if self.note_text:
            lines.append(Text(f"  {self.note_text}", style="dim", overflow="ellipsis"))
        if not self.rows:
            return Group(*lines)
        table = Table(expand=True)
        for title in ("workload", "now", "objective", "found", "done", "state"):
            table.add_column(title)
        for row in self.rows:
            cells = (row.figure(row.now), row.objective, row.found, row.action, row.verdict)
            table.add_row(f"{row.name}\n{row.metric}", *map(escape, cells))
        return Group(*lines, table)


def show_result(console: Console, summary: dict[str, Any], namespace: str, keep: bool) -> None:
    """The table of before and after, why, and where to look further."""
    table = Table(title="Before and after, as the workloads themselves measured it")
    for title in ("workload", "bottleneck", "action", "metric", "before", "after", "verdict"):
        table.add_column(title)
    for entry in summary["workloads"]:
        figures = (f"{entry[when]:.0f} {entry['unit']}" for when in ("before", "after"))
        said = (entry["name"], entry["bottleneck"], entry["action"], entry["metric"])
        table.add_row(*(escape(text or "–") for text in (*said, *figures, entry["verdict"])))
    console.print(table)
    for entry in summary["workloads"]:
        if entry["whys"]:
            console.print(f"\n[bold]Why {escape(entry['name'])}?[/]")
        for depth, why in enumerate(entry["whys"]):
            console.print(f"  {'  ' * depth}{'└ ' if depth else ''}{escape(why)}", soft_wrap=True)
        seconds = entry["seconds"]
        if seconds["breachToDecision"] is not None and seconds["decisionToAck"] is not None:
            console.print(
                f"  breach to decision {seconds['breachToDecision']:.1f} s, "
                f"decision to acknowledgement {seconds['decisionToAck']:.1f} s"
            )
    console.print("\n[bold]To look further[/]" + ("" if keep else " (after KEEP=1 make demo)"))
    for command in (
        f"kubectl -n {namespace} get bottleneckpolicies,bottleneckreports",
        f"kubectl -n {namespace} describe bottleneckpolicy digits",
        f"kubectl -n {namespace} get bottleneckreports -o yaml",
        f"kubectl -n {namespace} get events --sort-by=.lastTimestamp",
        "kubectl -n bottleneck-system logs deploy/bottleneck-operator",
    ):
        console.print(f"  {command}", highlight=False)
