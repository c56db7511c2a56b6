"""Evaluators: what is a score, what is missing, and that the two are never mixed up."""

import asyncio
import math
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from cowest_graph import exact_match, judge, metric
from cowest_graph.evaluators import as_evaluator, evaluator_name, keywords, parse_score
from cowest_graph.testing import ScriptedModel

GIVEN = keywords("Which?", AIMessage("Explanation: x\nAnswer: B12"), ["b12", "cobalamin"])


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("7", 7),
        (" 10\n", 10),
        ("Score: 3", 3),
        ("**8**", 8),
        ("9/10", 9),
        ("6.0", 6),
        ("0", None),
        ("11", None),
        ("7 or 8", None),
        ("I give it a 7", None),
        ("7.5", None),
        ("-3.2", None),
        ("", None),
    ],
)
def test_a_reply_is_a_score_only_when_it_is_nothing_else(text: str, score: int | None) -> None:
    assert parse_score(text) == score


def test_a_garbled_reply_is_corrected_once() -> None:
    model = ScriptedModel(["Quite good!", "8"])
    result = as_evaluator(judge(model)).invoke(GIVEN)
    assert result["score"] == 8.0
    assert result["failure"] is None
    first, second = model.calls
    assert [m.type for m in second] == ["human", "ai", "human"]
    assert second[0] == first[0]
    assert second[1].content == "Quite good!"


def test_two_garbled_replies_are_missing_in_both_worlds() -> None:
    for run in (
        lambda j: as_evaluator(j).invoke(GIVEN),
        lambda j: asyncio.run(as_evaluator(j).ainvoke(GIVEN)),
    ):
        model = ScriptedModel(["fine", "very fine", "9"])
        result = run(judge(model))
        assert result["score"] is None
        assert result["failure"] == "unparsable"
        assert len(model.calls) == 2


def test_the_judges_tokens_are_counted_over_both_turns() -> None:
    result = as_evaluator(judge(ScriptedModel(["so so", "4"]))).invoke(GIVEN)
    assert result["output_tokens"] == 3


def test_without_a_reference_there_is_no_score_and_no_call() -> None:
    model = ScriptedModel(["9"])
    given = keywords("Which?", AIMessage("Answer: x"), None)
    assert as_evaluator(judge(model)).invoke(given)["score"] is None
    assert as_evaluator(metric(exact_match)).invoke(given)["score"] is None
    assert model.calls == []


@pytest.mark.parametrize(
    ("returned", "score", "failure"),
    [
        (True, 1.0, None),
        (0, 0.0, None),
        (0.5, 0.5, None),
        ({"key": "k", "score": 3}, 3.0, None),
        (None, None, None),
        ({"score": None, "comment": "c"}, None, None),
        (math.nan, None, "unparsable"),
        (math.inf, None, "unparsable"),
        ("good", None, "unparsable"),
    ],
)
def test_any_function_is_an_evaluator(returned: Any, score: Any, failure: Any) -> None:
    def plain(*, outputs: dict[str, Any]) -> Any:
        return returned

    async def asynchronous(inputs: dict[str, Any], reference_outputs: dict[str, Any]) -> Any:
        return returned

    for result in (
        as_evaluator(plain).invoke(GIVEN),
        asyncio.run(as_evaluator(asynchronous).ainvoke(GIVEN)),
        asyncio.run(as_evaluator(plain).ainvoke(GIVEN)),
    ):
        assert result.get("score") == score
        assert result.get("failure") == failure


def test_a_function_of_other_arguments_is_refused() -> None:
    with pytest.raises(TypeError, match="reference_outputs"):
        as_evaluator(lambda prediction: 1.0)


def test_a_metric_takes_the_best_reference_and_an_unreadable_answer_is_wrong() -> None:
    scoring = as_evaluator(metric(exact_match))
    assert scoring.invoke(GIVEN)["score"] == 1.0
    rambling = keywords("Which?", AIMessage("Well.\nThat depends."), "B12")
    assert rambling["outputs"]["answer"] is None
    assert scoring.invoke(rambling)["score"] == 0.0


def test_traces_can_tell_evaluators_apart() -> None:
    assert evaluator_name(metric(exact_match)) == "exact_match"
    assert evaluator_name(judge(ScriptedModel(["1"], model_name="gpt"))) == "judge:gpt"
    assert evaluator_name(None) is None
