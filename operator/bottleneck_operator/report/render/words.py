"""Text from data, made safe to show anywhere, and measured for the terminal. Pure.

Names and messages come from pods, policies and files that others wrote. A control character could
move the cursor of a terminal, a bidirectional override could make one name look like another, and
some characters may not stand in XML at all, so all of them are replaced before anything is drawn.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

LONGEST = 2000
"""Most characters shown of one string, so that no input makes a page of one name."""

_REPLACED = {"Cc", "Cf", "Cs", "Co", "Cn"}
_SPACES = {"Zs", "Zl", "Zp"}


def clean(value: object) -> str:
    """``value`` as one line of harmless text: what cannot be seen, or is not a character, becomes
    U+FFFD, every kind of white space a blank."""
    text = str(value)
    if len(text) > LONGEST:
        text = text[: LONGEST - 1] + "…"
    return "".join(map(_harmless, text))


def _harmless(character: str) -> str:
    if character.isascii() and character.isprintable():
        return character
    if character in "\t\n\r\v\f\x85":
        return " "
    category = unicodedata.category(character)
    if category in _SPACES:
        return " "
    return "\ufffd" if category in _REPLACED else character


def columns(text: str) -> int:
    """How many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def pad(text: str, width: int) -> str:
    """The text with blanks behind it, up to ``width`` columns."""
    return text + " " * max(0, width - columns(text))


def cut(text: str, width: int, ellipsis: str = "…") -> str:
    """The text in at most ``width`` columns, with an ellipsis where something was cut off."""
    if columns(text) <= width:
        return text
    kept, left = "", width - len(ellipsis)
    for character in text:
        left -= _columns(character)
        if left < 0:
            break
        kept += character
    return kept + ellipsis


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` columns, broken at blanks and, where a word alone is longer,
    within it. At least one line, which may be empty."""
    lines, line = [], ""
    for word in _pieces(text, max(1, width)):
        joined = f"{line} {word}" if line else word
        if columns(joined) <= width or not line:
            line = joined
        else:
            lines.append(line)
            line = word
    return [*lines, line]


def _pieces(text: str, width: int) -> Iterator[str]:
    for word in text.split():
        while columns(word) > width:
            head, taken = "", 0
            for character in word:
                taken += _columns(character)
                if taken > width and head:
                    break
                head += character
            yield head
            word = word[len(head) :]
        if word:
            yield word


_ASCII = str.maketrans(
    {
        "✔": "+", "✘": "x", "·": "-", "│": "|", "├": "|", "└": "`", "─": "-", "█": "#", "░": ".",
        "▌": "|", "≥": ">=", "≤": "<=", "→": "->", "×": "x", "–": "-", "—": "-", "−": "-",
        "…": "...", "’": "'", "“": '"', "”": '"', "÷": "/", "µ": "u", "±": "+/-",
    }
)  # fmt: skip


def plain(text: str) -> str:
    """The text in ASCII, for a terminal that shows nothing else."""
    return text.translate(_ASCII).encode("ascii", "replace").decode("ascii")
