"""The knobs file: what is understood, what is refused and in which words, when it is looked at."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from bottleneck_sidecar import knobs
from bottleneck_sidecar.knobs import KnobsFile, Wish, parse
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture(autouse=True)
def _always_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knobs, "LOOK_SECONDS", 0.0)


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        (
            knobs.EXAMPLE,
            Wish(3, {"dataLoader.workers": 2, "dataLoader.prefetch": 4}),
        ),
        ('{"generation": 1}', Wish(1, {})),
        ('{"dataLoader": {"workers": 0}, "generation": 1}', Wish(1, {"dataLoader.workers": 0})),
        (
            '{"generation": 1, "batch": {"micro": 8, "accumulation": 4, "maxSize": 4096,'
            ' "delayMilliseconds": 0}, "precision": {"autocast": "bf16", "weights": "fp32"}}',
            Wish(
                1,
                {
                    "batch.micro": 8,
                    "batch.accumulation": 4,
                    "batch.maxSize": 4096,
                    "batch.delayMilliseconds": 0,
                    "precision.autocast": "bf16",
                    "precision.weights": "fp32",
                },
            ),
        ),
    ],
)
def test_understood(text: str, wish: Wish) -> None:
    assert parse(text.encode()) == wish


@pytest.mark.parametrize(
    ("text", "generation", "message"),
    [
        ("workers=2", 0, "not a JSON document; write"),
        ("\x00\xff", 0, "not a JSON document"),
        ("[" * 60_000, 0, "not a JSON document"),
        (" " * 70_000, 0, "longer than"),
        ("[1]", 0, "not a JSON object; write"),
        ('{"dataLoader": {"workers": 1}}', 0, "generation must be a whole number from 1"),
        ('{"generation": 0}', 0, "generation must be"),
        ('{"generation": true}', 0, "generation must be"),
        ('{"generation": "3"}', 0, "generation must be"),
        ('{"generation": 2, "model": {"size": 3}}', 2, 'unknown knob "model"; there are dataLo'),
        ('{"generation": 2, "batch": {"size": 3}}', 2, 'unknown knob "batch.size"'),
        ('{"generation": 2, "batch": {"micro": 0}}', 2, "batch.micro must be .* 1 to 65536, not 0"),
        ('{"generation": 2, "batch": {"accumulation": 4097}}', 2, "1 to 4096, not 4097"),
        ('{"generation": 2, "batch": {"maxSize": "big"}}', 2, '1 to 4096, not "big"'),
        ('{"generation": 2, "batch": {"delayMilliseconds": 10001}}', 2, "0 to 10000, not 10001"),
        ('{"generation": 2, "precision": {"autocast": "fp32"}}', 2, '"off", "bf16", "fp16", not'),
        ('{"generation": 2, "precision": {"autocast": true}}', 2, "one of .*, not true"),
        ('{"generation": 2, "precision": {"autocast": ["off"]}}', 2, r'one of .*, not \["off"\]'),
        ('{"generation": 2, "precision": {"weights": "off"}}', 2, '"fp32", "bf16", "fp16", not'),
        ('{"generation": 2, "dataLoader": {"w": 3}}', 2, 'unknown knob "dataLoader.w"'),
        ('{"generation": 2, "dataLoader": 4}', 2, 'unknown knob "dataLoader"'),
        ('{"generation": 2, "dataLoader": {"workers": 65}}', 2, "from 0 to 64, not 65"),
        ('{"generation": 2, "dataLoader": {"workers": -1}}', 2, "from 0 to 64, not -1"),
        ('{"generation": 2, "dataLoader": {"workers": 1.5}}', 2, "whole number from 0 to 64"),
        ('{"generation": 2, "dataLoader": {"workers": true}}', 2, "not true"),
        ('{"generation": 2, "dataLoader": {"prefetch": 0}}', 2, "from 1 to 64, not 0"),
        ('{"generation": 2, "dataLoader": {"workers": NaN}}', 2, "not NaN"),
        ('{"generation": 2, "dataLoader": {"workers": "' + "x" * 500 + '"}}', 2, r"x\.\.\.$"),
    ],
)
def test_refused(text: str, generation: int, message: str) -> None:
    wish = parse(text.encode("latin-1"))
    assert (wish.generation, wish.settings) == (generation, {})
    assert re.search(message, wish.refusal)


@given(st.binary() | st.text().map(str.encode))
def test_any_content_is_understood_or_refused(data: bytes) -> None:
    wish = parse(data)
    assert bool(wish.refusal) or wish.generation >= 1


def test_each_generation_is_seen_once_and_none_older(tmp_path: Path) -> None:
    path = tmp_path / "knobs"
    file = KnobsFile(str(path))
    assert file.poll() is None, "no file is no wish"
    seen = []
    for text in (
        "",
        '{"generation": 2}',
        '{"generation": 2, "dataLoader": {"workers": 9}}',
        '{"generation": 1}',
        "garbage",
        "garbage!",
        '{"generation": 5, "dataLoader": {"workers": 99}}',
        '{"generation": 4}',
        '{"generation": 6}',
    ):
        path.write_text(text)
        os.utime(path, ns=(0, len(seen)))
        wish = file.poll()
        seen.append(wish and (wish.generation, bool(wish.refusal)))
        assert file.poll() is None, "unchanged"
    assert seen == [None, (2, False), None, None, (0, True), (0, True), (5, True), None, (6, False)]


def test_the_swapped_link_of_the_downward_api(tmp_path: Path) -> None:
    for generation in (1, 2):
        (tmp_path / f"..{generation}").mkdir()
        content = tmp_path / f"..{generation}" / "knobs"
        content.write_text(f'{{"generation": {generation}}}')
        os.utime(content, ns=(0, 0))  # same size, same time: only the inode tells
    data, path = tmp_path / "..data", tmp_path / "knobs"
    data.symlink_to("..1")
    path.symlink_to("..data/knobs")
    file = KnobsFile(str(path))
    first = file.poll()
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").rename(data)
    second = file.poll()
    assert [wish.generation for wish in (first, second) if wish] == [1, 2]


def test_what_cannot_be_read_is_no_wish(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (
        tmp_path / "directory",
        loop,
        tmp_path / "none" / "knobs",
        "nul\0byte",
        "x" * 9999,
    ):
        assert KnobsFile(str(path)).poll() is None


def test_without_a_path_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(knobs.VARIABLE, raising=False)
    monkeypatch.setattr(os, "stat", None)
    assert KnobsFile().poll() is None
