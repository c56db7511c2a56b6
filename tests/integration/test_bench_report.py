"""The bench's report and analyses, from the table and from the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

import pytest
from analyses import _folders as folders_of
from analyses import app as analyses
from analyses import pairs, rounds, study, styles, variants
from langchain_core.messages import AIMessage
from test_bench import bench, row, strong, weak

from cowest_graph.benchmark.ledger import Ledger, Metered
from cowest_graph.benchmark.scoreboard import Price
from cowest_graph.testing import ScriptedModel
from trainer.bench import Models, Plan
from trainer.bench.adapters import Training
from trainer.cli import run
from trainer.job import TrainingJob
from trainer.reports.bench import load, markdown, save, web_page


def analysed(words: list[str]) -> int:
    """The analyses' command line."""
    return run(words, analyses)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [
            v or "" for k, v in attrs if k in ("src", "href") and tag not in ("use", "a")
        ]


def test_the_report_stands_alone_and_names_its_source(tmp_path: Path) -> None:
    job = TrainingJob("m", preset="tiny", args={"learning_rate": 0.5})
    models = Models(weak(), strong().bind(max_tokens=77), job=lambda kind: job)
    made = bench(
        tmp_path / "one", models=models, prices={"strong": Price(2, 8)}, command="cowest bench …"
    )
    (results,) = load([tmp_path])
    text = markdown([results])
    for said in ("cowest bench …", made["data_hash"], "seeds 0", "small", "large", "McNemar p ="):
        assert said in text
    for said in ('SFT: preset tiny, args {"learning_rate": 0.5}', "max_tokens 77"):
        assert said in text
    assert "| cowest | 0.750" in text
    assert "rescued 2 of 4" in text
    assert "$ a 1,000 queries" in text
    _, page = save([results], tmp_path / "out")
    parser = _Page()
    parser.feed(page.read_text(encoding="utf-8"))
    assert parser.loads == []
    with pytest.raises(FileNotFoundError, match=r"bench\.json"):
        load([tmp_path / "out"])


def test_analyse_runs_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        Path(f"{name}.toml").write_text(
            f"""
            [weak]
            model = "{__name__}:weak"
            [strong]
            model = "{__name__}:strong"
            [evaluator]
            kind = "exact_match"
            """,
            encoding="utf-8",
        )
    words = ["--domain", "test_bench:DOUBLES", "--limit", "2", "--json"]
    configs = ["--configs", "a.toml", "--configs", "b.toml"]
    assert analysed(["models", *words, *configs, "--out", "models"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [r["variant"] for r in found] == ["models of a.toml", "models of b.toml"]
    assert row(found[0], "cowest")["scored"] == 2
    assert Path("models/report.html").exists()
    for wrong in (["model"], ["models"], ["pairs", "--counts", "-1"], ["rounds", "--counts", "x"]):
        assert analysed([*wrong, *words, "--out", "wrong", "-c", "a.toml"]) == 2
    Path("prices.toml").write_text("[strong]\ninput = 1\noutput = 2\n", encoding="utf-8")
    capsys.readouterr()
    priced = ["pairs", "--counts", "0", "--prices", "prices.toml", "-c", "a.toml"]
    assert analysed([*priced, *words, "--out", "priced"]) == 0
    assert row(json.loads(capsys.readouterr().out)[0], "cowest")["cost"]["dollars"] > 0


@pytest.mark.parametrize(
    ("what", "kind", "said"),
    [
        ("styles", "sft", "trains sft of its own for every variant; give no adapter"),
        ("models", "sft", "give no adapter"),
        ("pairs", "dpo", "only an sft adapter can be given"),
        ("rounds", "dpo", "only an sft adapter can be given"),
    ],
)
def test_an_analysis_refuses_the_adapter_that_it_varies(
    what: str, kind: Literal["sft", "dpo"], said: str
) -> None:
    plan = Plan(training=Training(given={kind: Path("there")}))
    with pytest.raises(ValueError, match=said):
        variants(what, plan, (0,), 1)


def test_an_analysis_keeps_the_adapter_that_it_starts_from() -> None:
    plan = Plan(training=Training(given={"sft": Path("there")}))
    for what in ("pairs", "rounds"):
        for _, varied in variants(what, plan, (0, 8), 2):
            assert varied.training.given == plan.training.given


def gone() -> ScriptedModel:
    """A strong model that cannot be reached."""
    return ScriptedModel([ConnectionError("refused")], model_name="large")


def test_a_bench_whose_endpoint_is_gone_shows_the_rest_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cowest.toml").write_text(
        f'[weak]\nmodel = "{__name__}:weak"\n[strong]\nmodel = "{__name__}:gone"\n',
        encoding="utf-8",
    )
    words = ["bench", "--domain", "test_bench:DOUBLES", "--limit", "2", "--no-embeddings"]
    assert run([*words, "--methods", "weak,strong", "--out", "both"]) == 1
    assert json.loads(Path("both/bench.json").read_text())["rows"][0]["scored"] == 2
    assert run([*words, "--methods", "strong", "--out", "one"]) == 1
    said = capsys.readouterr().err
    assert "a query failed: ConnectionError: refused" in said
    assert "no method answered a query" in said


def test_a_variant_that_cannot_run_leaves_the_others(tmp_path: Path) -> None:
    plan = Plan(limit=2, embeddings=False, resamples=10, training=Training(num_drafts=2))
    said: list[str] = []

    def one(plan: Plan, folder: Path) -> dict[str, Any]:
        return bench(folder, plan)

    found = study(rounds(plan, 2), tmp_path, one, said.append)
    assert [r["variant"] for r in found] == ["0 rounds"]  # without adapters there is no round
    assert sum("left out: " in line for line in said) == 2
    with pytest.raises(RuntimeError, match="no variant"):
        study(iter([("x", replace(plan, methods=("flare",)))]), tmp_path, one, said.append)


def test_configurations_of_one_name_have_folders_of_their_own(tmp_path: Path) -> None:
    one, other = tmp_path / "a" / "cowest.toml", tmp_path / "b" / "cowest.toml"
    assert folders_of(Path("out"), [one, other]) == [Path("out/a-cowest"), Path("out/b-cowest")]
    assert folders_of(Path("out"), [one]) == [Path("out/cowest")]
    with pytest.raises(ValueError, match="same names"):
        folders_of(Path("out"), [one, one])


def test_what_was_spent_beforehand_is_on_the_report(tmp_path: Path) -> None:
    plan = Plan(methods=("strong_cot", "skr"), limit=2, probes=2, embeddings=False, resamples=10)
    results = bench(tmp_path, plan, prices={"strong": Price(1e6, 0)})
    spent = results["once"]["0"]["costs"]["before skr"]
    assert spent["calls"] == {"strong": 4}  # two queries, with and without passages
    assert spent["dollars"] == spent["tokens"]["strong"][0]
    assert "spent once, seed 0, before skr: strong 4 calls" in markdown([results])


def test_analyses_vary_one_thing(tmp_path: Path) -> None:
    plan = Plan(limit=4, embeddings=False, resamples=100, training=Training(num_drafts=2))
    assert [p.style for _, p in styles(plan)] == ["answer", "knowledge", "chain_of_thought"]
    assert [p.training.max_pairs for _, p in pairs(plan, (0, 8))] == [0, 8]
    assert [p.training.rounds for _, p in rounds(plan, 2)] == [1, 1, 2]
    small = [(name, replace(p, methods=("strong_cot", "cowest"))) for name, p in styles(plan)]
    models = Models(weak(), strong())

    def one(plan: Plan, folder: Path) -> dict[str, Any]:
        return bench(folder, plan, models=models)

    found = study(iter(small), tmp_path, one, lambda _: None)
    assert [r["variant"] for r in found] == [name for name, _ in small]
    assert "doubles, all variants" in web_page(found)
    assert "all variants" not in web_page(found[:1])
    solo = [m for m in models.strong.calls if "own knowledge. Write" in m[-1].text]
    assert len(solo) == 4  # the strong model alone was asked in the first variant only


def test_an_answer_of_the_ledger_is_the_message_that_was_given(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        inner = ScriptedModel(["hello there"], version="v7")
        model = Metered(inner=inner, role="weak", identity="x", ledger=ledger)
        first, second = model.invoke("q"), model.invoke("q")
    for message in (first, second):
        assert isinstance(message, AIMessage)
        assert message.usage_metadata == inner.invoke("q").usage_metadata
        assert message.response_metadata["weak_version"] == "v7"


@pytest.mark.parametrize(("p", "said"), [(0.0004, "p < 0.001"), (0.0312, "p = 0.031")])
def test_a_small_p_is_not_said_to_be_zero(tmp_path: Path, p: float, said: str) -> None:
    results = bench(tmp_path)
    row(results, "cowest")["test"]["p"] = p
    assert said in markdown([results])


def test_no_tag_of_a_stranger_is_one_in_the_reports(tmp_path: Path) -> None:
    results = bench(tmp_path)
    row(results, "cowest")["note"] = "left out: <script>alert(1)</script> <img src=x>"
    for text in (markdown([results]), web_page([results])):
        assert "alert(1)" in text
        assert "<script>alert" not in text
        assert "<img src=x" not in text
