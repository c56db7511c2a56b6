"""The collaboration as a chat model, alone and in an agent."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langchain_tests.unit_tests import ChatModelUnitTests
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from cowest_graph import (
    CollaborationMiddleware,
    CollaborativeChatModel,
    TraceStore,
    as_tool,
    create_collaboration,
)
from cowest_graph.testing import ScriptedModel

WAYS = ["sync", "async"]
DRAFT, ANSWER = "The library closes at 17.", "It is open until five."
CALL = {"name": "opening_hours", "args": {"day": "Monday"}, "id": "c1", "type": "tool_call"}


@tool
def opening_hours(day: str) -> str:
    """When the library is open."""
    return f"{day}: from 9 to 17"


def scripted(strong: Any = None, **fields: Any) -> CollaborativeChatModel:
    weak = ScriptedModel([DRAFT], version="v0003")
    return CollaborativeChatModel(weak=weak, strong=strong or ScriptedModel([ANSWER]), **fields)


class TestStandard(ChatModelUnitTests):
    """LangChain's own, on a scripted pair."""

    chat_model_class = CollaborativeChatModel
    supports_model_override = False  # which model answers is the pair's

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"weak": ScriptedModel([DRAFT]), "strong": ScriptedModel([ANSWER])}


def streamed(model: Any, way: str, given: Any, config: Any = None) -> list[AIMessageChunk]:
    if way == "sync":
        return list(model.stream(given, config))

    async def every() -> list[AIMessageChunk]:
        return [chunk async for chunk in model.astream(given, config)]

    return asyncio.run(every())


@pytest.mark.parametrize("way", WAYS)
def test_it_answers_after_the_draft_and_says_what_it_took(way: str, tmp_path: Path) -> None:
    with TraceStore(tmp_path / "traces.db") as traces:
        model = scripted(settings={"traces": traces})
        said = model.invoke("When?") if way == "sync" else asyncio.run(model.ainvoke("When?"))
        (trace,) = traces
    assert said.text == ANSWER
    about = said.response_metadata
    assert (about["trace_key"], about["weak_version"]) == (trace.key, "v0003")
    parts = about["usage_by_model"]
    assert said.usage_metadata is not None
    for name in ("input_tokens", "output_tokens"):
        assert said.usage_metadata[name] == parts["weak"][name] + parts["strong"][name] > 0
    assert DRAFT in model.strong.calls[0][-1].text


@pytest.mark.parametrize("way", WAYS)
def test_it_streams_the_answer_and_nothing_of_the_draft(way: str) -> None:
    chunks = streamed(scripted(), way, "When?")
    assert len(chunks) > 4
    whole = sum(chunks[1:], chunks[0])
    assert whole.text == ANSWER
    assert whole.usage_metadata == scripted().invoke("When?").usage_metadata
    assert whole.response_metadata["weak_version"] == "v0003"


@pytest.mark.parametrize("way", WAYS)
def test_the_draft_is_a_reasoning_block_where_asked_for(way: str) -> None:
    model = scripted(reasoning=True)
    blocks = [
        {"type": "reasoning", "reasoning": DRAFT},
        {"type": "text", "text": ANSWER},
    ]
    assert model.invoke("When?").content_blocks == blocks
    chunks = streamed(model, way, "When?")
    whole = sum(chunks[1:], chunks[0])
    found = [{k: v for k, v in b.items() if k != "index"} for b in whole.content_blocks]
    assert found == blocks
    assert whole.text == ANSWER


def test_tools_are_the_strong_models_to_call() -> None:
    strong = ScriptedModel([AIMessage("", tool_calls=[CALL])])
    model = scripted(strong).bind_tools([opening_hours])
    assert model.invoke("When?").tool_calls == [CALL]
    assert strong.arguments[0]["tools"][0]["function"]["name"] == "opening_hours"
    chunks = streamed(model, "sync", "When?")
    assert sum(chunks[1:], chunks[0]).tool_calls == [CALL]


def test_a_structured_answer() -> None:
    class Hours(BaseModel):
        """When it is open."""

        until: int

    call = {"name": "Hours", "args": {"until": 17}, "id": "h1", "type": "tool_call"}
    strong = ScriptedModel([AIMessage("", tool_calls=[call])])
    model = scripted(strong).with_structured_output(Hours)
    assert model.invoke("When?") == Hours(until=17)


def test_a_model_that_streams_nothing_is_given_as_one_piece() -> None:
    from langchain_core.runnables import RunnableLambda

    model = scripted(RunnableLambda(lambda _: AIMessage(ANSWER)))
    assert [chunk.text for chunk in streamed(model, "sync", "When?")] == [ANSWER, ""]


@pytest.mark.parametrize("way", WAYS)
def test_a_trace_knows_the_calls_thread_and_user(way: str, tmp_path: Path) -> None:
    run_id = uuid.uuid4()
    config: Any = {
        "run_id": run_id,
        "configurable": {"thread_id": "t1"},
        "metadata": {"cowest": {"user": "ada"}},
    }
    with TraceStore(tmp_path / "traces.db") as traces:
        model = scripted(settings={"traces": traces})
        model.invoke("When?", config)
        streamed(model, way, "When?", config)
        found = list(traces.query(thread_id="t1", user="ada"))
    assert len(found) == 2
    assert found[0].run_id == str(run_id)


def chat(messages: Any) -> Any:
    """A strong model that asks a tool once, and then answers."""
    if messages[-1].type == "human" and not any(m.type == "tool" for m in messages):
        return AIMessage("", tool_calls=[CALL])
    return ANSWER


def agent(strong: ScriptedModel, **settings: Any) -> Any:
    model = scripted(strong, settings=settings)
    return create_agent(
        model, [opening_hours], system_prompt="Be brief.", checkpointer=InMemorySaver()
    )


@pytest.mark.parametrize("way", WAYS)
def test_an_agent_runs_its_tools_and_remembers(way: str, tmp_path: Path) -> None:
    strong, thread = ScriptedModel(chat), {"configurable": {"thread_id": "t1"}}
    with TraceStore(tmp_path / "traces.db") as traces:
        served = agent(strong, traces=traces)
        first = {"messages": [HumanMessage("Until when on Monday?")]}
        if way == "sync":
            out = served.invoke(first, thread)
        else:
            out = asyncio.run(served.ainvoke(first, thread))
        assert [m.type for m in out["messages"]] == ["human", "ai", "tool", "ai"]
        out = served.invoke({"messages": [HumanMessage("Thanks. Again?")]}, thread)
        assert out["messages"][-1].text == ANSWER
        assert len(list(traces.query(thread_id="t1"))) == 3
    last = strong.calls[-1]
    assert [m.type for m in last] == ["system", "human", "ai", "tool", "ai", "human"]
    assert "Again?" in last[-1].text


@pytest.mark.parametrize("way", WAYS)
def test_an_agent_streams_the_answer_alone(way: str) -> None:
    served, thread = agent(ScriptedModel(chat)), {"configurable": {"thread_id": "t1"}}
    given = {"messages": [HumanMessage("Until when?")]}
    if way == "sync":
        parts = list(served.stream(given, thread, stream_mode=["messages", "custom"]))
    else:

        async def every() -> list[Any]:
            modes = ["messages", "custom"]
            return [part async for part in served.astream(given, thread, stream_mode=modes)]

        parts = asyncio.run(every())
    said = [m for mode, (m, _) in ((k, v) for k, v in parts if k == "messages")]
    text = "".join(m.text for m in said if isinstance(m, AIMessageChunk))
    assert text == ANSWER
    assert not any(DRAFT in m.text for m in said)
    assert sum(isinstance(m, AIMessage) and not isinstance(m, AIMessageChunk) for m in said) == 0
    steps = [event["cowest"]["step"] for mode, event in parts if mode == "custom"]
    assert steps == ["drafting", "refining"] * 2


@pytest.mark.parametrize("way", WAYS)
def test_middleware_drafts_before_the_agents_model(way: str, tmp_path: Path) -> None:
    strong, thread = ScriptedModel(chat), {"configurable": {"thread_id": "t1"}}
    with TraceStore(tmp_path / "traces.db") as traces:
        drafting = CollaborationMiddleware(ScriptedModel([DRAFT], version="v0003"), traces=traces)
        served = create_agent(
            strong, [opening_hours], middleware=[drafting], checkpointer=InMemorySaver()
        )
        given = {"messages": [HumanMessage("Until when?")]}
        if way == "sync":
            out = served.invoke(given, thread)
        else:
            out = asyncio.run(served.ainvoke(given, thread))
        (trace,) = traces.query(thread_id="t1")
    assert [m.type for m in out["messages"]] == ["human", "ai", "tool", "ai"]
    assert all(DRAFT in call[-1].text for call in strong.calls)
    assert all(DRAFT not in m.text for m in out["messages"])  # notes are no turn of the thread
    (attempt,) = trace.attempts
    assert (attempt.draft, attempt.answer, attempt.weak_version) == (DRAFT, ANSWER, "v0003")
    assert trace.query == "Until when?"
    assert [turn["role"] for turn in trace.history] == ["user", "assistant", "tool"]


def test_middleware_whose_draft_fails_costs_no_answer(tmp_path: Path) -> None:
    with TraceStore(tmp_path / "traces.db") as traces:
        drafting = CollaborationMiddleware(ScriptedModel([ConnectionError("gone")]), traces=traces)
        served = create_agent(ScriptedModel([ANSWER]), [], middleware=[drafting])
        out = served.invoke({"messages": [HumanMessage("Until when?")]})
        (trace,) = traces
    assert out["messages"][-1].text == ANSWER
    assert trace.failures[0].role == "draft"


def test_a_tool_gives_the_answer_and_an_artifact_and_streams_nothing(tmp_path: Path) -> None:
    with TraceStore(tmp_path / "traces.db") as traces:
        graph = create_collaboration(
            ScriptedModel([DRAFT], version="v0003"), ScriptedModel([ANSWER]), traces=traces
        )
        expert = as_tool(graph, "expert", "Knows the library.")
        call = {"name": "expert", "args": {"query": "When?"}, "id": "e1", "type": "tool_call"}
        message = expert.invoke(call)
        model = ScriptedModel([AIMessage("", tool_calls=[call]), "So: five."])
        served = create_agent(model, [expert], checkpointer=InMemorySaver())
        given, thread = {"messages": [HumanMessage("When?")]}, {"configurable": {"thread_id": "1"}}
        parts = list(served.stream(given, thread, stream_mode="messages"))
        first, second = traces
    assert message.content == ANSWER
    assert message.artifact == {"draft": DRAFT, "weak_version": "v0003", "trace_key": first.key}
    text = "".join(m.text for m, _ in parts if isinstance(m, AIMessageChunk))
    assert text == "So: five."
    assert second.thread_id == "1"


def test_middleware_has_nothing_to_draft_where_nobody_asks() -> None:
    weak = ScriptedModel([DRAFT])
    served = create_agent(ScriptedModel([ANSWER]), [], middleware=[CollaborationMiddleware(weak)])
    out = served.invoke({"messages": [AIMessage("Welcome.")]})
    assert out["messages"][-1].text == ANSWER
    assert not weak.calls


def test_handlers_that_count_see_one_call_and_tracers_see_those_within() -> None:
    counted, traced = UsageMetadataCallbackHandler(), RunCollectorCallbackHandler()
    config: Any = {"callbacks": [counted, traced]}
    said = scripted().invoke("When?", config)
    (invoked,) = traced.traced_runs
    list(scripted().stream("When?", config))  # LangChain tells a stream nothing of the run it is
    (usage,) = counted.usage_metadata.values()
    assert said.usage_metadata is not None
    assert usage["total_tokens"] == 2 * said.usage_metadata["total_tokens"]

    def models(run: Any) -> int:
        return (run.run_type == "llm") + sum(models(child) for child in run.child_runs)

    assert models(invoked) == 3


@pytest.mark.parametrize("within", ["chain", "agent"])
async def test_a_handler_of_what_is_around_sees_one_call_a_turn(within: str) -> None:
    class Counts(BaseCallbackHandler):
        begun = 0

        def on_chat_model_start(self, *_: Any, **__: Any) -> None:
            self.begun += 1

    def app() -> Any:
        if within == "chain":
            return scripted() | RunnableLambda(lambda said: said)
        return create_agent(scripted(), [])

    given: Any = "When?" if within == "chain" else {"messages": [("human", "When?")]}
    for way in ("invoke", "ainvoke", "stream", "astream"):
        counts = Counts()
        said = getattr(app(), way)(given, {"callbacks": [counts]})
        if way == "stream":
            list(said)
        elif way == "astream":
            [part async for part in said]
        else:
            said = await said if way == "ainvoke" else said
        assert counts.begun == 1, way
