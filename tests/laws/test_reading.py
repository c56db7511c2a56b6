"""Whatever models, judges and evaluators write: it is read, or it is missing; nothing raises."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from pydantic import BaseModel

from cowest_graph.evaluators import as_evaluator, keywords, parse_score
from cowest_graph.metrics import exact_match, token_f1
from cowest_graph.prompts import explanation_of, final_answer, readable

ASKED = keywords("1 + 1?", AIMessage("Answer: 2"), "2")

HARD = [
    '{"answer": ' + "[" * 100_000 + "]" * 100_000 + "}",
    '{"answer": ' + "9" * 5000 + "}",
    '{"answer": {"answer": [1, null, {"a": "b"}]}}',
    '{"answer": NaN}',
    "Answer: " + "9" * 5000,
    "Answer:" * 10_000,
    "*" * 50_000,
    "\ud800 Answer: \udfff",
    "\0Answer: a\0",
    '{"explanation": 7, "answer": null}',
]


@pytest.mark.parametrize("text", HARD, ids=range(len(HARD)))
def test_hard_answers_are_read_or_missing(text: str) -> None:
    check_reading(text)


@given(
    st.text(max_size=200)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["answer", "explanation", "x"]), inner)
        ),
    ).map(json.dumps)
)
def test_any_text_is_read_or_missing(text: str) -> None:
    check_reading(text)


def check_reading(text: str) -> None:
    answer, explanation = final_answer(text), explanation_of(text)
    assert answer is None or answer.strip()
    assert explanation is None or explanation.strip()
    assert isinstance(readable(AIMessage(text)).text, str)
    for metric in (exact_match, token_f1):
        assert 0.0 <= metric(answer, ["2", "two"]) <= 1.0


@pytest.mark.parametrize(
    "text",
    [
        "-5",
        ".5",
        "<3",
        ">7",
        "5+",
        "~6",
        "=8",
        "7%",
        "0",
        "11",
        "1 0",
        "7.5",
        "7,5",
        "5-6",
        "/7",
        "7/9",
        "10/1",
        "±3",
        "score -5",
        "score: -5",
        "score .5",
        "٧",
        "７",
        "7e1",
        "+7",
        "7?",
        "",
    ],
)
def test_what_is_no_score_is_missing(text: str) -> None:
    assert parse_score(text) is None


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("7", 7),
        (" 7.\n", 7),
        ("**7**", 7),
        ("Score: 7", 7),
        ("**Score:** 10/10", 10),
        ("[7]", 7),
        ('"7"', 7),
        ("score=7", 7),
        ("7.0", 7),
        ("10", 10),
        ("# 3!", 3),
        ("`9 / 10`", 9),
        ("SCORE 2", 2),
    ],
)
def test_a_quoted_or_emphasised_score_is_read(text: str, score: int) -> None:
    assert parse_score(text) == score


@given(st.text(max_size=12))
def test_a_score_is_the_only_number_in_its_text(text: str) -> None:
    score = parse_score(text)
    if score is not None:
        assert re.findall(r"\d+", text)[0] == str(score)
        assert not re.search(r"[-+<>~=^%]\s*\d", text.replace("=", "", 1))


class Result(BaseModel):
    """As LangSmith's."""

    key: str = "k"
    score: float | None = 0.5


NUMBERS: list[tuple[Any, float]] = [
    (np.float32(0.5), 0.5),
    (np.float64(0.5), 0.5),
    (np.int64(7), 7.0),
    (np.bool_(True), 1.0),
    (np.array(0.5), 0.5),
    (True, 1.0),
    ({"score": np.float32(0.5)}, 0.5),
    (Result(), 0.5),
]


@pytest.mark.parametrize(("given", "score"), NUMBERS, ids=lambda it: type(it).__name__)
def test_every_kind_of_number_is_a_score(given: Any, score: float) -> None:
    said = as_evaluator(lambda *, outputs: given).invoke(ASKED)
    assert said["score"] == score
    assert type(said["score"]) is float


@pytest.mark.parametrize(
    "given", ["7", b"7", 10**400, float("nan"), np.nan, np.inf, np.zeros(2), [1], object(), 1j]
)
def test_what_is_no_number_is_missing_with_its_reason(given: Any) -> None:
    said = as_evaluator(lambda *, outputs: given).invoke(ASKED)
    assert (said["score"], said["failure"]) == (None, "unparsable")
    assert len(str(said["comment"])) < 250
