"""What an endpoint's faults leave in the traces, through real clients and a real server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from langchain_openai import ChatOpenAI
from servers import KINDS, Asked, Server, always, mixed, replies

from cowest_graph import (
    Trace,
    TraceStore,
    create_collaboration,
    create_collector,
    exact_match,
    judge,
    metric,
)
from cowest_graph.collecting import collect
from cowest_graph.prompts import JUDGE_AGAIN
from cowest_graph.state import Query
from cowest_graph.testing import ScriptedModel
from trainer import preferences

ROWS: list[Any] = [{"query": f"How does part {n} work?", "reference": f"{n}"} for n in range(30)]
FATAL = {"401": openai.AuthenticationError, "404": openai.NotFoundError}
FAULTS = [kind for kind in KINDS if kind != "good" and kind not in FATAL]


def client(url: str, **settings: Any) -> ChatOpenAI:
    settings = {"max_retries": 0, "timeout": 2, "model": "strong", "api_key": "none"} | settings
    return ChatOpenAI(base_url=url, **settings)


def collector(url: str, traces: TraceStore, *, num_drafts: int = 3, **settings: Any) -> Any:
    """Weak, strong and judge all at one endpoint."""
    strong = client(url, **settings)
    weak = client(url, **(settings | {"model": "weak"}))
    return create_collector(
        weak, strong, evaluator=judge(strong), traces=traces, num_drafts=num_drafts
    ).compile()


def told_apart(asked: Asked) -> str:
    """Drafts that differ, so that a preference row tells which attempts it was made from."""
    said = replies(asked)
    return f"{said}, draft {asked.nth}" if asked.role == "draft" else said


@pytest.fixture
def traces(tmp_path: Path) -> Iterator[TraceStore]:
    with TraceStore(tmp_path / "traces.db") as store:
        yield store


@pytest.mark.parametrize("streaming", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("does", FAULTS)
async def test_each_fault_is_kept_by_its_kind(
    traces: TraceStore, does: str, how: str, streaming: bool
) -> None:
    with Server(always(does, role="refine")) as server:
        settings: dict[str, Any] = {"streaming": streaming, "timeout": 0.7 if does == "hang" else 5}
        graph = create_collector(
            client(server.url, **(settings | {"timeout": 5})),
            client(server.url, **settings),
            evaluator=metric(exact_match),
            traces=traces,
            num_drafts=2,
        ).compile()
        await graph.ainvoke(ROWS[0]) if how == "async" else graph.invoke(ROWS[0])
        (trace,) = traces
        assert server.failed == {KINDS[does]: 2}
    assert [call.failure for call in trace.failures] == [KINDS[does]] * 2
    assert [call.role for call in trace.failures] == ["refine"] * 2
    assert all(call.error for call in trace.failures)
    assert trace.solo is not None
    assert all(attempt.draft and attempt.answer is None for attempt in trace.attempts)
    assert [attempt.score for attempt in trace.attempts] == [None, None]
    assert not trace.complete


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("does", FATAL)
def test_a_refused_key_or_an_unknown_model_ends_the_run_at_once(
    traces: TraceStore, does: str, how: str
) -> None:
    with Server(always(does)) as server:
        running = collector(server.url, traces)

        def run() -> None:
            if how == "async":
                asyncio.run(running.ainvoke(ROWS[0]))
            else:
                list(collect(running, ROWS, max_concurrency=1))

        with pytest.raises(FATAL[does], match=does):
            run()
        assert len(server.asked) <= 2 * (1 + 3)  # the first query, and one that was under way
    assert len(traces) == 0


def test_an_endpoint_that_is_down_ends_the_run_after_five_queries(traces: TraceStore) -> None:
    with Server() as server:
        url = server.url
    with pytest.raises(ConnectionError, match=r"5 queries in a row.*Connection error"):
        list(collect(collector(url, traces), ROWS, max_concurrency=1))
    tried = len(traces)
    assert 5 <= tried <= 6  # one may be under way when the fifth has failed
    assert traces.summary().failures == {"connection": tried * 4}


def test_the_clients_own_retries_leave_nothing_behind(traces: TraceStore) -> None:
    def first_time(asked: Asked) -> str:
        return "429" if asked.nth == 0 else "good"

    with Server(first_time) as server:
        collector(server.url, traces, max_retries=2).invoke(ROWS[0])
        assert server.did["429"] > 0
    assert traces.summary().incomplete == 0


def test_with_a_quarter_of_faults_no_pair_is_built_on_a_missing_score(traces: TraceStore) -> None:
    shares = dict.fromkeys(["garbage", "429", "500", "hang"], 0.25 / 4)
    with Server(mixed(7, shares), says=told_apart) as server:
        list(collect(collector(server.url, traces), ROWS, max_concurrency=6))
        assert set(server.failed) == {"garbled", "rate_limit", "server_error", "timeout"}
        assert traces.summary().failures == server.failed
        assert 0.15 < sum(server.failed.values()) / len(server.asked) < 0.35
    check_pairs(traces)
    before = {trace.key: trace for trace in traces}
    assert len(before) == len(ROWS)

    with Server(says=told_apart) as healthy:
        list(collect(collector(healthy.url, traces), ROWS, max_concurrency=6))
        assert len(healthy.asked) == sum(len(missing(trace)) for trace in before.values())
    for trace in traces:
        assert trace.complete
        assert missing(trace) == []
        kept = texts(before[trace.key])
        assert {name: texts(trace)[name] for name in kept} == kept
    check_pairs(traces)


def check_pairs(traces: TraceStore) -> None:
    """Every row's drafts have scores, and gains on the right sides of 0."""
    rows = preferences(traces)
    gains = {
        (trace.query, attempt.draft): trace.gain(attempt)
        for trace in traces
        for attempt in trace.attempts
        if attempt.draft
    }
    assert len(rows) > 0
    for row in rows:
        query = row["prompt"][-1]["content"]
        chosen, rejected = (
            gains[query, row[side][0]["content"]] for side in ("chosen", "rejected")
        )
        assert chosen is not None
        assert rejected is not None
        assert chosen > 0 >= rejected
    lost = sum(trace.solo_score is None for trace in traces)
    assert rows.report.missing_solo == lost


def texts(trace: Trace) -> dict[str, Any]:
    """What there is, by its place."""
    found = {"solo": trace.solo, "solo_score": trace.solo_score}
    for each in trace.attempts:
        found |= {f"{part}/{each.index}": getattr(each, part) for part in _PARTS}
    return {name: value for name, value in found.items() if value is not None}


def missing(trace: Trace) -> list[str]:
    """The places where a call is still to be made."""
    places = [f"{part}/{index}" for part in _PARTS for index in range(trace.num_drafts)]
    return [place for place in ("solo", "solo_score", *places) if place not in texts(trace)]


_PARTS = ("draft", "answer", "score")


def babbling(share: float) -> Callable[[Asked], str]:
    """A judge that says something else than a number in this share of its replies."""

    def says(asked: Asked) -> str:
        lot = random.Random(f"babble {asked.nth} {asked.prompt}").random()
        if asked.role == "judge" and lot < share:
            return "A fine answer, somewhere between 6 and 8."
        return told_apart(asked)

    return says


def test_a_judge_that_babbles_is_asked_once_more_and_then_missing(traces: TraceStore) -> None:
    says = babbling(0.25)
    with Server(says=says) as server:
        list(collect(collector(server.url, traces), ROWS, max_concurrency=6))
        judged = [asked for asked in server.asked if asked.role == "judge"]
    again = [asked for asked in judged if JUDGE_AGAIN in asked.prompt]
    garbled = [asked for asked in again if not says(asked).isdigit()]
    assert 0 < len(garbled) < len(again) < len(judged)
    assert traces.summary().failures == {"unparsable": len(garbled)}
    assert traces.summary().missing_scores == len(garbled)
    check_pairs(traces)


def test_half_of_a_judges_ten_is_no_one(traces: TraceStore) -> None:
    def ten(asked: Asked) -> str:
        return "10" if asked.role == "judge" else replies(asked)

    with Server(always("ended", role="judge"), says=ten) as server:
        collector(server.url, traces, streaming=True).invoke(ROWS[0])
    (trace,) = traces
    assert [trace.solo_score, *(each.score for each in trace.attempts)] == [None] * 4
    assert traces.summary().failures == {"truncated": 4}


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_half_an_answer_is_not_answered_with(how: str) -> None:
    with Server(always("ended")) as server:
        weak = ScriptedModel(["Answer: 1"])
        graph = create_collaboration(weak, client(server.url, streaming=True)).compile()
        asked: Query = {"query": "How?"}
        with pytest.raises(EOFError, match="before its last piece"):
            await graph.ainvoke(asked) if how == "async" else graph.invoke(asked)
