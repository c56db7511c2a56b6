"""The example domains on their data, where it is there; and published accuracies reproduced."""

from __future__ import annotations

import json

import pytest

from cowest_graph.domains import Domain, data_folder, shown_references, without_duplicates
from examples.counterfactual.domain import ifqa, ifqa_closed
from examples.ethics.banking import banking77
from examples.ethics.domain import diasafety, prosocial
from examples.medicine.domain import medmcqa

DATA = data_folder()
ALL = [ifqa, ifqa_closed, medmcqa, prosocial, diasafety, banking77]
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no data folder {DATA} (COWEST_DATA)")


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


def test_the_queries_that_train_and_dev_share_are_found() -> None:
    shared = {d.name: without_duplicates(d.load("train"), d.load("dev"))[1] for d in ALL}
    # They differ in punctuation or articles alone.
    assert {name: n for name, n in shared.items() if n} == {"diasafety": 1, "banking77": 3}


@pytest.mark.parametrize(
    ("recorded", "published"), [("strong_gpt4_32k_cot", 0.68), ("strong_gpt35_16k_cot", 0.54)]
)
def test_recorded_answers_reproduce_their_published_accuracy(
    recorded: str, published: float
) -> None:
    answers = {}
    for line in (DATA / "medmcqa" / f"{recorded}.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        answers[row["id"]] = row["raw"]
    scores = []
    for split in ("train", "dev"):
        rows, _ = medmcqa.rows(split)
        for row, example in zip(rows, medmcqa.load(split), strict=True):
            if (raw := answers.get(row["id"])) is not None:
                scores.append(
                    medmcqa.score(raw, example.query, example.reference or "")["accuracy"]
                )
    assert len(scores) == 3077
    assert sum(scores) / len(scores) == pytest.approx(published, abs=0.02)
