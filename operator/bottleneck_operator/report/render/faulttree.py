"""The fault tree: the effect, any of the stages (OR), all conditions of a cause (AND). Pure.

Gates have their usual shapes: a shield with a hollow foot for OR, a flat foot for AND. The causes
of a stage hang on a rail below its gate, since thirty of them side by side could not be read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .canvas import STATE_CLASS, Canvas, leading, text_lines, text_width
from .fishbone import icon
from .parts import Condition, Stage, State, Tree, TreeCause

SIZE, SMALL, TOP_SIZE = 13.0, 12.0, 17.0
COLUMN, GAP, MARGIN = 220.0, 14.0, 24.0
TEXT_AT = 66.0
"""From a column's left edge to the texts of its causes: rail, AND gate, leaf."""

PADDING = 8.0
"""Between the edge of a confirmed cause's box and what is in it."""

SPACE = 9.0
"""Between two causes."""

LANES, CROWDED = 6, 9
"""Most columns in all, and how many causes in one make a second one worth its place."""

_ORDER = (State.CONFIRMED, State.NO_DATA, State.RULED_OUT)


@dataclass(frozen=True, slots=True)
class _Card:
    """One cause. Only a confirmed one, and one without data, has a box around it."""

    cause: TreeCause
    title: list[str]
    conditions: list[tuple[Condition, list[str]]]

    @property
    def padding(self) -> float:
        return 0.0 if self.cause.state is State.RULED_OUT else PADDING

    @property
    def height(self) -> float:
        lines = sum(len(lines) for _, lines in self.conditions)
        text = len(self.title) * leading(SIZE) + lines * leading(SMALL)
        return 2 * self.padding + text + 3 * len(self.conditions)


def draw_fault_tree(tree: Tree) -> Canvas:
    """The drawing. Confirmed causes show all their conditions, the others the one that decided."""
    canvas = Canvas()
    lanes = _lanes(tree)
    count = max(1, sum(lanes))
    canvas.width = 2 * MARGIN + count * COLUMN + (count - 1) * GAP
    middle = canvas.width / 2
    bottom = _top(canvas, tree, middle)
    bus = bottom + 18
    stages_at = bus + 20
    canvas.line([(middle, bottom), (middle, bus)], _line(tree.state), _thick(tree.state))
    lowest = stages_at
    for state in reversed(_ORDER):  # what is confirmed is drawn last, over the others
        for number, stage in enumerate(tree.stages):
            if stage.state is state:
                x = MARGIN + sum(lanes[:number]) * (COLUMN + GAP)
                centre = x + (lanes[number] * (COLUMN + GAP) - GAP) / 2
                points = [(middle, bus), (centre, bus), (centre, stages_at)]
                canvas.line(points, _line(state), _thick(state))
                lowest = max(lowest, _stage(canvas, stage, x, stages_at, lanes[number]))
    _legend(canvas, MARGIN, lowest + 34)
    canvas.height = lowest + 58
    return canvas


def _lanes(tree: Tree) -> list[int]:
    """Columns of each stage: one, and more for those with many causes while there is room."""
    lanes = [1] * len(tree.stages)
    while lanes and sum(lanes) < LANES:
        crowd = [len(s.causes) / n for s, n in zip(tree.stages, lanes, strict=True)]
        if max(crowd) < CROWDED:
            break
        lanes[crowd.index(max(crowd))] += 1
    return lanes


def _top(canvas: Canvas, tree: Tree, middle: float) -> float:
    """The top event and its gate; the y at which the gate's inputs begin."""
    lines = text_lines(tree.top, 520, TOP_SIZE, True, most=3)
    width = max(text_width(line, TOP_SIZE, True) for line in lines) + 48
    height = len(lines) * leading(TOP_SIZE) + 22
    css = STATE_CLASS[tree.state]
    canvas.box(middle - width / 2, MARGIN, width, height, f"{css}-b", 6, stroke=2.5)
    first = MARGIN + 11 + TOP_SIZE
    canvas.lines(middle, first, lines, f"{css}-t b", TOP_SIZE, "middle")
    gate_at = MARGIN + height + 14
    canvas.line([(middle, MARGIN + height), (middle, gate_at)], f"{css}-l", _thick(tree.state))
    _or_gate(canvas, middle, gate_at, tree.state)
    return gate_at + 34


def _stage(canvas: Canvas, stage: Stage, x: float, y: float, lanes: int) -> float:
    """A stage with its causes; the y at which they end."""
    css, rail = STATE_CLASS[stage.state], x + 16
    wide = lanes * (COLUMN + GAP) - GAP
    name, _, meaning = stage.title.partition(": ")
    lines = text_lines(name, wide - 44, 14, True, most=2)
    small = text_lines(meaning, wide - 44, SMALL, most=2) if meaning else []
    height = len(lines) * leading(14) + len(small) * leading(SMALL) + 16
    canvas.box(x, y, wide, height, f"{css}-b", 6, stage.state is State.NO_DATA, 2)
    icon(canvas, x + 18, y + 18, stage.state)
    canvas.lines(x + 34, y + 8 + 14, lines, f"{css}-t b", 14)
    canvas.lines(x + 34, y + 8 + len(lines) * leading(14) + SMALL, small, "m", SMALL)
    if not stage.causes:
        canvas.text(x + 12, y + height + 22, "nothing to try", "m", SMALL)
        return y + height + 30
    gate_at = y + height + 10
    canvas.line([(rail, y + height), (rail, gate_at)], _line(stage.state), _thick(stage.state))
    _or_gate(canvas, rail, gate_at, stage.state, 0.7)
    foot = gate_at + 22
    cards = [_card(cause) for state in _ORDER for cause in stage.causes if cause.state is state]
    many = -(-len(cards) // lanes)
    places: list[tuple[_Card, float, float]] = []
    lowest = foot
    for lane in range(lanes):
        at = foot + 12
        for card in cards[lane * many : (lane + 1) * many]:
            places.append((card, x + lane * (COLUMN + GAP), at))
            at += card.height + SPACE
        lowest = max(lowest, at - SPACE)
    # From the last to the first: the thick part of the rail lies over the thin one.
    for card, left, top in reversed(places):
        state, gate_y = card.cause.state, top + card.padding + 9
        down = left + 16
        points = [(rail, foot), (rail, foot + 6), (down, foot + 6), (down, gate_y)]
        canvas.line([*points, (left + 28, gate_y)], _line(state), _thick(state))
        _draw_card(canvas, card, left, top)
    return lowest


def _card(cause: TreeCause) -> _Card:
    room = COLUMN - TEXT_AT - PADDING
    confirmed = cause.state is State.CONFIRMED
    shown = list(cause.conditions)
    if not confirmed:
        shown = [cause.deciding] if cause.deciding else []
    return _Card(
        cause,
        text_lines(cause.id, room + 10, SIZE, True, most=2),
        [(c, text_lines(_together(c.text), room, SMALL, most=4)) for c in shown],
    )


def _together(text: str) -> str:
    """A sign and its bound stay on one line."""
    return re.sub(r"([≥<≤>=]) (?=\S)", "\\1\u00a0", text)


def _draw_card(canvas: Canvas, card: _Card, x: float, y: float) -> None:
    state = card.cause.state
    css, left = STATE_CLASS[state], x + 28
    if state is not State.RULED_OUT:
        stroke = 2.0 if state is State.CONFIRMED else 1.0
        dashed = state is State.NO_DATA
        canvas.box(left - 4, y, COLUMN - 24, card.height, f"{css}-b", 6, dashed, stroke)
    gate_y = y + card.padding + 9
    _and_gate(canvas, left, gate_y, state)
    base = y + card.padding + SIZE
    for number, line in enumerate(card.title):
        at = base + number * leading(SIZE)
        canvas.text(x + TEXT_AT - 12, at, line, f"{css}-t b", SIZE, tip=card.cause.title)
    stem = left + 11
    at = base + (len(card.title) - 1) * leading(SIZE) + leading(SMALL) + 3
    for condition, lines in card.conditions:
        leaf_y = at - 4
        canvas.line([(stem, gate_y + 9), (stem, leaf_y), (x + TEXT_AT - 16, leaf_y)], f"{css}-l", 1)
        _leaf(canvas, x + TEXT_AT - 12, leaf_y, condition.holds)
        canvas.lines(x + TEXT_AT, at, lines, "t" if state is State.CONFIRMED else "m", SMALL)
        at += len(lines) * leading(SMALL) + 3


def _leaf(canvas: Canvas, x: float, y: float, holds: bool | None) -> None:
    """A basic event: full where it happened, empty where not, dashed where it is not known."""
    css = {True: "bad-s", False: "out-b", None: "gap-b"}[holds]
    dash = ' stroke-dasharray="2 2"' if holds is None else ""
    canvas.parts.append(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" class="{css}" stroke-width="1.5"{dash}/>'
    )


def _or_gate(canvas: Canvas, x: float, y: float, state: State, scale: float = 1.0) -> None:
    """Output at the top (x, y), inputs 34 pixels (times the scale) below."""
    w, h = 20 * scale, 34 * scale
    canvas.area(
        f"M{x:.1f} {y:.1f} C{x + w * 0.7:.1f} {y + h * 0.25:.1f} {x + w:.1f} {y + h * 0.6:.1f}"
        f" {x + w:.1f} {y + h:.1f} Q{x:.1f} {y + h * 0.72:.1f} {x - w:.1f} {y + h:.1f}"
        f" C{x - w:.1f} {y + h * 0.6:.1f} {x - w * 0.7:.1f} {y + h * 0.25:.1f} {x:.1f} {y:.1f} Z",
        f"{STATE_CLASS[state]}-b",
        2,
    )


def _and_gate(canvas: Canvas, x: float, y: float, state: State) -> None:
    """Lying: output on the left (x, y), the flat foot 20 pixels to the right."""
    canvas.area(
        f"M{x + 20:.1f} {y - 9:.1f} L{x + 9:.1f} {y - 9:.1f}"
        f" A9 9 0 0 0 {x + 9:.1f} {y + 9:.1f} L{x + 20:.1f} {y + 9:.1f} Z",
        f"{STATE_CLASS[state]}-b",
        2,
    )


def _legend(canvas: Canvas, x: float, y: float) -> None:
    _or_gate(canvas, x + 10, y - 9, State.RULED_OUT, 0.5)
    canvas.text(x + 26, y + 4, "any of these", "m", SMALL)
    _and_gate(canvas, x + 126, y, State.RULED_OUT)
    canvas.text(x + 154, y + 4, "all of these", "m", SMALL)
    for at, holds, text in ((250, True, "holds"), (320, False, "does not"), (410, None, "no data")):
        _leaf(canvas, x + at, y, holds)
        canvas.text(x + at + 10, y + 4, text, "m", SMALL)


def _line(state: State) -> str:
    return "bad-l" if state is State.CONFIRMED else "l"


def _thick(state: State) -> float:
    return 3.0 if state is State.CONFIRMED else 1.3
