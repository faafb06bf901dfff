"""What the commands that show a diagnosis have in common: ``-o``, and where it goes."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from ..report.render.parts import Story
    from ..report.render.text import Terminal

FORMATS = ("text", "json", "svg", "html")
PICTURES = ("all", "fishbone", "fault-tree", "whys")


class RefusedError(Exception):
    """The command cannot do what was asked; the message says why and what to do instead."""


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``-o`` and what goes with it."""
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o", "--output", choices=FORMATS, default="text", help="how it is shown (%(default)s)"
    )
    group.add_argument(
        "--picture",
        choices=PICTURES,
        default="all",
        help="which drawing -o svg gives (%(default)s)",
    )


def show(story: Story, document: Mapping[str, Any], arguments: argparse.Namespace) -> None:
    """Prints the story in the wanted format; ``document`` is what ``-o json`` prints."""
    if arguments.output == "json":
        print(json.dumps(document, indent=2, allow_nan=False))
        return
    if arguments.output == "svg":
        from ..report.render.svg import render_svg

        _print_utf8(render_svg(story, arguments.picture))
    elif arguments.output == "html":
        from ..report.render.page import render_html

        _print_utf8(render_html(story))
    else:
        from ..report.render.text import render_text

        print(render_text(story, terminal(sys.stdout, os.environ)), end="")


def terminal(stream: TextIO, environment: Mapping[str, str]) -> Terminal:
    """What can be shown on a stream. Colour only where people look at it, and never against
    NO_COLOR."""
    from ..report.render.text import Terminal

    tty = stream.isatty()
    colour = tty and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
    encoding = (stream.encoding or "ascii").lower().replace("-", "").replace("_", "")
    width = shutil.get_terminal_size((100, 24)).columns
    return Terminal(width, colour, encoding.startswith("utf"))


def _print_utf8(text: str) -> None:
    # Both formats say that they are UTF-8, whatever the locale is.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8")
    print(text, end="")


def warn(text: str) -> None:
    """Says on standard error what to be aware of; names and words in it may be anybody's."""
    from ..report.render.words import clean

    print(f"warning: {clean(text)}", file=sys.stderr)


def refuse(command: str, error: object) -> int:
    """Says on standard error why a command gives up; the exit code for it."""
    from ..report.render.words import clean

    print(f"kubectl bottleneck {command}: {clean(error)}", file=sys.stderr)
    return 1
