"""The command line in this process, with scripted models: help, exit codes, messages, JSON."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cowest_graph import AdapterRegistry
from cowest_graph.adapters import CONFIG, WEIGHTS, base_fingerprint
from cowest_graph.testing import ScriptedModel
from cowest_graph.traces import Trace, TraceStore
from trainer.cli import run

ROOT = Path(__file__).parents[3]
SECRET = "sk-secret-0123456789"


def weak() -> ScriptedModel:
    """Drafts that are right and wrong in turn."""
    said = itertools.cycle(["Answer: 4", "Answer: 5"])
    return ScriptedModel(lambda _: next(said), model_name="small")


def strong() -> ScriptedModel:
    """Copies the draft; alone it is wrong."""

    def reply(messages: list[Any]) -> str:
        return "Answer: 4" if "Answer: 4" in messages[-1].text else "Answer: 6"

    return ScriptedModel(reply, model_name="large")


def refusing() -> ScriptedModel:
    return ScriptedModel([TimeoutError(f"no reply for {SECRET}")])


Cowest = Callable[..., int]


@pytest.fixture
def cowest(tmp_path: Path) -> Cowest:
    """Runs a verb with a configuration of scripted models."""
    (tmp_path / "cowest.toml").write_text(
        f"""
        [weak]
        model = "{__name__}:weak"
        [strong]
        model = "{__name__}:strong"
        api_key = "{SECRET}"
        [evaluator]
        kind = "exact_match"
        [traces]
        url = "sqlite:///{tmp_path}/traces.db"
        [adapters]
        folder = "{tmp_path}/adapters"
        [collect]
        num_drafts = 4
        max_concurrency = 1
        [train]
        model = "{tmp_path}/base"
        """,
        encoding="utf-8",
    )
    rows = [{"query": f"{n} + {n}?", "reference": "4"} for n in range(3)]
    lines = [json.dumps(row) for row in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "bad.jsonl").write_text(
        "\n".join(
            [*lines[:2], '{"query": '],
        ),
        encoding="utf-8",
    )
    (tmp_path / "empty.jsonl").write_text("\n", encoding="utf-8")
    return lambda *words: run([*words, "--config", str(tmp_path / "cowest.toml")])


def add_adapter(folder: Path, name: str, **card: Any) -> None:
    import numpy
    from safetensors.numpy import save_file

    source = folder / "source"
    source.mkdir(exist_ok=True)
    (source / CONFIG).write_text(json.dumps({"peft_type": "LORA"}))
    save_file({"w": numpy.zeros(2, numpy.float32)}, source / WEIGHTS)
    AdapterRegistry(folder / "adapters").add(source, card=card, name=name)
    shutil.rmtree(source)


def a_base(folder: Path) -> Path:
    base = folder / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"weights")
    return base


def test_the_whole_way_from_rows_to_pairs(
    cowest: Cowest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = str(tmp_path / "rows.jsonl")
    assert cowest("collect", rows, "--limit", "2", "--json") == 0
    told = capsys.readouterr()
    counts = json.loads(told.out)
    assert (counts["queries"], counts["complete"], counts["without_trace"]) == (2, 2, 0)
    assert counts["store"]["attempts"] == 8
    assert told.err.splitlines()[-1] == "next: cowest pairs"
    assert not re.search(r"[\x1b\r]", told.err)  # no terminal, no control characters
    assert cowest("collect", rows) == 0  # the third query is added, the others cost nothing
    assert "3 traces (0 incomplete), 12 attempts: 6 helped, 6 hurt" in capsys.readouterr().out

    assert cowest("pairs", "--export", str(tmp_path / "pairs.jsonl"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["pairs"] == 6
    exported = (tmp_path / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    assert [sorted(json.loads(line)) for line in exported] == [["chosen", "prompt", "rejected"]] * 6
    assert (tmp_path / "pairs.jsonl").stat().st_mode & 0o777 == 0o600

    assert cowest("traces", "--export", str(tmp_path / "t.jsonl")) == 0
    assert cowest("traces", "--load", str(tmp_path / "t.jsonl"), "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["traces"] == 3


def test_ask_shows_draft_and_answer(
    cowest: Cowest, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cowest("ask", "2 + 2?", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"weak_version": None, "draft": "Answer: 4", "answer": "Answer: 4"}
    with TraceStore(tmp_path / "traces.db") as store:
        assert [trace.kind for trace in store] == ["inference"]


def test_an_empty_query_is_refused(cowest: Cowest, capsys: pytest.CaptureFixture[str]) -> None:
    assert cowest("ask", "  ") == 2
    assert capsys.readouterr().err == "cowest: the query is empty\n"


def test_a_loop_needs_a_weak_model_that_takes_adapters(
    cowest: Cowest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("rows", "held"):
        row = json.dumps({"query": name, "reference": "4"})
        (tmp_path / f"{name}.jsonl").write_text(row, encoding="utf-8")
    asked = ("loop", str(tmp_path / "rows.jsonl"), "--held-out", str(tmp_path / "held.jsonl"))
    out = tmp_path / "out"
    assert cowest(*asked, "--out", str(out)) == 2
    assert "takes no adapters" in capsys.readouterr().err
    assert cowest(*asked, "--confidence", "95") == 2
    assert "it must be between 0 and 1" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["frobnicate"], "see cowest --help"),
        (["promote"], "see cowest promote --help"),
        (["train", "sft", "--nope"], "see cowest train sft --help"),
    ],
)
def test_wrong_usage_says_where_to_look(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert run(words) == 2
    assert capsys.readouterr().err.endswith(f"; {said}\n")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("none.jsonl", ["none.jsonl", "No such file"]),
        ("bad.jsonl", ["bad.jsonl, line 3", "not JSON"]),
        ("empty.jsonl", ["empty.jsonl holds no query", "empty"]),
        ("adapters", ["adapters"]),
    ],
)
@pytest.mark.parametrize("verb", [["collect"], ["train", "sft"]])
def test_bad_rows_are_one_line_and_exit_code_2(
    cowest: Cowest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    verb: list[str],
    file: str,
    words: list[str],
) -> None:
    (tmp_path / "adapters").mkdir()
    assert cowest(*verb, str(tmp_path / file)) == 2
    said = capsys.readouterr().err
    assert [word for word in words if word not in said] == []
    assert said.count("\n") == 1


def test_bad_rows_can_be_left_out(
    cowest: Cowest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cowest("collect", str(tmp_path / "bad.jsonl"), "--skip-bad", "--json") == 0
    told = capsys.readouterr()
    assert "left out:" in told.err
    assert "line 3" in told.err
    assert json.loads(told.out)["complete"] == 2


def test_failed_calls_are_counted_and_exit_code_1_says_that_nothing_was_answered(
    cowest: Cowest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = tmp_path / "cowest.toml"
    toml.write_text(toml.read_text().replace(":strong", ":refusing"))
    assert cowest("collect", str(tmp_path / "rows.jsonl"), "--json") == 1
    told = capsys.readouterr()
    counts = json.loads(told.out)
    assert (counts["incomplete"], counts["unanswered"]) == (3, 3)
    assert counts["store"]["failures"] == {"timeout": 15}
    assert "cowest doctor" in told.err
    assert "most often" in told.err
    assert "raise timeout in [strong]" in told.err
    assert SECRET.encode() not in (tmp_path / "traces.db").read_bytes()
    assert SECRET not in told.err + told.out


@pytest.mark.parametrize(
    "words",
    [
        ["ask", " "],
        ["promote", "nope"],
        ["pairs", "--weak-version", "nope"],
        ["collect", "no.jsonl"],
    ],
)
def test_errors_under_json_are_json_on_both_streams(
    cowest: Any, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    code = cowest(*words, "--json")
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert told == json.loads(said.err.splitlines()[-1])
    assert told["exit_code"] == code == 2
    assert told["error"]
    assert cowest(*words) == code  # and a sentence without it
    assert capsys.readouterr().err.startswith("cowest: ")


def test_pairs_are_shown_with_scores_and_unknown_versions_are_refused(
    tmp_path: Path, cowest: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with TraceStore(tmp_path / "traces.db") as store:
        for number in range(3):
            attempts = [
                {"index": 0, "draft": f"helps {number}", "answer": "yes", "score": 9},
                {"index": 1, "draft": f"hurts {number}", "answer": "no", "score": 2},
            ]
            store.record(
                Trace(query=f"q{number}", weak_version="v1", solo_score=5, attempts=attempts)
            )
    assert cowest("pairs", "--show", "2") == 0
    said = capsys.readouterr().out
    assert "query: q0 (strong alone: score 5)" in said
    assert "chosen (score 9, gain +4):\nhelps 0" in said
    assert "rejected (score 2, gain -3):\nhurts 1" in said
    assert "hurts 2" not in said
    assert cowest("pairs", "--show", "1", "--json", "--weak-version", "v1") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["pairs"], len(told["shown"])) == (3, 1)
    assert told["shown"][0]["chosen"]["gain"] == 4
    assert cowest("pairs", "--weak-version", "nope") == 2
    assert "no traces of the weak version 'nope'" in (said := capsys.readouterr().err)
    assert "there are: v1" in said


def test_loading_says_what_was_added_and_what_replaced(
    tmp_path: Path, cowest: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text(Trace(query="a").model_dump_json() + "\n")
    assert cowest("traces", "--load", str(file)) == 0
    file.write_text("".join(Trace(query=q).model_dump_json() + "\n" for q in "abc"))
    assert cowest("traces", "--load", str(file)) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["added 1 traces", "added 2 traces, replaced 1"]


def test_no_pairs_says_why_and_how_many(
    cowest: Cowest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("trl", reason="training is not installed")
    add_adapter(tmp_path, "sft")
    a_base(tmp_path)
    toml = tmp_path / "cowest.toml"
    toml.write_text(toml.read_text().replace(":weak", ":strong"))  # every draft is wrong: all tie
    assert cowest("collect", str(tmp_path / "rows.jsonl")) == 0
    assert cowest("pairs") == 0
    said = capsys.readouterr()
    assert "0 helped, 12 hurt (ties among them: 12)" in said.out
    assert "one-sided queries: 3" in said.out
    assert "no pairs: collect more queries" in said.err
    assert cowest("train", "dpo", "--start", "sft") == 2
    said = capsys.readouterr()
    assert "no preference pairs to train on: 0 pairs from 0 traces" in said.err
    assert "only drafts of: a model without versions; --any-version" in said.err
    assert cowest("train", "dpo", "--start", "sft", "--any-version") == 2
    assert "ties among them: 12" in capsys.readouterr().err
    assert cowest("train", "dpo", "--start", "sfd") == 2
    assert "no adapter 'sfd'" in capsys.readouterr().err


def test_promote_rollback_and_what_there_is(
    cowest: Cowest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_adapter(tmp_path, "one", kind="sft", metrics={"last_loss": 0.5})
    add_adapter(tmp_path, "two", kind="dpo", parents=["one"])
    assert cowest("promote", "two") == 0
    assert cowest("adapters") == 0
    out = capsys.readouterr().out
    assert "in use: two" in out
    assert "0.500" in out
    assert cowest("rollback", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"current": None, "routes": {}, "shadow": None}
    assert cowest("promote", "base", "--json") == 0
    assert cowest("promote", "three") == 2
    assert "no adapter 'three'" in (said := capsys.readouterr().err)
    assert "one, two" in said


def test_a_candidate_gets_its_share_and_the_list_tells_how_it_did(
    cowest: Cowest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two", "three"):
        add_adapter(tmp_path, name)
    cowest("promote", "one")
    assert not (tmp_path / "traces.db").exists()
    assert cowest("adapters", "--json") == 0
    assert not (tmp_path / "traces.db").exists(), "looking makes no store"
    capsys.readouterr()
    assert cowest("route", "two=0.25", "--shadow", "three") == 0
    assert capsys.readouterr().out.splitlines() == [
        *("in use: one", "25.0% of the drafts: two", "shadow: three")
    ]
    with TraceStore(tmp_path / "traces.db") as store:
        attempt = {"index": 0, "draft": "y", "score": 3, "weak_version": "two"}
        shadow = {"weak_version": "three", "draft": "z"}
        failed = {"index": 1, "weak_version": "two", "calls": [{"role": "draft", "failure": "x"}]}
        store.record(Trace(query="q", solo_score=1, attempts=[attempt, failed], shadow=shadow))
    assert cowest("adapters", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert [rows[name]["share"] for name in ("one", "two", "three")] == [0.75, 0.25, None]
    assert [rows[name]["current"] for name in ("one", "two", "three")] == [True, False, False]
    assert rows["three"]["shadow"]
    did = rows["two"]["traffic"]
    assert (did["drafts"], did["mean_score"], did["mean_gain"]) == (1, 3.0, 2.0)
    assert did["failures"] == {"draft: x": 1}
    assert rows["three"]["traffic"]["shadow_drafts"] == 1
    assert rows["one"]["traffic"]["mean_score"] is None
    assert cowest("adapters") == 0
    table = capsys.readouterr().out
    shown = ("→ 75%", "25%", "+2.000", "draft: x 1", "1 shadow")
    assert [part for part in shown if part not in table] == []
    assert cowest("route", "--clear", "--json") == 0
    assert json.loads(capsys.readouterr().out)["routes"] == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to route"),
        (["two"], "'two' is no VERSION=SHARE"),
        (["two=1.5"], "share of 'two' is 1.5"),
        (["four=0.1"], "no adapter 'four'"),
        (["two=0.1", "--clear"], "--clear ends all"),
    ],
)
def test_what_is_no_route_is_refused(
    cowest: Cowest, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    add_adapter(tmp_path, "two")
    assert cowest("route", *words) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.err.count("\n") == 1


def test_a_damaged_registry_is_told_and_repaired(
    cowest: Cowest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_adapter(tmp_path, "one")
    cowest("promote", "one")
    (tmp_path / "adapters" / "current.json").write_text("")
    for verb in (["adapters"], ["promote", "one"], ["rollback"], ["route", "one=0.1"]):
        assert cowest(*verb) == 2
        assert capsys.readouterr().err.count("cowest adapters --repair") == 1
    assert cowest("adapters", "--repair") == 0
    told = capsys.readouterr()
    assert "in use now: one" in told.err
    assert "in use: one" in told.out
    add_adapter(tmp_path, "two")
    (tmp_path / "adapters" / "two" / "card.json").write_text("{")
    assert cowest("promote", "two") == 2
    assert cowest("adapters") == 0
    told = capsys.readouterr()
    assert "not whole: two; delete these folders" in told.err
    assert "damaged" in told.out


def test_an_adapter_of_another_base_is_not_promoted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = a_base(tmp_path)
    add_adapter(tmp_path, "ours", base_hash=base_fingerprint(base))
    (base / "model.safetensors").write_bytes(b"other weights")
    toml = tmp_path / "cowest.toml"
    toml.write_text(f'[weak]\nmodel = "{base}"\n[adapters]\nfolder = "{tmp_path}/adapters"\n')
    assert run(["promote", "ours", "--config", str(toml)]) == 2
    assert "another base model" in capsys.readouterr().err
    assert AdapterRegistry(tmp_path / "adapters").current is None


def test_a_store_that_is_not_ours_or_newer_is_refused(
    cowest: Cowest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "traces.db").write_text("something else entirely")
    assert cowest("traces") == 2
    assert "is not a trace store" in capsys.readouterr().err
    assert (tmp_path / "traces.db").read_text() == "something else entirely"


def test_a_store_of_a_newer_version_is_refused(
    cowest: Cowest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    TraceStore(tmp_path / "traces.db").close()
    with sqlite3.connect(tmp_path / "traces.db") as database:
        database.execute("UPDATE cowest_meta SET value = '99' WHERE name = 'schema_version'")
    database.close()
    assert cowest("collect", str(tmp_path / "rows.jsonl")) == 2
    assert "has schema version 99" in capsys.readouterr().err
