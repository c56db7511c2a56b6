"""Where there is no trace store yet, whoever only reads says so and makes none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.cli import run

READING = [
    ["traces"],
    ["pairs"],
    ["gains"],
    ["forget", "--user", "ada"],
    ["prune", "--older-than", "90d"],
    ["push-feedback"],
    ["router", "fit", "--quality", "0.98"],
    ["train", "dpo"],
]


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_it_is_told_and_none_is_made(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(words) == 2
    said = capsys.readouterr().err
    assert f"no trace store at {tmp_path}/traces.db" in said
    assert "COWEST_TRACES_URL" in said
    assert list(tmp_path.iterdir()) == []


def test_traces_that_are_loaded_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few.jsonl").write_text(json.dumps({"query": "6 + 1?"}) + "\n")
    assert run(["traces", "--load", "few.jsonl"]) == 0
    assert "1 traces" in capsys.readouterr().out
    assert (tmp_path / "traces.db").exists()
