"""The drawings: well-formed, complete, nothing over anything else, harmless; and the page."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from bottleneck_operator.report.render.canvas import text_lines, text_width
from bottleneck_operator.report.render.page import render_html
from bottleneck_operator.report.render.parts import Context, Section
from bottleneck_operator.report.render.story import story
from bottleneck_operator.report.render.svg import PICTURES, render_svg
from PIL import ImageFont

from .documents import IDS, diagnosis, evidence, healthy, starved

SVG = "{http://www.w3.org/2000/svg}"

HOSTILE = [
    "<script>alert(1)</script>",
    "]]>",
    "\"'><svg onload=x>",
    "&amp;&#x3c;b>",
    "\u202egnp.exe\u202c",
    "שלום",
    "nul\x00 bell\x07 esc\x1b[31m",
    "\ud800 surrogate",
    "\ufffe\uffff",
    "</style></title></svg>",
]


def hostile() -> dict[str, Any]:
    """A document in which every string is one that does harm where it is not escaped."""
    names = itertools.cycle(HOSTILE)

    def spoil(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: spoil(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [spoil(v) for v in value]
        if isinstance(value, str) and key not in ("state", "category"):
            return next(names) + value
        return value

    spoilt: dict[str, Any] = spoil(starved())
    spoilt["fishbone"]["bones"]["<script>"] = [{"id": "x", "title": "<b>", "state": "Bad"}]
    return spoilt


@dataclass(frozen=True)
class Box:
    """A text's place, measured with a real font and not with the renderer's own table."""

    text: str
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        return (
            min(self.right, other.right) - max(self.left, other.left) > 0.5
            and min(self.bottom, other.bottom) - max(self.top, other.top) > 0.5
        )


def parsed(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)  # noqa: S314


def boxes(element: ElementTree.Element, x: float = 0, y: float = 0) -> Iterator[Box]:
    """Boxes of all texts below an element; only translations are used in these drawings."""
    if "transform" in element.attrib:
        found = re.fullmatch(r"translate\(([\d.-]+) ([\d.-]+)\)", element.attrib["transform"])
        assert found
        x, y = x + float(found[1]), y + float(found[2])
    if element.tag == f"{SVG}text":
        text = "".join(element.itertext())
        for child in element:  # the tip is not drawn
            text = text.removeprefix(child.text or "")
        size = float(element.attrib["font-size"])
        width = ImageFont.load_default(size).getlength(text)
        left = x + float(element.attrib["x"])
        left -= {"start": 0, "middle": width / 2, "end": width}[element.attrib["text-anchor"]]
        base = y + float(element.attrib["y"])
        yield Box(text, left, base - 0.75 * size, left + width, base + 0.22 * size)
    for child in element:
        yield from boxes(child, x, y)


def crowded() -> dict[str, Any]:
    """25 hypotheses with the longest names on one bone, and two confirmed causes."""
    document = starved()
    item = {"title": "t", "state": "NoData", "reason": "no data"}
    document["fishbone"]["bones"]["People"] = [
        {"id": f"a-hypothesis-with-quite-a-long-name-{number}", **item} for number in range(25)
    ]
    return document


DOCUMENTS = {
    "starved": starved(),
    "healthy": healthy(),
    "crowded": crowded(),
    "hostile": hostile(),
    "all confirmed": diagnosis(set(IDS), starved()["causes"]),
}


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("picture", PICTURES)
def test_no_text_lies_over_another_or_outside(name: str, picture: str) -> None:
    root = parsed(render_svg(story(DOCUMENTS[name]), picture))
    found = list(boxes(root))
    assert len(found) >= (1 if picture == "whys" else 20)
    for one, other in itertools.combinations(found, 2):
        assert not one.meets(other), (one, other)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for box in found:
        assert box.left >= 0, box
        assert box.top >= 0, box
        assert box.right <= width, box
        assert box.bottom <= height, box


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_rib_of_the_fishbone_runs_through_a_text(name: str) -> None:
    root = parsed(render_svg(story(DOCUMENTS[name]), "fishbone"))
    texts = [box for box in boxes(root) if box.right - box.left > 12]
    for line in root.iter(f"{SVG}polyline"):
        points = [tuple(map(float, p.split(","))) for p in line.attrib["points"].split()]
        for (x1, y1), (x2, y2) in itertools.pairwise(points):
            for step in range(101):
                x, y = x1 + (x2 - x1) * step / 100, y1 + (y2 - y1) * step / 100
                for box in texts:
                    inside = box.left < x < box.right and box.top + 3 < y < box.bottom - 3
                    assert not inside, (box, line.attrib)


def test_the_fishbone_has_all_bones_and_every_hypothesis_once() -> None:
    texts = [box.text for box in boxes(parsed(picture("fishbone")))]
    for name in ("Infrastructure", "Data", "Models", "People", "Processes"):
        assert texts.count(name) == 1
    for id in IDS:
        assert len([text for text in texts if text.split("  ")[0] == id]) == 1
    assert "loader-without-workers  63%" in texts
    assert [t for t in texts if t.startswith("Waiting for")], "the head tells the effect"


def picture(name: str) -> str:
    return render_svg(story(starved()), name)


def test_the_fault_tree_has_every_cause_and_gates_of_both_kinds() -> None:
    root = parsed(picture("fault-tree"))
    tips = [title.text for title in root.iter(f"{SVG}title")]
    assert len(set(tips)) == len(IDS)
    together = "".join(box.text for box in boxes(root))
    for id in IDS:
        assert id in together, id
    paths = [path.attrib["d"] for path in root.iter(f"{SVG}path")]
    assert len([d for d in paths if "Q" in d]) == 1 + 5 + 1  # top, stages, legend
    assert len([d for d in paths if "A9 9" in d]) == len(IDS) + 1


def test_the_ladder_has_a_rung_for_each_why() -> None:
    root = parsed(picture("whys"))
    texts = [box.text for box in boxes(root)]
    assert texts.count("Why?") == len(starved()["whys"]) - 1
    assert "training.dataShare ratio of sums over 10s" in texts


def test_a_report_without_a_fault_tree_says_so() -> None:
    document = starved()
    del document["faultTree"]
    assert "No fault tree was stored" in render_svg(story(document), "fault-tree")
    assert "Fault tree" not in render_html(story(document))


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("picture", PICTURES)
def test_a_drawing_brings_no_script_and_loads_nothing(name: str, picture: str) -> None:
    root = parsed(render_svg(story(DOCUMENTS[name]), picture))
    allowed = {"svg", "style", "g", "rect", "path", "polyline", "circle", "text", "title"}
    for element in root.iter():
        assert element.tag.removeprefix(SVG) in allowed
        assert not [key for key in element.attrib if key.startswith("on") or "href" in key]
    style = root.find(f"{SVG}style")
    assert style is not None
    assert "url(" not in (style.text or "")
    assert "prefers-color-scheme:dark" in (style.text or "")


def test_what_was_drawn_reads_as_it_was_written() -> None:
    document = diagnosis(set(), [])
    document["fishbone"]["bones"]["Data"][0]["id"] = "<a> & 'b' ]]>"
    texts = [b.text for b in boxes(parsed(render_svg(story(document), "fishbone")))]
    assert "<a> & 'b' ]]>" in texts


class Page(HTMLParser):
    """Tags, attributes and texts of a page; fails on a tag that is not closed in order."""

    VOID = ("meta",)

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_page_stands_for_itself(name: str) -> None:
    spoilt = Context("<script>t", "]]>", sections=[Section("<i>", ["<u>'\""])], notes=["<b>"])
    page = Page(render_html(story(DOCUMENTS[name], spoilt)))
    forbidden = {"script", "link", "img", "iframe", "object", "embed", "base", "form", "b", "u"}
    assert not forbidden & set(page.tags)
    keys = {key for key, _ in page.attributes}
    assert not {key for key in keys if key.startswith("on")} | (keys & {"href", "src"})
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    assert ("content", policy) in page.attributes
    assert ("content", "width=device-width,initial-scale=1") in page.attributes


def test_the_page_shows_names_as_they_are() -> None:
    document = hostile()
    page = Page(render_html(story(document)))
    together = "\n".join(page.texts)
    # Invisible characters are replaced and never reach the page.
    assert "<script>alert(1)</script>" in together
    assert "\ufffdgnp.exe\ufffd" in together
    assert not set(together) & set("\u202e\u202c\x00\x07\x1b")
    render_html(story(document)).encode("utf-8")


def test_the_page_has_every_part() -> None:
    advice = {"loader-without-workers": "Set num_workers of the DataLoader."}
    done = Section("What the operator did last", ["digits-1: workers 0 → 2."])
    html = render_html(story(starved(), Context("digits", sections=[done]), advice))
    page = Page(html)
    together = "\n".join(page.texts)
    for wanted in (
        "The training process loads its own data: no loader workers.",
        "Set num_workers of the DataLoader.",
        "digits-1: workers 0 → 2.",
        "Ruled out",
        "Not known for lack of data",
        "0 workers",
        "minimum over ranks, 10s",
    ):
        assert wanted in together
    for id in IDS:
        assert id in together
    assert page.tags.count("svg") == 2
    assert page.tags.count("li") == 4
    assert "@media print" in html
    assert "prefers-color-scheme:dark" in html


def test_each_figure_of_the_evidence_is_one_row_of_the_page() -> None:
    html = render_html(story(starved()))
    rows = re.findall(r"<tr><td data-head=\"signal\">(.*?)</tr>", html)
    figures = [item["signal"] for cause in starved()["causes"] for item in cause["evidence"]]
    assert len(rows) == len(figures)
    for signal, row in zip(figures, rows, strict=True):
        assert signal in row


def test_texts_are_broken_where_people_would_break_them() -> None:
    lines = text_lines("loader-without-workers", 135, 13, True)
    assert lines == ["loader-without-", "workers"]
    assert "".join(text_lines("a" * 90, 100, 13)) == "a" * 90
    assert all(text_width(line, 13) <= 100 for line in text_lines("cpu.busyShare 31%", 100, 13))
    assert text_lines("one two three four five", 40, 13, most=2)[-1].endswith("…")


def test_a_figure_without_a_threshold_has_no_condition() -> None:
    document = starved()
    document["causes"][0]["evidence"] = [evidence("x", 0.5, None)]
    assert '<td class="n" data-head="condition"><bdi></bdi></td>' in render_html(story(document))
