"""Pages, filters and feedback of a trace store, the same on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cowest_graph.traces import PAIR, Trace, TraceStore, wrong_pair, wrong_pairs

START = datetime(2026, 1, 1, tzinfo=UTC)


def made(number: int, **fields: object) -> Trace:
    attempts = [{"index": 0, "draft": "d", "score": float(number), "weak_version": "v1"}]
    known = {"query": f"Question {number} of 100%_", "created_at": START + timedelta(hours=number)}
    rest = {"solo_score": 5.0, "weak_version": "v1", "attempts": attempts}
    return Trace.model_validate({**known, **rest, **fields})


def test_a_page_begins_after_the_one_before_whether_that_is_still_there(store: TraceStore) -> None:
    traces = [made(number) for number in range(10)]
    for trace in traces:
        store.record(trace)
    for newest_first in (False, True):
        order = traces[::-1] if newest_first else traces
        last = order[3]
        after = (last.created_at, last.key)
        found = store.query(newest_first=newest_first, limit=4, after=after)
        assert [trace.key for trace in found] == [trace.key for trace in order[4:8]]
    gone = (START + timedelta(hours=3, minutes=30), "no such key")
    assert [trace.query for trace in store.query(after=gone, limit=1)] == [traces[4].query]


def test_filters_by_text_gain_and_failure(store: TraceStore) -> None:
    failed = {"role": "solo", "failure": "timeout", "error": "too late"}
    for number in range(6):
        store.record(made(number, calls=[failed] if number == 2 else []))

    def numbers(**wanted: object) -> list[int]:
        return [int(trace.query.split()[1]) for trace in store.query(**wanted)]

    assert numbers(text="QUESTION 4") == [4]
    assert numbers(text="100%_") == list(range(6))
    assert numbers(text="1_0") == []  # no wildcard
    assert numbers(min_gain=-1.0) == [4, 5]
    assert numbers(min_gain=-3.5, max_gain=-2.5) == [2]
    assert (numbers(failure=True), numbers(failure="timeout")) == ([2], [2])
    assert numbers(failure=False) == [0, 1, 3, 4, 5]
    assert numbers(failure="rate_limit") == []


def test_the_gains_of_a_version_are_those_of_its_newest_traces(store: TraceStore) -> None:
    for number in range(5):
        store.record(made(number))
    bare = [{"index": 0, "draft": "d", "score": 9.0}]
    store.record(made(7, weak_version=None, attempts=bare))
    assert sorted(gain for _, gain in store.gains("v1", newest=2)) == [-2.0, -1.0]
    assert [gain for _, gain in store.gains(None)] == [4.0]
    assert store.gains("v9") == []


def test_feedback_is_kept_in_order_and_counts_by_its_latest(store: TraceStore) -> None:
    trace = made(1, run_id="run-1")
    store.feedback(run_id="run-1", key="thumbs", score=1, value={"what": ["ever", None]})
    store.record(trace)
    for wrong in (True, False, True):
        value = wrong_pair(0, 1, wrong=wrong)
        store.feedback(trace_key=trace.key, key=PAIR, value=value, source="studio")
    said = store.feedbacks(trace_key=trace.key)
    assert [each.key for each in said] == ["thumbs", PAIR, PAIR, PAIR]
    assert said[0].value == {"what": ["ever", None]}
    assert said[0].created_at.tzinfo is not None
    assert wrong_pairs(said) == {(trace.key, 0, 1)}
    assert [each.value for each in store.feedbacks(key="thumbs")] == [said[0].value]
