"""What an app sees while a pass runs, and whose pass it was."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from cowest_graph import TraceStore, create_collaboration
from cowest_graph.testing import ScriptedModel

WAYS = ["sync", "async"]
DRAFT, ANSWER = "Answer: 7 or so", "Explanation: 6 and 1.\nAnswer: 7"
GIVEN = {"messages": [HumanMessage("6 + 1?")]}


def collaboration(**settings: Any) -> Any:
    weak = ScriptedModel([DRAFT], version="v0003")
    return create_collaboration(weak, ScriptedModel([ANSWER]), **settings).compile()


def alone(collaborating: Any) -> Any:
    """The collaboration without a host."""
    return collaborating


def as_node(collaborating: Any) -> Any:
    """The collaboration as a node of a host."""
    host = StateGraph(MessagesState)
    host.add_node("expert", collaborating)
    host.add_edge(START, "expert")
    return host.compile(checkpointer=InMemorySaver())


def called_in_a_node(collaborating: Any) -> Any:
    """The collaboration invoked by a function of a host."""

    def expert(state: MessagesState) -> dict[str, Any]:
        out = collaborating.invoke({"messages": state["messages"]})
        return {"messages": [out["answer"]]}

    async def aexpert(state: MessagesState) -> dict[str, Any]:
        out = await collaborating.ainvoke({"messages": state["messages"]})
        return {"messages": [out["answer"]]}

    host = StateGraph(MessagesState)
    host.add_node("expert", RunnableLambda(expert, aexpert))
    host.add_edge(START, "expert")
    return host.compile(checkpointer=InMemorySaver())


def streamed(graph: Any, way: str, mode: Any, config: Any = None, **settings: Any) -> list[Any]:
    config = config or {"configurable": {"thread_id": "1"}}
    if way == "sync":
        return list(graph.stream(GIVEN, config, stream_mode=mode, **settings))

    async def every() -> list[Any]:
        return [part async for part in graph.astream(GIVEN, config, stream_mode=mode, **settings)]

    return asyncio.run(every())


def said(parts: list[Any]) -> str:
    return "".join(message.text for message, _ in parts if isinstance(message, AIMessageChunk))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("host", [as_node, called_in_a_node])
def test_messages_are_the_answers_tokens_and_nothing_of_the_draft(
    host: Callable[[Any], Any], way: str
) -> None:
    parts = streamed(host(collaboration()), way, "messages")
    chunks = [message for message, _ in parts]
    assert said(parts) == ANSWER
    assert len(chunks) > 3  # tokens
    assert {message.id for message in chunks} == {chunks[0].id}  # and the whole not once more
    assert all("cowest:answer" in about["tags"] for _, about in parts)
    assert {about["langgraph_node"] for _, about in parts} == {"expert"}


@pytest.mark.parametrize("way", WAYS)
def test_without_a_host_each_node_streams_what_it_says(way: str) -> None:
    parts = streamed(collaboration(), way, "messages")
    for node, text, tag in (("draft", DRAFT, "draft"), ("refine", ANSWER, "answer")):
        own = [part for part in parts if part[1]["langgraph_node"] == node]
        assert said(own) == text
        assert all(f"cowest:{tag}" in about["tags"] for _, about in own)


@pytest.mark.parametrize("way", WAYS)
def test_with_subgraphs_each_message_is_where_it_is_made(way: str) -> None:
    parts = streamed(as_node(collaboration()), way, "messages", subgraphs=True)
    for node, text in (("draft", DRAFT), ("refine", ANSWER)):
        assert said([part for _, part in parts if part[1]["langgraph_node"] == node]) == text
    assert {namespace[0].split(":")[0] for namespace, _ in parts if namespace} == {"expert"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("host", [alone, as_node, called_in_a_node])
def test_custom_events_tell_the_steps_with_the_version(
    host: Callable[[Any], Any], way: str
) -> None:
    events = streamed(host(collaboration()), way, "custom")
    assert [(e["cowest"]["step"], e["cowest"]["weak_version"]) for e in events] == [
        ("drafting", "v0003"),
        ("refining", "v0003"),
    ]
    assert len({event["cowest"]["trace_key"] for event in events}) == 1


def test_the_strong_models_own_answer_is_streamed_where_the_draft_failed() -> None:
    weak = ScriptedModel([ConnectionError("gone")])
    graph = create_collaboration(weak, ScriptedModel([ANSWER])).compile()
    assert said(streamed(as_node(graph), "sync", "messages")) == ANSWER
    events = streamed(as_node(graph), "sync", "custom")
    assert [event["cowest"]["step"] for event in events] == ["drafting", "answering alone"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("host", [alone, as_node, called_in_a_node])
def test_a_trace_knows_whose_run_it_was(
    host: Callable[[Any], Any], way: str, tmp_path: Path
) -> None:
    run_id = uuid.uuid4()
    config: Any = {
        "run_id": run_id,
        "configurable": {"thread_id": "t1"},
        "metadata": {"cowest": {"user": "ada", "tenant": "lab", "tags": ["beta"]}},
    }
    with TraceStore(tmp_path / "traces.db") as traces:
        graph = host(collaboration(traces=traces))
        streamed(graph, way, "values", config)
        streamed(graph, way, "values", {"configurable": {"thread_id": "t2"}})
        (trace,) = traces.query(thread_id="t1")
        (other,) = traces.query(thread_id="t2")
        for wanted in (
            {"run_id": str(run_id)},
            {"user": "ada"},
            {"tenant": "lab"},
            {"tag": "beta"},
        ):
            assert list(traces.query(**wanted)) == [trace]
    whose = (trace.run_id, trace.thread_id, trace.user, trace.tenant, trace.tags)
    assert whose == (str(run_id), "t1", "ada", "lab", ["beta"])
    assert (other.user, other.tenant, other.tags) == (None, None, [])


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("ada", "must be a mapping"),
        ({"users": "ada"}, "there are: user, tenant, tags"),
        ({"tags": "beta"}, "must be a list of texts"),
    ],
)
def test_metadata_of_another_form_is_refused_before_a_call(told: Any, reason: str) -> None:
    weak = ScriptedModel([DRAFT])
    graph = create_collaboration(weak, ScriptedModel([ANSWER])).compile()
    with pytest.raises(ValueError, match=reason):
        graph.invoke(GIVEN, {"metadata": {"cowest": told}})
    assert not weak.calls


def test_the_answer_carries_its_traces_key(tmp_path: Path) -> None:
    with TraceStore(tmp_path / "traces.db") as traces:
        out = collaboration(traces=traces).invoke(GIVEN)
        (trace,) = traces
    answer: AIMessage = out["answer"]
    assert answer.response_metadata["trace_key"] == trace.key
    assert answer.response_metadata["weak_version"] == "v0003"
    assert out["messages"][-1].response_metadata == answer.response_metadata
