"""The command line as a whole: help, what it imports, exit codes, terminals."""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from bottleneck_operator.cli import main as program
from bottleneck_operator.cli.output import terminal

from .conftest import Said

Run = Callable[..., Said]


@pytest.mark.parametrize("command", ["", *program.COMMANDS])
def test_every_help_ends_in_an_example(run: Run, command: str) -> None:
    said = run(*filter(None, [command, "--help"]))
    assert said.code == 0
    *_, before, last = said.out.rstrip().splitlines()
    example = f"{before} {last}" if before.endswith("\\") else last
    assert example.startswith("  kubectl ")
    assert "bottleneck" in example


class Parsers:
    """Stands in for argparse's subparsers and keeps what a command says of itself."""

    def add_parser(self, name: str, help: str, **_: object) -> argparse.ArgumentParser:
        self.name, self.help = name, help
        return argparse.ArgumentParser()


@pytest.mark.parametrize("command", program.COMMANDS)
def test_the_list_of_commands_says_what_they_say_themselves(run: Run, command: str) -> None:
    module = import_module(f"bottleneck_operator.cli.{command.replace('-', '_')}")
    parsers = Parsers()
    module.add_parser(parsers)
    assert (parsers.name, parsers.help) == (command, program.COMMANDS[command])
    assert f" {command} " in run("--help").out


@pytest.mark.parametrize("arguments", [["--help"], ["explain", "--help"], ["diagnose", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from bottleneck_operator.cli.main import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        "print(sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    heavy = ("kubernetes", "aiohttp", "pydantic", "scipy", "yaml", "numpy", "torch")
    assert not [name for name in heavy if f"'{name}'" in done.stderr]


def test_a_command_that_does_not_exist_is_wrong_usage(run: Run) -> None:
    said = run("explian")
    assert said.code == 2
    assert "invalid choice: 'explian'" in said.err


def test_what_nobody_foresaw_is_a_sentence_and_can_be_looked_into(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(text: str) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("bottleneck_operator.cli.policyfile.read_objectives", broken)
    file = tmp_path / "r.jsonl"
    monkeypatch.delenv(program.DEBUG, raising=False)
    said = run("diagnose", str(file), "--policy", "p.yaml")
    assert said.code == 1
    assert "this should not happen: ZeroDivisionError: by zero; please report it" in said.err
    assert "Traceback" not in said.err
    monkeypatch.setenv(program.DEBUG, "1")
    with pytest.raises(ZeroDivisionError):
        program.main(["diagnose", str(file), "--policy", "p.yaml"])


class Screen(io.StringIO):
    def __init__(self, tty: bool, encoding: str) -> None:
        super().__init__()
        self._tty, self._encoding = tty, encoding

    def isatty(self) -> bool:
        return self._tty

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding


@pytest.mark.parametrize(
    ("tty", "encoding", "environment", "colour", "unicode"),
    [
        (True, "utf-8", {}, True, True),
        (True, "UTF8", {"NO_COLOR": ""}, True, True),
        (True, "utf-8", {"NO_COLOR": "1"}, False, True),
        (True, "utf-8", {"TERM": "dumb"}, False, True),
        (False, "utf-8", {}, False, True),
        (True, "ANSI_X3.4-1968", {}, True, False),
        (True, "iso8859-1", {}, True, False),
    ],
)
def test_what_a_terminal_can_show(
    tty: bool, encoding: str, environment: dict[str, str], colour: bool, unicode: bool
) -> None:
    found = terminal(Screen(tty, encoding), environment)
    assert (found.colour, found.unicode) == (colour, unicode)


def test_the_width_is_that_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "77")
    assert terminal(Screen(True, "utf-8"), {}).width == 77
