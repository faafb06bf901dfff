"""A drawing: shapes and texts whose widths are known before they are drawn. Pure.

No font can be measured here, so widths are taken from a table that is a little generous for the
usual sans-serif fonts: a text may end before the place kept for it, never after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

from .parts import State
from .words import columns

STATE_CLASS = {State.CONFIRMED: "bad", State.RULED_OUT: "out", State.NO_DATA: "gap"}
STATE_MARK = {State.CONFIRMED: "✔", State.RULED_OUT: "✘", State.NO_DATA: "?"}

_LIGHT = {
    "paper": "#ffffff", "ink": "#1c2430", "muted": "#566070", "line": "#8a94a3",
    "bad": "#b3261e", "badfill": "#fdecea", "gap": "#8a5a00", "gapfill": "#fff6e0",
    "out": "#5c6675", "outfill": "#f2f4f7", "good": "#1b6e3c", "goodfill": "#e6f4ea",
    "on": "#ffffff",
}  # fmt: skip
_DARK = {
    "paper": "#12161c", "ink": "#e8edf4", "muted": "#a3adbb", "line": "#6d7888",
    "bad": "#ff8a80", "badfill": "#4a1f1d", "gap": "#ffcf6b", "gapfill": "#3a2f14",
    "out": "#9aa5b4", "outfill": "#1f252e", "good": "#7fd6a0", "goodfill": "#17352a",
    "on": "#1b0f0e",
}  # fmt: skip


def _rules(colours: dict[str, str]) -> str:
    rules = [
        ("paper", f"fill:{colours['paper']}"),
        ("t", f"fill:{colours['ink']}"),
        ("m", f"fill:{colours['muted']}"),
        ("l", f"stroke:{colours['line']}"),
        ("e", f"fill:{colours['line']}"),
        ("on", f"fill:{colours['on']}"),
    ]
    for name in ("bad", "gap", "out", "good"):
        rules += [
            (f"{name}-t", f"fill:{colours[name]}"),
            (f"{name}-l", f"stroke:{colours[name]}"),
            (f"{name}-b", f"fill:{colours[name + 'fill']};stroke:{colours[name]}"),
            (f"{name}-s", f"fill:{colours[name]}"),
        ]
    return "".join(f".bn .{name}{{{rule}}}" for name, rule in rules)


STYLE = (
    "<style>"
    ".bn text{font-family:system-ui,sans-serif}"
    ".bn .b{font-weight:600}"
    ".bn .l,.bn .bad-l,.bn .gap-l,.bn .out-l,.bn .good-l{fill:none}"
    + _rules(_LIGHT)
    + "@media (prefers-color-scheme:dark){"
    + _rules(_DARK)
    + "}</style>"
)


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Room that a text needs, in pixels, rather too much than too little."""
    width = sum(_width(character) for character in text)
    return width * size * (1.13 if bold else 1.0)


def _width(character: str) -> float:
    """In sizes of the font; after DejaVu Sans, the widest of the usual ones."""
    if character in "ijlI.,:;'|!":
        return 0.33
    if character in "tfr()[]/- \u00a0":
        return 0.42
    if character in "mMW@%…→≥≤":
        return 1.0
    if character.isascii():
        return 0.78 if character.isupper() or character == "w" else 0.64
    return 1.1 if columns(character) > 1 else 0.8


def text_lines(
    text: str, width: float, size: float, bold: bool = False, most: int = 9
) -> list[str]:
    """The text in lines of at most ``width`` pixels, broken at blanks; a word longer than a line is
    broken at its hyphens and dots, before a capital, or else anywhere. More than ``most`` lines are
    cut."""
    lines = [""]
    for word in filter(None, text.split(" ")):
        fits = text_width(word, size, bold) <= width
        for number, part in enumerate([word] if fits else _parts(word, width, size, bold)):
            joined = lines[-1] + ("" if number or not lines[-1] else " ") + part
            if lines[-1] and text_width(joined, size, bold) > width:
                lines.append(part)
            else:
                lines[-1] = joined
    if len(lines) > most:
        lines = [*lines[: most - 1], shorten(lines[most - 1] + " …", width, size, bold)]
    return lines


def _parts(word: str, width: float, size: float, bold: bool) -> Iterator[str]:
    for piece in re.findall(r"[-.]+|[^.A-Z-]+[-.]*|[A-Z]+[^.A-Z-]*[-.]*", word):
        while text_width(piece, size, bold) > width and len(piece) > 1:
            kept = len(piece) - 1
            while kept > 1 and text_width(piece[:kept], size, bold) > width:
                kept -= 1
            yield piece[:kept]
            piece = piece[kept:]
        yield piece


def shorten(text: str, width: float, size: float, bold: bool = False) -> str:
    """The text, cut with an ellipsis where it is wider than ``width`` pixels."""
    if text_width(text, size, bold) <= width:
        return text
    while text and text_width(text + "…", size, bold) > width:
        text = text[:-1]
    return text.rstrip() + "…"


@dataclass(slots=True)
class Canvas:
    """Elements of a drawing in the order in which they are painted; lengths in pixels."""

    width: float = 0.0
    height: float = 0.0
    parts: list[str] = field(default_factory=list)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        css: str = "t",
        size: float = 13,
        anchor: str = "start",
        tip: str = "",
    ) -> None:
        """One line whose baseline begins, is centred or ends at (x, y); ``tip`` is shown when a
        pointer rests on it."""
        title = f"<title>{escape(tip)}</title>" if tip else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" font-size="{size:g}"'
            f' text-anchor="{anchor}">{title}{escape(text)}</text>'
        )

    def lines(
        self,
        x: float,
        y: float,
        lines: Sequence[str],
        css: str = "t",
        size: float = 13,
        anchor: str = "start",
    ) -> None:
        """Lines one below the other, the first with its baseline at y."""
        for number, line in enumerate(lines):
            self.text(x, y + number * leading(size), line, css, size, anchor)

    def line(
        self, points: Sequence[tuple[float, float]], css: str = "l", width: float = 1.5
    ) -> None:
        """A line through points."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(
            f'<polyline points="{path}" class="{css}" stroke-width="{width:g}"'
            ' stroke-linejoin="round" stroke-linecap="round"/>'
        )

    def area(self, path: str, css: str, width: float = 1.5) -> None:
        """A filled shape with an outline, as SVG path data."""
        self.parts.append(
            f'<path d="{path}" class="{css}" stroke-width="{width:g}" stroke-linejoin="round"/>'
        )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        css: str,
        radius: float = 6,
        dashed: bool = False,
        stroke: float = 1.5,
    ) -> None:
        """A rectangle with round corners."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
            f' rx="{radius:g}" class="{css}" stroke-width="{stroke:g}"{dash}/>'
        )

    def place(self, other: Canvas, x: float, y: float) -> None:
        """Puts a whole drawing on this one, its corner at (x, y)."""
        self.parts.append(f'<g transform="translate({x:.1f} {y:.1f})">')
        self.parts.extend(other.parts)
        self.parts.append("</g>")
        self.width = max(self.width, x + other.width)
        self.height = max(self.height, y + other.height)

    def svg(self, label: str, paper: bool = True) -> str:
        """The drawing as a document of its own; ``label`` tells readers of the screen what it is.
        Without ``paper`` the page shows through."""
        width, height = round(self.width), round(self.height)
        ground = f'<rect class="paper" width="{width}" height="{height}"/>' if paper else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="bn" width="{width}"'
            f' height="{height}" viewBox="0 0 {width} {height}" role="img"'
            f' aria-label="{escape(label)}">{STYLE}{ground}{"".join(self.parts)}</svg>\n'
        )


def leading(size: float) -> float:
    """From one baseline to the next."""
    return round(size * 1.35, 1)
