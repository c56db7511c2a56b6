"""Domains: how rows become queries, how answers are read, and what is wrong with data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowest_graph.domains import (
    Domain,
    Example,
    choice,
    data_hash,
    distinct,
    label,
    named_in_queries,
    options,
    shown_references,
    without_duplicates,
)
from examples.ethics.domain import prosocial
from examples.medicine.domain import medmcqa


def _ab(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"query": row["q"], "reference": row["a"]}


def ab(**changes: Any) -> Domain:
    rows = [{"q": "one?", "a": "x"}, {"q": "two?", "a": "y"}]
    return replace(Domain("ab", {"dev": rows, "train": rows}, _ab, labels=("x", "y")), **changes)


@pytest.mark.parametrize("first", [0, 1])
def test_options_are_counted_from_zero_or_one(first: int) -> None:
    row = {"question": "?", "opa": "a", "opb": "b", "opc": "c", "opd": "d"}
    rows = [{**row, "cop": cop + first} for cop in range(4)]
    there = replace(medmcqa, data={"dev": rows})
    assert [e.reference for e in there.load("dev")] == ["A", "B", "C", "D"]


def test_counting_that_cannot_be_told_is_refused() -> None:
    row = {"question": "?", "opa": "a", "opb": "b", "opc": "c", "opd": "d"}
    there = replace(medmcqa, data={"dev": [{**row, "cop": 1}, {**row, "cop": 2}]})
    with pytest.raises(ValueError, match="counts from 0 or from 1"):
        there.load("dev")


def test_five_public_safety_levels_become_three() -> None:
    levels = ["__casual__", "__possibly_needs_caution__", "__probably_needs_caution__"]
    levels += ["__needs_caution__", "__needs_intervention__"]
    rows = [{"context": str(n), "safety_label": level} for n, level in enumerate(levels)]
    found = [e.reference for e in replace(prosocial, data={"dev": rows}).load("dev")]
    assert found == ["casual", *["needs_caution"] * 3, "needs_intervention"]


def test_bad_data_is_found_and_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="empty"):
        ab(data={"dev": []}).load("dev")
    with pytest.raises(LookupError, match="no split 'test'; there are: dev, train"):
        ab().load("test")
    with pytest.raises(
        ValueError, match="row 1: label 'yy' is outside the set; the nearest is 'y'"
    ):
        ab(data={"dev": [{"q": "?", "a": "yy"}]}).load("dev")
    with pytest.raises(ValueError, match="row 2: no query"):
        ab(data={"dev": [{"q": "?", "a": "y"}, {"q": " ", "a": "y"}]}).load("dev")
    with pytest.raises(ValueError, match=r"cannot be read \(KeyError: 'q'\); it has question"):
        ab(data={"dev": [{"question": "?"}]}).load("dev")
    with pytest.raises(ValueError, match=r"row 1: the reference 1 is no text .* write str"):
        ab(data={"dev": [{"q": "?", "a": 1}]}).load("dev")
    for nothing in ("", [], [""]):
        with pytest.raises(ValueError, match="is no text"):
            ab(labels=(), data={"dev": [{"q": "?", "a": nothing}]}).load("dev")
    with pytest.raises(ValueError, match=r"row 1: cannot be read \(AttributeError"):
        ab(row=lambda row: {"query": row["q"].strip()}, data={"dev": [{"q": None}]}).load("dev")
    with pytest.raises(ValueError, match="row 1: no object with fields: 3"):
        ab(data={"dev": [3]}).load("dev")
    with pytest.raises(ValueError, match=r"the split 'dev' is empty \(.*, prepared\)"):
        ab(prepare=lambda rows: []).load("dev")
    with pytest.raises(ValueError, match=r"cannot be prepared \(KeyError: 'n'\)"):
        ab(prepare=lambda rows: sorted(rows, key=lambda row: row["n"])).load("dev")
    with pytest.raises(FileNotFoundError, match="--data FOLDER"):
        ab(data={"dev": "ab/dev.jsonl"}).load("dev", tmp_path)
    (tmp_path / "dev.jsonl").write_text('{"q": "?"\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"dev.jsonl, line 1: not JSON"):
        ab(data={"dev": "dev.jsonl"}).load("dev", tmp_path)
    with pytest.raises(ValueError, match="given twice: x"):
        ab(labels=("x", "x"))
    with pytest.raises(ValueError, match="letters"):
        ab(name="a b")


def test_planted_gold_is_named() -> None:
    leaky = ab(row=lambda row: {"query": f"{row['q']} (not {row['a']}!)", "reference": row["a"]})
    assert shown_references(leaky, leaky.rows("dev")[0]) == ["a"]
    assert shown_references(ab(), ab().rows("dev")[0]) == []
    # a copy of the reference in another field, and rows that are sorted by their label
    rows = [{"q": f"{n}?", "a": label, "gold": label} for label in "xy" for n in range(40)]
    copied = ab(row=lambda row: {"query": f"{row['q']} {row['gold']}", "reference": row["a"]})
    assert shown_references(copied, rows) == ["gold"]
    assert shown_references(leaky, rows) == ["a"]


def test_labels_that_stand_in_their_own_queries_are_told() -> None:
    plain = [Example(f"{n}? {'xy'[n % 2]}", "xy"[n % 2]) for n in range(20)]
    assert named_in_queries(ab(), plain)
    assert not named_in_queries(ab(), [replace(e, query=f"{e.query}: x, y") for e in plain])
    assert not named_in_queries(ab(), [replace(e, query="?") for e in plain])
    assert not named_in_queries(ab(labels=()), plain)


def test_duplicates_between_splits_are_left_out_of_training() -> None:
    test = ab(data={"dev": [{"q": "ONE?!", "a": "x"}]}).load("dev")
    kept, left_out = without_duplicates(ab().load("train"), test)
    assert ([e.query for e in kept], left_out) == (["two?"], 1)
    assert len(distinct([*test, *test])) == 1
    assert data_hash(test) != data_hash(kept)
    assert data_hash(test) != data_hash([replace(test[0], passages=("p",))])


def test_a_bare_letter_is_an_option_and_no_text() -> None:
    blood = options("Which group?", ["O", "A", "B", "AB"])
    assert [choice(f"Answer: {said}", blood) for said in ("A", "(A)", "B", "AB")] == [*"AABD"]
    assert choice("Answer: A", options("Which sign?", ["-", "x", "The +"])) == "A"


def test_a_denied_label_is_not_said_and_labels_must_differ_in_words() -> None:
    for said in ("not x", "it is no x", "never x"):
        assert label(f"Answer: {said}", ("x", "y")) is None
    with pytest.raises(ValueError, match="told apart: C, C#"):
        ab(labels=("C", "C#", "D"))


def test_own_metrics_are_not_averaged_for_feedback() -> None:
    graded = ab(labels=(), metrics={"right": lambda a, r: float(a in r), "words": lambda a, r: 9.0})
    said = {"inputs": {"query": "?"}, "outputs": {"text": "Answer: y"}}
    assert graded.evaluator()(**said, reference_outputs={"reference": "x"})["score"] == 0


def test_a_passage_is_one_text() -> None:
    one = ab(row=lambda row: {"query": row["q"], "reference": row["a"], "passages": "Paris is big"})
    assert one.load("dev")[0].passages == ("Paris is big",)


def test_queries_that_differ_in_a_sign_are_two() -> None:
    asked = [Example(query, "x") for query in ("10+1?", "10-1?", "1.01?", "!!!", "???", "B", "b.")]
    assert [e.query for e in distinct(asked)] == ["10+1?", "10-1?", "1.01?", "!!!", "???", "B"]
    compilers = [Example(f"Which compiler builds C{sign}?", "x") for sign in ("", "++", "#")]
    assert distinct(compilers) == compilers
    assert len(distinct([Example("Where's my card", "x"), Example("wheres my  card?", "x")])) == 1


def test_the_task_stands_in_every_prompt_that_needs_it() -> None:
    prompts = ab(task="Say {x} or y.", strong_task="No more.").prompts()
    seen = {"query": "Q?", "draft": "D."}
    draft = prompts.draft.invoke({"query": "Q?"}).to_string()
    assert "Say {x} or y." in draft
    assert "No more." not in draft
    for prompt in (prompts.solo, prompts.refine):
        asked = prompt.invoke({k: seen[k] for k in prompt.input_variables}).to_string()
        assert "Say {x} or y. No more.\n\nQuestion: Q?" in asked
    assert ab().prompts().version != prompts.version


@given(
    st.sampled_from("ABCD"), st.sampled_from(["{}", "({})", "{}.", "Option {}", "**{}**", "{}:"])
)
def test_a_letter_is_read_in_any_dress(letter: str, dress: str) -> None:
    question = options("Which?", ["iron", "zinc", "a vaccine", "tin"])
    assert choice(f"Explanation: …\nAnswer: {dress.format(letter)}", question) == letter
    assert choice(f'{{"step": "…", "answer_choice": "{letter}. x"}}', question) == letter


def test_what_is_no_choice_is_none() -> None:
    question = options("Which?", ["iron", "zinc", "a vaccine", "tin"])
    assert choice("Answer: zinc", question) == "B"
    assert choice("Answer: A vaccine", question) == "C"
    assert choice("Answer: A iron, as it is a metal", question) == "A"
    for said in ("A/B", "B or C", "E", "none of the above", "a drug", "I"):
        assert choice(f"Answer: {said}", question) is None, said


def test_labels_within_labels() -> None:
    labels = ["Safe", "Unsafe", "needs_caution", "needs caution now"]
    assert label("Answer: unsafe", labels) == "Unsafe"
    assert label("Answer: it needs caution now, I think", labels) == "needs caution now"
    assert label("Answer: Safe, not unsafe", labels) is None
    assert label("I cannot say.\nReally.", labels) is None
