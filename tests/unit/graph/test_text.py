"""Prompts and how answers are read; metrics on hand-worked cases."""

import pytest

from cowest_graph import Prompts, accuracy, exact_match, final_answer, macro_f1, token_f1
from cowest_graph.metrics import normalize
from cowest_graph.prompts import completion, draft_prompt, explanation_of


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Explanation: because.\nAnswer: B12", "B12"),
        ("Explanation: because.\n\n**Answer:** B12", "B12"),
        ("Answer: first\nAnswer: second", "second"),
        ("Final answer: B12", "B12"),
        ('{"explanation": "e", "answer": "B12"}', "B12"),
        ("B12", "B12"),
        ("Explanation: it broke off", None),
        ("First this.\nThen that.", None),
        ("word " * 30, None),
        ("Answer:", None),
        ("", None),
        ('{"explanation": "e"', '{"explanation": "e"'),
    ],
)
def test_the_short_answer_is_read_or_missing(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


def test_what_is_taught_is_what_is_read() -> None:
    said = completion("B12", "Only animals have it.")
    assert final_answer(said) == "B12"
    assert explanation_of(said) == "Only animals have it."


def test_every_style_has_a_prompt_and_another_is_refused() -> None:
    asked = {draft_prompt(s).format(query="Q") for s in ("answer", "knowledge", "chain_of_thought")}
    assert len(asked) == 3
    with pytest.raises(ValueError, match="chain_of_thought"):
        draft_prompt("haiku")


def test_the_version_changes_with_a_word() -> None:
    plain = Prompts()
    other = Prompts(draft=draft_prompt("answer"))
    assert plain.version == Prompts().version
    assert plain.version != other.version


def test_squad_normalisation() -> None:
    assert normalize("The  cat, a dog and AN ox!") == "cat dog and ox"


@pytest.mark.parametrize(
    ("prediction", "references", "exact", "f1"),
    [
        ("the Eiffel Tower", ["Eiffel tower"], 1.0, 1.0),
        ("tower", ["Eiffel tower"], 0.0, 2 / 3),
        ("tower", ["Paris", "tower"], 1.0, 1.0),
        ("a b b", ["b b c"], 0.0, 0.8),  # "a" is an article
        ("", [""], 1.0, 1.0),
        ("x", [""], 0.0, 0.0),
        (None, ["x"], 0.0, 0.0),
    ],
)
def test_exact_match_and_token_f1(
    prediction: str | None, references: list[str], exact: float, f1: float
) -> None:
    assert exact_match(prediction, references) == exact
    assert token_f1(prediction, references) == pytest.approx(f1)


def test_an_unreadable_label_is_wrong_and_no_class_of_its_own() -> None:
    assert accuracy(["a", None, "b"], ["a", "a", "b"]) == pytest.approx(2 / 3)
    # a: precision 1, recall 1/2, F1 2/3; b: 1; c never occurs: 0
    expected = (2 / 3 + 1 + 0) / 3
    assert macro_f1(["a", None, "b"], ["a", "a", "b"], ["a", "b", "c"]) == pytest.approx(expected)


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to score"):
        accuracy([], [])
    with pytest.raises(ValueError, match="no reference"):
        exact_match("x", [])
    with pytest.raises(ValueError, match="1 predictions for 2"):
        macro_f1(["a"], ["a", "b"], ["a"])
