"""A judge of several answers at once: what it reads, what is missing, when it is relied on."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage

from cowest_graph import judge
from cowest_graph.evaluators import as_evaluator, keywords
from cowest_graph.judging import Reliability, judge_together, parse_scores, reliability
from cowest_graph.testing import ScriptedModel


def asked(*answers: str, reference: str | None = "2") -> list[dict[str, Any]]:
    return [keywords("1 + 1?", AIMessage(answer), reference) for answer in answers]


def test_one_call_scores_all_answers_and_its_tokens_count_once() -> None:
    judging = ScriptedModel(["10, 3, 1"])
    for invoke in (judge_together(judging).invoke, _async(judge_together(judging))):
        found = invoke(asked("2", "two or so", "5"))
        assert [each["score"] for each in found] == [10.0, 3.0, 1.0]
        assert [each.get("output_tokens") for each in found] == [3, None, None]
    assert len(judging.calls) == 2
    prompt = str(judging.calls[0][-1].content)
    assert re.findall(r"Output (\d):\n(.*)", prompt) == [("1", "2"), ("2", "two or so"), ("3", "5")]
    assert "10: the answer is exactly the ground truth" in prompt


def _async(chain: Any) -> Any:
    return lambda given: asyncio.run(chain.ainvoke(given))


def test_a_wrong_number_of_scores_is_asked_for_once_and_then_missing() -> None:
    mending = ScriptedModel(["10", "10, 1"])
    assert [e["score"] for e in judge_together(mending).invoke(asked("2", "3"))] == [10.0, 1.0]
    hopeless = ScriptedModel(["fine", "10, 1, 1"])
    found = judge_together(hopeless).invoke(asked("2", "3"))
    assert [(e["score"], e["failure"]) for e in found] == [(None, "unparsable")] * 2
    assert len(hopeless.calls) == 2


def test_without_a_reference_nobody_is_asked() -> None:
    judging = ScriptedModel(["10"])
    found = judge_together(judging).invoke(asked("2", reference=None))
    assert [each["score"] for each in found] == [None]
    assert judge_together(judging).invoke([]) == []
    assert judging.calls == []


@given(st.lists(st.integers(1, 10), min_size=1, max_size=9), st.sampled_from([", ", " ", "\n"]))
def test_scores_come_back_as_they_were_written(scores: list[int], between: str) -> None:
    said = between.join(map(str, scores))
    assert parse_scores(said, len(scores)) == scores
    assert parse_scores(said, len(scores) + 1) is None
    assert parse_scores(f"{said}{between}11", len(scores) + 1) is None


def alone(seen: list[Any]) -> str:
    return "10" if "output:\n2\n" in str(seen[-1].content) else "1"


@pytest.mark.parametrize(("together", "reliable"), [("10, 1", True), ("1, 10", False)])
def test_a_judge_that_mixes_answers_up_is_not_relied_on(together: str, reliable: bool) -> None:
    single = as_evaluator(judge(ScriptedModel(alone)))
    found = reliability(single, judge_together(ScriptedModel([together])), [asked("2", "3")] * 5)
    assert found.reliable() is reliable
    assert found.order == float(reliable)
    assert (found.answers, found.missing, found.repeat) == (10, 0, 0.0)


def test_missing_scores_are_counted_and_nothing_is_reliable_without_any() -> None:
    single = as_evaluator(judge(ScriptedModel(alone)))
    found = reliability(single, judge_together(ScriptedModel(["?"])), [asked("2", "3")])
    assert (found.answers, found.missing, found.order) == (0, 2, None)
    assert not found.reliable()
    assert Reliability(100, 0, apart=1.0, repeat=0.9, order=1.0).reliable()
    assert not Reliability(10, 5, apart=0.0, repeat=0.9, order=1.0).reliable()
