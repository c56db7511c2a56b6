"""Which adapters a bench makes, of what, and under which names; the recipes are recorded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import pytest
from langchain_core.messages import BaseMessage

from cowest_graph.adapters import AdapterRegistry
from cowest_graph.baselines import Materials
from cowest_graph.domains import Domain, Example
from cowest_graph.testing import ScriptedModel
from cowest_graph.traces import Attempt, Trace, TraceStore
from trainer.bench.adapters import Training, Workshop, relabelled
from trainer.job import TrainingJob

DOMAIN = Domain(
    "toy",
    {"train": [{"q": f"q{n}", "a": "right"} for n in range(6)]},
    lambda row: {"query": row["q"], "reference": row["a"]},
)


class Recipes:
    """Takes the place of training, and of the registry that it adds to."""

    def __init__(self) -> None:
        self.made: dict[str, Mapping[str, Any]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.made

    def add(self, folder: Path, *, name: str) -> None:
        self.made[name] = {"rows": []}

    def sft(self, rows: Sequence[Any], job: Any, adapters: Any, *, name: str, **rest: Any) -> str:
        assert name not in self.made
        self.made[name] = {"rows": list(rows), "seed": job.seed}
        return name

    def dpo(
        self, rows: Sequence[Any], job: Any, adapters: Any, *, start: str, name: str, **rest: Any
    ) -> str:
        assert name not in self.made
        self.made[name] = {"rows": list(rows), "start": start, "job": job}
        return name


def weak() -> ScriptedModel:
    """Drafts that are right, then wrong, and so on; as a labeller it likes the wrong ones."""
    turn = iter(range(10_000))

    def reply(messages: list[BaseMessage]) -> str:
        if "Proposed answer" in messages[-1].text:
            return "Yes" if "wrong" in messages[-1].text else "No"
        return "Answer: right" if next(turn) % 2 == 0 else "Answer: wrong"

    return ScriptedModel(reply)


def strong() -> ScriptedModel:
    def reply(messages: list[BaseMessage]) -> str:
        text = messages[-1].text
        return "Answer: right" if "Expert:\nAnswer: right" in text else "Answer: wrong"

    return ScriptedModel(reply)


def workshop(folder: Path, recipes: Recipes, **changes: Any) -> Workshop:
    materials = Materials(weak=weak(), strong=strong(), prompts=DOMAIN.prompts())
    training = Training(train_rows=4, feedback_rows=2, num_drafts=2, seed=7)
    fields: dict[str, Any] = {
        "domain": DOMAIN,
        "training": training,
        "train": DOMAIN.load("train"),
        "weak": weak(),
        "materials": materials,
        "evaluator": None,
        "adapters": cast(AdapterRegistry, recipes),
        "job": lambda kind: TrainingJob("model"),
        "folder": folder,
        "style": "answer",
        "say": lambda text: None,
        "max_concurrency": 1,
        "sft": recipes.sft,
        "dpo": recipes.dpo,
    }
    return Workshop(**(fields | changes))


def test_sft_then_dpo_from_it(tmp_path: Path) -> None:
    recipes = Recipes()
    shop = workshop(tmp_path, recipes)
    assert shop.adapter("base").version == "base"
    sft, dpo = shop.adapter("sft").version, shop.adapter("dpo").version
    assert sft is not None
    assert dpo is not None
    assert sft.startswith("toy-sft-")
    assert (len(recipes.made[sft]["rows"]), recipes.made[sft]["seed"]) == (4, 7)
    assert recipes.made[dpo]["start"] == sft
    pairs = recipes.made[dpo]["rows"]
    assert len(pairs) == 2  # two queries, two drafts each, one of them right
    assert {row["chosen"][0]["content"] for row in pairs} == {"Answer: right"}
    assert shop.once["feedback queries"] == 2
    roles = Counter(call["role"] for call in shop.calls[f"feedback on {sft}"])
    assert roles == {"weak": 4, "strong": 6}  # drafts; refined and alone; a metric is no call


def test_the_store_that_masks_keys_is_the_one_that_is_used(tmp_path: Path) -> None:
    opened: list[str] = []

    def store(url: str) -> TraceStore:
        opened.append(url)
        return TraceStore(url)

    workshop(tmp_path, Recipes(), store=store).adapter("dpo")
    assert opened == [f"sqlite:///{tmp_path / 'traces.db'}"]


def test_the_same_shop_again_finds_what_it_made(tmp_path: Path) -> None:
    recipes = Recipes()
    first = {kind: workshop(tmp_path, recipes).adapter(kind) for kind in ("sft", "dpo")}
    again = {kind: workshop(tmp_path, recipes).adapter(kind) for kind in ("sft", "dpo")}
    assert first == again
    assert len(recipes.made) == 2
    other = workshop(tmp_path, recipes, training=Training(train_rows=3))
    assert other.adapter("sft").version != first["sft"].version


def test_another_labeller_has_the_same_drafts_and_its_own_pairs(tmp_path: Path) -> None:
    recipes = Recipes()
    shop = workshop(tmp_path, recipes)
    made = shop.adapter("rlwf").version
    assert made is not None
    assert made.startswith("toy-rlwf-")
    chosen = {row["chosen"][0]["content"] for row in recipes.made[made]["rows"]}
    assert chosen == {"Answer: wrong"}  # its weak model likes those


def test_pairs_can_be_limited_and_rounds_repeated(tmp_path: Path) -> None:
    recipes = Recipes()
    few = Training(4, feedback_rows=2, num_drafts=2, max_pairs=1, rounds=2)
    shop = workshop(tmp_path, recipes, training=few)
    made = shop.adapter("dpo")
    assert made.note == "1 pairs, round 2"
    first, second = [name for name in recipes.made if "-dpo-" in name]
    assert recipes.made[second]["start"] == first
    assert len(recipes.made[first]["rows"]) == 1


def test_each_round_has_the_label_noise_of_its_own_traces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([0.1, 0.2])
    monkeypatch.setattr("trainer.launch.label_noise", lambda traces: next(found))
    recipes = Recipes()
    training = Training(train_rows=4, feedback_rows=2, num_drafts=2, rounds=2)
    job = TrainingJob("model", objective="cdpo")
    workshop(tmp_path, recipes, training=training, job=lambda kind: job).adapter("dpo")
    noise = [each["job"].label_noise for name, each in recipes.made.items() if "-dpo-" in name]
    assert noise == [0.1, 0.2]


def trained(folder: Path, queries: Sequence[str]) -> Path:
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    rows = [{"prompt": [{"role": "user", "content": query}]} for query in queries]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_an_adapter_that_is_there_is_not_trained(tmp_path: Path) -> None:
    recipes = Recipes()
    there = trained(tmp_path / "mine", ["q1"])
    training = Training(feedback_rows=2, num_drafts=2, given={"sft": there})
    shop = workshop(tmp_path, recipes, training=training, held_out=["q9"])
    made = shop.adapter("sft").version
    assert made == "mine-" + sha256(b"weights").hexdigest()[:8]
    aligned = shop.adapter("dpo").version
    assert recipes.made[str(aligned)]["start"] == made
    assert not [name for name in recipes.made if "-sft-" in name]


def test_an_adapter_that_was_trained_on_a_tested_query_is_refused(tmp_path: Path) -> None:
    there = trained(tmp_path / "mine", ["q1", "Q9 ", "q9"])
    shop = workshop(
        tmp_path, Recipes(), training=Training(given={"sft": there}), held_out=["q9", "q8"]
    )
    with pytest.raises(ValueError, match="mine was trained on 2 rows whose query is tested on"):
        shop.adapter("sft")


def test_equal_texts_are_no_pair(tmp_path: Path) -> None:
    turn = iter(range(10_000))

    def reply(messages: list[BaseMessage]) -> str:
        if "Expert:" not in messages[-1].text:
            return "Answer: wrong"
        return "Answer: right" if next(turn) % 2 == 0 else "Answer: wrong"  # of the same draft

    recipes = Recipes()
    weak = ScriptedModel(["Answer: right"])
    materials = Materials(weak=weak, strong=ScriptedModel(reply), prompts=DOMAIN.prompts())
    made = workshop(tmp_path, recipes, weak=weak, materials=materials).adapter("dpo")
    assert made.version == next(name for name in recipes.made if "-sft-" in name)
    assert made.note.startswith("no pairs")


@pytest.mark.parametrize("odd", ["", "Answer: wrong "])
def test_a_draft_that_teaches_nothing_does_not_end_the_others(tmp_path: Path, odd: str) -> None:
    drafts = iter(["Answer: right", "Answer: wrong", odd, "Answer: right"] * 9)
    recipes = Recipes()
    shop = workshop(
        tmp_path,
        recipes,
        weak=ScriptedModel(lambda messages: next(drafts)),
        training=Training(train_rows=4, feedback_rows=1, num_drafts=4),
    )
    pairs = recipes.made[str(shop.adapter("dpo").version)]["rows"]
    assert pairs
    for row in pairs:
        assert row["chosen"][0]["content"] == "Answer: right"
        assert row["rejected"][0]["content"].strip() == "Answer: wrong"


@pytest.mark.parametrize("objective", ["kto", "sft_best", "weighted"])
def test_the_rows_are_those_of_the_objective(tmp_path: Path, objective: Any) -> None:
    recipes = Recipes()
    job = TrainingJob("model", objective=objective)
    made = workshop(tmp_path, recipes, job=lambda kind: job).adapter("dpo").version
    (row, *_) = recipes.made[str(made)]["rows"]
    wanted = {"kto": "label", "sft_best": "completion", "weighted": "chosen_gain"}[objective]
    assert wanted in row


def test_a_labeller_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    def gone(**_: Any) -> float:
        raise ConnectionError("refused")

    trace = Trace(query="q", solo_score=0.0, attempts=[Attempt(index=0, draft="d", score=1.0)])
    with pytest.raises(ConnectionError, match="refused"):
        relabelled([trace], gone)


def test_without_pairs_the_adapter_before_is_used_and_said(tmp_path: Path) -> None:
    recipes = Recipes()
    shop = workshop(tmp_path, recipes, weak=ScriptedModel(["Answer: wrong"]))
    made = shop.adapter("dpo")
    assert made.version == shop.adapter("sft").version
    assert "no pairs" in made.note


def test_without_adapters_only_what_needs_none_is_made(tmp_path: Path) -> None:
    shop = workshop(tmp_path, Recipes(), adapters=None)
    assert shop.adapter("base").version is None
    assert "as it is" in shop.adapter("sft").note
    with pytest.raises(ValueError, match="'dpo' must be trained"):
        shop.adapter("dpo")


def test_nothing_to_show_is_said(tmp_path: Path) -> None:
    shop = workshop(tmp_path, Recipes(), train=[Example("q", "right")], style="knowledge")
    made = shop.adapter("sft")
    assert made.version == "base"
    assert "no SFT: 0 demonstrations" in made.note
