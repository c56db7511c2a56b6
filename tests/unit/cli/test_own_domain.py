"""`--domain` in the verbs that ask, collect, train and go in rounds, with scripted models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cowest_graph.adapters import AdapterRegistry
from cowest_graph.domains import Domain, Shares, shares
from cowest_graph.testing import ScriptedModel
from cowest_graph.traces import Trace, TraceStore
from trainer.cli import run
from trainer.cli.config import Config

Cowest = Callable[..., int]
TEAMS = ("billing", "shipping")
SEEN: list[list[Any]] = []


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return {"query": row["subject"], "reference": row["team"]}


tickets = Domain(
    name="tickets",
    data={"train": "train.jsonl", "dev": "dev.jsonl"},
    row=_row,
    labels=TEAMS,
    task="Which team is it for?",
    style="answer",
)
not_a_domain = 3


class Ready(AdapterRegistry):
    """Has every version: nothing is trained."""

    def __contains__(self, name: object) -> bool:
        return True


class Following(ScriptedModel):
    adapters: Any


def _billing(messages: list[Any]) -> str:
    SEEN.append(messages)
    return "Answer: billing"


def weak() -> ScriptedModel:
    return Following(_billing, model_name="small", adapters=Ready(Path("adapters")))


def strong() -> ScriptedModel:
    return ScriptedModel(_billing, model_name="large")


@pytest.fixture
def cowest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cowest:
    SEEN.clear()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COWEST_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "base" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "cowest.toml").write_text(
        f"""
        [weak]
        model = "{__name__}:weak"
        [strong]
        model = "{__name__}:strong"
        [evaluator]
        kind = "exact_match"
        [collect]
        num_drafts = 2
        [train]
        model = "base"
        """
    )
    for name, count in (("train", 20), ("dev", 4)):
        rows = [{"subject": f"{name} {n}", "team": TEAMS[n % 2]} for n in range(count)]
        if name == "train":
            rows.append({"subject": "the DEV 0.", "team": "billing"})
        lines = [json.dumps(row) for row in rows]
        (tmp_path / "data" / f"{name}.jsonl").write_text("\n".join(lines))
    return lambda *words: run(list(words))


DOMAIN = ("--domain", f"{__name__}:tickets")


def shared() -> Shares:
    return shares(tickets, folder="data")


def asked(store: str) -> set[str]:
    with TraceStore(store) as traces:
        assert {trace.domain for trace in traces} == {"tickets"}
        return {trace.query for trace in traces}


def test_collect_asks_the_domains_feedback_queries_in_its_words(
    cowest: Cowest, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cowest("collect", *DOMAIN, "--dry-run", "--json") == 0
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert (told["queries"], told["left"]) == (4, 4)
    assert not SEEN
    wanted = "16 queries to learn from, 4 for feedback, 4 held out; 1 left out"
    assert f"tickets: {wanted}" in said.err
    assert cowest("collect", *DOMAIN) == 0
    feedback = {example.query for example in shared().feedback}
    assert asked("traces.db") == feedback
    assert all("Which team is it for?" in messages[0].text for messages in SEEN)
    with TraceStore("traces.db") as traces:
        assert {trace.style for trace in traces} == {"answer"}
    assert cowest("collect", *DOMAIN, "--limit", "2", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["left"] == 0


def test_ask_has_the_words_that_the_draft_was_taught_with(cowest: Cowest) -> None:
    assert cowest("ask", "Where is my parcel?", *DOMAIN) == 0
    assert all("Which team is it for?" in messages[0].text for messages in SEEN)
    assert asked("traces.db") == {"Where is my parcel?"}


def test_what_the_configuration_names_goes_before_the_domains(tmp_path: Path) -> None:
    def loaded(text: str) -> Config:
        (tmp_path / "c.toml").write_text(text)
        return Config.load(tmp_path / "c.toml", {}).of(tickets)

    open_ = loaded("")
    assert (open_.collect.style, open_.collect.domain) == ("answer", "tickets")
    assert open_.wording().version == tickets.prompts().version
    assert getattr(open_.evaluator_named(), "__name__", "") == "tickets:accuracy"
    text = '[collect]\nstyle = "chain_of_thought"\ndomain = "mine"\n[evaluator]\nkind = "token_f1"'
    named = loaded(f'{text}\n[prompts]\nsolo = [["human", "Q: {{query}}"]]')
    assert (named.collect.style, named.collect.domain) == ("chain_of_thought", "mine")
    told, theirs = named.wording(), tickets.prompts("chain_of_thought")
    assert (told.draft, told.refine) == (theirs.draft, theirs.refine)
    assert told.messages("solo", {"query": "x"})[0].text == "Q: x"
    assert named.evaluator_named() is not open_.evaluator_named()
    assert getattr(named.evaluator_named(), "__name__", "") != "tickets:accuracy"
    # A strong model of one's own is the judge, as in the bench.
    own = loaded('[strong]\nmodel = "m"\nbase_url = "http://localhost:1"')
    assert own.evaluator_kind == "judge"
    assert not own.evaluator_open
    assert Config.load(tmp_path / "c.toml", {}).of(None).collect.domain is None


def test_a_forced_answer_is_one_of_the_domains_labels(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(
        '[strong]\nmodel = "m"\nbase_url = "http://localhost:1"\nresponse_format = "json_schema"'
    )
    bound = Config.load(tmp_path / "c.toml", {}).of(tickets).strong_model()
    schema = bound.kwargs["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["answer"]["enum"] == list(TEAMS)


def test_sft_learns_from_what_is_neither_for_feedback_nor_held_out(
    cowest: Cowest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("trl", reason="training is not installed")
    learnt = [example.query for example in shared().learnt]
    (tmp_path / "mine.jsonl").write_text(json.dumps({"query": learnt[2]}))
    words = ("train", "sft", *DOMAIN, "--held-out", "mine.jsonl")
    assert cowest(*words) == 2  # and no run is begun
    said = capsys.readouterr().err
    assert "16 demonstrations from 16 rows" in said
    assert "1 row (1 held out) cannot be trained on" in said
    assert f"({learnt[2]!r}): the query is held out" in said
    assert cowest(*words, "--limit", "3") == 2
    assert "3 demonstrations from 3 rows" in capsys.readouterr().err


def test_dpo_takes_the_domains_traces_and_refuses_its_held_out_queries(
    cowest: Cowest, capsys: pytest.CaptureFixture[str], peft_folder: Path
) -> None:
    pytest.importorskip("trl", reason="training is not installed")
    AdapterRegistry("adapters").add(peft_folder, name="v1")
    attempts = [
        {"index": 0, "draft": "helps", "answer": "yes", "score": 9},
        {"index": 1, "draft": "hurts", "answer": "no", "score": 2},
    ]

    def record(query: str, domain: str | None) -> None:
        with TraceStore("traces.db") as store:
            store.record(
                Trace(
                    query=query, domain=domain, weak_version="v1", solo_score=5, attempts=attempts
                )
            )

    record("dev 1", None)
    record("dev 1", "others")
    words = ("train", "dpo", "--start", "v1", *DOMAIN)
    assert cowest(*words) == 2
    said = capsys.readouterr().err
    assert "drafts of v1 on tickets: 0 pairs from 0 traces" in said
    assert "there are only drafts of" not in said
    record("Dev  1", "tickets")
    assert cowest(*words) == 2
    assert "('Dev 1'): the query is held out" in capsys.readouterr().err


def test_a_loop_learns_collects_and_tests_each_on_its_share(
    cowest: Cowest, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("trl", reason="training is not installed")
    assert cowest("loop", *DOMAIN) == 0
    told = capsys.readouterr()
    assert "sft on 16 demonstrations" not in told.err  # it is there already
    assert "SFT: " in told.out
    assert "on 4 queries" in told.out
    assert "16 demonstrations from 16 rows" in kept("loop.json")["rounds"][0]["note"]
    assert asked("cowest-loop/gate.db") == {example.query for example in shared().held_out}
    assert asked("traces.db") == {example.query for example in shared().feedback}


def kept(name: str) -> Any:
    return json.loads(Path("cowest-loop", name).read_text(encoding="utf-8"))


def test_files_go_before_a_loops_domain_and_nothing_held_out_is_learnt(
    cowest: Cowest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("trl", reason="training is not installed")
    rows = [{"subject": name, "team": "billing"} for name in ("mine", "dev 2")]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    fields = ("--query-field", "subject", "--reference-field", "team")
    few = ("--train-rows", "5", "--held-out-rows", "2")
    assert cowest("loop", *DOMAIN, "--feedback", "own.jsonl", *fields, *few) == 0
    tested = asked("cowest-loop/gate.db")
    assert tested == {example.query for example in shared().held_out[:2]}
    assert "5 demonstrations from 5 rows" in kept("loop.json")["rounds"][0]["note"]
    assert asked("traces.db") == {"mine"}  # whether or not the gate asks "dev 2"
    assert "1 of 2 rows are held out" in capsys.readouterr().err


def test_a_file_of_held_out_queries_is_spared_whole(
    cowest: Cowest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("trl", reason="training is not installed")
    rows = [{"query": f"q{n}", "reference": "x", "explanation": "e"} for n in range(6)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "held.jsonl").write_text("\n".join(map(json.dumps, rows[:3])))
    files = ("rows.jsonl", "--held-out", "held.jsonl", "--held-out-rows", "1", "--rounds", "0")
    assert cowest("loop", *files) == 0
    assert "3 demonstrations from 3 rows" in kept("loop.json")["rounds"][0]["note"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["collect"], "no queries to collect on (ROWS): name a file of JSON lines, or --domain"),
        (["train", "sft"], "no rows to learn from (ROWS): name a file"),
        (["loop", "r.jsonl"], "no held-out queries (--held-out FILE): name a file"),
        (["collect", "r.jsonl", *DOMAIN], "rows of r.jsonl or of the domain"),
        (["loop", "r.jsonl", *DOMAIN], "give one of them alone"),
        (["collect", "r.jsonl", "--split", "dev"], "--data and --split say where a domain's"),
        (["train", "dpo", "--data", "data"], "give --domain, too"),
        (["collect", *DOMAIN, "--query-field", "x"], "a domain reads its rows itself"),
        (["train", "sft", *DOMAIN, "--skip-bad"], "a domain reads its rows itself"),
        (["collect", "--domain", "tickets"], "--domain is module:attribute, such as"),
        (["collect", "--domain", f"{__name__}:ticket"], f"domains in {__name__}: tickets"),
        (["ask", "x", "--domain", f"{__name__}:not_a_domain"], "is a int, not a Domain; domains"),
        (["collect", "--domain", "no_such_module:x"], "No module named 'no_such_module'"),
        (
            ["collect", *DOMAIN, "--data", "nowhere"],
            "no file nowhere/dev.jsonl; name the data folder (--",
        ),
        (["collect", *DOMAIN, "--data", "base"], "no file base/dev.jsonl; name the data folder"),
        (["loop", *DOMAIN, "--split", "test"], "tickets has no split 'test'; there are: train,"),
        (["train", "sft", *DOMAIN, "--split", "train"], "the split 'train' is trained on"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_call(
    cowest: Cowest, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert cowest(*words) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not SEEN
