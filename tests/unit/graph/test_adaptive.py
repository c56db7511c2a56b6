"""An adaptive collection: what it asks, what it leaves out, that it loses and doubles nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowest_graph import TraceStore, create_collector, exact_match, judge, metric
from cowest_graph.collecting import collect
from cowest_graph.graph.deciding import ALIKE, BEST, POOR, Adaptive, Known
from cowest_graph.graph.odds import Odds, groups
from cowest_graph.testing import ScriptedModel
from cowest_graph.traces import Trace, score_noise

QUERY = {"query": "Which vitamin?", "reference": "B12"}
NEVER_EXPLORED = Adaptive(explore=0.0)


def said(messages: list[Any]) -> str:
    return str(messages[-1].content)


def copying(alone: str = "no idea") -> ScriptedModel:
    """A strong model that repeats the expert's answer, and has its own when alone."""

    def reply(messages: list[Any]) -> str:
        asked = said(messages)
        answer = asked.split("Answer: ")[1].splitlines()[0] if "Expert:" in asked else alone
        return f"Explanation: so it is\nAnswer: {answer}"

    return ScriptedModel(reply, model_name="strong")


def collected(
    drafts: list[Any], store: TraceStore, strong: Any = None, **changes: Any
) -> tuple[Trace, ScriptedModel]:
    strong = strong or copying()
    given = {"evaluator": metric(exact_match), "num_drafts": len(drafts)}
    given |= {"strategy": NEVER_EXPLORED} | changes
    weak = ScriptedModel([d if isinstance(d, Exception) else f"Answer: {d}" for d in drafts])
    graph = create_collector(weak, strong, traces=store, **given)
    # One draft after the other, so that the script's order is the sampling order.
    out = graph.compile().invoke(QUERY, {"max_concurrency": 1})
    return Trace.model_validate(out["trace"]), strong


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with TraceStore(tmp_path / "traces.db") as traces:
        yield traces


def test_equal_drafts_cost_no_call_of_the_strong_model(store: TraceStore) -> None:
    trace, strong = collected(["B12"] * 5, store)
    assert strong.calls == []
    assert (trace.stopped, trace.complete, len(trace.unasked)) == (ALIKE, True, 5)
    assert trace.solo_unasked
    assert store.summary().missing_scores == 0


def test_where_a_pair_is_there_and_calls_are_worth_much_no_more_is_asked() -> None:
    known = Known(dict(enumerate("abcde")), {0: True, 1: False}, "scored")
    seldom = Odds(helped=0.5, hurt=6.0, rate=1.0)
    assert known.step(seldom, Adaptive(thrift=0.3)).stopped == POOR
    assert known.step(seldom, Adaptive(thrift=0.1)).ask


def test_a_text_is_asked_once_and_its_other_attempts_say_whose_answer_they_have(
    store: TraceStore,
) -> None:
    trace, strong = collected(["B12", "C", "B12", "C", "B12"], store)
    assert len(strong.calls) == 3
    assert [attempt.same_as for attempt in trace.attempts] == [None, None, 0, 1, 0]
    assert [attempt.gain for attempt in trace.attempts] == [1, 0, 1, 0, 1]
    roles = Counter(call.role for attempt in trace.attempts for call in attempt.calls)
    assert roles == {"draft": 5, "refine": 2, "evaluate": 2}
    assert trace.stopped is None


def test_where_the_solo_answer_is_the_best_there_is_no_draft_is_refined(
    store: TraceStore,
) -> None:
    trace, strong = collected(["B12", "C", "D"], store, copying(alone="B12"))
    assert len(strong.calls) == 1
    assert (trace.stopped, trace.solo_score) == (BEST, 1.0)


def test_algorithm_1_asks_what_was_left_out_and_nothing_twice(store: TraceStore) -> None:
    strong = copying()
    first, _ = collected(["B12", "C", "B12", "D", "E"], store, strong)
    before = len(strong.calls)
    left = sum(a.answer is None or a.same_as is not None for a in first.attempts)
    second, _ = collected(["X"] * 5, store, strong, strategy="algorithm1")
    assert len(strong.calls) == before + left == 6
    assert [a.draft for a in second.attempts] == [a.draft for a in first.attempts]
    assert second.stopped is None
    assert not any(a.same_as for a in second.attempts)
    third, _ = collected(["X"] * 5, store, strong)  # what Algorithm 1 finished is finished
    assert len(strong.calls) == 6
    assert third == second


def test_sync_and_async_give_the_same_trace(tmp_path: Path) -> None:
    found = []
    for number in (0, 1):
        with TraceStore(tmp_path / f"{number}.db") as traces:
            weak = ScriptedModel(["Answer: B12", "Answer: C", "Answer: B12"])
            graph = create_collector(
                weak,
                copying(),
                evaluator=metric(exact_match),
                traces=traces,
                num_drafts=3,
                strategy=NEVER_EXPLORED,
            ).compile()
            one = {"max_concurrency": 1}
            out = graph.invoke(QUERY, one) if number else asyncio.run(graph.ainvoke(QUERY, one))
        trace = Trace.model_validate(out["trace"])
        found.append([(a.draft, a.answer, a.gain, a.same_as) for a in trace.attempts])
    assert found[0] == found[1]


class Killed(BaseException):
    """As if the process ended here: nothing catches it."""


@pytest.mark.parametrize("dies_at", range(1, 7))
def test_a_collection_that_dies_pays_nothing_twice(store: TraceStore, dies_at: int) -> None:
    paid: Counter[str] = Counter()
    dying = [dies_at]

    def strong_reply(messages: list[Any]) -> str:
        asked = said(messages)
        if sum(paid.values()) + 1 == dying[0]:
            dying[0] = 0
            raise Killed
        paid[asked] += 1
        answer = asked.split("Answer: ")[1].splitlines()[0] if "Expert:" in asked else "none"
        return f"Explanation: so\nAnswer: {answer}"

    drafts = ["B12", "C", "D", "B12", "E"]
    strong = ScriptedModel(strong_reply, model_name="strong")
    try:
        collected(drafts, store, strong)
    except Killed:
        trace, _ = collected(["another"] * 5, store, strong)
    else:
        trace = next(iter(store))
    assert set(paid.values()) == {1}
    assert [a.draft for a in trace.attempts] == [f"Answer: {draft}" for draft in drafts]
    assert trace.complete
    assert store.finished(trace.key) == {}


def test_a_failed_call_is_made_again_and_no_other(store: TraceStore) -> None:
    calls: list[str] = []

    def reply(messages: list[Any]) -> str:
        calls.append(said(messages))
        if "Answer: C" in calls[-1] and sum("Answer: C" in call for call in calls) == 1:
            raise TimeoutError("slow")
        answer = calls[-1].split("Answer: ")[1].splitlines()[0] if "Expert:" in calls[-1] else "?"
        return f"Explanation: so\nAnswer: {answer}"

    strong = ScriptedModel(reply, model_name="strong")
    first, _ = collected(["B12", "C"], store, strong)
    assert not first.complete
    assert [call.failure for call in first.failures] == ["timeout"]
    second, _ = collected(["X", "X"], store, strong)
    assert second.complete
    assert [a.gain for a in second.attempts] == [1.0, 0.0]
    assert len(calls) == 4  # solo, B12, C that failed, C again


def test_queries_that_need_no_answer_are_no_sign_of_a_silent_endpoint(store: TraceStore) -> None:
    graph = create_collector(
        ScriptedModel(["Answer: B12"]),
        copying(),
        evaluator=metric(exact_match),
        traces=store,
        num_drafts=3,
        strategy="adaptive",
    ).compile()
    rows = [{"query": f"Which vitamin, {n}?", "reference": "B12"} for n in range(12)]
    assert len(list(collect(graph, rows))) == 12


def test_a_single_draft_is_always_asked(store: TraceStore) -> None:
    trace, strong = collected(["B12"], store)
    assert len(strong.calls) == 2
    assert trace.stopped is None


def test_an_unknown_strategy_is_refused(store: TraceStore) -> None:
    with pytest.raises(ValueError, match="no strategy 'lazy'; there are: algorithm1, adaptive"):
        collected(["B12", "C"], store, strategy="lazy")
    with pytest.raises(ValueError, match="thrift is 2"):
        Adaptive(thrift=2)


def test_a_judge_is_asked_no_more_often_than_there_are_answers(store: TraceStore) -> None:
    judging = ScriptedModel(lambda seen: "10" if "Answer: B12" in said(seen) else "1")
    _, strong = collected(["B12", "C", "B12"], store, evaluator=judge(judging))
    assert len(judging.calls) == len(strong.calls) == 3


Drafts = st.lists(st.sampled_from("abcdefg"), min_size=2, max_size=7)
Ways = st.fixed_dictionaries({text: st.booleans() for text in "abcdefg"})


@settings(max_examples=300, deadline=None)
@given(Drafts, Ways, st.floats(0, 1))
def test_pairs_are_the_first_of_algorithm_1s(
    drafts: list[str], ways: dict[str, bool], thrift: float
) -> None:
    """Where a score depends on the text alone and nothing is learnt yet, texts are asked in their
    order, and different texts give the beginning of Algorithm 1's pairs."""
    truth = [ways[text] for text in drafts]
    asked, stopped = decided(drafts, truth, Odds(), Adaptive(thrift=thrift, least=0, explore=0))
    shared = {drafts[index] for index in asked}
    pairs = by_index([(n, truth[n]) for n, text in enumerate(drafts) if text in shared])
    every = by_index(list(enumerate(truth)))
    order = list(dict.fromkeys(drafts))
    assert {*shared} == {*order[: len(shared)]}
    if len(order) == len(drafts):
        assert pairs == every[: len(pairs)]
    assert all(truth[one] and not truth[other] for one, other in pairs)
    if stopped is None:
        assert pairs == every


def by_index(ways: list[tuple[int, bool]]) -> list[tuple[int, int]]:
    helped = [index for index, way in ways if way]
    hurt = [index for index, way in ways if not way]
    return list(zip(helped, hurt, strict=False))


def decided(
    texts: list[str], truth: list[bool], odds: Odds, how: Adaptive
) -> tuple[list[int], str | None]:
    """What is asked of these drafts, and why no more."""
    helped: dict[int, bool | None] = {}
    alone: Any = "unasked"
    while True:
        step = Known(dict(enumerate(texts)), helped, alone).step(odds, how)
        if step.solo:
            alone = "scored"
        elif not step.ask:
            return list(helped), step.stopped
        helped |= {index: truth[index] for index in step.ask}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=8),
    st.lists(st.booleans(), min_size=8, max_size=8),
    st.floats(0.05, 20),
    st.floats(0.05, 20),
)
def test_deciding_always_ends_and_asks_no_text_twice(
    texts: list[str], truth: list[bool], helped: float, hurt: float
) -> None:
    asked, _ = decided(texts, truth, Odds(helped, hurt), Adaptive(explore=0))
    assert len({texts[index] for index in asked}) == len(asked)


def test_drafts_with_the_same_reason_are_alike_once_traces_say_so() -> None:
    def trace(number: int) -> Trace:
        drafts = [f"{reason}\nAnswer: {n}" for n, reason in enumerate(("in", "in", "out", "out"))]
        attempts = [
            {"index": n, "draft": draft, "score": float(n < 2)} for n, draft in enumerate(drafts)
        ]
        about = {"solo_score": 0.0, "attempts": attempts, "num_drafts": 4}
        return Trace.model_validate({"query": f"{number}?", **about})

    few, many = (Odds.learnt(map(trace, range(count))) for count in (1, 20))
    assert few.alike == {}
    assert set(many.alike) == {"reason"}
    assert groups(["in\nAnswer: 1", "in\nAnswer: 2", "out\nAnswer: 1"], many.alike) == [0, 0, 2]


def test_where_all_help_always_little_is_asked() -> None:
    """The likeliest Beta distribution of queries that all go one way gives few pairs."""

    def trace(number: int) -> Trace:
        attempts = [{"index": n, "draft": f"{n}", "score": number % 2} for n in range(5)]
        about = {"solo_score": 0.5, "attempts": attempts, "num_drafts": 5}
        return Trace.model_validate({"query": f"{number}?", **about})

    odds = Odds.learnt(map(trace, range(40)))
    assert odds.helped < 0.2
    assert odds.hurt < 0.2
    texts = [f"{n}" for n in range(5)]
    asked, why = decided(texts, [True] * 5, odds, Adaptive(explore=0, least=0.05))
    assert (asked, why) == ([], POOR)


def test_the_noise_of_a_score_is_read_from_what_repeats() -> None:
    attempts = [
        {"index": 0, "draft": "same", "score": 4},
        {"index": 1, "draft": "same", "score": 6},
        {"index": 2, "draft": "other", "score": 9},
    ]
    told = {"query": "?", "solo_score": 5, "attempts": attempts, "num_drafts": 3}
    assert score_noise([Trace.model_validate(told)]) == pytest.approx(2**0.5)
    assert score_noise([]) is None


def test_what_was_paid_is_used_whatever_is_expected(store: TraceStore) -> None:
    """Algorithm 1 paid for two of three drafts; the adaptive way would have asked for none."""

    def reply(messages: list[Any]) -> str:
        asked = said(messages)
        if "Answer: D" in asked:
            raise TimeoutError("slow")
        answer = asked.split("Answer: ")[1].splitlines()[0] if "Expert:" in asked else "?"
        return f"Explanation: so\nAnswer: {answer}"

    strong = ScriptedModel(reply, model_name="strong")
    first, _ = collected(["B12", "C", "D"], store, strong, strategy="algorithm1")
    assert not first.complete
    before = len(strong.calls)
    saving = Adaptive(explore=0, least=1.0)
    second, _ = collected(["X"] * 3, store, strong, strategy=saving)
    assert len(strong.calls) == before
    assert [attempt.gain for attempt in second.attempts] == [1.0, 0.0, None]
    assert (second.stopped, second.complete) == (POOR, True)
