"""The example domains on their data, where it is there; and published accuracies reproduced."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from langchain_core.messages import BaseMessage

from cowest_graph.domains import Domain, data_folder, shown_references, without_duplicates
from cowest_graph.testing import ScriptedModel
from examples.counterfactual.domain import ifqa, ifqa_closed
from examples.ethics.banking import banking77
from examples.ethics.domain import diasafety, prosocial
from examples.medicine.domain import medmcqa
from trainer.bench import Models, Plan, run_bench

DATA = data_folder() or Path()
ALL = [ifqa, ifqa_closed, medmcqa, prosocial, diasafety, banking77]
with_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no data folder {DATA} (COWEST_DATA)")


@with_data
@pytest.mark.parametrize("domain", ALL, ids=lambda d: d.name)
def test_the_examples_load_and_score_their_own_references(domain: Domain) -> None:
    for split in ("train", "dev"):
        examples = domain.load(split)
        assert len(examples) > 400
        for example in examples[:100]:
            reference = example.reference
            assert reference is not None
            said = f"Answer: {reference if isinstance(reference, str) else reference[0]}"
            assert domain.score(said, example.query, reference)[domain.primary] == 1
    # No field decides the answer and is shown in the query.
    assert shown_references(domain, domain.rows("dev")[0]) == []


@with_data
def test_the_queries_that_train_and_dev_share_are_found() -> None:
    shared = {d.name: without_duplicates(d.load("train"), d.load("dev"))[1] for d in ALL}
    # They differ in punctuation or articles alone.
    assert {name: n for name, n in shared.items() if n} == {"diasafety": 1, "banking77": 3}


def recorded(model: str) -> dict[str, str]:
    """A model's recorded answers by question id, as it gave them."""
    lines = (DATA / "medmcqa" / f"{model}.jsonl").read_text("utf-8").splitlines()
    return {row["id"]: row["raw"] for row in map(json.loads, lines)}


@with_data
@pytest.mark.parametrize(
    ("model", "published"), [("strong_gpt4_32k_cot", 0.68), ("strong_gpt35_16k_cot", 0.54)]
)
def test_recorded_answers_reproduce_their_published_accuracy(model: str, published: float) -> None:
    answers = recorded(model)
    scores = []
    for split in ("train", "dev"):
        rows, _ = medmcqa.rows(split)
        for row, example in zip(rows, medmcqa.load(split), strict=True):
            if (raw := answers.get(row["id"])) is not None:
                found = medmcqa.score(raw, example.query, example.reference or "")
                scores.append(found["accuracy"])
    assert len(scores) == 3077
    assert sum(scores) / len(scores) == pytest.approx(published, abs=0.02)


@with_data
def test_the_bench_scores_a_recorded_model_as_the_parser_does(tmp_path: Path) -> None:
    answers, (rows, _) = recorded("strong_gpt4_32k_cot"), medmcqa.rows("dev")
    examples = medmcqa.load("dev")
    said = {e.query: answers[row["id"]] for row, e in zip(rows, examples, strict=True)}

    def reply(messages: list[BaseMessage]) -> str:
        return said[messages[-1].text.partition("\n\nQuestion: ")[2]]

    strong = ScriptedModel(reply, model_name="recorded GPT-4")
    plan = Plan(methods=("strong_cot",), limit=None, embeddings=False, resamples=100)
    results = run_bench(medmcqa, plan, Models(None, strong), tmp_path, say=lambda _: None)
    scores = [medmcqa.read(said[e.query], e.query) == e.reference for e in examples]
    (row,) = results["rows"]
    assert row["scored"] == 500
    assert row["scores"]["accuracy"]["mean"] == pytest.approx(sum(scores) / 500)
    assert row["scores"]["macro_f1"]["low"] <= row["scores"]["macro_f1"]["mean"]


def test_a_data_set_of_a_hub_is_read_where_no_file_is(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    names = ["card_arrival", "age_limit"]
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
    )
    rows = {"text": ["Where is my card?", "How old must I be?"], "label": [0, 1]}
    hub = tmp_path / "hub"
    hub.mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(hub / "train.parquet")
    there = replace(banking77, hub={"dev": f"{hub}@train"})
    found = there.load("dev", folder=tmp_path / "nothing")
    assert [example.reference for example in found] == names


def test_medmcqa_of_a_hub_counts_from_zero(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    options = {f"op{letter}": list("wxyz") for letter in "abcd"}
    features = {
        "question": datasets.Value("string"),
        "cop": datasets.ClassLabel(names=list("abcd")),
    }
    features |= {name: datasets.Value("string") for name in options}
    rows = {"question": ["?"] * 4, "cop": [0, 1, 2, 3], **options}
    table = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    (tmp_path / "hub").mkdir()
    table.to_parquet(tmp_path / "hub" / "validation.parquet")
    there = replace(medmcqa, hub={"dev": f"{tmp_path / 'hub'}@validation"})
    found = there.load("dev", folder=tmp_path / "nothing")
    assert [example.reference for example in found] == ["A", "B", "C", "D"]
