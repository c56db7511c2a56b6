"""Whose scores count in pairs: the evaluator's, people's, judges', and where each pair is from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cowest_graph import Trace, TraceStore
from cowest_graph.traces import Draw, Exploration, Feedback
from trainer import demonstrations, preferences
from trainer.rows import training_rows
from trainer.rows.scores import People


def explored(*answers: str, solo: str | None = "Answer: 8", **fields: Any) -> Trace:
    """A query of real traffic: the answer that was served, and those that were explored."""
    scores = fields.pop("scores", [None] * len(answers))
    drawn = Draw(drawn=True, propensity=0.02)
    return Trace(
        query="6 + 1?",
        kind="inference",
        run_id="run-1",
        solo=solo,
        exploration=Exploration(solo=Draw(drawn=True, propensity=0.05), drafts=drawn),
        attempts=[
            {"index": i, "draft": f"y{i}", "answer": answer, "score": scores[i]}
            for i, answer in enumerate(answers)
        ],
        **fields,
    )


def said(trace: Trace, **fields: Any) -> Feedback:
    return Feedback(**{"trace_key": trace.key, "key": "thumbs", **fields})


def pairs(trace: Trace, *feedback: Feedback, score_from: Any = "feedback") -> list[tuple[str, str]]:
    rows = preferences([trace], score_from=score_from, feedback=feedback)
    return [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows]


def test_an_explored_and_scored_query_becomes_pairs() -> None:
    trace = explored("a", "b", scores=[9, 2], solo_score=5)
    assert pairs(trace, score_from="evaluator") == [("y0", "y1")]
    rows = preferences([trace])
    assert rows.report.inference_traces == 0


def test_a_thumb_takes_the_place_of_the_served_answers_score() -> None:
    trace = explored("a", "b", scores=[9, 6], solo_score=5)
    assert pairs(trace, score_from="evaluator") == []
    assert pairs(trace, said(trace, score=0)) == [("y1", "y0")]
    assert pairs(trace, said(trace, score=0), said(trace, score=9)) == [], "the latest counts"


def test_a_thumb_is_worth_the_scale_it_is_given() -> None:
    trace = explored("a", "b", scores=[3, 2], solo_score=5)
    up = said(trace, score=1)
    assert pairs(trace, up) == [], "1 of 1 is a bad score beside a judge"
    assert pairs(trace, up, score_from=People(1, 10)) == [("y0", "y1")]


def test_what_says_the_same_as_a_right_answer_is_right_and_else_it_is_not() -> None:
    trace = explored("Explanation: E\nAnswer: 7", "Answer: 9")
    (row,) = preferences(
        [trace], score_from="feedback", feedback=[said(trace, score=1)], gains=True
    )
    assert (row["chosen_gain"], row["rejected_gain"]) == (1.0, 0.0)


def test_a_correction_says_which_answer_is_right() -> None:
    trace = explored("Answer: 9", "Answer: 7", "Answer: seven")
    corrected = said(trace, correction="7")
    assert pairs(trace, corrected) == [("y1", "y0")]
    assert pairs(trace, said(trace, correction="7", trace_key=None, run_id="run-1")) == [
        ("y1", "y0")
    ]


def test_of_a_wrong_answer_nothing_is_known_but_that_it_is_wrong() -> None:
    trace = explored("Answer: 9", "Answer: 9", "Answer: 7")
    rows = preferences([trace], score_from="feedback", feedback=[said(trace, score=0)])
    assert rows.report.missing_scores == 0, "the trace is left out: no gain of it is known"
    assert rows.report.inference_traces == 1


def test_judges_beside_the_evaluator_count_where_they_are_asked_for() -> None:
    trace = explored("a", "b", scores=[9, 2], solo_score=5)
    given = [
        said(trace, key="quality", score=1, source="judge:x", value={"attempt": 0}),
        said(trace, key="quality", score=3, source="judge:y", value={"attempt": 0}),
        said(trace, key="quality", score=8, source="judge:x", value={"attempt": 1}),
        said(trace, key="quality", score=4, source="judge:x", value={"solo": True}),
    ]
    assert pairs(trace, *given, score_from="judge") == [("y1", "y0")]
    assert pairs(trace, *given, score_from="feedback") == [("y0", "y1")], "judges are no people"


def test_a_function_decides() -> None:
    def by_length(trace: Trace, feedback: Sequence[Feedback]) -> Trace:
        tried = [
            each.model_copy(update={"score": float(len(each.answer or ""))})
            for each in trace.attempts
        ]
        return trace.model_copy(update={"solo_score": 2.0, "attempts": tried})

    trace = explored("a", "bbb")
    assert pairs(trace, score_from=by_length) == [("y1", "y0")]
    rows = training_rows("kto", [trace], score_from=by_length)
    assert [row["label"] for row in rows] == [False, True]
    with pytest.raises(ValueError, match="there are: evaluator, feedback, judge, or a function"):
        pairs(trace, score_from="stars")


def test_every_pair_says_where_it_is_from() -> None:
    trace, thumb = explored("Answer: 7", "Answer: 9"), []
    thumb.append(said(trace, score=1))
    rows = preferences([trace], score_from="feedback", feedback=thumb, sources=True)
    assert rows.sources == (
        {
            "trace_key": trace.key,
            "run_id": "run-1",
            "chosen": 0,
            "rejected": 1,
            "solo_propensity": 0.05,
            "drafts_propensity": 0.02,
            "feedback": [thumb[0].id],
        },
    )
    assert preferences([trace], score_from="feedback", feedback=thumb).sources == ()


def test_corrections_are_demonstrations(tmp_path: Path) -> None:
    with TraceStore(tmp_path / "traces.db") as store:
        trace = explored("Answer: 9")
        store.feedback(run_id="run-1", key="fix", correction="Explanation: 6, 7.\nAnswer: 7")
        store.feedback(trace_key="nobody's", key="fix", correction="x")
        assert list(store.corrections()) == [], "its trace is not there yet"
        store.record(trace)
        (row,) = demonstrations(store.corrections())
        assert row["completion"][0]["content"] == "Explanation: 6, 7.\nAnswer: 7"
        store.feedback(run_id="run-1", key="fix", correction="8")
        assert [row["reference"] for row in store.corrections()] == ["8"], "the latest counts"
