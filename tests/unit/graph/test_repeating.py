"""Repeated scores: where they go, what they cost, and that fewer pairs are the wrong way round."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowest_graph import TraceStore, create_collector
from cowest_graph.graph.deciding import Adaptive
from cowest_graph.graph.repeating import SURE, Doubt, error_of
from cowest_graph.testing import ScriptedModel
from cowest_graph.testing.noisy import Drawn, Scores, draw_queries
from cowest_graph.traces import Trace, score_noise
from trainer.rows import label_noise, preferences, training_rows
from trainer.rows.noise import doubt
from trainer.rows.pairs import Pair, Pairs

CALLS, AGAIN = 30_000, 8


def trace_of(number: int, drawn: Drawn) -> Trace:
    """A query as an adaptive collection with repetitions leaves it."""

    def told(found: Any) -> dict[str, Any]:
        calls = [{"role": "evaluate"}] * len(found)
        return {"score": sum(found) / len(found), "score_se": error_of(found), "calls": calls}

    alone = told(drawn.scores[None])
    attempts = [
        {"index": index, "draft": f"{index}", **told(found)}
        for index, found in drawn.scores.items()
        if index is not None
    ]
    about = {"solo_score": alone["score"], "solo_score_se": alone["score_se"]}
    told_all = {"query": f"{number}?", "attempts": attempts, "num_drafts": len(attempts), **about}
    return Trace.model_validate(told_all)


def inverted(pairs: list[Pair], drawn: list[Drawn]) -> int:
    """Pairs of which the rejected draft is truly the better one."""
    found = 0
    for pair in pairs:
        true = drawn[int(pair.trace.query[:-1])].true
        found += true[pair.chosen.index] < true[pair.rejected.index]
    return found


def wrong_share(drawn: list[Drawn], noise: float | None = None) -> float:
    """The share of pairs that are the wrong way round; where noise is told, of the sure ones."""
    traces = [trace_of(number, each) for number, each in enumerate(drawn)]
    unsure = None if noise is None else lambda pair: doubt(pair, noise) > 0.1
    pairs = list(Pairs(traces, unsure=unsure))
    return inverted(pairs, drawn) / len(pairs)


def repeated(scores: Scores, noise: float) -> list[int]:
    return Doubt(scores, noise).next(AGAIN)


@pytest.mark.parametrize(
    ("noise", "repeats", "sure_ones"), [(0.5, 0.5, 0.5), (1, 0.5, 0.5), (2, 0.7, 0.6)]
)
def test_at_equal_calls_less_than_half_as_many_pairs_are_the_wrong_way_round(
    noise: float, repeats: float, sure_ones: float
) -> None:
    """As a share of the pairs, where noise is no larger than what drafts truly differ by: repeats
    where the order is unclear, and of those pairs the sure ones. At twice as much noise it is a
    little more than half. docs/collecting.md has the figures."""
    plain = draw_queries(CALLS, noise=noise, seed=1)
    again = draw_queries(CALLS, noise=noise, again=partial(repeated, noise=noise), seed=2)
    assert abs(sum(d.calls for d in plain) - sum(d.calls for d in again)) < 20
    shares = [wrong_share(plain), wrong_share(again), wrong_share(again, noise=noise)]
    assert shares[1] < repeats * shares[0]
    assert shares[2] < sure_ones * shares[0]
    assert shares[2] < shares[1]


def test_the_noise_that_repeats_tell_is_the_noise_that_there_is() -> None:
    drawn = draw_queries(20_000, noise=0.7, again=partial(repeated, noise=0.7), seed=5)
    traces = [trace_of(number, each) for number, each in enumerate(drawn)]
    assert score_noise(traces) == pytest.approx(0.7, rel=0.05)


def test_label_noise_is_the_share_of_inverted_pairs() -> None:
    """With a flat prior it is somewhat too small for scores that differ little in truth."""
    drawn = draw_queries(20_000, noise=0.5, again=partial(repeated, noise=0.5), seed=6)
    traces = [trace_of(number, each) for number, each in enumerate(drawn)]
    pairs = list(Pairs(traces))
    told = label_noise(traces)
    assert told == pytest.approx(inverted(pairs, drawn) / len(pairs), abs=0.02)


Scored = st.lists(st.floats(-5, 5), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(Scored, st.lists(Scored, min_size=1, max_size=6), st.floats(0.01, 5), st.integers(0, 6))
def test_only_drafts_of_unclear_pairs_are_asked_again_and_never_too_often(
    alone: list[float], drafts: list[list[float]], noise: float, most: int
) -> None:
    scores = {None: alone, **dict(enumerate(drafts))}
    spent = sum(map(len, scores.values())) - len(scores)
    again = Doubt(scores, noise).next(most)
    assert len(again) <= (spent < most)
    assert all(scores[index] for index in again)


def test_a_clear_pair_costs_nothing_more() -> None:
    assert Doubt({None: [0.0], 0: [9.0], 1: [-9.0]}, noise=1.0).next(5) == []
    assert Doubt({None: [0.0], 0: [0.1], 1: [-0.1]}, noise=1.0).next(5) == [0]
    assert Doubt({None: [0.0], 0: [0.1]}, noise=1.0).next(5) == []
    nearest = {None: [0.0], 0: [0.1], 1: [-0.1], 2: [1.0], 3: [-1.0]}
    assert Doubt(nearest, noise=1.0).next(5) == [2]
    assert SURE > 1


def said(messages: list[Any]) -> str:
    return str(messages[-1].content)


@pytest.mark.parametrize("way", ["sync", "async"])
def test_repeats_are_paid_kept_and_averaged(way: str) -> None:
    """Where nothing is known of the noise yet, one score of a query's first pair is repeated."""
    scores = iter([0.0, 0.6, 0.0, 1.0])  # solo, first draft, second, the first one again

    def scoring(*, outputs: dict[str, Any]) -> float:
        return next(scores)

    strong = ScriptedModel(lambda seen: f"Answer: {len(said(seen))}", model_name="strong")
    with TraceStore(":memory:") as store:
        graph = create_collector(
            ScriptedModel(["Answer: B12", "Answer: C"]),
            strong,
            evaluator=scoring,
            traces=store,
            num_drafts=2,
            strategy=Adaptive(wave=1, again=3, explore=0),
        ).compile()
        asked, one = {"query": "Which?"}, {"max_concurrency": 1}
        out = graph.invoke(asked, one) if way == "sync" else asyncio.run(graph.ainvoke(asked, one))
        trace = Trace.model_validate(out["trace"])
        assert store.finished(trace.key) == {}
    first, second = trace.attempts
    assert len(strong.calls) == 4
    assert first.score == pytest.approx(0.8)
    assert first.score_se == pytest.approx(0.2)
    assert (second.score, second.score_se) == (0.0, None)
    assert Counter(c.role for c in first.calls) == {"draft": 1, "refine": 2, "evaluate": 2}
    assert trace.complete


def test_a_repetition_that_fails_is_not_tried_for_ever() -> None:
    scores: Any = iter([0.0, 0.6, 0.0])  # then there are no more, which is an error

    def scoring(*, outputs: dict[str, Any]) -> float:
        return next(scores, None) or 0.0 if outputs["answer"] != "again" else 1 / 0

    seen: Counter[str] = Counter()

    def strong(messages: list[Any]) -> str:
        seen[said(messages)] += 1
        return "Answer: again" if seen[said(messages)] > 1 else "Answer: first"

    with TraceStore(":memory:") as store:
        graph = create_collector(
            ScriptedModel(["Answer: B12", "Answer: C"]),
            ScriptedModel(strong),
            evaluator=scoring,
            traces=store,
            num_drafts=2,
            strategy=Adaptive(wave=1, again=3, explore=0),
        ).compile()
        out = graph.invoke({"query": "Which?"}, {"max_concurrency": 1})
    trace = Trace.model_validate(out["trace"])
    assert sorted(seen.values()) == [1, 1, 4]
    assert trace.complete
    assert (trace.attempts[0].score, trace.attempts[0].score_se) == (0.6, None)


def test_a_gain_has_a_standard_error_where_both_scores_have_one() -> None:
    told = {"index": 0, "draft": "a", "score": 9, "score_se": 0.3}
    known = Trace.model_validate(
        {"query": "?", "solo_score": 5, "solo_score_se": 0.4, "attempts": [told]}
    )
    assert known.attempts[0].gain_se == pytest.approx(0.5)
    assert Trace.model_validate(known.model_dump()) == known
    without = Trace.model_validate({"query": "?", "solo_score": 5, "attempts": [told]})
    assert without.attempts[0].gain_se is None


def test_rows_carry_how_doubtful_they_are_and_unsure_ones_are_left_out() -> None:
    attempts = [
        {"index": 0, "draft": "a", "score": 9},
        {"index": 1, "draft": "a", "score": 8},
        {"index": 2, "draft": "b", "score": 1},
        {"index": 3, "draft": "c", "score": 7.6},
        {"index": 4, "draft": "d", "score": 7.4},
    ]
    traces = [
        Trace.model_validate(
            {"query": "?", "solo_score": 7.5, "attempts": attempts, "num_drafts": 5}
        )
    ]
    rows = training_rows("certain", traces)
    assert [row["chosen"][0]["content"] for row in rows] == ["a", "a"]
    assert 0 < rows[0]["doubt"] < rows[1]["doubt"] < 0.5
    sure = preferences(traces, sure=0.9)
    assert len(sure) == 1
    assert sure.report.unsure == 1
    assert "unsure and left out: 1" in str(sure.report)
