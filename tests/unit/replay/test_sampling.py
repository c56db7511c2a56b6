"""A sample of stored queries: each query once, the same for a seed, whatever the order."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from typing import Any

import pytest

from cowest_graph import TraceStore, create_collector, exact_match, metric
from cowest_graph.collecting import collect
from cowest_graph.testing import ScriptedModel
from cowest_graph.traces import Trace
from trainer.replay import sampled
from trainer.replay.sampling import TAG

CONVERSATION = [
    {"role": "user", "content": "Is it open?"},
    {"role": "assistant", "content": "Yes."},
]


def served(query: str, **fields: Any) -> Trace:
    """A trace of an answer, which may be one of many to its query."""
    attempts = [{"index": 0, "draft": "d", "answer": "Answer: a"}]
    given = {"kind": "inference", "key": uuid.uuid4().hex, "attempts": attempts}
    return Trace.model_validate({"query": query, **given, **fields})


def a_store(*traces: Trace) -> TraceStore:
    store = TraceStore(":memory:")
    for trace in traces:
        store.record(trace)
    return store


def names(store: TraceStore, **asked: Any) -> list[str]:
    return [row["query"] for row in sampled(store, {"kind": "inference"}, **asked).rows]


def test_a_query_that_was_asked_often_is_one_row_and_no_likelier() -> None:
    often = [served("often") for _ in range(30)]
    store = a_store(*often, *(served(f"q{n}") for n in range(9)))
    assert sorted(names(store, size=None)) == sorted(["often", *(f"q{n}" for n in range(9))])
    drawn = Counter(name for seed in range(400) for name in names(store, size=2, seed=seed))
    assert set(drawn) == {"often", *(f"q{n}" for n in range(9))}
    assert 50 < drawn["often"] < 115  # 80 are expected, with a standard deviation of 8


def test_a_sample_is_the_same_in_whatever_order_traces_came() -> None:
    traces = [served(f"q{n}") for n in range(250)]
    one = a_store(*traces)
    random.Random(1).shuffle(traces)
    other = a_store(*(t.model_copy(update={"key": uuid.uuid4().hex}) for t in traces))
    assert names(one, size=20, seed=3) == names(other, size=20, seed=3)
    assert names(one, size=20, seed=3) != names(one, size=20, seed=4)
    assert len(set(names(one, size=20))) == 20


def test_what_comes_later_changes_a_sample_by_what_is_new_in_it() -> None:
    store = a_store(*(served(f"q{n}") for n in range(100)))
    before = names(store, size=20)
    for n in range(100, 120):
        store.record(served(f"q{n}"))
    after = names(store, size=20)
    kept = [name for name in before if name in after]
    assert len(after) == 20
    assert all(name not in before for name in after if int(name[1:]) >= 100)
    assert len(kept) + sum(int(name[1:]) >= 100 for name in after) == 20


def test_another_conversation_is_another_query() -> None:
    store = a_store(served("until when?"), served("until when?", history=CONVERSATION))
    rows = sampled(store, {}, size=None).rows
    assert sorted(len(row["messages"]) for row in rows) == [0, 2]


def test_a_correction_is_the_reference_where_there_is_none() -> None:
    traces = [served("a"), served("b", run_id="run-b"), served("c", reference="own"), served("d")]
    store = a_store(*traces)
    store.feedback(trace_key=traces[0].key, key="correction", correction="first")
    store.feedback(trace_key=traces[0].key, key="correction", correction="last")
    store.feedback(run_id="run-b", key="correction", correction="late")
    store.feedback(trace_key=traces[2].key, key="correction", correction="not used")
    sample = sampled(store, {}, size=None)
    found = {row["query"]: row["reference"] for row in sample.rows}
    assert found == {"a": "last", "b": "late", "c": "own", "d": None}
    assert str(sample) == "4 queries from 4 traces; 1 of them have no reference"


def test_a_trace_with_a_reference_goes_before_one_without() -> None:
    store = a_store(served("a"), served("a", reference="r"), served("a"))
    assert sampled(store, {}, size=1).rows[0]["reference"] == "r"


def test_a_filter_that_there_is_not_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        sampled(a_store(), {"colour": "red"}, size=1)


@pytest.mark.parametrize(
    "history",
    [
        [],
        CONVERSATION,
        [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}],
        [{"role": "system", "content": "be brief"}, {"role": "user", "content": "one"}],
    ],
)
def test_a_collection_of_it_has_the_conversation_and_whose_it_is(history: Any) -> None:
    whose = {"user": "ada", "tenant": "shop", "thread_id": "t1", "tags": ["web"]}
    store = a_store(served("until when?", history=history, domain="law", **whose))
    rows = sampled(store, {"kind": "inference"}, size=5).rows
    answer = ScriptedModel(["Answer: yes"])
    collector = create_collector(
        answer, answer, evaluator=metric(exact_match), traces=store, num_drafts=2
    ).compile()
    (outcome,) = collect(collector, rows)
    trace = outcome.trace
    assert trace is not None
    assert (trace.query, trace.domain, trace.kind) == ("until when?", "law", "collection")
    assert [message["content"] for message in trace.history] == [m["content"] for m in history]
    assert (trace.user, trace.tenant, trace.thread_id) == ("ada", "shop", "t1")
    assert trace.tags == ["web", TAG]
    calls = len(answer.calls)
    (again,) = collect(collector, sampled(store, {"kind": "inference"}, size=5).rows)
    assert again.trace is not None
    assert (again.trace.key, len(answer.calls)) == (trace.key, calls)
