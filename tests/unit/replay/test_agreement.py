"""Judges beside people: the libraries' figures, the cut of a scale, and who agrees poorly."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from cowest_graph import TraceStore
from cowest_graph.traces import Trace, of_answer
from trainer.replay import agreements
from trainer.replay.agreement import Item, all_alpha, alpha_of, ratings_of

PEOPLE = {"app"}


def rated(*rows: tuple[float | None, float | None]) -> dict[Item, dict[str, float]]:
    """What a person and a judge said of each answer."""
    named = [{"app": person, "judge:j": judge} for person, judge in rows]
    return {
        (f"t{n}", 0): {rater: score for rater, score in each.items() if score is not None}
        for n, each in enumerate(named)
    }


def test_kappa_is_the_textbooks() -> None:
    # Cohen's example in scikit-learn's and in many books: 20, 5, 10, 15 of 50 give 0.4.
    cells = [(1.0, 9.0)] * 20 + [(1.0, 2.0)] * 5 + [(0.0, 9.0)] * 10 + [(0.0, 2.0)] * 15
    (found,) = agreements(rated(*cells), PEOPLE)
    assert (found.answers, found.cut) == (50, 5.5)
    assert found.same == pytest.approx(0.7)
    assert found.kappa == pytest.approx(0.4)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.4 < found.high
    assert found.poor()
    assert not found.poor(0.1)


def test_alpha_is_krippendorffs_own_example() -> None:
    # "Computing Krippendorff's Alpha-Reliability" (2011), A: ten units, two observers, 0.095
    m, n = "0100000000", "1110010100"
    said = [
        (rater, (str(i), 0), v == "1")
        for rater, row in (("m", m), ("n", n))
        for i, v in enumerate(row)
    ]
    assert alpha_of(said) == pytest.approx(0.095, abs=0.0005)
    assert alpha_of(said[:5]) is None  # nobody beside the first
    assert alpha_of([(r, i, True) for r, i, _ in said]) is None  # one label alone


def test_a_judge_that_guesses_agrees_poorly_and_one_that_knows_does_not() -> None:
    knows = [(float(n % 2), 9.0 if n % 2 else 2.0) for n in range(60)]
    guesses = [(float(n % 2), 9.0 if n % 3 else 2.0) for n in range(60)]
    (good,) = agreements(rated(*knows), PEOPLE)
    (bad,) = agreements(rated(*guesses), PEOPLE)
    assert (good.kappa, good.poor()) == (1, False)
    assert bad.poor()


def test_few_answers_show_little() -> None:
    (few,) = agreements(rated((1.0, 9.0), (0.0, 2.0), (1.0, 9.0), (1.0, 10.0)), PEOPLE)
    assert few.kappa == 1
    assert few.poor()


def test_one_label_alone_has_no_kappa_and_is_no_zero() -> None:
    (found,) = agreements(rated((1.0, 9.0), (1.0, 8.0)), PEOPLE)
    assert (found.same, found.kappa, found.alpha) == (1, None, None)
    assert found.poor()


def test_people_who_are_divided_say_nothing_of_an_answer() -> None:
    ratings = {
        ("t1", 0): {"ada": 1.0, "bob": 0.0, "judge:j": 9.0},
        ("t2", 0): {"ada": 1.0, "bob": 1.0, "eve": 0.0, "judge:j": 9.0},
        ("t3", 0): {"ada": 0.0, "judge:j": 2.0},
    }
    (found,) = agreements(ratings, {"ada", "bob", "eve"})
    assert (found.answers, found.same) == (2, 1)
    assert all_alpha(ratings, {"ada", "bob", "eve"}) is not None


def test_a_cut_can_be_given() -> None:
    (found,) = agreements(rated((1.0, 7.0), (0.0, 6.0)), PEOPLE, cuts={"judge:j": 6.5})
    assert (found.cut, found.same) == (6.5, 1)


def served(**fields: Any) -> Trace:
    attempts = [{"index": 0, "draft": "d", "answer": "a", "score": 9}]
    given = {"query": "x", "kind": "inference", "key": uuid.uuid4().hex, "evaluator": "judge:own"}
    return Trace.model_validate({**given, "attempts": attempts, **fields})


def test_ratings_come_from_feedback_on_a_trace_or_its_run() -> None:
    with TraceStore(":memory:") as store:
        one, two = served(), served(run_id="run-2")
        alone = served(attempts=[{"index": 0, "draft": "d"}], solo="z", solo_score=3)
        for trace in (one, two, alone):
            store.record(trace)
        store.feedback(trace_key=one.key, key="thumbs", score=0)
        store.feedback(trace_key=one.key, key="thumbs", score=1)  # the latest counts
        store.feedback(run_id="run-2", key="thumbs", score=0)
        store.feedback(trace_key=alone.key, key="thumbs", score=1)
        store.feedback(run_id="nobody", key="thumbs", score=1)
        store.feedback(trace_key=one.key, key="comment", comment="no score")
        said = {"key": "score", "source": "judge:other"}
        store.feedback(trace_key=one.key, score=4, value=of_answer(0), **said)
        store.feedback(trace_key=one.key, score=5, value=of_answer(None), **said)  # not served
        ratings, people = ratings_of(store, ["thumbs", "comment"])
    assert people == {"app"}
    assert ratings == {
        (one.key, 0): {"app": 1, "judge:own": 9, "judge:other": 4},
        (two.key, 0): {"app": 0, "judge:own": 9},
        (alone.key, None): {"app": 1, "judge:own": 3},
    }
