"""A diagnosis as text for the terminal, written like a post-mortem. Pure.

First what is wrong and what it costs, then the figures, the chain of whys, what to do, what was
done; last what was tried: the fishbone and the fault tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .parts import CauseView, Item, Stage, State, Story, Tree, TreeCause, percent
from .words import columns, pad, plain, wrap

NARROWEST, WIDEST = 60, 120
"""Columns that the text may take; a terminal outside of them is taken as one at its end."""

BAR = 20
"""Columns of a bar that stands for 100%."""

_CODES = {"bold": "1", "dim": "2", "bad": "1;31", "good": "1;32", "unsure": "33", "head": "1;36"}
_MARKS = {State.CONFIRMED: "✔", State.RULED_OUT: "✘", State.NO_DATA: "?"}
_STYLES = {State.CONFIRMED: "bad", State.RULED_OUT: "dim", State.NO_DATA: "unsure"}
_HOLDS = {True: State.CONFIRMED, False: State.RULED_OUT, None: State.NO_DATA}
_WORDS = {State.CONFIRMED: "confirmed", State.RULED_OUT: "ruled out", State.NO_DATA: "no data"}


@dataclass(frozen=True, slots=True)
class Terminal:
    """Where the text goes: its width in columns, whether it shows colour and Unicode."""

    width: int = 100
    colour: bool = False
    unicode: bool = True


def render_text(story: Story, terminal: Terminal | None = None) -> str:
    """The whole text, ending in a newline."""
    return _Writer(terminal or Terminal()).write(story)


class _Writer:
    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.width = min(WIDEST, max(NARROWEST, terminal.width))

    def write(self, story: Story) -> str:
        """All parts, one empty line between two."""
        parts = [
            self._head(story),
            self._symptom(story),
            self._causes(story),
            self._whys(story.whys),
            self._advice(story),
            *(self._section(s.title, [(line, "") for line in s.lines]) for s in story.sections),
            self._fishbone(story),
            self._tree(story.tree) if story.tree else iter(()),
            self._section("Notes", [(note, "unsure") for note in story.notes]),
        ]
        blocks = ["\n".join(part) for part in parts]
        text = "\n\n".join(block for block in blocks if block) + "\n"
        return text if self.terminal.unicode else plain(text)

    # -- pieces ----------------------------------------------------------------------------------

    def _paint(self, text: str, style: str) -> str:
        if not style or not self.terminal.colour:
            return text
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m"

    def _block(self, text: str, first: str = "", rest: str = "", style: str = "") -> Iterator[str]:
        """Wrapped lines; ``first`` stands before the first of them and ``rest`` before the others.
        Neither is styled."""
        # A sign outside ASCII may become wider in ASCII, so the room is measured after that.
        text, first, rest = map(self._shown, (text, first, rest))
        room = self.width - max(columns(first), columns(rest))
        for number, line in enumerate(wrap(text, room)):
            yield (rest if number else first) + self._paint(line, style)

    def _shown(self, text: str) -> str:
        return text if self.terminal.unicode else plain(text)

    def _title(self, text: str) -> str:
        return self._paint(self._shown(text), "head")

    def _section(self, title: str, lines: Sequence[tuple[str, str]]) -> Iterator[str]:
        if lines:
            yield self._title(title)
            for line, style in lines:
                yield from self._block(line, "  ", "  ", style)

    # -- parts -----------------------------------------------------------------------------------

    def _head(self, story: Story) -> Iterator[str]:
        about = " · ".join(part for part in (story.title, story.basis) if part)
        if about:
            yield from self._block(about, style="dim")
            yield ""
        style = {True: "bad", False: "good", None: "unsure"}[story.wrong]
        yield from self._block(story.headline, "▌ ", "▌ ", style)
        if story.detail:
            yield from self._block(story.detail, "▌ ", "▌ ", "bold" if story.causes else "")

    def _symptom(self, story: Story) -> Iterator[str]:
        if not story.symptom:
            return
        yield self._title("Symptom")
        yield from self._block(story.symptom, "  ", "  ")
        if story.measured and story.measured.over:
            cited = f"{story.measured.signal}, {story.measured.over}"
            yield from self._block(cited, "  ", "  ", "dim")

    def _causes(self, story: Story) -> Iterator[str]:
        if not story.causes:
            return
        yield self._title("Causes" if len(story.causes) > 1 else "Cause")
        for number, cause in enumerate(story.causes, 1):
            if number > 1:
                yield ""
            yield from self._cause(number, cause)
        if story.runner_up:
            yield ""
            text = f"Runner-up, were the first not it: {story.runner_up}."
            yield from self._block(text, "  ", "  ")

    def _cause(self, number: int, cause: CauseView) -> Iterator[str]:
        yield from self._block(cause.title, f"  {number}. ", "     ", "bold")
        filled = round(cause.share * BAR)
        bar = self._shown("█" * filled + "░" * (BAR - filled))
        share, sure = percent(cause.share), f"confidence {cause.confidence:.2f}"
        yield f"     {self._paint(bar, 'bad')} {share}, {sure}"
        yield from self._block(f"{cause.id} ({cause.kind})", "     ", "     ", "dim")
        if cause.behind:
            text = f"It follows from {cause.behind} and goes when that goes."
            yield from self._block(text, "     ", "     ")
        if cause.evidence:
            yield from self._table(cause)

    def _table(self, cause: CauseView) -> Iterator[str]:
        indent, gap = " " * 5, 2
        heads = ("signal", "measured", "condition", "how")
        rows = [
            tuple(map(self._shown, (f.signal, f.value, f.bound, f.over))) for f in cause.evidence
        ]
        wide = [max(columns(row[i]) for row in [heads, *rows]) for i in range(4)]
        # Where a line has no room for all four, how it was measured comes beneath the figure.
        beneath = len(indent) + sum(wide) + 3 * gap > self.width
        room = self.width - len(indent) - 2 * gap - wide[1] - wide[2]
        wide[0] = max(8, min(wide[0], room))
        for number, row in enumerate([heads, *rows]):
            style = "" if number else "dim"
            name, *rest = wrap(row[0], wide[0])
            cells = [pad(name, wide[0]), pad(row[1], wide[1]), pad(row[2], wide[2])]
            if not beneath:
                cells.append(row[3])
            line = (" " * gap).join(cells).rstrip()
            for part in [line, *rest]:
                yield indent + self._paint(part, style)
            if beneath and number:
                yield from self._block(row[3], indent + "  ", indent + "  ", "dim")
        for source in dict.fromkeys(f.source for f in cause.evidence if f.source):
            yield from self._block(f"· {source}", indent, indent + "  ", "dim")

    def _whys(self, whys: Sequence[str]) -> Iterator[str]:
        if not whys:
            return
        yield self._title("Why")
        for depth, why in enumerate(whys):
            # Deeper lines are indented, but never so far that they become a column of words.
            indent = "  " + "   " * max(0, min(depth - 1, (self.width - 50) // 3))
            text, _, cited = why.partition(" [")
            first = indent + "└─ " if depth else "  "
            rest = indent + "   " if depth else "  "
            last = depth == len(whys) - 1
            yield from self._block(text, first, rest, "bold" if last else "")
            if cited:
                yield from self._block(f"[{cited}", rest, rest, "dim")

    def _advice(self, story: Story) -> Iterator[str]:
        if not story.advice:
            return
        yield self._title("What to do")
        several = len(story.advice) > 1
        for id, text in story.advice:
            yield from self._block(f"{id}: {text}" if several else text, "  ", "  ")

    def _fishbone(self, story: Story) -> Iterator[str]:
        if not any(story.bones.values()):
            return
        yield self._title("Fishbone: what was tried")
        legend = ", ".join(f"{_MARKS[state]} {_WORDS[state]}" for state in State)
        yield from self._block(legend, "  ", "  ", "dim")
        yield from self._block(story.effect, "  ", "  ", "bold")
        names = list(story.bones)
        for name in names:
            last = name == names[-1]
            items = story.bones[name]
            note = "" if items else "  nothing to try here"
            yield (
                "  "
                + self._shown("└─ " if last else "├─ ")
                + self._paint(name, "bold")
                + self._paint(note, "dim")
            )
            stem = "     " if last else "  │  "
            for item in items:
                end = item is items[-1]
                lines = self._item(item, stem + ("└─ " if end else "├─ "), stem + "   ", end)
                yield from lines

    def _item(self, item: Item, first: str, rest: str, last: bool) -> Iterator[str]:
        mark = self._paint(self._shown(_MARKS[item.state]), _STYLES[item.state])
        rest = rest[:-3] + ("   " if last else "│  ")
        first, rest = self._shown(first), self._shown(rest)
        why = item.title if item.state is State.CONFIRMED else item.reason
        head = f"{item.id}: {why}" if why else item.id
        room = self.width - columns(first) - 2
        for number, line in enumerate(wrap(self._shown(head), room)):
            style = "bold" if item.state is State.CONFIRMED else _STYLES[item.state]
            text = self._paint(line, style)
            yield f"{rest}  {text}" if number else f"{first}{mark} {text}"

    def _tree(self, tree: Tree) -> Iterator[str]:
        yield self._title("Fault tree: any stage (OR), all conditions of a cause (AND)")
        yield from self._node(tree.state, "OR", tree.top, "  ", "  ")
        for stage in tree.stages:
            last = stage is tree.stages[-1]
            stem = "     " if last else "  │  "
            yield from self._node(
                stage.state, "OR", stage.title, "  └─ " if last else "  ├─ ", stem
            )
            yield from self._stage(stage, stem)

    def _stage(self, stage: Stage, stem: str) -> Iterator[str]:
        """Confirmed causes with their conditions; of the others only the names, since the fishbone
        has told why not."""
        groups: list[TreeCause | tuple[State, str]] = [
            c for c in stage.causes if c.state is State.CONFIRMED
        ]
        for state in (State.NO_DATA, State.RULED_OUT):
            names = [c.id for c in stage.causes if c.state is state]
            if names:
                groups.append((state, f"{_WORDS[state]}: {', '.join(names)}"))
        for number, group in enumerate(groups, 1):
            last = number == len(groups)
            first, rest = stem + ("└─ " if last else "├─ "), stem + ("   " if last else "│  ")
            if isinstance(group, tuple):
                yield from self._node(group[0], "", group[1], first, rest)
                continue
            yield from self._node(group.state, "AND", group.id, first, rest)
            for condition in group.conditions:
                end = condition is group.conditions[-1]
                yield from self._node(
                    _HOLDS[condition.holds],
                    "",
                    condition.text,
                    rest + ("└─ " if end else "├─ "),
                    rest + ("   " if end else "│  "),
                )

    def _node(self, state: State, gate: str, text: str, first: str, rest: str) -> Iterator[str]:
        mark = self._paint(self._shown(_MARKS[state]), _STYLES[state])
        first, rest = self._shown(first), self._shown(rest)
        head = f"{gate} {text}" if gate else text
        room = self.width - columns(first) - 2
        style = "dim" if state is State.RULED_OUT else "bold" if gate else ""
        for number, line in enumerate(wrap(self._shown(head), room)):
            painted = self._paint(line, style)
            yield f"{rest}  {painted}" if number else f"{first}{mark} {painted}"
