"""Reading API objects: moments as numbers, other people's words made safe. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

Document = Mapping[str, Any]

TEXT_LENGTH = 300
"""Most characters kept of a text that others wrote: the scheduler names every kind of node."""


def seconds_of(moment: object) -> float | None:
    """``"2026-01-31T12:00:00Z"`` → seconds since the Unix epoch; None for what is no moment."""
    if not isinstance(moment, str):
        return None
    try:
        parsed = datetime.fromisoformat(moment)
    except ValueError:
        return None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def clock(seconds: float) -> str:
    """Seconds since the Unix epoch as people read them: ``2026-01-31 12:00:00Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def clean(text: object, length: int = TEXT_LENGTH) -> str:
    """One line of at most ``length`` characters, without control characters and the invisible ones
    that turn text around: it ends up on people's terminals and in web pages."""
    if not isinstance(text, str):
        return ""
    # More than is kept, so that a text of a megabyte costs no more than a short one.
    shown = (
        " " if unicodedata.category(character).startswith(("C", "Z")) else character
        for character in text[: 4 * length]
    )
    line = " ".join("".join(shown).split())
    return line if len(line) <= length else line[: length - 1] + "…"


def items(value: object) -> list[Document]:
    """The objects in a list that may be absent."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def part(document: object, *path: str) -> Document:
    """The object at a path, empty where anything on the way is absent."""
    for name in path:
        document = document.get(name) if isinstance(document, Mapping) else None
    return document if isinstance(document, Mapping) else {}
