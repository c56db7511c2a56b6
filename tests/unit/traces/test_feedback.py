"""Feedback: late, repeated, before its trace; all is kept, a source's latest counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from cowest_graph import Trace, TraceStore
from cowest_graph.traces import PAIR, latest, wrong_pair, wrong_pairs


@pytest.fixture
def store(tmp_path: Path) -> TraceStore:
    return TraceStore(tmp_path / "traces.db")


def test_it_may_come_before_its_trace_and_outlives_its_replacement(store: TraceStore) -> None:
    trace = Trace(query="x", run_id="run-1")
    store.feedback(run_id="run-1", key="thumbs", score=0)
    store.feedback(trace_key=trace.key, key="thumbs", score=1, comment="now it is right")
    store.record(trace)
    store.record(trace.model_copy(update={"solo": "z"}))
    said = store.feedbacks(trace_key=trace.key)
    assert [(each.score, each.comment) for each in said] == [(0, None), (1, "now it is right")]
    assert store.feedbacks(run_id="run-1") == said[:1]


def test_what_is_said_of_one_run_is_not_said_of_another(store: TraceStore) -> None:
    one, other = Trace(query="x", run_id="run-1"), Trace(query="y")
    store.record(one)
    store.record(other)
    store.feedback(run_id="run-1", key="thumbs", score=1)
    store.feedback(run_id="run-2", key="thumbs", score=1)
    assert [len(store.feedbacks(trace_key=trace.key)) for trace in (one, other)] == [1, 0]


def test_the_latest_of_a_source_and_key_counts_and_all_are_kept(store: TraceStore) -> None:
    for score, source in ((0, "ada"), (1, "bob"), (1, "ada")):
        store.feedback(trace_key="k", key="thumbs", score=score, source=source)
    store.feedback(trace_key="k", key="tone", score=0.5, source="ada")
    said = store.feedbacks(trace_key="k")
    assert len(said) == 4
    counts = {(each.source, each.key): each.score for each in latest(said)}
    assert counts == {("ada", "thumbs"): 1, ("bob", "thumbs"): 1, ("ada", "tone"): 0.5}


def test_a_pair_is_wrong_until_it_is_taken_back(store: TraceStore) -> None:
    for chosen, wrong in ((0, True), (2, True), (0, False)):
        value = wrong_pair(chosen, 1, wrong=wrong)
        store.feedback(trace_key="k", key=PAIR, value=value)
    assert wrong_pairs(store.feedbacks(key=PAIR)) == {("k", 2, 1)}
    store.feedback(trace_key="k", key=PAIR, value="what is this")  # of somebody else's making
    assert wrong_pairs(store.feedbacks(key=PAIR)) == {("k", 2, 1)}


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"key": "thumbs", "score": 1}, "give trace_key="),
        ({"key": "thumbs", "trace_key": "k"}, "says nothing"),
        ({"key": "", "trace_key": "k", "score": 1}, "at least 1 character"),
        ({"key": "t", "trace_key": "k", "score": float("nan")}, "finite"),
        ({"key": "t", "trace_key": "k", "score": 1, "stars": 5}, "stars"),
    ],
)
def test_feedback_that_says_nothing_is_refused(
    store: TraceStore, said: dict[str, object], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        store.feedback(**said)
    assert store.feedbacks() == []


def test_a_secret_in_a_comment_is_masked(store: TraceStore) -> None:
    from cowest_graph.masking import learn

    learn("sk-of-somebody-1234567890")
    kept = store.feedback(trace_key="k", key="note", comment="I used sk-of-somebody-1234567890")
    assert kept.comment is not None
    assert "sk-of" not in str(store.feedbacks(trace_key="k")[0].comment)


def test_a_store_of_before_gets_the_table(tmp_path: Path) -> None:
    with TraceStore(tmp_path / "old.db") as old:
        old.record(Trace(query="x"))
        with old._transaction(writes=True) as connection:
            connection.exec_driver_sql("DROP TABLE cowest_feedback")
    with TraceStore(tmp_path / "old.db") as again:
        again.feedback(trace_key="k", key="thumbs", score=1)
        assert (len(again), len(again.feedbacks())) == (1, 1)
