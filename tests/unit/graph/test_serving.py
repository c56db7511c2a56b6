"""Serving under hard use: turns of a thread, failing stores and models, replies of other kinds."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import NodeTimeoutError
from langgraph.graph import START, StateGraph
from pydantic import BaseModel
from typing_extensions import TypedDict

from cowest_graph import (
    Trace,
    TraceStore,
    create_collaboration,
    create_collector,
    exact_match,
    judge,
    metric,
)
from cowest_graph.replies import EmptyReply, as_message
from cowest_graph.testing import ScriptedModel

THREAD: Any = {"configurable": {"thread_id": "1"}}
WAYS = ["sync", "async"]


def call(graph: Any, way: str, given: Any, config: Any = None) -> Any:
    if way == "sync":
        return graph.invoke(given, config)
    return asyncio.run(graph.ainvoke(given, config))


def echo() -> ScriptedModel:
    """Answers with what it was asked last."""
    return ScriptedModel(lambda messages: f"Answer: {messages[-1].text.splitlines()[-1]}")


def collaboration(weak: Any = None, strong: Any = None, **settings: Any) -> Any:
    saver = settings.pop("checkpointer", None)
    interrupts = settings.pop("interrupt_before", None)
    graph = create_collaboration(
        weak or ScriptedModel(["Answer: B12"]), strong or ScriptedModel(["Answer: B12"]), **settings
    )
    return graph.compile(checkpointer=saver, interrupt_before=interrupts)


# --- turns of a thread ---


@pytest.mark.parametrize("way", WAYS)
def test_what_comes_with_an_input_belongs_to_it_alone(way: str) -> None:
    traces, weak = TraceStore(":memory:"), echo()
    graph = collaboration(
        weak, traces=traces, evaluator=metric(exact_match), checkpointer=InMemorySaver()
    )
    first = {"query": "FIRST?", "reference": "B12", "explanation": "E1", "domain": "D1"}
    assert call(graph, way, first, THREAD)["score"] == 1.0
    out = call(graph, way, {"messages": [("human", "SECOND?")]}, THREAD)
    third = call(graph, way, {"query": "THIRD?"}, THREAD)
    assert (out["score"], third["score"]) == (None, None)
    assert [messages[-1].text for messages in weak.calls] == ["FIRST?", "SECOND?", "THIRD?"]
    kept = [(t.query, t.reference, t.explanation, t.domain) for t in traces]
    assert kept == [
        ("FIRST?", "B12", "E1", "D1"),
        ("SECOND?", None, None, None),
        ("THIRD?", None, None, None),
    ]


@pytest.mark.parametrize("way", WAYS)
def test_a_turn_after_one_that_failed_is_its_own(way: str) -> None:
    traces = TraceStore(":memory:")
    strong = ScriptedModel([TimeoutError("slow"), "Answer: B7"])
    weak = ScriptedModel(["Answer: one", TimeoutError("down")])
    graph = collaboration(weak, strong, traces=traces, checkpointer=InMemorySaver())
    with pytest.raises(TimeoutError):
        call(graph, way, {"query": "FIRST?", "reference": "R1"}, THREAD)
    call(graph, way, {"messages": [("human", "SECOND?")]}, THREAD)
    _, second = traces
    assert (second.query, second.reference, second.solo) == ("SECOND?", None, "Answer: B7")
    assert second.attempts[0].draft is None  # not the first turn's


def test_a_pass_that_was_interrupted_keeps_its_input() -> None:
    traces = TraceStore(":memory:")
    graph = collaboration(
        traces=traces,
        evaluator=metric(exact_match),
        checkpointer=InMemorySaver(),
        interrupt_before=["draft", "refine"],
    )
    graph.invoke({"query": "FIRST?", "reference": "B12"}, THREAD)
    graph.invoke(None, THREAD)
    assert graph.invoke(None, THREAD)["score"] == 1.0
    (trace,) = traces
    assert (trace.query, trace.reference) == ("FIRST?", "B12")


def test_a_collector_on_a_thread_takes_each_row_alone() -> None:
    traces = TraceStore(":memory:")
    graph = create_collector(
        echo(), echo(), evaluator=metric(exact_match), traces=traces, num_drafts=2
    ).compile(checkpointer=InMemorySaver())
    graph.invoke({"query": "a", "reference": "a", "explanation": "E"}, THREAD)
    graph.invoke({"query": "b"}, THREAD)
    assert [(t.query, t.reference, t.explanation) for t in traces] == [
        ("a", "a", "E"),
        ("b", None, None),
    ]


# --- models that fail ---


@pytest.mark.parametrize("way", WAYS)
def test_the_strong_model_answers_alone_where_the_weak_one_is_down(way: str) -> None:
    traces = TraceStore(":memory:")
    weak, strong = ScriptedModel([ConnectionError("down")]), ScriptedModel(["Answer: B12"])
    graph = collaboration(weak, strong, traces=traces, evaluator=metric(exact_match))
    out = call(graph, way, {"query": "Which?", "reference": "B12"})
    assert (out["answer"].text, out["draft"], out["score"]) == ("Answer: B12", None, 1.0)
    assert "Expert" not in strong.calls[0][-1].text
    (trace,) = traces
    assert (trace.solo, trace.solo_score) == ("Answer: B12", 1.0)
    assert [c.role for c in trace.calls] == ["solo", "evaluate"]
    (attempt,) = trace.attempts
    assert (attempt.draft, attempt.answer, attempt.score) == (None, None, None)
    assert [(c.role, c.failure) for c in attempt.calls] == [("draft", "connection")]
    assert traces.traffic()[None].mean_score is None  # no draft was there to be scored


@pytest.mark.parametrize("way", WAYS)
def test_the_draft_answers_where_the_strong_model_is_down_and_the_caller_wants_it(way: str) -> None:
    traces = TraceStore(":memory:")
    settings: Any = {"traces": traces, "evaluator": metric(exact_match)}
    weak, strong = ScriptedModel(["Answer: B7"]), ScriptedModel([TimeoutError("slow")])
    with pytest.raises(TimeoutError):
        call(collaboration(weak, strong, **settings), way, {"query": "Which?"})
    graph = collaboration(weak, strong, on_strong_failure="draft", **settings)
    out = call(graph, way, {"messages": [("human", "Which?")]})
    assert (out["answer"].text, out["score"]) == ("Answer: B7", None)
    assert out["messages"][-1].text == "Answer: B7"
    raised, served = traces
    assert (
        [c.failure for c in raised.failures] == [c.failure for c in served.failures] == ["timeout"]
    )
    assert (served.attempts[0].draft, served.attempts[0].answer) == ("Answer: B7", None)


def test_both_down_raises_the_strong_model_s_error_and_is_recorded() -> None:
    traces = TraceStore(":memory:")
    weak, strong = ScriptedModel([ConnectionError("weak")]), ScriptedModel([TimeoutError("strong")])
    with pytest.raises(TimeoutError, match="strong"):
        collaboration(weak, strong, traces=traces, on_strong_failure="draft").invoke({"query": "?"})
    (trace,) = traces
    assert [(c.role, c.failure) for c in trace.failures] == [
        ("solo", "timeout"),
        ("draft", "connection"),
    ]


def test_no_error_is_taken_for_an_earlier_one_that_is_gone() -> None:
    """LangGraph knows handled errors by `id`, which a later error may have."""
    lost = 0
    for _ in range(150):
        weak, strong = ScriptedModel([ConnectionError("w")]), ScriptedModel([TimeoutError("s")])
        try:
            collaboration(weak, strong, traces=TraceStore(":memory:")).invoke({"query": "?"})
        except TimeoutError:
            continue
        lost += 1
    assert lost == 0


@pytest.mark.parametrize("wrong", [{"on_weak_failure": "draft"}, {"on_strong_failure": "weak"}])
def test_another_word_is_refused_with_those_there_are(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"there are: .*raise"):
        collaboration(**wrong)


# --- stores that fail ---


class Faulty(TraceStore):
    """Takes no trace while it is `down`."""

    down = True

    def record(self, trace: Trace) -> None:
        if self.down:
            raise sa.exc.OperationalError("INSERT", {}, Exception("database or disk is full"))
        super().record(trace)


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_is_served_while_the_store_fails_and_recorded_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    traces = Faulty(tmp_path / "traces.db")
    graph = collaboration(ScriptedModel(["Answer: x"], version="v1"), traces=traces)
    with caplog.at_level(logging.ERROR, "cowest_graph"):
        for query in "abc":
            assert call(graph, way, {"query": query})["answer"].text == "Answer: B12"
    assert len(caplog.records) == 1  # once a minute
    assert "INSERT" not in caplog.text
    assert len(traces) == 0
    assert (traces.traffic()["v1"].unstored, traces.traffic()["v1"].lost) == (3, 0)
    assert (tmp_path / "traces.db.spool.jsonl").stat().st_mode & 0o777 == 0o600

    other = Faulty(tmp_path / "traces.db")  # as another process, once the disk has room
    other.down = False
    call(collaboration(traces=other), way, {"query": "d"})
    assert [trace.query for trace in other] == list("abcd")
    assert not (tmp_path / "traces.db.spool.jsonl").exists()
    traces.down = False
    call(graph, way, {"query": "e"})
    assert [trace.query for trace in traces] == list("abcde")


def test_without_a_file_the_spool_is_memory_and_bounded() -> None:
    from cowest_graph.traces.spool import Spool

    spool, error, kept = Spool(None, Trace, memory_limit=2), OSError("full"), []
    for query in "abc":
        spool.keep(Trace(query=query, weak_version="v1"), error)
    assert (spool.unstored["v1"], spool.lost["v1"]) == (3, 1)
    spool.drain(lambda trace: kept.append(trace.query))
    assert kept == ["a", "b"]
    assert not spool.pending


def test_a_full_spool_file_is_never_torn_and_the_rest_waits_in_memory(tmp_path: Path) -> None:
    from cowest_graph.traces.spool import Spool

    path, kept = tmp_path / "spool.jsonl", []
    spool = Spool(path, Trace, file_limit=2 * len(Trace(query="a").model_dump_json()) + 50)
    for query in "abcd":
        spool.keep(Trace(query=query), OSError("full"))
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 2

    def store(trace: Trace) -> None:
        if trace.query == "c" and "again" not in kept:
            kept.append("again")
            raise OSError("full once more")
        kept.append(trace.query)

    with pytest.raises(OSError, match="once more"):
        spool.drain(store)
    spool.drain(store)
    assert kept == ["a", "b", "again", "c", "d"]
    assert spool.lost.total() == 0


def test_a_trace_that_no_store_would_take_does_not_hold_up_the_others(tmp_path: Path) -> None:
    class Refusing(TraceStore):
        def record(self, trace: Trace) -> None:
            if trace.query == "b":
                raise ValueError("not this one")
            super().record(trace)

    traces = Refusing(tmp_path / "traces.db")
    assert [traces.offer(Trace(query=query)) for query in "abc"] == [True, False, True]
    assert (traces.traffic()[None].unstored, traces.traffic()[None].lost) == (1, 1)


# --- replies of other kinds ---


class Form(BaseModel):
    """An answer as an object."""

    explanation: str
    answer: str


REPLIES = [
    AIMessage("Answer: B12"),
    "Answer: B12",
    {"messages": [HumanMessage("?"), AIMessage("Answer: B12")]},
    Form(explanation="E", answer="B12"),
    {"explanation": "E", "answer": "B12"},
    {"raw": AIMessage("x"), "parsed": Form(explanation="E", answer="B12"), "parsing_error": None},
]


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: type(reply).__name__)
@pytest.mark.parametrize("role", ["weak", "strong", "judge"])
def test_what_models_and_agents_return_is_read_by_one_rule(reply: Any, role: str) -> None:
    other = RunnableLambda(lambda _: "7" if role == "judge" and isinstance(reply, str) else reply)
    models: Any = {"weak": ScriptedModel(["Answer: B12"]), "strong": ScriptedModel(["Answer: B12"])}
    settings: Any = {"evaluator": judge(other)} if role == "judge" else {}
    if role != "judge":
        models[role] = other
    out = collaboration(**models, **settings).invoke({"query": "?", "reference": "B12"})
    assert "Answer: B12" in out["answer"].text
    assert isinstance(out["draft"], AIMessage)


def test_what_cannot_be_read_is_refused_with_what_can() -> None:
    graph = collaboration(strong=RunnableLambda(lambda _: 7))
    with pytest.raises(TypeError, match=r"returned int, which cannot be read .* readable are"):
        graph.invoke({"query": "?"})
    with pytest.raises(TypeError, match="returned dict"):
        as_message({"answer": object()})


@pytest.mark.parametrize("empty", ["", "  \n", None, AIMessage(""), {"messages": [AIMessage("")]}])
def test_an_empty_reply_is_a_failure_of_its_own_and_asked_again(empty: Any) -> None:
    replies = iter([empty, "Answer: B12"])
    traces = TraceStore(":memory:")
    weak = RunnableLambda(lambda _: next(replies))
    graph = create_collector(
        weak, echo(), evaluator=metric(exact_match), traces=traces, num_drafts=1
    ).compile()
    graph.invoke({"query": "?", "reference": "B12"})
    (trace,) = traces
    assert [(c.role, c.failure) for c in trace.failures] == [("draft", "empty")]
    assert (trace.complete, trace.attempts[0].draft) == (False, None)
    graph.invoke({"query": "?", "reference": "B12"})
    (trace,) = traces
    assert (trace.complete, trace.attempts[0].draft) == (True, "Answer: B12")


def test_an_empty_reply_that_an_older_release_kept_is_asked_again() -> None:
    traces, weak = TraceStore(":memory:"), ScriptedModel(["Answer: B12"])
    graph = create_collector(
        weak, echo(), evaluator=metric(exact_match), traces=traces, num_drafts=1
    ).compile()
    key = graph.invoke({"query": "?", "reference": "B12"})["key"]
    (trace,) = traces
    attempt = trace.attempts[0].model_copy(update={"draft": ""})
    traces.record(trace.model_copy(update={"attempts": [attempt]}))
    assert traces.get(key).complete is False  # type: ignore[union-attr]
    graph.invoke({"query": "?", "reference": "B12"})
    assert [attempt.draft for attempt in traces.get(key).attempts] == ["Answer: B12"]  # type: ignore[union-attr]
    assert len(weak.calls) == 2


def test_a_message_that_only_calls_a_tool_is_not_empty() -> None:
    tool = {"name": "f", "args": {}, "id": "1", "type": "tool_call"}
    assert as_message(AIMessage("", tool_calls=[tool])).tool_calls
    with pytest.raises(EmptyReply):
        as_message(AIMessage([]))


# --- in other chains and graphs ---


def test_a_query_alone_is_enough_for_a_tool_and_messages_for_a_prompt() -> None:
    graph = collaboration()
    schema = graph.get_input_jsonschema()
    assert {"query", "messages"} <= schema["properties"].keys()
    assert not schema.get("required")
    tool = graph.as_tool(name="expert", description="Asks the expert.")
    assert tool.invoke({"query": "Which?"})["answer"].text == "Answer: B12"
    prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{x}")])
    assert (prompt | graph).invoke({"x": "Which?"})["answer"].text == "Answer: B12"


def test_a_picked_answer_streams() -> None:
    chain = collaboration().pick("answer") | StrOutputParser()
    assert "".join(chain.stream({"query": "Which?"})) == "Answer: B12"

    async def stream() -> str:
        return "".join([piece async for piece in chain.astream({"query": "Which?"})])

    assert asyncio.run(stream()) == "Answer: B12"
    tool = chain.as_tool(name="expert", description="Asks the expert.")
    assert tool.invoke({"query": "Which?"}) == "Answer: B12"
    both = collaboration().pick(["draft", "answer"]).invoke({"query": "Which?"})
    assert both.keys() == {"draft", "answer"}


def test_two_side_by_side_in_a_host_that_has_a_draft_of_its_own() -> None:
    class Host(TypedDict, total=False):
        query: str
        draft: str
        left: AIMessage
        right: AIMessage

    host = StateGraph(Host)
    for name in ("left", "right"):
        one = collaboration(strong=ScriptedModel([f"Answer: {name}"]))
        host.add_node(name, one.pick("answer") | RunnableLambda(lambda a, name=name: {name: a}))
        host.add_edge(START, name)
    for way in WAYS:
        out = call(host.compile(), way, {"query": "Which?", "draft": "mine"})
        assert (out["left"].text, out["right"].text) == ("Answer: left", "Answer: right")
        assert out["draft"] == "mine"


class SyncOnly(BaseChatModel):
    """A client without async calls, all of which must be under way at once to end."""

    gate: Any

    @property
    def _llm_type(self) -> str:
        return "sync-only"

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        self.gate.wait()
        return ChatResult(generations=[ChatGeneration(message=AIMessage("Answer: B12"))])


@pytest.mark.parametrize("role", ["weak", "strong"])
def test_sync_only_models_are_asked_as_often_at_once_as_the_caller_wants(role: str) -> None:
    """A barrier: with fewer threads than calls it would break."""
    calls = 200
    models: Any = {role: SyncOnly(gate=threading.Barrier(calls, timeout=30))}
    graph = collaboration(**models)

    async def ask() -> list[Any]:
        return await asyncio.gather(*(graph.ainvoke({"query": "?"}) for _ in range(calls)))

    assert [out["answer"].text for out in asyncio.run(ask())] == ["Answer: B12"] * calls


def test_node_timeouts_hold_where_calls_are_async() -> None:
    async def slow(_: Any) -> AIMessage:
        await asyncio.sleep(30)
        return AIMessage("Answer: late")

    def with_timeout(seconds: float, **settings: Any) -> Any:
        graph = create_collaboration(
            ScriptedModel(["Answer: x"]), RunnableLambda(lambda _: AIMessage("y"), slow), **settings
        )
        return graph.set_node_defaults(timeout=seconds).compile()

    with pytest.raises(NodeTimeoutError):
        asyncio.run(with_timeout(0.6).ainvoke({"query": "?"}))
    out = asyncio.run(with_timeout(0.6, on_strong_failure="draft").ainvoke({"query": "?"}))
    assert out["answer"].text == "Answer: x"
