"""What the command line says: help, wrong usage, advice, progress; and how it stops."""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from test_cli import ROOT

from trainer import console
from trainer.cli import app, run
from trainer.cli.advice import advice, exit_code


def commands() -> Iterator[tuple[str, Any]]:
    def walk(command: Any, words: str) -> Iterator[tuple[str, Any]]:
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, f"{words} {name}")
        if not getattr(command, "commands", None):
            yield words, command

    yield from walk(typer.main.get_command(app), "cowest")


@pytest.mark.parametrize(("words", "command"), list(commands()))
def test_every_verb_has_help_documentation_and_an_example(
    words: str, command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words.split()[1:], "--help"]) == 0
    assert command.help.strip() in " ".join(capsys.readouterr().out.split())
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{words}: {parameter.name} has no help"
    documented = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    section = re.search(rf"^### {words}\n\n(.*?)(?=^###|\Z)", documented, re.S | re.M)
    assert section, f"{words} is not in docs/cli.md"
    assert section[1].startswith(command.help.strip() + "\n")
    assert f"$ {words}" in section[1]


@pytest.mark.parametrize(("words", "command"), list(commands()))
def test_every_verb_has_json(words: str, command: Any) -> None:
    assert "--json" in [option for parameter in command.params for option in parameter.opts]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["adapters", "--jsn"], "--json"),
        (["adaptors"], "adapters"),
        (["promote"], "'name'"),
        (["collect", "rows.jsonl", "--limit", "0"], "--limit"),
        (["adapters", "--config", "none.toml"], "no configuration file none.toml"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""


def test_no_verb_at_all_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    told = capsys.readouterr()
    assert "collect" in told.out
    assert told.err == ""


BANNED = ("gone on with", "goes on", "want of", "as cheap", "that is tested on", "print it")


@pytest.mark.parametrize(("words", "command"), list(commands()))
def test_help_reads_as_english_fragments_that_begin_with_a_noun_or_a_verb(
    words: str, command: Any
) -> None:
    texts = [command.help.strip(), *(str(parameter.help) for parameter in command.params)]
    for text in texts:
        first = text.split()[0]
        assert first[0].isupper(), f"{words}: {text!r}"
        assert first not in {
            "Of",
            "That",
            "This",
            "For",
            "Such",
            "It",
            "The",
            "In",
            "With",
            "Where",
        }
        assert text.endswith((".", "…")), f"{words}: {text!r}"
        assert not any(phrase in text.lower() for phrase in BANNED), f"{words}: {text!r}"


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn"), "[local]", 1),
        (ModuleNotFoundError("No module named 'trl'", name="trl"), "[train]", 1),
        (ModuleNotFoundError("No module named 'psycopg'", name="psycopg"), "[postgres]", 1),
        (KeyError("no 'x'"), "no 'x'", 2),
        (FileNotFoundError(2, "No such file or directory", "f"), "f: No such file", 2),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero", 1),
        (ValueError("two\nlines"), "two lines", 2),
        (OSError(28, "No space left on device", "f"), "no space left on the disk for f", 1),
        (sqlite3.OperationalError("database or disk is full"), "no space left on the disk;", 1),
        (FileExistsError(17, "File exists", __file__), "is a file, and a folder is wanted", 2),
        (IsADirectoryError(21, "Is a directory", "d"), "d is a folder, and a file is wanted", 2),
        (TimeoutError("slow"), "slow", 1),
        (ZeroDivisionError(), "ZeroDivisionError", 1),
    ],
)
def test_advice_is_a_line_with_a_code(error: Exception, said: str, code: int) -> None:
    assert said in advice(error)
    assert "\n" not in advice(error)
    assert exit_code(error) == code


def test_a_file_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    (there := tmp_path / "report.md").write_text("old")
    with pytest.raises(UnicodeEncodeError):
        console.write_text(there, "new \ud800")
    assert there.read_text() == "old"
    with pytest.raises(OSError, match=r"missing.t\.jsonl'") as told:
        console.write_text(tmp_path / "missing" / "t.jsonl", "x")
    assert told.value.filename == str(tmp_path / "missing" / "t.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        console.write_text(tmp_path / "folder", "x")
    assert not list(tmp_path.glob(".half-*"))


def test_an_interrupt_while_the_command_still_loads_is_one_line() -> None:
    loading = (
        "import os, signal, sys, types; fake = types.ModuleType('trainer.cli');"
        "fake.main = lambda: os.kill(os.getpid(), signal.SIGINT);"
        "import trainer; trainer.cli = sys.modules['trainer.cli'] = fake;"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from trainer.entry import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", loading], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "interrupted; nothing was begun\n")


def test_a_stop_tells_what_was_kept_and_is_no_error() -> None:
    with pytest.raises(console.Stopped) as stopped, console.kept("outer"), console.kept("inner"):
        raise console.Stopped(signal.SIGTERM)
    assert (stopped.value.kept, stopped.value.exit_code) == ("inner", 143)
    assert not isinstance(stopped.value, Exception)


def test_progress_without_a_terminal_is_a_line_now_and_then() -> None:
    lines: list[str] = []
    now = iter([0.0, 100.0, 101.0, 130.0, 131.0])
    with console.Meter("SFT", say=lines.append, clock=lambda: next(now)) as meter:
        meter.done(1, 41, "loss 4.0")  # the model was loaded until now: that is no step's time
        meter.done(2, 41, "loss 3.0")
        meter.done(11, 41, "loss 2.0")
        meter.done(12, 41, "loss 1.0")
    assert lines == ["SFT, loss 4.0: 1/41", "SFT, loss 2.0: 11/41, 20.0/min, about 90 s left"]
