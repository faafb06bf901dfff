"""Whatever stands in a report, no renderer makes anything but text of it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from bottleneck_operator.api.report import BottleneckReport
from bottleneck_operator.observe.documents import clean as one_line
from bottleneck_operator.report.render.incident import report_sections
from bottleneck_operator.report.render.page import render_html
from bottleneck_operator.report.render.parts import Context, Story
from bottleneck_operator.report.render.story import story
from bottleneck_operator.report.render.svg import PICTURES, render_svg
from bottleneck_operator.report.render.text import Terminal, render_text
from bottleneck_operator.report.render.words import clean
from hypothesis import given, settings
from hypothesis import strategies as st

from ..core.builders import CASES, replicas_action, report
from .documents import starved

NASTY = st.sampled_from(
    [
        *("<script>alert(1)</script>", "</style></svg><script>", "]]>", "<!--", "-->", "&lt;b&gt;"),
        *(
            "\"' onload=x x='",
            "javascript:alert(1)",
            "url(http://x/)",
            "<?xml ?>",
            "<image href=x>",
        ),
        *("\x1b]8;;http://x\x07", "\x1b[2J", "\x9b31m", "\r", "\x08\x08", "\x00"),
        *("\u202e", "\u2066", "\u200b", "\ufeff", "\ud800", "\ufffe", "\u2028", "\U000e0001"),
    ]
)
TEXTS = st.lists(
    st.one_of(
        NASTY,
        st.text(st.characters(exclude_categories=()), max_size=30),
        st.tuples(NASTY, st.text(max_size=10), NASTY).map("".join),
    ),
    min_size=1,
    max_size=12,
)
FEW = settings(CASES, max_examples=25)
"""Each example is many texts in all places."""
FIXED = ("state", "phase", "result", "gate", "time", "breachedAt", "decidedAt")
"""Fields that are no free text: an enumeration or a moment."""


def spoilt(value: Any, texts: Iterator[str], key: str = "") -> Any:
    """The same document with other people's words in place of every text, and of every name that
    is not the schema's."""
    if isinstance(value, dict):
        free = key == "bones"
        return {next(texts) + k if free else k: spoilt(v, texts, k) for k, v in value.items()}
    if isinstance(value, list):
        return [spoilt(v, texts, key) for v in value]
    if isinstance(value, str) and key not in FIXED:
        return next(texts)
    return value


def told(texts: list[str]) -> Story:
    """The story of a report all of whose texts are these."""
    document = spoilt(starved(), itertools.cycle(texts))
    # The API holds no halves of characters, which a document of a file may.
    words = itertools.cycle(text.encode("utf-8", "replace").decode() for text in texts)
    found = report(replicas_action(1, 2)).dump()
    found["spec"]["refusal"] = "x"
    found["spec"]["alternatives"] = [{"cause": "x", "type": "x", "summary": "x", "reason": "x"}]
    found["status"]["timeline"] = [{"time": "2026-01-01T00:00:00Z", "what": "x", "message": "x"}]
    for key in ("symptom", "action", "alternatives", "metric", "refusal"):
        found["spec"][key] = spoilt(found["spec"][key], words, key)
    found["spec"]["action"]["aim"] = "Improve"
    found["status"] = spoilt(found["status"], words, "status")
    found["metadata"] = {"name": next(words), "namespace": next(words)}
    sections = report_sections(BottleneckReport.model_validate(found))
    context = Context(title=next(words), basis=next(words), sections=sections, notes=texts)
    advice = {cause["id"]: next(words) for cause in document["causes"]}
    return story(document, context, advice)


SVG = "{http://www.w3.org/2000/svg}"
SHAPES = {"svg", "style", "rect", "text", "title", "polyline", "path", "circle", "g"}
GIVEN = {
    *("class", "width", "height", "viewBox", "role", "aria-label", "x", "y", "rx", "d", "points"),
    *("cx", "cy", "r"),
    *("font-size", "text-anchor", "stroke-width", "stroke-linejoin", "stroke-linecap"),
    *("stroke-dasharray", "transform"),
}
WORDS = {"aria-label"}
"""The one attribute that holds other people's words; a reader of the screen says them."""


@pytest.mark.parametrize("picture", PICTURES)
@FEW
@given(texts=TEXTS)
def test_no_element_or_attribute_of_a_drawing_comes_from_data(
    picture: str, texts: list[str]
) -> None:
    drawn = render_svg(told(texts), picture)
    drawn.encode("utf-8")
    root = ElementTree.fromstring(drawn)  # noqa: S314
    for element in root.iter():
        assert element.tag.removeprefix(SVG) in SHAPES
        assert set(element.attrib) <= GIVEN
        for name, value in element.attrib.items():
            assert name in WORDS or re.fullmatch(r"[\w .,:#%()-]*", value), (name, value)
    styles = [element.text for element in root.iter(f"{SVG}style")]
    ours = render_svg(story(starved()), picture)
    assert styles == [ElementTree.fromstring(ours).findtext(f"{SVG}style")]  # noqa: S314


class Page(HTMLParser):
    """Elements and attributes as a browser would find them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.odd: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {
            (name, "" if name == "aria-label" else value or "") for name, value in attrs
        }

    def handle_comment(self, data: str) -> None:
        self.odd.append(data)

    def unknown_decl(self, data: str) -> None:
        self.odd.append(data)

    def handle_pi(self, data: str) -> None:
        self.odd.append(data)


@FEW
@given(TEXTS)
def test_no_element_or_attribute_of_the_page_comes_from_data(texts: list[str]) -> None:
    page = Page(render_html(told(texts)))
    assert page.odd == []
    assert not page.tags & {
        "script",
        "iframe",
        "object",
        "embed",
        "img",
        "link",
        "base",
        "a",
        "form",
    }
    assert page.tags <= {
        *("html", "head", "meta", "title", "style", "body", "main", "p", "h1", "h2", "h3", "bdi"),
        *("ol", "li", "small", "div", "i", "span", "table", "thead", "tbody", "tr", "th", "td"),
        *SHAPES,
    }
    names = {name for name, _ in page.attributes}
    assert names <= {name.lower() for name in GIVEN} | {
        *(
            "lang",
            "charset",
            "http-equiv",
            "content",
            "name",
            "style",
            "data-head",
            "scope",
            "xmlns",
        )
    }
    for name, value in page.attributes:
        if name == "style":
            assert re.fullmatch(r"--depth:\d|width:[\d.]+%", value)
    policies = [value for name, value in page.attributes if name == "content"]
    assert "default-src 'none'; style-src 'unsafe-inline'" in policies


COMMANDS = re.compile(r"\x1b\[[0-9;]*m")
"""How the operator's own renderer colours a text, and nothing more than that."""


@FEW
@given(TEXTS, st.booleans(), st.booleans())
def test_a_terminal_is_shown_text_only(texts: list[str], colour: bool, unicode: bool) -> None:
    shown = render_text(told(texts), Terminal(80, colour, unicode))
    rest = COMMANDS.sub("", shown) if colour else shown
    for character in rest:
        assert character == "\n" or clean(character) == character, repr(character)


@FEW
@given(TEXTS)
def test_a_message_is_one_line_without_commands(texts: list[str]) -> None:
    """Of events, conditions and logs; ``kubectl describe`` prints them as they are."""
    for text in texts:
        said = one_line(text)
        assert "\n" not in said
        assert clean(said) == said
