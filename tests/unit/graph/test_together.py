"""A collection whose judge scores all answers to a query at once: calls, failures, resumption."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cowest_graph import TraceStore, create_collaboration, create_collector, judge
from cowest_graph.failures import NotStored
from cowest_graph.graph.deciding import Adaptive
from cowest_graph.judging import judge_together
from cowest_graph.testing import ScriptedModel
from cowest_graph.traces import Trace

QUERY = {"query": "Which vitamin?", "reference": "B12"}
DRAFTS = ["Answer: B12", "Answer: C", "Answer: B12", "Answer: D"]


def scoring(messages: list[Any]) -> str:
    """The same for each output, whether it is shown alone or with others."""
    shown = str(messages[-1].content)
    outputs = re.findall(r"^Answer: (\w+)", shown, re.MULTILINE)
    return ", ".join({"B12": "10", "C": "4"}.get(each, "1") for each in outputs)


def strong() -> ScriptedModel:
    def reply(messages: list[Any]) -> str:
        shown = str(messages[-1].content)
        return f"Answer: {shown.split('Answer: ')[1].split()[0] if 'Expert:' in shown else 'none'}"

    return ScriptedModel(reply)


class Collected:
    """A collector, its models, and what it collects."""

    def __init__(self, traces: TraceStore, judging: ScriptedModel, **settings: Any) -> None:
        self.traces, self.judging = traces, judging
        self.weak, self.strong = ScriptedModel(DRAFTS), strong()
        settings = {"evaluator": judge_together(judging), "num_drafts": 4} | settings
        self.graph = create_collector(self.weak, self.strong, traces=traces, **settings).compile()

    def run(self, way: str = "sync") -> Trace:
        one = {"max_concurrency": 1}  # the script's order is the sampling order
        run = self.graph.invoke if way == "sync" else lambda *a: asyncio.run(self.graph.ainvoke(*a))
        return Trace.model_validate(run(QUERY, one)["trace"])

    @property
    def calls(self) -> tuple[int, int, int]:
        return len(self.weak.calls), len(self.strong.calls), len(self.judging.calls)


@pytest.fixture
def traces(tmp_path: Path) -> Iterator[TraceStore]:
    with TraceStore(tmp_path / "traces.db") as store:
        yield store


@pytest.mark.parametrize("way", ["sync", "async"])
def test_one_call_says_what_as_many_calls_as_answers_would(traces: TraceStore, way: str) -> None:
    together = Collected(traces, ScriptedModel(scoring))
    trace = together.run(way)
    apart = Collected(traces, each := ScriptedModel(scoring), evaluator=judge(each))
    alone = apart.run(way)
    assert (together.calls, apart.calls) == ((4, 5, 1), (4, 5, 5))
    for ours, theirs in zip(trace.attempts, alone.attempts, strict=True):
        assert (ours.draft, ours.answer, ours.score) == (theirs.draft, theirs.answer, theirs.score)
        assert ours.gain == theirs.gain
    assert [attempt.gain for attempt in trace.attempts] == [9, 3, 9, 0]
    assert (trace.solo_score, trace.complete, trace.key == alone.key) == (1, True, False)
    shown = str(together.judging.calls[0][-1].content)
    assert re.findall(r"^Answer: (\w+)", shown, re.MULTILINE) == ["B12", "C", "D", "none"]
    assert [call.role for call in trace.calls] == ["solo", "evaluate"]
    assert (trace.calls[1].output_tokens, len(traces)) == (4, 2)
    together.run(way)
    assert together.calls == (4, 5, 1)  # what is whole is asked for nothing


@pytest.mark.parametrize("failing", [ConnectionError("down"), "ten of ten"])
def test_a_judge_that_fails_is_all_that_is_asked_again(traces: TraceStore, failing: Any) -> None:
    replies = [failing] if isinstance(failing, Exception) else [failing, failing]
    collected = Collected(traces, ScriptedModel([*replies, "10, 4, 1, 1"]))
    trace = collected.run()
    assert not trace.complete
    assert [attempt.score for attempt in trace.attempts] == [None] * 4
    assert trace.solo_score is None
    assert [call.failure is None for call in trace.calls] == [True, False]
    again = collected.run()
    assert collected.calls == (4, 5, len(replies) + 1)
    assert again.complete
    assert [attempt.score for attempt in again.attempts] == [10, 4, 10, 1]
    assert again.created_at == trace.created_at


def test_scores_that_were_paid_for_are_not_paid_for_again(
    traces: TraceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected = Collected(traces, ScriptedModel(scoring))

    def full(_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(traces, "record", full)
    with pytest.raises(NotStored):
        collected.run()
    monkeypatch.undo()
    trace = collected.run()
    assert collected.calls == (4, 5, 1)
    assert trace.complete
    assert [attempt.gain for attempt in trace.attempts] == [9, 3, 9, 0]
    assert [call.role for call in trace.calls].count("evaluate") == 1


def test_whoever_has_one_answer_gives_that_one(traces: TraceStore) -> None:
    judging = ScriptedModel(scoring)
    evaluator = judge_together(judging)
    graph = create_collaboration(ScriptedModel(DRAFTS), strong(), evaluator=evaluator).compile()
    assert graph.invoke(QUERY)["score"] == 10
    adaptive = Collected(traces, judging, evaluator=evaluator, strategy=Adaptive(explore=0.0))
    trace = adaptive.run()
    assert trace.complete
    assert trace.solo_score == 1
    assert [attempt.score for attempt in trace.attempts if attempt.same_as is not None] == [10]
