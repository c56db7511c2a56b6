"""Judging what is stored: only what has no score, each judge in its place, and nothing twice."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import pytest

from cowest_graph import TraceStore
from cowest_graph.traces import Trace, latest
from trainer.replay import Judge, Scored, scored
from trainer.replay.scoring import KEY, unscored_copy, with_scores
from trainer.rows import preferences


class Judging:
    """A judge that counts its calls: an answer that ends in "good" has 1, another 0."""

    def __init__(self, name: str, *, fails_after: int | None = None, mute: bool = False) -> None:
        self.__name__ = name
        self.calls: list[str] = []
        self.fails_after, self.mute = fails_after, mute
        self._lock = threading.Lock()

    def __call__(self, *, outputs: dict[str, Any]) -> float | None:
        with self._lock:
            if self.fails_after is not None and len(self.calls) >= self.fails_after:
                raise TimeoutError("the judge is gone")
            self.calls.append(outputs["text"])
        return None if self.mute else float(outputs["text"].endswith("good"))


def served(answer: str = "good", **fields: Any) -> Trace:
    given = {"query": "x", "kind": "inference", "key": uuid.uuid4().hex}
    attempts = [{"index": 0, "draft": "d", "answer": answer, "calls": [{"role": "refine"}]}]
    return Trace.model_validate({**given, "attempts": attempts, **fields})


def collected(query: str = "x", **fields: Any) -> Trace:
    """By the evaluator "old", which scored everything."""
    attempts = [
        {"index": i, "draft": f"draft {i}", "answer": f"{i} {end}", "score": 0.5}
        | {"calls": [{"role": "draft"}, {"role": "refine"}, {"role": "evaluate"}]}
        for i, end in enumerate(("good", "bad", "good"))
    ]
    texts = {"query": query, "solo": "solo bad", "solo_score": 0.5, "num_drafts": 3}
    calls = [{"role": "solo"}, {"role": "evaluate", "model": "old"}]
    given = {**texts, "evaluator": "old", "attempts": attempts, "calls": calls}
    return Trace.model_validate({**given, **fields})


def a_store(*traces: Trace) -> TraceStore:
    store = TraceStore(":memory:")
    for trace in traces:
        store.record(trace)
    return store


def judged(store: TraceStore, *judges: Judging, own: str | None = None, **asked: Any) -> Scored:
    given = [Judge(j.__name__, j, configured=j.__name__ == own) for j in judges]
    said: list[str] = []
    return scored(store, given, {}, say=said.append, max_concurrency=1, **asked)[0]


def test_the_configured_evaluator_scores_what_names_none_within_the_trace() -> None:
    trace = served(solo="solo bad")
    store, judge = a_store(trace), Judging("exact")
    count = judged(store, judge, own="exact")
    assert (count.answers, count.scored, count.traces) == (2, 2, 0)
    found = store.get(trace.key)
    assert found is not None
    assert (found.evaluator, found.solo_score, found.attempts[0].score) == ("exact", 0, 1)
    assert found.attempts[0].gain == 1
    assert [call.role for call in found.attempts[0].calls] == ["refine", "evaluate"]
    assert found.created_at == trace.created_at
    assert store.finished(trace.key) == {}
    judged(store, judge, own="exact")
    assert len(judge.calls) == 2  # nothing twice


def test_other_judges_scores_stand_beside_the_trace() -> None:
    trace = collected()
    store, one, two = a_store(trace), Judging("one"), Judging("judge:two")
    scored(store, [Judge("one", one), Judge("judge:two", two)], {}, max_concurrency=2)
    assert store.get(trace.key) == trace
    assert len(store) == 1
    said = latest(store.feedbacks(trace_key=trace.key, key=KEY))
    assert {each.source for each in said} == {"judge:one", "judge:two"}
    theirs = {
        (v.get("attempt"), v.get("solo")): each.score
        for each in said
        if each.source == "judge:one" and isinstance(v := each.value, dict)
    }
    assert theirs == {(None, True): 0, (0, None): 1, (1, None): 0, (2, None): 1}
    judged(store, one)
    assert len(one.calls) == 4
    judged(store, one, again=True)
    assert len(one.calls) == 8
    assert len(latest(store.feedbacks(trace_key=trace.key, key=KEY))) == 8


def test_another_evaluator_makes_a_new_trace_of_the_old_texts_with_judge_calls_alone() -> None:
    old = collected(reference="r", tags=["t"], user="ada")
    store, judge = a_store(old), Judging("new")
    count = judged(store, judge, own="new")
    assert (count.answers, count.scored, count.traces) == (4, 4, 1)
    assert store.get(old.key) == old
    (new,) = store.query(evaluator="new")
    assert new.key != old.key
    assert new.key == Trace.model_validate(new.model_dump(exclude={"key"})).key
    assert (new.user, new.tags, new.created_at) == ("ada", ["t"], old.created_at)
    assert [a.gain for a in new.attempts] == [1, 0, 1]
    assert [(a.draft, a.answer) for a in new.attempts] == [
        (a.draft, a.answer) for a in old.attempts
    ]
    assert [call.role for call in new.attempts[0].calls] == ["draft", "refine", "evaluate"]
    assert new.complete
    assert len(preferences(store.query(evaluator="new"))) == 1
    judged(store, judge, own="new")
    assert (len(judge.calls), len(store)) == (4, 2)


def test_a_stopped_judge_goes_on_where_it_was() -> None:
    store = a_store(*(collected(f"q{n}") for n in range(3)))
    dying = Judging("new", fails_after=5)
    count = judged(store, dying, own="new")
    assert (count.scored, count.failed) == (5, 7)
    assert sum(trace.complete for trace in store.query(evaluator="new")) == 1
    rest = Judging("new")
    count = judged(store, rest, own="new")
    assert (count.scored, count.failed, len(rest.calls)) == (7, 0, 7)
    assert all(trace.complete for trace in store.query(evaluator="new"))
    assert len(store) == 6


def test_a_killed_run_does_not_pay_again_for_what_was_said() -> None:
    trace = collected()
    store = a_store(trace)
    key = unscored_copy(trace, "new").key
    store.remember(key, "score/1", {"score": 7.0, "calls": [{"role": "evaluate"}]})
    judge = Judging("new")
    judged(store, judge, own="new")
    (new,) = store.query(evaluator="new")
    assert [a.score for a in new.attempts] == [1, 7, 1]
    assert len(judge.calls) == 3


def test_a_judge_that_would_not_tell_is_no_failure_and_no_zero() -> None:
    trace = served()
    store = a_store(trace)
    count = judged(store, Judging("exact", mute=True), own="exact")
    assert (count.unscored, count.failed, count.scored) == (1, 0, 0)
    found = store.get(trace.key)
    assert found is not None
    assert found.attempts[0].score is None
    assert found.complete


def test_nobody_there_ends_the_run() -> None:
    store = a_store(*(served() for _ in range(8)))
    gone = Judging("exact", fails_after=0)
    with pytest.raises(ConnectionError, match="5 traces in a row"):
        judged(store, gone, own="exact")


def test_a_refused_key_ends_it_at_once() -> None:
    def refused(*, outputs: Any) -> float:
        error = RuntimeError("401")
        error.status_code = 401  # type: ignore[attr-defined]
        raise error

    with pytest.raises(RuntimeError, match="401"):
        scored(a_store(served(), served()), [Judge("exact", refused, True)], {})


def test_two_judges_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two judges of one name"):
        judged(a_store(), Judging("a"), Judging("a"))


def test_what_was_written_meanwhile_stays() -> None:
    """Another process gave the trace a solo answer while the judge was thinking."""
    trace = served()
    store = a_store(trace)

    def slow(*, outputs: Any) -> float:
        store.change(trace.key, lambda now: now.model_copy(update={"solo": "late"}))
        return 1.0

    scored(store, [Judge("exact", slow, True)], {})
    found = store.get(trace.key)
    assert found is not None
    assert (found.solo, found.solo_score, found.attempts[0].score) == ("late", None, 1)


def test_a_score_is_never_given_to_another_text() -> None:
    trace = served("good")
    store, said = a_store(trace), []
    judged(store, Judging("exact"), own="exact")
    from trainer.replay.scoring import Answer, Said

    said.append(Said(Answer(0, "another text"), 0.0, []))
    found = store.get(trace.key)
    assert found is not None
    assert with_scores(found, "exact", said).attempts[0].score == 1


def test_two_at_once_pay_once() -> None:
    store, judge = a_store(*(collected(f"q{n}") for n in range(6))), Judging("new")
    run = [
        threading.Thread(target=lambda: scored(store, [Judge("new", judge, True)], {}))
        for _ in range(2)
    ]
    for each in run:
        each.start()
    for each in run:
        each.join()
    assert len(judge.calls) == 24
    assert len(store) == 12


def test_a_judge_that_fails_again_leaves_the_score_that_there_is() -> None:
    trace = served()
    store = a_store(trace)
    judged(store, Judging("exact"), own="exact")
    count = judged(store, Judging("exact", fails_after=0), own="exact", again=True)
    assert count.failed == 1
    found = store.get(trace.key)
    assert found is not None
    assert found.attempts[0].score == 1
    assert found.complete


def test_no_new_trace_is_made_where_the_judge_says_nothing() -> None:
    store = a_store(collected())
    count = judged(store, Judging("new", mute=True), own="new")
    assert (count.unscored, count.traces, len(store)) == (4, 0, 1)
