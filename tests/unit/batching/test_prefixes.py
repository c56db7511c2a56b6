"""What the prompts of one query share comes first, so that an endpoint's prefix cache has it."""

from __future__ import annotations

import os
from typing import Any

import pytest

from cowest_graph import TraceStore, create_collector, judge
from cowest_graph.benchmark.scoreboard import Price, cost
from cowest_graph.state import CallRecord
from cowest_graph.testing import ScriptedModel

QUERY = {"query": "Which vitamin comes only from animal sources?", "reference": "B12"}


def asked(model: ScriptedModel, marker: str) -> list[str]:
    texts = ["\n".join(message.text for message in seen) for seen in model.calls]
    return [text for text in texts if marker in text]


def test_the_prompts_of_one_query_differ_in_their_last_words_alone() -> None:
    weak = ScriptedModel([f"{n} is what I think. Answer: B{n}" for n in range(1, 4)])
    strong = ScriptedModel(lambda seen: f"Answer: {seen[-1].text.split()[-1]}", model_name="s")
    judging = ScriptedModel(["5"])
    with TraceStore(":memory:") as traces:
        create_collector(
            weak, strong, evaluator=judge(judging), traces=traces, num_drafts=3
        ).compile().invoke(QUERY)
    for prompts, count, last in (
        (asked(strong, "Expert:"), 3, "Expert:\n"),
        (asked(judging, "Ground truth"), 4, "Model output:\n"),
    ):
        assert len(prompts) == count
        shared = os.path.commonprefix(prompts)  # noqa: RUF071  # by characters
        assert QUERY["query"] in shared
        assert last in shared


@pytest.mark.parametrize(
    ("more", "dollars"),
    [({}, 1.5), ({"cached_tokens": 800_000}, 0.9), ({"service_tier": "batch"}, 0.75)],
)
def test_a_bill_knows_what_was_cached_and_what_came_with_a_batch(
    more: dict[str, Any], dollars: float
) -> None:
    made: dict[str, Any] = {"role": "strong", "input_tokens": 1_000_000, "output_tokens": 100_000}
    call: CallRecord = {**made, **more}  # type: ignore[typeddict-item]
    found = cost([[call]], {"strong": Price(1.0, 5.0, cached=0.25)})
    assert found.dollars == pytest.approx(dollars)
    told = more.get("cached_tokens")
    assert found.cached == ({} if told is None else {"strong": told})


def test_a_bill_with_a_call_of_unknown_size_is_unknown() -> None:
    calls: list[CallRecord] = [
        {"role": "strong", "input_tokens": 1, "output_tokens": 1},
        {"role": "strong", "input_tokens": None, "output_tokens": None},
    ]
    assert cost([calls], {"strong": Price(1.0, 1.0)}).dollars is None
