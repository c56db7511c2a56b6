"""Own data on the command line: names of fields, own prompts, what a collection would take."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cowest_graph.testing import ScriptedModel
from cowest_graph.traces import TraceStore
from trainer.cli import run

Cowest = Callable[..., int]
ASKED: list[str] = []


def weak() -> ScriptedModel:
    return ScriptedModel(["Answer: 4", "Answer: 5"], model_name="small")


def strong() -> ScriptedModel:
    def reply(messages: list[Any]) -> str:
        ASKED.append(messages[-1].text)
        return "Answer: 4"

    return ScriptedModel(reply, model_name="large")


@pytest.fixture
def cowest(tmp_path: Path) -> Cowest:
    ASKED.clear()
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
        [collect]
        num_drafts = 2
        [prompts]
        refine = [["system", "Use the notes."], ["human", "Q: {{query}} N: {{draft}}"]]
        """
    )
    rows = [{"question": f"{n} + {n}?", "gold": "4", "query": "an id"} for n in range(3)]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "prices.toml").write_text("[strong]\ninput = 2.5\noutput = 10.0\n")

    def call(*words: str) -> int:
        paths = [str(tmp_path / w) if w.endswith((".jsonl", ".toml")) else w for w in words]
        return run([*paths, "--config", str(tmp_path / "cowest.toml")])

    return call


FIELDS = ("--query-field", "question", "--reference-field", "gold")


def test_a_files_own_names_and_own_prompts(cowest: Cowest, tmp_path: Path) -> None:
    assert cowest("collect", "rows.jsonl", *FIELDS) == 0
    with TraceStore(tmp_path / "traces.db") as traces:
        found = sorted((trace.query, trace.reference) for trace in traces)
    assert found == [(f"{n} + {n}?", "4") for n in range(3)]
    assert any(asked.startswith("Q: 1 + 1? N: Answer: ") for asked in ASKED)


def test_a_name_that_is_not_there(cowest: Cowest, capsys: pytest.CaptureFixture[str]) -> None:
    assert cowest("collect", "rows.jsonl", "--query-field", "text") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "no field 'text'; the row has 'question', 'gold', 'query'" in said
    assert not ASKED


def test_a_dry_run_tells_calls_and_price_and_asks_nothing(
    cowest: Cowest, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("collect", "rows.jsonl", *FIELDS, "--dry-run", "--prices", "prices.toml", "--json")
    assert cowest(*words) == 0
    told = json.loads(capsys.readouterr().out)
    assert not ASKED
    assert (told["queries"], told["left"]) == (3, 3)
    assert [(line["role"], line["calls"]) for line in told["calls"]] == [
        ("draft", 6),
        ("solo", 3),
        ("refine", 6),
    ]
    assert [line["measured"] for line in told["calls"]] == [False] * 3
    (draft, solo, _) = told["calls"]
    assert draft["dollars"] is None  # no price is given for the weak model
    price = (solo["input_tokens"] * 2.5 + solo["output_tokens"] * 10.0) / 1e6
    assert solo["dollars"] == pytest.approx(price)

    assert cowest("collect", "rows.jsonl", *FIELDS, "--limit", "2") == 0
    ASKED.clear()
    capsys.readouterr()
    assert cowest(*words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["left"] == 1
    assert [line["measured"] for line in told["calls"]] == [True] * 3
    with TraceStore(tmp_path / "traces.db") as traces:
        calls = [call for trace in traces for a in trace.attempts for call in a.calls]
    read = [call.input_tokens for call in calls if call.role == "refine"]
    (*_, refine) = told["calls"]
    assert refine["input_tokens"] == round(2 * sum(filter(None, read)) / len(read))
    assert cowest("collect", "rows.jsonl", *FIELDS) == 0
    capsys.readouterr()
    assert cowest(*words[:-1]) == 0
    assert "0 of 3 queries have no complete trace yet" in capsys.readouterr().out
