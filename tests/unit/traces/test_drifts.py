"""What a drift makes stale: which traces, what they teach, and how they are asked anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cowest_graph import TraceStore, create_collector, exact_match, metric
from cowest_graph.graph import Collectors
from cowest_graph.testing import ScriptedModel
from cowest_graph.traces import DriftRun, Probe, Trace, is_stale, wrong_pair, wrong_pairs
from trainer.foreseen import left_over
from trainer.rows import best_drafts, preferences, training_rows, unpaired
from trainer.rows.pairs import Pairs

ROW = {"query": "x", "reference": "yes"}


@pytest.fixture
def store(tmp_path: Path) -> TraceStore:
    return TraceStore(tmp_path / "traces.db")


def run(drifted: bool = True, **fields: Any) -> DriftRun:
    asked = [Probe(query="p", answers=["a\0", None], scores=[1, None])]
    return DriftRun(strong="large", probes="set", asked=asked, drifted=drifted, **fields)


def collected(strong: str = "large", **fields: Any) -> Trace:
    attempts = [
        {"index": 0, "draft": "good", "answer": "a", "score": 1},
        {"index": 1, "draft": "bad", "answer": "b", "score": 0},
    ]
    given = {"query": "x", "strong": strong, "solo_score": 0, "attempts": attempts}
    return Trace.model_validate({**given, **fields})


def test_a_run_comes_back_as_it_was_kept(store: TraceStore) -> None:
    first, other = run(False), run(False, began_at=datetime.now(UTC) + timedelta(days=1))
    for each in (other, first):
        store.keep_drift(each)
    found = store.drift_runs(strong="large")
    assert [each.id for each in found] == [other.id, first.id]  # the newest first
    assert found[1] == first
    assert store.drift_runs(strong="large", probes="another") == []
    assert store.drift_runs(strong=None) == []
    assert store.drifted() == {}


def test_stale_is_what_is_from_before_a_drift_of_the_same_model(store: TraceStore) -> None:
    before, other = collected(), collected("huge")
    store.keep_drift(run())
    after, drifted = collected(), store.drifted()
    assert [is_stale(each, drifted) for each in (before, other, after)] == [True, False, False]


def test_stale_traces_teach_nothing_unless_they_are_asked_for(store: TraceStore) -> None:
    for trace in (collected(), collected(query="y"), collected("huge")):
        store.record(trace)
    assert len(preferences(store)) == 3
    store.keep_drift(run())
    rows = preferences(store)  # a store tells of its drifts
    assert (len(rows), rows.report.stale, rows.report.traces) == (1, 2, 3)
    assert "stale traces left out: 2" in str(rows.report)
    assert len(preferences(store, stale=True)) == 3
    assert len(preferences(list(store))) == 3  # a list does not
    drifted = store.drifted()
    assert len(list(Pairs(list(store), drifted=drifted))) == 1
    assert len(list(Pairs(list(store), drifted=drifted, stale=True))) == 3
    for objective, each in (("dpo", 1), ("kto", 2), ("sft_best", 1)):
        found = training_rows(objective, list(store), drifted=drifted)
        assert (len(found), found.report.stale) == (each, 2)
        assert len(training_rows(objective, list(store), drifted=drifted, stale=True)) == 3 * each
    assert len(unpaired(store)) == 2
    assert len(best_drafts(store)) == 1


def test_a_query_is_asked_anew_after_a_drift_and_the_old_trace_is_kept(store: TraceStore) -> None:
    weak = ScriptedModel(["Answer: yes", "Answer: no"], model_name="small")
    strong = ScriptedModel(["Answer: yes"], model_name="large")
    collectors = Collectors(weak, strong, metric(exact_match), num_drafts=2)
    collector = collectors.collector(store)

    def collect() -> Trace:
        return Trace.model_validate(collector.invoke(ROW)["trace"])

    old = collect()
    store.feedback(trace_key=old.key, key="pair", value=wrong_pair(0, 1))
    store.remember("in flight", "solo", {"text": "said by the old model", "calls": []})
    assert (left_over(collectors, [ROW], store), collect()) == ([], old)
    store.keep_drift(run())
    assert store.finished("in flight") == {}
    assert left_over(collectors, [ROW], store) == [ROW]
    calls = len(strong.calls)
    new = collect()
    assert len(strong.calls) == calls + 3
    assert (new.key, new.created_at > old.created_at) == (old.key, True)
    assert collect() == new
    (kept,) = [trace for trace in store if trace.key != new.key]
    assert kept == old.model_copy(update={"key": kept.key})
    marked = wrong_pairs(store.feedbacks(key="pair"))
    assert marked == {(kept.key, 0, 1)}  # what was said of the old one is not said of the new


def test_two_who_set_it_aside_at_once_are_one(store: TraceStore) -> None:
    trace = collected()
    store.record(trace)
    assert not store.set_aside(trace.key)
    store.keep_drift(run())
    assert [store.set_aside(trace.key), store.set_aside(trace.key)] == [True, False]
    assert (trace.key in store, len(store)) == (False, 1)
    assert not store.set_aside("nothing there")


def test_an_incomplete_trace_of_the_old_model_is_not_built_upon(store: TraceStore) -> None:
    strong = ScriptedModel(["Answer: yes", TimeoutError("late"), "Answer: no"], model_name="large")
    collector = create_collector(
        ScriptedModel(["Answer: yes"], model_name="small"),
        strong,
        evaluator=metric(exact_match),
        traces=store,
        num_drafts=1,
    ).compile()
    assert not Trace.model_validate(collector.invoke(ROW)["trace"]).complete
    store.keep_drift(run())
    new = Trace.model_validate(collector.invoke(ROW)["trace"])
    assert (new.solo, new.attempts[0].answer) == ("Answer: no", "Answer: no")


def test_a_changed_trace_is_what_others_wrote_and_the_change(store: TraceStore) -> None:
    trace = collected()
    store.record(trace)
    found = store.change(trace.key, lambda now: now.model_copy(update={"solo_score": 0.5}))
    assert found is not None
    kept = store.get(trace.key)
    assert kept is not None
    assert [attempt.gain for attempt in kept.attempts] == [0.5, -0.5]
    assert store.change("nothing there", lambda now: now) is None
