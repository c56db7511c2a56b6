"""`cowest replay`, `score` and `drift` in this process, with scripted models: words, exit codes."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cowest_graph.testing import ScriptedModel
from cowest_graph.traces import Filter, Trace, TraceStore
from trainer.cli import run
from trainer.cli.wanted import wanted

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
SAYS = {"strong": "Answer: 4"}


def weak() -> ScriptedModel:
    return ScriptedModel(["Answer: 4", "Answer: 5"], model_name="small")


def strong() -> ScriptedModel:
    return ScriptedModel(lambda _: SAYS["strong"], model_name="large")


def strict(*, outputs: dict[str, Any]) -> float:
    return 9.0 if "4" in outputs["text"] else 2.0


def contrary(*, outputs: dict[str, Any]) -> float:
    return 2.0 if "4" in outputs["text"] else 9.0


Cowest = Callable[..., int]


@pytest.fixture
def cowest(tmp_path: Path) -> Cowest:
    SAYS["strong"] = "Answer: 4"
    (tmp_path / "cowest.toml").write_text(
        f"""
        [weak]
        model = "{__name__}:weak"
        [strong]
        model = "{__name__}:strong"
        [evaluator]
        kind = "exact_match"
        [traces]
        url = "sqlite:///{tmp_path}/traces.db"
        [adapters]
        folder = "{tmp_path}/adapters"
        [collect]
        num_drafts = 2
        max_concurrency = 1
        """,
        encoding="utf-8",
    )
    return lambda *words: run([*words, "--config", str(tmp_path / "cowest.toml")])


def served(folder: Path, number: int = 12) -> list[Trace]:
    """Answers to queries, every other one wrong; people said so of each."""
    traces = []
    with TraceStore(folder / "traces.db") as store:
        for n in range(number):
            answer = {"index": 0, "draft": "d", "answer": f"Answer: {4 + n % 2}"}
            given = {"query": f"{n}?", "kind": "inference", "key": uuid.uuid4().hex}
            more = {"reference": "4", "domain": "sums" if n < 8 else "law"}
            traces.append(Trace.model_validate({**given, **more, "attempts": [answer]}))
            store.record(traces[-1])
            store.feedback(trace_key=traces[-1].key, key="thumbs", score=float(n % 2 == 0))
    return traces


def test_replay_foresees_collects_and_resumes(
    cowest: Cowest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served(tmp_path)
    asked = ("replay", "--since", "7d", "--where", "domain=sums", "--sample", "5")
    assert cowest(*asked, "--dry-run", "--json") == 0
    told = capsys.readouterr()
    foreseen = json.loads(told.out)
    assert (foreseen["queries"], foreseen["left"]) == (5, 5)
    calls = {each["role"]: each["calls"] for each in foreseen["calls"]}
    assert calls == {"draft": 10, "solo": 5, "refine": 10}
    assert "5 queries from 8 traces" in told.err
    assert cowest(*asked, "--json") == 0
    counts = json.loads(capsys.readouterr().out)
    assert (counts["queries"], counts["complete"], counts["seen"]) == (5, 5, 8)
    assert cowest(*asked, "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["left"] == 0
    with TraceStore(tmp_path / "traces.db") as store:
        made = list(store.query(kind="collection", tag="replay"))
        assert len(made) == 5
        assert {trace.domain for trace in made} == {"sums"}


def test_replay_of_nothing_is_told(
    cowest: Cowest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served(tmp_path)
    assert cowest("replay", "--where", "domain=cooking") == 2
    assert "no traces with kind=inference, domain=cooking" in capsys.readouterr().err


def test_score_fills_what_is_missing_and_names_a_judge_that_agrees_poorly(
    cowest: Cowest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served(tmp_path, 40)
    judges = [f"--judge={name}" for name in ("auto", f"{__name__}:strict", f"{__name__}:contrary")]
    assert cowest("score", *judges, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["scored"] for each in told["scored"]] == [40, 40, 40]
    poor = {each["judge"]: (each["kappa"], each["poor"]) for each in told["agreement"]}
    assert poor == {
        "judge:contrary": (-1, True),
        "judge:exact_match": (1, False),
        "judge:strict": (1, False),
    }
    assert cowest("score", *judges, "--check") == 3
    shown = capsys.readouterr().out
    assert "exact_match: 0 of 0 answers scored" in shown
    assert "judge:contrary agrees poorly with people" in shown
    assert "judge:strict agrees poorly" not in shown
    assert cowest("score", "--judge", f"{__name__}:strict", "--check", "--at-least", "1.1") == 3
    with TraceStore(tmp_path / "traces.db") as store:
        assert {trace.evaluator for trace in store} == {"exact_match"}


def test_a_changed_evaluator_buys_no_draft_and_no_answer(
    cowest: Cowest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"query": "2 + 2?", "reference": "4"}\n')
    assert cowest("collect", str(tmp_path / "rows.jsonl")) == 0
    monkeypatch.setenv("COWEST_EVALUATOR_KIND", f"{__name__}:strict")
    SAYS["strong"] = "nobody asks"
    assert cowest("score", "--where", "kind=collection", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["scored"] == [
        {"judge": "strict", "answers": 3, "scored": 3, "unscored": 0, "failed": 0, "traces": 1}
    ]
    assert cowest("pairs", "--evaluator", "strict", "--json") == 0
    assert json.loads(capsys.readouterr().out)["traces"] == 1


def probes(folder: Path, number: int = 20) -> str:
    rows = [json.dumps({"query": f"{n} + 2?", "reference": "4"}) for n in range(number)]
    (folder / "probes.jsonl").write_text("\n".join(rows))
    return str(folder / "probes.jsonl")


def test_drift_ends_as_cron_wants_it(
    cowest: Cowest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"query": "2 + 2?", "reference": "4"}\n')
    SAYS["strong"] = "Answer: 5"
    assert cowest("collect", str(tmp_path / "rows.jsonl")) == 0
    asked = ("drift", "--probes", probes(tmp_path))
    assert [cowest(*asked), cowest(*asked)] == [0, 0]
    told = capsys.readouterr().out
    assert "this run is kept as the first" in told
    assert told.rstrip().endswith("no drift")
    SAYS["strong"] = "Answer: 6"
    assert cowest(*asked, "--json") == 3
    found = json.loads(capsys.readouterr().out)
    assert (found["drifted"], found["compared"]) == (True, 20)
    assert found["p_answers"] < 0.005
    assert found["p_scores"] == 1  # wrong before, wrong now
    assert cowest(*asked) == 0
    assert cowest("pairs") == 0
    assert "stale traces left out: 1" in capsys.readouterr().out
    assert cowest("pairs", "--stale", "--json") == 0
    assert json.loads(capsys.readouterr().out)["stale"] == 0


def test_too_few_probes_are_refused(
    cowest: Cowest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cowest("drift", "--probes", probes(tmp_path, 4)) == 2
    assert "4 probes cannot show a drift at the level 0.01: give 5 or more" in (
        capsys.readouterr().err
    )
    assert cowest("drift", "--probes", probes(tmp_path), "--level", "2") == 2


def test_a_run_that_nobody_answers_fails_and_is_not_kept(
    cowest: Cowest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("drift", "--probes", probes(tmp_path))
    assert cowest(*asked) == 0
    SAYS["strong"] = ""  # an empty reply is none
    assert cowest(*asked) == 1
    assert "this run is not kept" in capsys.readouterr().err
    with TraceStore(tmp_path / "traces.db") as store:
        assert len(store.drift_runs(strong="large")) == 1


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("7d", NOW - timedelta(days=7)),
        ("12h", NOW - timedelta(hours=12)),
        ("30m", NOW - timedelta(minutes=30)),
        ("2w", NOW - timedelta(weeks=2)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T10:00:00+02:00", datetime(2026, 11, 1, 8, tzinfo=UTC)),
    ],
)
def test_since_is_how_long_ago_or_when(text: str, time: datetime) -> None:
    assert wanted(text, None, now=NOW) == {"since": time}


def test_every_field_of_a_filter_can_be_asked_for() -> None:
    from dataclasses import fields

    for field in fields(Filter):
        kind = str(field.type)
        value = "2026-11-01" if "datetime" in kind else "1" if "float" in kind else "collection"
        found = wanted(None, [f"{field.name}={value}"])
        assert Filter(**found).conditions()


@pytest.mark.parametrize(
    ("since", "where", "why"),
    [
        ("soon", [], "since is how long ago"),
        (None, ["domain"], "FIELD=VALUE"),
        (None, ["domian=law"], "no field 'domian'"),
        (None, ["min_score=high"], "must be a number"),
        (None, ["kind=training"], "collection or inference"),
        ("7d", ["since=2026-11-01"], "asked for twice"),
    ],
)
def test_what_cannot_be_meant_is_refused(since: str | None, where: list[str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        wanted(since, where)
