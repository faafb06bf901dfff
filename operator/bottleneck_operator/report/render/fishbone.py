"""The fishbone (Ishikawa diagram): every hypothesis on the bone of its category. Pure.

The bones of one side are parallel. In coordinates that are skewed along with them a bone and all
of its ribs are a column, so texts cannot meet when the columns do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .canvas import STATE_CLASS, Canvas, leading, shorten, text_lines, text_width
from .parts import Item, State, Story, percent

ABOVE = ("Infrastructure", "Models")
"""Bones above the spine; all others hang below it. These two have the most hypotheses."""

SIZE, LABEL_SIZE, HEAD_SIZE = 13.0, 15.0, 17.0
ROW = 27.0
SLANT = 0.5
"""Pixels that a bone moves to the left for each pixel away from the spine."""

RIB, GAP, MARGIN = 16.0, 26.0, 28.0
FIRST = 26.0
"""From the spine to the first row of ribs."""

LONGEST = 250.0
"""Widest that the text of a rib is drawn."""

HEAD_WIDTH = 225.0
ICON = 15.0


@dataclass(frozen=True, slots=True)
class _Rib:
    item: Item
    text: str
    css: str
    width: float
    left: bool
    row: int


@dataclass(frozen=True, slots=True)
class _Bone:
    name: str
    ribs: tuple[_Rib, ...]

    @property
    def rows(self) -> int:
        return max((rib.row + 1 for rib in self.ribs), default=0)

    @property
    def length(self) -> float:
        """From the spine to the middle of the bone's label, across."""
        return FIRST + max(1, self.rows) * ROW + 10

    def side(self, left: bool) -> float:
        """Room that it takes to one side."""
        label = text_width(self.name, LABEL_SIZE, True) / 2 + 22
        return max([label, *(rib.width + RIB for rib in self.ribs if rib.left is left)])


def draw_fishbone(story: Story) -> Canvas:
    """The drawing; ribs of confirmed causes are filled and tell their share, and the way of the
    first of them to the effect is drawn thick."""
    shares = {cause.id: cause.share for cause in story.causes}
    bones = [_bone(name, items, shares) for name, items in story.bones.items()]
    sides = [[b for b in bones if b.name in ABOVE], [b for b in bones if b.name not in ABOVE]]
    above = max((bone.length for bone in sides[0]), default=0.0)
    below = max((bone.length for bone in sides[1]), default=0.0)
    joints = _joints(sides)
    spine = MARGIN + above + 16
    end = max(
        at[bone.name] + bone.side(False)
        for bones_here, at in zip(sides, joints, strict=True)
        for bone in bones_here
    )

    canvas = Canvas()
    root = story.causes[0].id if story.causes else ""
    canvas.line([(MARGIN, spine), (end, spine)], width=4)
    for sign, bones_here, at in zip((-1, 1), sides, joints, strict=True):
        for bone in bones_here:
            _draw_bone(canvas, bone, at[bone.name], spine, sign, root, end)
    _draw_head(canvas, story, end, spine)
    canvas.width = end + HEAD_WIDTH + MARGIN + 34
    # The head is centred on the spine and may be higher than the shorter side of the fish.
    canvas.height = max(spine + below + 16, spine + 70) + 52
    _draw_legend(canvas, MARGIN, canvas.height - 22)
    return canvas


def _bone(name: str, items: Sequence[Item], shares: dict[str, float]) -> _Bone:
    ribs = []
    for number, item in enumerate(items):
        confirmed = item.state is State.CONFIRMED
        css = f"{STATE_CLASS[item.state]}-t" + (" b" if confirmed else "")
        share = f"  {percent(shares[item.id])}" if item.id in shares else ""
        room = LONGEST - text_width(share, SIZE, confirmed)
        text = shorten(item.id, room, SIZE, confirmed) + share
        width = text_width(text, SIZE, confirmed) + ICON + (20 if confirmed else 6)
        ribs.append(_Rib(item, text, css, width, number % 2 == 0, number // 2))
    return _Bone(name, tuple(ribs))


def _joints(sides: Sequence[Sequence[_Bone]]) -> list[dict[str, float]]:
    """Where each bone meets the spine. The side that needs less room spreads out over the other's,
    and nothing reaches out of the drawing on the left."""
    placed: list[dict[str, float]] = []
    for bones in sides:
        x, at = MARGIN, dict[str, float]()
        for bone in bones:
            lean = SLANT * bone.length if not at else 0.0
            x += bone.side(True) + lean
            at[bone.name] = x
            x += bone.side(False) + GAP
        placed.append(at)
    widest = max(max(at.values()) for at in placed if at)
    for at in placed:
        spare = widest - max(at.values(), default=widest)
        for number, name in enumerate(at, 1):
            at[name] += spare * number / len(at)
    return placed


def _draw_bone(
    canvas: Canvas, bone: _Bone, joint: float, spine: float, sign: int, root: str, end: float
) -> None:
    def point(away: float) -> tuple[float, float]:
        return joint - SLANT * away, spine + sign * away

    tip = point(bone.length)
    bad = any(rib.item.state is State.CONFIRMED for rib in bone.ribs)
    canvas.line([point(bone.length - 14), (joint, spine)], width=2.5)
    for rib in bone.ribs:
        # Above the spine the first row is the outermost, so that both sides read downwards.
        row = bone.rows - 1 - rib.row if sign < 0 else rib.row
        away = FIRST + row * ROW
        x, y = point(away)
        if rib.item.id == root:
            canvas.line([(x, y), (joint, spine), (end, spine)], "bad-l", 5)
        _draw_rib(canvas, rib, x, y)
    width = text_width(bone.name, LABEL_SIZE, True) + 28
    css = "bad-b" if bad else "out-b"
    canvas.box(tip[0] - width / 2, tip[1] - 14, width, 28, css, 14, stroke=2)
    label = "bad-t b" if bad else "t b"
    canvas.text(tip[0], tip[1] + 5.5, bone.name, label, LABEL_SIZE, "middle")
    if not bone.ribs:
        x, y = point(FIRST + 4)
        canvas.text(x + RIB, y, "nothing to try", "m", 12)


def _draw_rib(canvas: Canvas, rib: _Rib, x: float, y: float) -> None:
    state = rib.item.state
    confirmed = state is State.CONFIRMED
    tip = f"{rib.item.title}. {rib.item.reason}" if rib.item.reason else rib.item.title
    # Mirrored on the left: the sign stands next to the bone on either side.
    side = -1 if rib.left else 1
    edge = x + side * RIB
    canvas.line([(edge, y), (x, y)], "bad-l" if confirmed else "l", 2 if confirmed else 1.2)
    inset = 4.0
    if confirmed:
        canvas.box(edge - rib.width if rib.left else edge, y - 12, rib.width, 24, "bad-b", 12)
        inset = 9.0
    icon(canvas, edge + side * (inset + 5), y, state)
    anchor = "end" if rib.left else "start"
    at = edge + side * (inset + ICON)
    canvas.text(at, y + 4.5, rib.text, rib.css, SIZE, anchor, tip)


def icon(canvas: Canvas, x: float, y: float, state: State) -> None:
    """The sign of a state, centred at (x, y), about 11 pixels wide: drawn, since not every font has
    a tick and a cross."""
    css = f"{STATE_CLASS[state]}-l"
    if state is State.CONFIRMED:
        canvas.line([(x - 5, y + 0.5), (x - 1.5, y + 4), (x + 5, y - 4.5)], css, 2.4)
    elif state is State.RULED_OUT:
        canvas.line([(x - 3.5, y - 3.5), (x + 3.5, y + 3.5)], css, 1.7)
        canvas.line([(x - 3.5, y + 3.5), (x + 3.5, y - 3.5)], css, 1.7)
    else:
        canvas.text(x, y + 4.5, "?", "gap-t b", 13, "middle")


def _draw_head(canvas: Canvas, story: Story, x: float, y: float) -> None:
    css = {True: "bad", False: "good", None: "gap"}[story.wrong]
    lines = text_lines(story.effect, HEAD_WIDTH - 36, HEAD_SIZE, True, most=6)
    height = max(86.0, len(lines) * leading(HEAD_SIZE) + 34)
    top, left, right = y - height / 2, x, x + HEAD_WIDTH + 34
    # The head of the fish: flat towards the spine, and round in front.
    canvas.area(
        f"M{left:.1f} {top:.1f} C{right - 60:.1f} {top:.1f} {right:.1f} {y - height / 4:.1f}"
        f" {right:.1f} {y:.1f} C{right:.1f} {y + height / 4:.1f} {right - 60:.1f}"
        f" {top + height:.1f} {left:.1f} {top + height:.1f} Q{left + 22:.1f} {y:.1f}"
        f" {left:.1f} {top:.1f} Z",
        f"{css}-b",
        2.5,
    )
    first = y - (len(lines) - 1) * leading(HEAD_SIZE) / 2 + HEAD_SIZE * 0.35
    canvas.lines(x + 24, first, lines, f"{css}-t b", HEAD_SIZE)


def _draw_legend(canvas: Canvas, x: float, y: float) -> None:
    words = {
        State.CONFIRMED: "confirmed (with what removing it would return)",
        State.RULED_OUT: "ruled out",
        State.NO_DATA: "no data",
    }
    for state, text in words.items():
        icon(canvas, x + 6, y, state)
        canvas.text(x + ICON + 4, y + 4.5, text, "m", 12)
        x += ICON + text_width(text, 12) + 34
