"""The sampled counterfactual in the graph: what is drawn, kept and paid for, and what is not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cowest_graph import TraceStore, create_collaboration
from cowest_graph.exploring import Explore, wait_for_exploration
from cowest_graph.testing import ScriptedModel
from cowest_graph.traces import Route, Trace
from cowest_graph.traces.beside.spending import SPENDING


class Limited(ScriptedModel):
    """A scripted strong model that says how long a reply may be."""

    max_tokens: int = 8


@pytest.fixture
def traces(tmp_path: Path) -> Iterator[TraceStore]:
    with TraceStore(tmp_path / "traces.db") as store:
        yield store
        assert wait_for_exploration(20) == 0


def length(*, outputs: dict[str, Any]) -> float:
    return float(len(outputs["text"]))


def strong_of(solo: str = "Answer: z", refined: str = "Answer: better") -> Limited:
    def say(messages: Any) -> str:
        return refined if "y0" in str(messages) or "draft" in str(messages[-1].content) else solo

    return Limited(say)


def graph_of(traces: TraceStore | None, explore: Explore, **settings: Any) -> Any:
    weak = settings.pop("weak", None) or ScriptedModel(["Answer: y0"], version="v1")
    strong = settings.pop("strong", None) or strong_of()
    return create_collaboration(weak, strong, traces=traces, explore=explore, **settings).compile()


def only(traces: TraceStore) -> Trace:
    assert wait_for_exploration(20) == 0
    (trace,) = traces
    return trace


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_drawn_query_gets_a_solo_answer_and_further_drafts(traces: TraceStore, way: str) -> None:
    weak = ScriptedModel(["Answer: y0", "Answer: y0 1", "Answer: y0 2"], version="v1", seed=3)
    explore = Explore(solo=0.9, drafts=0.5, num_drafts=2, chance=lambda: 0.4)
    graph = graph_of(traces, explore, weak=weak, evaluator=length)
    given = {"query": "Which?"}
    out = graph.invoke(given) if way == "sync" else asyncio.run(graph.ainvoke(given))
    assert out["answer"].text == "Answer: better"
    trace = only(traces)
    assert trace.exploration is not None
    assert (trace.exploration.solo.drawn, trace.exploration.solo.propensity) == (True, 0.9)
    assert (trace.exploration.drafts.drawn, trace.exploration.drafts.propensity) == (True, 0.5)
    assert (trace.solo, trace.solo_score) == ("Answer: z", 9)
    drafts = ["Answer: y0", "Answer: y0 1", "Answer: y0 2"]
    assert [attempt.draft for attempt in trace.attempts] == drafts
    assert [attempt.gain for attempt in trace.attempts] == [5, 5, 5]
    assert [call.role for call in trace.calls] == ["solo", "evaluate"]
    assert {attempt.weak_version for attempt in trace.attempts} == {"v1"}
    assert [each.get("temperature") for each in weak.arguments] == [None, 1.0, 1.0]
    assert [each.get("seed") for each in weak.arguments[1:]] == [4, 5]
    assert trace.complete


class TakesTheLast:
    """A router that chooses among three drafts, and sends the last of them to both."""

    after_draft, logprobs, second, drafts = True, False, False, 3

    def choose(self, drafted: list[Any], key: str) -> tuple[int, Route]:
        return len(drafted) - 1, Route(way="both")


def test_explored_drafts_stay_beside_those_that_a_router_did_not_take(traces: TraceStore) -> None:
    weak = ScriptedModel(["Answer: y0"], version="v1", seed=3)
    explore = Explore(solo=1.0, drafts=1.0, num_drafts=2)
    graph_of(traces, explore, weak=weak, evaluator=length, route=TakesTheLast()).invoke(
        {"query": "Which?"}
    )
    trace = only(traces)
    assert [attempt.index for attempt in trace.attempts] == [0, 1, 2, 3, 4]
    assert [attempt.gain for attempt in trace.attempts] == [5, None, None, 5, 5]
    seeds = [each["seed"] for each in weak.arguments if each.get("temperature") == 1.0]
    assert sorted(seeds) == [4, 5, 6, 7]  # no draft is drawn twice


def test_what_is_not_drawn_costs_no_call_and_keeps_its_propensity(traces: TraceStore) -> None:
    strong = strong_of()
    graph = graph_of(traces, Explore(0.3, 0.1, chance=lambda: 0.3), strong=strong)
    graph.invoke({"query": "?"})
    trace = only(traces)
    assert len(strong.calls) == 1
    assert trace.exploration is not None
    assert not trace.exploration.solo.drawn
    assert not trace.exploration.drafts.drawn
    assert (trace.exploration.solo.propensity, trace.exploration.drafts.propensity) == (0.3, 0.1)


def test_a_rate_may_look_at_the_answer_and_one_that_fails_draws_nothing(
    traces: TraceStore,
) -> None:
    def rate(trace: Trace) -> float:
        return {"easy": 0.1, "hard": 7.0}[trace.query]

    graph = graph_of(traces, Explore(rate, 0.0, chance=lambda: 0.5))
    for query in ("easy", "hard", "unheard of"):
        assert graph.invoke({"query": query})["answer"].text == "Answer: better"
    wait_for_exploration(20)
    drawn = [(t.exploration.solo.propensity, t.exploration.solo.drawn) for t in map(_known, traces)]
    assert drawn == [(0.1, False), (1.0, True), (0.0, False)]


def _known(trace: Trace) -> Any:
    return trace


def test_an_evaluator_of_its_own_scores_the_served_answer_afterwards(traces: TraceStore) -> None:
    async def scoring(*, outputs: dict[str, Any]) -> float:
        return float(len(outputs["text"]))

    graph = graph_of(traces, Explore(1.0, 0.0, evaluator=scoring))
    assert graph.invoke({"query": "?"}).get("score") is None
    trace = only(traces)
    assert (trace.solo_score, trace.attempts[0].score, trace.attempts[0].gain) == (9, 14, 5)
    assert trace.evaluator == "scoring"


def test_the_answer_waits_for_no_exploration_and_no_failure_reaches_it(
    traces: TraceStore,
) -> None:
    go, solo = threading.Event(), 0

    def slow(messages: Any) -> Any:
        nonlocal solo
        if "y0" in str(messages):
            return "Answer: better"
        solo += 1
        go.wait(20)
        return ValueError("the strong model is gone")

    graph = graph_of(traces, Explore(1.0, 1.0, num_drafts=1, at_once=1), strong=Limited(slow))
    assert graph.invoke({"query": "a"})["answer"].text == "Answer: better"
    assert graph.invoke({"query": "b"})["answer"].text == "Answer: better"
    first, second = traces
    assert wait_for_exploration(0) == 1
    assert _draws(first) == (True, 1.0)
    assert _draws(second) == (False, 0.0), "there was no place for it, whatever was drawn"
    go.set()
    assert wait_for_exploration(20) == 0
    first, second = traces
    assert first.solo is None
    assert [call.failure is not None for call in first.calls] == [True]
    assert len(first.attempts) == 2
    assert first.attempts[1].answer == "Answer: better"


def _draws(trace: Trace) -> tuple[bool, float]:
    assert trace.exploration is not None
    return trace.exploration.solo.drawn, trace.exploration.solo.propensity


def test_an_answer_of_one_model_alone_is_not_drawn(traces: TraceStore) -> None:
    weak = ScriptedModel([ValueError("down")])
    graph_of(traces, Explore(1.0, 1.0), weak=weak).invoke({"query": "?"})
    assert only(traces).exploration is None


def test_feedback_and_a_shadow_stay_with_a_trace_that_is_explored(traces: TraceStore) -> None:
    graph = graph_of(traces, Explore(1.0, 1.0, num_drafts=2), shadow="v2", evaluator=length)
    graph.invoke({"query": "?"})
    key = next(iter(traces)).key
    traces.feedback(trace_key=key, key="thumbs", score=1)
    trace = only(traces)
    assert trace.shadow is not None
    assert trace.solo is not None
    assert len(trace.attempts) == 3
    assert [said.score for said in traces.feedbacks(trace_key=key)] == [1]


def test_a_trace_that_is_forgotten_meanwhile_stays_forgotten(traces: TraceStore) -> None:
    go = threading.Event()

    def slow(messages: Any) -> str:
        if "y0" not in str(messages):
            go.wait(20)
        return "Answer: better"

    graph_of(traces, Explore(1.0, 0.0), strong=Limited(slow)).invoke({"query": "?"})
    with traces._transaction(writes=True) as connection:
        connection.execute(sa.text("DELETE FROM traces"))
    go.set()
    assert wait_for_exploration(20) == 0
    assert len(traces) == 0


def test_an_exploration_that_finds_the_store_gone_waits_with_its_trace(tmp_path: Path) -> None:
    class Faulty(TraceStore):
        down = False

        def _transaction(self, *, writes: bool = False) -> Any:
            if self.down:
                raise OSError("the disk is full")
            return super()._transaction(writes=writes)

    go = threading.Event()

    def slow(messages: Any) -> str:
        if "y0" not in str(messages):
            go.wait(20)
        return "Answer: z"

    traces = Faulty(tmp_path / "traces.db")
    graph_of(traces, Explore(1.0, 0.0), strong=Limited(slow)).invoke({"query": "?"})
    key = next(iter(traces)).key
    traces.down = True
    go.set()
    assert wait_for_exploration(20) == 0
    assert traces.feedback(trace_key=key, key="thumbs", score=0).score == 0
    traces.down = False
    (trace,) = traces
    assert trace.solo is None
    traces.take_in()
    (trace,) = traces
    assert trace.solo == "Answer: z"
    assert [said.score for said in traces.feedbacks()] == [0]
    traces.close()


# --- the budget ---


def spent(traces: TraceStore) -> int:
    with traces._transaction() as connection:
        return connection.scalar(sa.select(sa.func.sum(SPENDING.c.tokens))) or 0


def used(traces: TraceStore) -> int:
    """Tokens of the strong model that explorations took, by what it said itself."""
    calls = [call for trace in traces for call in trace.calls if call.role == "solo"]
    calls += [
        call
        for trace in traces
        for attempt in trace.attempts[1:]
        for call in attempt.calls
        if call.role == "refine"
    ]
    return sum((call.input_tokens or 0) + (call.output_tokens or 0) for call in calls)


def test_what_was_reserved_is_settled_to_what_was_used(traces: TraceStore) -> None:
    explore = Explore(1.0, 1.0, num_drafts=2, max_strong_tokens_per_hour=100_000)
    graph_of(traces, explore, evaluator=length).invoke({"query": "?"})
    assert wait_for_exploration(20) == 0
    assert 0 < used(traces) == spent(traces)


def test_what_the_budget_refuses_has_propensity_0_whatever_was_drawn(traces: TraceStore) -> None:
    numbers = iter([0.9, 0.1, 0.9, 0.1])
    explore = Explore(0.5, 0.0, max_strong_tokens_per_hour=1, chance=lambda: next(numbers))
    graph = graph_of(traces, explore)
    for query in "abcd":
        graph.invoke({"query": query})
    assert [_draws(trace) for trace in traces] == [(False, 0.0)] * 4
    assert spent(traces) == 0


def test_further_drafts_are_refused_before_the_solo_answer_is(traces: TraceStore) -> None:
    explore = Explore(1.0, 1.0, num_drafts=50, max_strong_tokens_per_hour=5000)
    graph_of(traces, explore).invoke({"query": "?"})
    trace = only(traces)
    assert _draws(trace) == (True, 1.0)
    assert trace.exploration is not None
    assert (trace.exploration.drafts.drawn, trace.exploration.drafts.propensity) == (False, 0.0)
    assert len(trace.attempts) == 1


def test_a_draft_longer_than_foreseen_is_not_refined(traces: TraceStore) -> None:
    weak = ScriptedModel(["Answer: y0", "y0 " * 10_000])
    explore = Explore(1.0, 1.0, num_drafts=1, max_strong_tokens_per_hour=10_000)
    graph_of(traces, explore, weak=weak).invoke({"query": "?"})
    (_, further) = only(traces).attempts
    assert further.answer is None
    assert [call.failure for call in further.calls] == [None, "skipped"]
    assert used(traces) == spent(traces)


@pytest.mark.timeout(120)
def test_64_concurrent_requests_never_pass_the_budget(tmp_path: Path) -> None:
    limit, url = 30_000, tmp_path / "traces.db"
    stores = [TraceStore(url) for _ in range(4)]  # as four processes have
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        with TraceStore(url) as mine:
            while not done.wait(0.05):
                peak = max(peak, spent(mine))

    explore = Explore(1.0, 0.5, num_drafts=1, max_strong_tokens_per_hour=limit, at_once=64)
    graphs = [graph_of(store, explore) for store in stores]
    watching = threading.Thread(target=watch)
    watching.start()

    def ask(number: int) -> None:
        assert graphs[number % 4].invoke({"query": f"q{number}"})["answer"].text

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wait_for_exploration(60) == 0
    done.set()
    watching.join()
    store = stores[0]
    assert len(store) == 64
    drawn = [_draws(trace) for trace in store]
    assert 0 < peak <= limit
    assert sum(was for was, _ in drawn) > 0
    assert used(store) <= spent(store) <= limit
    assert {chance for was, chance in drawn if not was} <= {0.0}
    for each in stores:
        each.close()


@pytest.mark.parametrize(
    ("explore", "settings", "why"),
    [
        (Explore(), {"traces": None}, "explore needs traces"),
        (Explore(evaluator=length), {"evaluator": length}, "two evaluators"),
        (
            Explore(max_strong_tokens_per_hour=9),
            {"strong": ScriptedModel(["x"])},
            "how long a reply may be",
        ),
    ],
)
def test_an_exploration_that_cannot_be_is_told_at_once(
    traces: TraceStore, explore: Explore, settings: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        graph_of(**{"traces": traces, "explore": explore, **settings})


@pytest.mark.parametrize("given", [{"solo": 1.5}, {"drafts": -0.1}, {"num_drafts": 0}])
def test_a_share_is_a_share(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(given))):
        Explore(**given)
