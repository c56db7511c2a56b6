"""Rounds ask what may still teach, replay what is forgotten, and say why one is the last."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowest_graph.traces import Trace
from trainer.course import Course, two_sided
from trainer.rows import preferences, replayed

KINDS = {"two": (1, 0), "helped": (1, 1), "hurt": (0, 0)}


def trace(kind: str, name: str = "q", **more: Any) -> Trace:
    """A query whose drafts came to this; the strong model alone was wrong."""
    scores = KINDS[kind]
    return Trace(
        query=name,
        solo_score=0,
        num_drafts=len(scores),
        attempts=[
            {"index": at, "draft": f"{name}, draft {at}", "answer": "a", "score": score}
            for at, score in enumerate(scores)
        ],
        **{"reference": "7", "explanation": "Because.", **more},
    )


@given(st.lists(st.sampled_from([*KINDS, None])), st.integers(1, 20))
def test_a_round_asks_the_two_sided_then_the_fresh_and_nothing_twice(
    kinds: list[str | None], most: int
) -> None:
    rows = list(range(len(kinds)))
    told = [kind and trace(kind) for kind in kinds]
    asked = Course(queries_a_round=most).first(rows, told)
    assert len(asked) == len(set(asked)) == min(most, len(rows))
    turns = {"two": 0, None: 1, "hurt": 2, "helped": 3}
    of_asked = [turns[kinds[row]] for row in asked]
    assert of_asked == sorted(of_asked)
    left = [turns[kinds[row]] for row in rows if row not in asked]
    assert not left or not asked or max(of_asked) <= min(left)
    assert Course().first(rows, told) == rows


def given_rows(traces: list[Trace], course: Course, objective: str = "dpo") -> Any:
    rows = preferences(traces, gains=objective == "weighted")
    return course.rows(rows, traces, objective, "chain_of_thought")


def test_why_a_round_trains_on_nothing_is_said() -> None:
    traces = [trace("two", "a"), trace("hurt", "b"), trace("helped", "c")]
    assert len(given_rows(traces, Course())) == 1
    assert given_rows(traces[1:], Course()).startswith("nothing to train on: 0 pairs from 2 traces")
    few = given_rows(traces, Course(min_pairs=2))
    assert few.startswith("too few pairs to train on, 1 of at least 2: 1 pair from 3 traces")
    sided = given_rows(traces, Course(min_two_sided=0.5))
    assert sided.startswith("too one-sided: 33% of the queries had drafts that helped and drafts")
    assert len(given_rows(traces, Course(min_two_sided=0.3))) == 1


def test_the_two_sided_share_is_of_queries_with_gains() -> None:
    silent = Trace(query="s", attempts=[{"index": 0, "draft": "d", "score": 1}])
    assert two_sided([]) is two_sided([silent]) is None
    assert two_sided([trace("two"), trace("hurt"), silent]) == 0.5


def test_a_demonstration_is_replayed_over_a_draft_where_all_hurt() -> None:
    traces = [trace(kind, kind) for kind in KINDS] + [trace("hurt", "second")]
    rows = replayed(traces, most=9, style="chain_of_thought")
    assert [row["prompt"][-1]["content"] for row in rows] == ["hurt", "second"]
    assert rows[0]["chosen"][0]["content"] == "Explanation: Because.\nAnswer: 7"
    assert rows[0]["rejected"] == [{"role": "assistant", "content": "hurt, draft 0"}]
    assert len(replayed(traces, most=1, style="answer")) == 1
    assert replayed(traces, most=0, style="answer") == []
    assert replayed([trace("hurt", reference=None)], most=1, style="answer") == []


def test_replay_is_a_share_of_the_pairs_and_only_where_there_are_plain_pairs() -> None:
    traces = [trace("two", f"t{n}") for n in range(4)] + [trace("hurt", f"h{n}") for n in range(4)]
    rows = given_rows(traces, Course(replay=0.5))
    assert len(rows) == 6
    assert rows[:4] == list(preferences(traces))
    assert rows.report.pairs == 4
    with pytest.raises(ValueError, match="'weighted' takes no demonstrations beside its rows"):
        given_rows(traces, Course(replay=0.5), "weighted")


@pytest.mark.parametrize(
    "wrong",
    [{"queries_a_round": 0}, {"min_pairs": 0}, {"min_two_sided": 1.1}, {"replay": -0.1}],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is "):
        Course(**wrong)
