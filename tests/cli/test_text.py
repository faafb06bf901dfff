"""The text for the terminal: complete, within its width, and harmless whatever names there are."""

from __future__ import annotations

import re

import pytest
from bottleneck_operator.report.render.parts import Context, Section
from bottleneck_operator.report.render.story import story
from bottleneck_operator.report.render.text import Terminal, render_text
from bottleneck_operator.report.render.words import clean, columns, wrap

from .documents import IDS, diagnosis, evidence, healthy, starved

ADVICE = {"loader-without-workers": "Set num_workers of the DataLoader."}
CONTEXT = Context(
    title="digits.jsonl",
    basis="58 s of telemetry of 1 pod",
    sections=[Section("What the operator did last", ["digits-1: workers 0 → 2. Improved."])],
    notes=["the last line is cut off"],
)
TEXT = render_text(story(starved(), CONTEXT, ADVICE))


def test_it_tells_the_whole_story_in_order() -> None:
    parts = [
        "digits.jsonl · 58 s of telemetry of 1 pod",
        "The training process loads its own data: no loader workers.",
        "Removing it would return about 63% of the step.",
        "Symptom",
        "Waiting for input is 63%, over its objective of at most 20%",
        "Causes",
        "cpu-throttled (cpu / Infrastructure)",
        "Why",
        "What to do",
        "Set num_workers of the DataLoader.",
        "What the operator did last",
        "Fishbone",
        "Fault tree",
        "the last line is cut off",
    ]
    places = [TEXT.find(part) for part in parts]
    assert -1 not in places
    assert places == sorted(places)


def test_the_whys_are_a_chain_that_goes_deeper_with_each_line() -> None:
    chain = TEXT.split("\nWhy\n")[1].split("\n\n")[0].splitlines()
    depths = [line.index("└─") for line in chain if "└─" in line]
    assert len(depths) == 3
    assert depths == sorted(set(depths))
    assert "[training.dataShare ratio of sums over 10s]" in TEXT


def test_every_hypothesis_has_its_state_and_its_reason() -> None:
    fishbone = TEXT.split("Fishbone")[1].split("Fault tree")[0]
    for id in IDS:
        (line,) = [line for line in fishbone.splitlines() if re.search(rf"─ . {id}:", line)]
        mark = line.split("─ ")[1][0]
        assert mark == (
            "✔"
            if id in ("loader-without-workers", "cpu-throttled")
            else "?"
            if "no data" in line
            else "✘"
        )
        assert len(line.split(f"{id}: ")[1]) > 5


def test_the_fault_tree_names_every_cause_and_the_conditions_of_the_confirmed() -> None:
    tree = TEXT.split("Fault tree")[1]
    for id in IDS:
        assert len(re.findall(rf"(?<![\w-]){id}(?![\w-])", tree)) == 1
    assert "✔ AND cpu-throttled" in tree
    assert "✔ cpu.throttledShare 3.1% ≥ 25%" in tree
    assert "OR Preprocessing" in tree


def test_each_figure_of_the_evidence_stands_in_its_table_once() -> None:
    table = TEXT.split("Causes")[1].split("\nWhy\n")[0]
    for row in ("dataLoader.workers  0 workers", "cpu.throttledShare  27%       ≥ 25%"):
        assert table.count(row) == 1
    assert table.count("training.dataShare") == 1


def test_a_healthy_workload_is_told_so() -> None:
    text = render_text(story(healthy()))
    assert "▌ Nothing is wrong." in text
    assert "hypotheses are ruled out" in text
    assert "Cause" not in text.split("Fishbone")[0]


def test_what_cannot_be_told_is_not_called_healthy() -> None:
    text = render_text(story(healthy(), Context(unknown="1 of 1 replicas are silent")))
    assert "It cannot be told what is wrong." in text
    assert "1 of 1 replicas are silent." in text
    assert "Nothing is wrong" not in text


def test_a_breach_without_a_known_cause_says_that() -> None:
    symptom = {"objective": "Latency", "text": "Latency p95 is 900 ms", "evidence": {}}
    text = render_text(story(healthy() | {"symptom": symptom}))
    assert "No known cause is confirmed." in text
    assert "Latency p95 is 900 ms" in text


def test_a_report_of_an_older_version_is_shown_without_the_pictures() -> None:
    old = {key: value for key, value in starved().items() if key not in ("fishbone", "faultTree")}
    hints = {"oom-loop": ("Infrastructure", "Killed for memory")}
    text = render_text(story(old, hints=hints))
    assert "Fault tree" not in text
    assert "✘ oom-loop: oom.loopShare is 3.1%" in text
    assert "└─ Other" in text


@pytest.mark.parametrize("width", [20, 60, 61, 80, 100, 120, 400])
@pytest.mark.parametrize("unicode", [True, False])
def test_no_line_is_wider_than_the_terminal(width: int, unicode: bool) -> None:
    text = render_text(story(starved(), CONTEXT, ADVICE), Terminal(width, unicode=unicode))
    most = max(columns(line) for line in text.splitlines())
    assert most <= min(120, max(60, width))
    assert unicode or text.isascii()
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_long_and_wide_names_stay_within_the_width() -> None:
    document = diagnosis(set(), [])
    document["causes"] = [
        {"id": "x" * 300, "class": "c", "category": "Data", "title": "界" * 200, "share": 0.5,
         "confidence": 1, "evidence": [evidence("長い信号" * 40, 0.5, 0.2, statistic="s" * 150)]}
    ]  # fmt: skip
    document["whys"] = ["w" * 500] * 12
    text = render_text(story(document), Terminal(72))
    assert max(columns(line) for line in text.splitlines()) <= 72
    assert text.count("界") == 2 * 200  # the headline and the cause: nothing was lost


def test_colour_is_only_used_where_asked_for() -> None:
    assert "\x1b" not in TEXT
    coloured = render_text(story(starved(), CONTEXT, ADVICE), Terminal(colour=True))
    assert "\x1b[1;31m" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == TEXT


def test_a_terminal_cannot_be_commanded_through_a_name() -> None:
    document = starved()
    document["causes"][0]["title"] = "red \x1b[31m bell\x07 \u202eover\u202c\nnext\tcell"
    document["whys"][0] = "\x1b]0;owned\x07\x9b31m"
    text = render_text(story(document, Context(title="\x1b[2J", notes=["\u2066x\u2069"])))
    allowed = "\n"
    assert not [c for c in text if c not in allowed and (ord(c) < 32 or 127 <= ord(c) < 160)]
    assert not set(text) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200f")
    assert "red \ufffd[31m bell\ufffd \ufffdover\ufffd next cell" in text


def test_a_string_without_end_is_cut() -> None:
    assert len(clean("a" * 1_000_000)) == 2000


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("", 10, [""]),
        ("one two three", 7, ["one two", "three"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("a 界界界", 4, ["a", "界界", "界"]),
        ("界", 1, ["界"]),
    ],
)
def test_wrapping(text: str, width: int, lines: list[str]) -> None:
    assert wrap(text, width) == lines


@pytest.mark.parametrize(
    ("signal", "share", "words"),
    [
        ("training.dataShare", 0.634, "Removing it would return about 63% of the step."),
        ("inference.latency", 0.094, "Removing it would return about 9.4% of the latency."),
        ("inference.errorRate", 0.12, "Removing it would return about 12% of the requests."),
        ("training.checkpointShare", 0.25, "Removing it would return about 25% of the time."),
        ("training.sinceStepSeconds", 1.0, "Nothing else gets done while it lasts."),
    ],
)
def test_what_a_cause_costs_is_told_in_the_unit_of_its_symptom(
    signal: str, share: float, words: str
) -> None:
    document = starved()
    document["symptom"]["evidence"]["signal"] = signal
    document["causes"][0]["share"] = share
    assert f"▌ {words}" in render_text(story(document))


def test_what_is_so_or_not_is_no_percentage() -> None:
    document = starved()
    flag = evidence("training.longPhase", 1, 1, source="yes or no")
    document["causes"][0]["evidence"] = [flag]
    table = render_text(story(document)).split("Causes")[1].split("\n\n")[0]
    assert "training.longPhase  yes" in table
    assert "100%" not in table
    assert "yes or no" not in table


def test_a_consequence_stands_behind_its_cause_and_gets_no_advice() -> None:
    document = starved()
    document["causes"][1]["explainedBy"] = "loader-without-workers"
    advice = ADVICE | {"cpu-throttled": "Raise the limit."}
    text = render_text(story(document, advice=advice))
    assert "It follows from loader-without-workers and goes when that goes." in text
    assert "Raise the limit." not in text
    assert "Raise the limit." in render_text(story(starved(), advice=advice))
