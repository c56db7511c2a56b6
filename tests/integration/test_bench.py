"""The bench with scripted models: same queries, paid once, found faults, and the report."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from cowest_graph.benchmark.ledger import Ledger, Metered
from cowest_graph.benchmark.scoreboard import Price, cost
from cowest_graph.domains import Domain
from cowest_graph.testing import ScriptedModel, toy_domain
from cowest_graph.traces import Attempt, Trace
from trainer.bench import Models, Plan, run_bench
from trainer.bench.adapters import relabelled
from trainer.bench.facts import identity

FREE = ("weak", "strong", "strong_cot", "strong_self_refine", "cowest")


def domain(**changes: Any) -> Domain:
    """Numbers to double: the weak model knows the even ones, the strong one those below 4."""
    return toy_domain(**changes)


DOUBLES = domain()


def _number(messages: list[BaseMessage]) -> int:
    found = re.findall(r"double (\d+)", messages[-1].text)
    return int(found[-1])


def weak() -> ScriptedModel:
    def reply(messages: list[BaseMessage]) -> str:
        number = _number(messages)
        return f"Answer: {2 * number if number % 2 == 0 else 'odd'}"

    return ScriptedModel(reply, model_name="small")


def strong() -> ScriptedModel:
    def reply(messages: list[BaseMessage]) -> str:
        text, number = messages[-1].text, _number(messages)
        if "what is wrong" in text:
            return "CORRECT"
        drafted = re.search(r"Expert:\nAnswer: (\d+)", text)
        if drafted:
            return f"Answer: {drafted.group(1)}"
        return f"Answer: {2 * number if number < 4 else 'large'}"

    return ScriptedModel(reply, model_name="large")


def bench(folder: Path, plan: Plan | None = None, **changes: Any) -> dict[str, Any]:
    models = changes.pop("models", None) or Models(weak(), strong())
    chosen = changes.pop("domain", None) or domain()
    plan = plan or Plan(methods=FREE, limit=None, embeddings=False, resamples=100)
    return run_bench(chosen, plan, models, folder, say=lambda _: None, **changes)


def row(results: dict[str, Any], method: str) -> dict[str, Any]:
    found: dict[str, Any] = next(r for r in results["rows"] if r["method"] == method)
    return found


def test_the_table_and_the_synergy(tmp_path: Path) -> None:
    results = bench(tmp_path)
    means = {r["method"]: r["scores"]["exact_match"]["mean"] for r in results["rows"]}
    assert means == {
        "weak": 0.5,
        "strong": 0.5,
        "strong_cot": 0.5,
        "strong_self_refine": 0.5,
        "cowest": 0.75,  # all even numbers, and the odd ones below 4
    }
    found = row(results, "cowest")
    # 4 and 6 were rescued; 0 and 2 copied; 1 and 3 overridden rightly, 5 and 7 wrongly
    assert found["synergy"] == {
        "strong_wrong": 4,
        "rescued": 2,
        "strong_right": 4,
        "harmed": 0,
        "copied": 4,
        "right_copies": 4,
        "overridden": 4,
        "right_overrides": 2,
    }
    assert found["against"] == "weak"
    assert (found["test"]["only_ours"], found["test"]["only_theirs"]) == (2, 0)
    assert found["test"]["p"] == 0.5
    assert found["draft_scores"]["exact_match"]["mean"] == 0.5
    assert found["cost"]["calls"] == {"weak": 1, "strong": 1}
    assert row(results, "strong_self_refine")["cost"]["calls"] == {"strong": 2}


def test_the_same_command_again_costs_nothing_and_ends_alike(tmp_path: Path) -> None:
    first = bench(tmp_path)
    models = Models(weak(), strong())
    again = bench(tmp_path, models=models)
    assert models.weak.calls == models.strong.calls == []
    assert again["rows"] == first["rows"]


def test_a_strong_model_that_is_bound_otherwise_is_asked_again(tmp_path: Path) -> None:
    bench(tmp_path)
    inner = strong()
    bound = inner.bind(response_format={"type": "json_schema"})
    bench(tmp_path, models=Models(weak(), bound))
    assert inner.calls


def test_an_interrupted_bench_pays_for_no_finished_call_twice(tmp_path: Path) -> None:
    alone = bench(tmp_path / "alone")
    total = 0
    for stop in (3, 9, 1000):
        models = Models(weak(), strong())
        made = models.weak, models.strong
        budget = [stop]

        class Killed(BaseException):
            pass

        def limited(model: ScriptedModel, budget: list[int] = budget) -> ScriptedModel:
            script = model._script

            def reply(messages: list[BaseMessage]) -> str:
                if budget[0] <= 0:
                    raise Killed
                budget[0] -= 1
                return str(script(messages))  # type: ignore[operator]

            return ScriptedModel(reply, model_name=model.model_name)

        limits = Models(limited(made[0]), limited(made[1]))
        try:
            plan = Plan(
                methods=FREE, limit=None, embeddings=False, resamples=100, max_concurrency=1
            )
            results = bench(tmp_path / "killed", plan, models=limits)
        except Killed:
            results = {}
        total += stop - budget[0]
    assert _without_seconds(results["rows"]) == _without_seconds(alone["rows"])
    every = Models(weak(), strong())
    bench(tmp_path / "count", models=every)
    assert total == len(every.weak.calls) + len(every.strong.calls)


def _without_seconds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**r, "cost": {**r["cost"], "seconds": None}} for r in rows]


def test_a_method_that_raises_on_one_query_is_said_and_tried_again(tmp_path: Path) -> None:
    healthy = strong()

    def reply(messages: list[BaseMessage]) -> str | Exception:
        return TimeoutError("no") if _number(messages) == 3 else healthy._script(messages)  # type: ignore[operator,no-any-return]

    results = bench(tmp_path, models=Models(weak(), ScriptedModel(reply, model_name="large")))
    found = row(results, "strong_cot")
    assert (found["scored"], found["failed"]) == (7, 1)
    assert "1 failed: TimeoutError" in found["note"]
    assert row(results, "weak")["failed"] == 0
    whole = bench(tmp_path, models=Models(weak(), strong()))
    assert row(whole, "strong_cot")["scored"] == 8


def test_what_a_method_needs_and_has_not_is_said(tmp_path: Path) -> None:
    plan = Plan(
        methods=("weak", "flare", "cowest_aligned"), limit=4, embeddings=False, resamples=100
    )
    results = bench(tmp_path, plan)
    assert row(results, "flare")["scored"] == 0
    assert "log-probabilities" in row(results, "flare")["note"]
    assert "has no adapters" in row(results, "cowest_aligned")["note"]
    with pytest.raises(RuntimeError, match="no method answered a query"):
        bench(tmp_path, Plan(methods=("flare",), limit=2, embeddings=False, resamples=100))


def test_a_training_query_that_fails_beforehand_is_left_out(tmp_path: Path) -> None:
    healthy, broken = strong(), {8}

    def reply(messages: list[BaseMessage]) -> str | Exception:
        failing = _number(messages) in broken
        return RuntimeError("too long") if failing else healthy._script(messages)  # type: ignore[operator,no-any-return]

    models = Models(weak(), ScriptedModel(reply, model_name="large"))
    plan = Plan(methods=("strong_cot", "skr"), limit=4, embeddings=False, resamples=100)
    assert row(bench(tmp_path / "one", plan, models=models), "skr")["scored"] == 4
    broken |= set(range(8, 20))  # every training query
    found = row(bench(tmp_path / "all", plan, models=models), "skr")
    assert (found["scored"], found["note"]) == (0, "left out: too long")


def test_nothing_of_an_earlier_corpus_or_prompt_is_answered(tmp_path: Path) -> None:
    plan = Plan(methods=("skr",), limit=2, probes=2, embeddings=False, resamples=10)
    seen: list[set[str]] = []
    for fact in ("old", "new"):

        def found(texts: Sequence[str], fact: str = fact) -> Any:
            return RunnableLambda(lambda query: [Document(f"{fact} {query}"), Document(texts[0])])

        model = ScriptedModel(lambda messages: "Answer: nothing", model_name="large")
        models = Models(weak(), model)
        chosen = domain(retriever=found, metrics={"always": lambda a, r: float("d" in str(a))})
        bench(tmp_path, plan, models=models, domain=chosen)
        asked = [m[-1].text for m in model.calls if "Passages:" in m[-1].text]
        seen.append({fact for fact in ("old", "new") for text in asked if f"] {fact} " in text})
    assert seen == [{"old"}, {"new"}]


def test_a_training_query_is_not_shown_its_own_passage_by_your_retriever(tmp_path: Path) -> None:
    plan = Plan(methods=("skr",), limit=2, embeddings=False, resamples=10)

    def everything(texts: Sequence[str]) -> Any:
        return RunnableLambda(lambda query: [Document(text) for text in texts])

    models = Models(weak(), strong())
    bench(tmp_path, plan, models=models, domain=domain(retriever=everything))
    shown = [m[-1].text for m in models.strong.calls if "Passages:" in m[-1].text]
    assert shown
    for text in shown:
        asked = text.rsplit("Question: ", 1)[1]
        assert f"{asked}\nAnswer:" not in text


def test_another_endpoint_is_another_model() -> None:
    def at(url: str) -> Any:
        return ChatOpenAI(model="m", base_url=url, api_key=SecretStr("k"))

    one, other = (identity(at(f"http://{host}/v1"), "") for host in ("one", "two"))
    assert one != other
    assert one == identity(at("http://one/v1"), "")


def test_nothing_to_run_is_said(tmp_path: Path) -> None:
    for plan in (Plan(methods=()), Plan(seeds=())):
        with pytest.raises(ValueError, match="nothing to run"):
            bench(tmp_path, plan)


def test_a_model_that_hardly_answers_is_not_the_best_one(tmp_path: Path) -> None:
    healthy = weak()

    def reply(messages: list[BaseMessage]) -> str | Exception:
        easy = _number(messages) == 0
        return healthy._script(messages) if easy else TimeoutError("no")  # type: ignore[operator,no-any-return]

    models = Models(ScriptedModel(reply, model_name="small"), strong())
    plan = Plan(methods=("weak", "strong_cot"), limit=None, embeddings=False, resamples=10)
    results = bench(tmp_path, plan, models=models)
    assert row(results, "weak")["scores"]["exact_match"]["mean"] == 1.0
    assert row(results, "weak")["against"] == "strong_cot"


def test_without_any_connection_a_method_is_given_up(tmp_path: Path) -> None:
    gone = ScriptedModel([ConnectionError("refused")], model_name="large")
    plan = Plan(
        methods=("weak", "strong"), limit=None, embeddings=False, resamples=10, max_concurrency=1
    )
    results = bench(tmp_path, plan, models=Models(weak(), gone))
    assert row(results, "strong")["failed"] == 5  # of 8
    assert row(results, "weak")["scored"] == 8


def test_faults_of_the_data_are_found_and_said(tmp_path: Path) -> None:
    rows = [{"q": f"double {n}", "a": str(2 * n)} for n in range(6)]
    shared = domain(data={"dev": [*rows[:3], rows[0]], "train": rows[2:]})
    findings = bench(tmp_path / "a", domain=shared)["findings"]
    assert findings == [
        "1 training queries are in the test split, too; they are left out",
        "1 test queries are asked twice; each is asked once",
    ]
    leaky = domain(row=lambda r: {"query": f"{r['q']} not {r['a']}", "reference": r["a"]})
    assert "the fields a decide" in bench(tmp_path / "b", domain=leaky)["findings"][0]
    named = domain(
        row=lambda r: {"query": f"{r['q']} is {r['a']}", "reference": r["a"]},
        labels=tuple(str(2 * n) for n in range(30)),
        data={
            "dev": [{"q": f"double {n}", "a": str(2 * n)} for n in range(12)],
            "train": [{"q": f"double {n}", "a": str(2 * n)} for n in range(12, 30)],
        },
    )
    assert "holds its own label" in bench(tmp_path / "n", domain=named)["findings"][-1]
    other = domain(data={"dev": [*rows[:2], {"q": "Double 0.", "a": "1"}], "train": rows[3:]})
    assert "another reference" in bench(tmp_path / "o", domain=other)["findings"][1]
    with pytest.raises(ValueError, match="every training query is in the split"):
        bench(tmp_path / "c", domain=domain(data={"dev": rows, "train": rows}))
    with pytest.raises(ValueError, match="outside the set"):
        bench(tmp_path / "d", domain=domain(labels=("0", "2")))
    unscorable = domain(row=lambda r: {"query": r["q"]})
    with pytest.raises(ValueError, match="have no reference"):
        bench(tmp_path / "e", domain=unscorable)


def test_seeds_draw_the_same_queries_for_every_method(tmp_path: Path) -> None:
    plan = Plan(methods=("weak", "cowest"), limit=4, seeds=(0, 1), embeddings=False, resamples=100)
    results = bench(tmp_path, plan)
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    by_method = {
        name: [(x["seed"], x["query"]) for x in lines if x["method"] == name]
        for name in ("weak", "cowest")
    }
    assert by_method["weak"] == by_method["cowest"]
    assert row(results, "weak")["scored"] == 8


def test_metered_calls_are_told_apart_by_all_that_they_depend_on() -> None:
    with Ledger(":memory:") as ledger:
        inner = ScriptedModel(["a", "b", "c", "d"])
        one = Metered(inner=inner, role="weak", identity="one", ledger=ledger)
        other = Metered(inner=inner, role="weak", identity="other", ledger=ledger)
        said = [one.invoke("q").text, one.invoke("q").text, one.bind(adapter="v1").invoke("q").text]
        assert [*said, other.invoke("q").text] == ["a", "a", "b", "c"]
        assert [call["role"] for call in ledger.bill("")] == ["weak"] * 4


def test_prices_and_what_is_not_known() -> None:
    call = {"role": "strong", "input_tokens": 1000, "output_tokens": 100, "seconds": 2.0}
    known = cost([[call, call], []], {"strong": Price(2.0, 10.0)})  # type: ignore[list-item]
    assert known.dollars == pytest.approx(0.003)
    assert (known.calls["strong"], known.tokens["strong"], known.seconds) == (1, (1000, 100), 2)
    silent = cost([[{"role": "strong", "seconds": 1.0}]], {"strong": Price(2, 10)})
    assert (silent.tokens["strong"], silent.dollars) == (None, None)


def test_another_labeller_pairs_the_same_drafts() -> None:
    drafts = ["good", "bad", "good", "unreadable"]
    attempts = [Attempt(index=i, draft=d, score=1.0) for i, d in enumerate(drafts)]
    trace = Trace(query="q", reference="r", solo_score=0.0, attempts=attempts)
    seen: list[Any] = []

    def labeller(*, outputs: dict[str, Any], reference_outputs: dict[str, Any]) -> float | None:
        seen.append(reference_outputs["reference"])
        return {"good": 0.9, "bad": 0.3}.get(outputs["text"])

    (found,) = relabelled([trace], labeller)
    gains = [a.gain for a in found.attempts]
    assert gains[3] is None
    assert [g > 0 for g in gains[:3] if g is not None] == [True, False, True]
    assert seen == [None] * 4
