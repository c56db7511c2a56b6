"""`cowest gains`: what is printed of explored traffic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cowest_graph import Trace, TraceStore
from cowest_graph.traces import Draw, Exploration
from trainer.cli import run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    drawn = Draw(drawn=True, propensity=0.1)
    with TraceStore("traces.db") as store:
        for number in range(4):
            store.record(
                Trace(
                    query=f"q{number}",
                    kind="inference",
                    key=f"k{number}",
                    solo_score=number,
                    exploration=Exploration(solo=drawn, drafts=drawn),
                    attempts=[{"index": 0, "draft": "y", "score": 3, "weak_version": "v1"}],
                )
            )
        store.feedback(trace_key="k0", key="thumbs", score=10)
    return tmp_path


def test_it_tells_the_mean_its_interval_and_the_counts(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["gains"]) == 0
    assert "v1: +1.500 [" in capsys.readouterr().out
    assert run(["gains", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["group"], told["mean"], told["drawn"], told["scored"]) == ("v1", 1.5, 4, 4)
    assert told["low"] < 1.5 < told["high"]


def test_peoples_scores_count_where_they_are_asked_for(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["gains", "--score-from", "feedback", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["mean"] == 3.25
    assert run(["gains", "--score-from", "stars"]) == 2
    assert "there are: evaluator, feedback, judge" in capsys.readouterr().err
    assert run(["gains", "--level", "2"]) == 2
