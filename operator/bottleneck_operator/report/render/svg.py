"""The drawings of a diagnosis, one by one or all on one sheet: no script, no other file. Pure."""

from __future__ import annotations

from .canvas import Canvas, leading, text_lines, text_width
from .faulttree import draw_fault_tree
from .fishbone import draw_fishbone
from .parts import Story

PICTURES = ("all", "fishbone", "fault-tree", "whys")

STEP, BOX, MARGIN, SIZE, SMALL = 44.0, 620.0, 24.0, 15.0, 12.0
"""Of the ladder: a rung's way to the right, width of its box, edge, sizes of its texts."""

DEEPEST = 8
"""Rungs that move to the right; deeper ones stay below."""


def render_svg(story: Story, picture: str = "all", paper: bool = True) -> str:
    """One of ``PICTURES`` as an SVG document."""
    canvas = _draw(story, picture)
    return canvas.svg(f"{picture}: {story.headline}", paper)


def _draw(story: Story, picture: str) -> Canvas:
    if picture == "fishbone":
        return draw_fishbone(story)
    if picture == "whys":
        return draw_whys(story)
    if picture == "fault-tree":
        return draw_fault_tree(story.tree) if story.tree else _missing()
    return _sheet(story)


def _missing() -> Canvas:
    canvas = Canvas(width=420, height=60)
    canvas.text(MARGIN, 36, "No fault tree was stored with this report.", "m", SIZE)
    return canvas


def _sheet(story: Story) -> Canvas:
    canvas = Canvas()
    css = {True: "bad-t b", False: "good-t b", None: "gap-t b"}[story.wrong]
    y = MARGIN + 26
    for text, style, size in (
        (story.headline, css, 26),
        (story.detail, "t", 16),
        (" · ".join(part for part in (story.title, story.basis) if part), "m", 13),
    ):
        lines = text_lines(text, 1040, size, "b" in style.split(), most=4) if text else []
        canvas.lines(MARGIN, y, lines, style, size)
        y += len(lines) * leading(size) + (6 if lines else 0)
    canvas.width = 1040 + 2 * MARGIN
    parts = [
        ("Why", draw_whys(story) if story.whys else None),
        ("What was tried", draw_fishbone(story)),
        ("How it comes to it", draw_fault_tree(story.tree) if story.tree else None),
    ]
    for title, part in parts:
        if part is not None:
            y += 22
            canvas.text(MARGIN, y, title, "t b", 19)
            canvas.place(part, 0, y)
            y += part.height
    canvas.height = y + 8
    return canvas


def draw_whys(story: Story) -> Canvas:
    """The ladder from the symptom down to the root cause."""
    canvas, y = Canvas(), MARGIN
    if not story.whys:
        canvas.text(MARGIN, y + 16, story.headline, "m", SIZE)
        canvas.width = text_width(story.headline, SIZE) + 2 * MARGIN
        canvas.height = y + 40
        return canvas
    for depth, why in enumerate(story.whys):
        x = MARGIN + STEP * min(depth, DEEPEST)
        text, _, cited = why.partition(" [")
        last = depth == len(story.whys) - 1 and depth > 0
        css = "bad" if last else "out"
        lines = text_lines(text, BOX - 32, SIZE, last, most=6)
        small = text_lines(cited.rstrip("]"), BOX - 32, SMALL, most=3) if cited else []
        height = 22 + len(lines) * leading(SIZE) + len(small) * leading(SMALL)
        if depth:
            _rung(canvas, x, y, depth)
            y += 26
        canvas.box(x, y, BOX, height, f"{css}-b", 8, stroke=2 if last else 1.3)
        canvas.lines(x + 16, y + 11 + SIZE, lines, "bad-t b" if last else "t", SIZE)
        below = y + 11 + len(lines) * leading(SIZE) + SMALL
        canvas.lines(x + 16, below, small, "m", SMALL)
        y += height
        canvas.width = max(canvas.width, x + BOX + MARGIN)
    canvas.height = y + MARGIN
    return canvas


def _rung(canvas: Canvas, x: float, y: float, depth: int) -> None:
    """The arrow from the box that ends at y to the next one, 26 pixels below it."""
    at = x + 22
    canvas.line([(at, y), (at, y + 18)], "l", 2)
    tip = f"M{at - 6:.1f} {y + 16:.1f} L{at + 6:.1f} {y + 16:.1f} L{at:.1f} {y + 25:.1f} Z"
    canvas.parts.append(f'<path d="{tip}" class="e"/>')
    canvas.text(at + 14, y + 17, "Why?" if depth < 6 else "And why?", "m b", 12)
