"""A conversation before the query: who sees what of it, what is cut, what is kept."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langgraph.checkpoint.memory import InMemorySaver

from cowest_graph import (
    Trace,
    TraceStore,
    create_collaboration,
    create_collector,
    exact_match,
    metric,
)
from cowest_graph.collecting import collect, read_queries
from cowest_graph.conversation import fitting, parted
from cowest_graph.prompts import Prompts
from cowest_graph.testing import ScriptedModel
from cowest_graph.traces import trace_key
from trainer import demonstrations, preferences

CALL = {"name": "opening_hours", "args": {"day": "Monday"}, "id": "1"}
TALK: list[BaseMessage] = [
    SystemMessage("You serve a library."),
    HumanMessage("Is it open?"),
    AIMessage("", tool_calls=[CALL]),
    ToolMessage("from 9 to 17", tool_call_id="1"),
    AIMessage("Yes."),
    HumanMessage("Until when?"),
]


def pair(**settings: Any) -> tuple[ScriptedModel, ScriptedModel]:
    weak = ScriptedModel(["Answer: 17"], **settings)
    return weak, ScriptedModel(["Explanation: it closes then.\nAnswer: 17"])


def shape(messages: list[BaseMessage]) -> list[str]:
    return [message.type for message in messages]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_both_models_see_the_conversation_in_its_roles_and_the_query_last(way: str) -> None:
    weak, strong = pair()
    graph = create_collaboration(weak, strong).compile()
    if way == "sync":
        out = graph.invoke({"messages": TALK})
    else:
        out = asyncio.run(graph.ainvoke({"messages": TALK}))
    (drafted,), (refined,) = weak.calls, strong.calls
    assert shape(refined) == ["system", "human", "ai", "tool", "ai", "human"]
    assert refined[0].text == "You serve a library."
    assert refined[2].tool_calls[0]["name"] == "opening_hours"
    assert "Question: Until when?" in refined[-1].text
    assert "Answer: 17" in refined[-1].text
    # The weak model sees tools in words, and its own instruction after the host's.
    assert shape(drafted) == ["system", "human", "ai", "human", "ai", "human"]
    assert drafted[0].text.startswith("You serve a library.\n\nExplain in one sentence")
    assert '"name": "opening_hours"' in drafted[2].text
    assert "from 9 to 17" in drafted[3].text
    assert drafted[-1].text == "Until when?"
    assert out["messages"][-1] is out["answer"]


def test_after_a_tool_the_query_is_asked_once_more() -> None:
    history, query = parted(TALK[:4])
    assert query == "Is it open?"
    assert history == TALK[:4]


def test_a_given_query_is_asked_after_the_messages_or_instead_of_a_last_human_turn() -> None:
    assert parted(TALK[:5], "And on Sunday?") == (TALK[:5], "And on Sunday?")
    assert parted(TALK, "And on Sunday?") == (TALK[:5], "And on Sunday?")


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([*TALK[1:], TALK[0]], "message 6 of 6 is a system message in the middle"),
        ([HumanMessage("a"), ToolMessage("b", tool_call_id="7")], "tool call '7', and no message"),
        ([SystemMessage("a"), AIMessage("b")], "with a human turn .messages here: system, ai"),
        ([HumanMessage("  ")], "the query is empty"),
    ],
)
def test_what_is_no_conversation_is_refused(messages: list[BaseMessage], reason: str) -> None:
    weak, strong = pair()
    with pytest.raises(ValueError, match=reason):
        create_collaboration(weak, strong).compile().invoke({"messages": messages})
    assert not weak.calls


def test_a_thread_remembers_what_was_said() -> None:
    weak, strong = pair()
    graph = create_collaboration(weak, strong).compile(checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "1"}}
    graph.invoke({"messages": [SystemMessage("Be brief."), HumanMessage("One?")]}, thread)
    graph.invoke({"messages": [HumanMessage("Two?")]}, thread)
    out = graph.invoke({"query": "Three?"}, thread)
    seen = strong.calls[-1]
    assert shape(seen) == ["system", "human", "ai", "human", "ai", "human"]
    assert [m.text for m in seen if m.type == "human"][:2] == ["One?", "Two?"]
    assert "Three?" in seen[-1].text
    assert [m.text for m in out["messages"] if m.type == "human"] == ["One?", "Two?", "Three?"]


def test_a_placeholder_says_where_the_conversation_stands() -> None:
    weak, strong = pair()
    before = ChatPromptTemplate.from_messages(
        [
            ("system", "Draft."),
            ("human", "Here is a talk."),
            MessagesPlaceholder("history"),
            ("human", "{query}"),
        ]
    )
    prompts = Prompts(draft=before)
    graph = create_collaboration(weak, strong, prompts=prompts).compile()
    graph.invoke({"messages": TALK[4:]})
    graph.invoke({"query": "Alone?"})
    assert [m.text for m in weak.calls[0]] == ["Draft.", "Here is a talk.", "Yes.", "Until when?"]
    assert [m.text for m in weak.calls[1]] == ["Draft.", "Here is a talk.", "Alone?"]
    with pytest.raises(ValueError, match="the draft prompt asks for reference"):
        Prompts(draft=ChatPromptTemplate.from_messages([("human", "{query} {reference}")]))


def words(limit: int) -> Any:
    """A model that takes so many tokens, of which each word is one."""

    class Short(ScriptedModel):
        def prompt_limit(self) -> int:
            return limit

        def count_tokens(self, text: str) -> int:
            return len(text.split())

    return Short(["Answer: 17"])


def test_the_oldest_turns_go_first_and_the_system_message_stays() -> None:
    turns = [
        message
        for n in range(20)
        for message in (HumanMessage(f"question {n}"), AIMessage(f"answer {n}"))
    ]
    asked = [HumanMessage("the last one")]
    kept = fitting([SystemMessage("Be brief."), *turns], asked, words(100))
    assert shape(kept[:2]) == ["system", "human"]
    assert kept[1:] == turns[-len(kept) + 1 :]
    assert 2 < len(kept) < 12
    assert fitting([SystemMessage("Be brief."), *turns], asked, ScriptedModel(["x"])) == [
        SystemMessage("Be brief."),
        *turns,
    ]


def test_a_system_message_that_no_context_takes_costs_no_call_and_is_recorded(
    tmp_path: Path,
) -> None:
    weak, strong = words(50), ScriptedModel(["Answer: 17"])
    with TraceStore(tmp_path / "traces.db") as traces:
        graph = create_collaboration(weak, strong, traces=traces, on_weak_failure="raise").compile()
        long = SystemMessage("word " * 60)
        with pytest.raises(ValueError, match="takes 50 at most"):
            graph.invoke({"messages": [long, HumanMessage("a"), AIMessage("b"), HumanMessage("c")]})
        (trace,) = traces
    assert trace.failures[0].role == "draft"
    assert not weak.calls


def test_a_trace_keeps_what_was_asked_and_what_the_weak_model_saw(tmp_path: Path) -> None:
    weak, strong = pair()
    with TraceStore(tmp_path / "traces.db") as traces:
        graph = create_collaboration(weak, strong, traces=traces).compile()
        graph.invoke({"messages": TALK})
        (trace,) = traces
        traces.to_jsonl(tmp_path / "traces.jsonl")
        with TraceStore(":memory:") as other:
            other.from_jsonl(tmp_path / "traces.jsonl")
            other.from_dataset(traces.to_dataset())
            assert list(other) == [trace]
    assert trace.query == "Until when?"
    assert [turn["role"] for turn in trace.history] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    roles = {"human": "user", "ai": "assistant"}
    assert trace.draft_prompt == [
        {"role": roles.get(m.type, m.type), "content": m.text} for m in weak.calls[0]
    ]


def test_training_rows_are_what_the_weak_model_saw(tmp_path: Path) -> None:
    weak = ScriptedModel(["Answer: 17", "Answer: 18"])
    strong = ScriptedModel(
        lambda said: "Answer: 17" if "Answer: 17" in said[-1].text else "Answer: 18"
    )
    turns = [("user", "Open?"), ("assistant", "Yes."), ("user", "Until?")]
    row = {"messages": [{"role": role, "content": text} for role, text in turns]}
    given = [{**row, "reference": "17"}, {"query": "Until?", "reference": "17"}]
    with TraceStore(tmp_path / "traces.db") as traces:
        collector = create_collector(
            weak, strong, evaluator=metric(exact_match), traces=traces, num_drafts=2
        ).compile()
        list(collect(collector, given, max_concurrency=1))
        talk, alone = sorted(traces, key=lambda trace: not trace.history)
        (pair_row, *_) = preferences([talk])
    assert talk.key != alone.key
    assert [turn["content"] for turn in pair_row["prompt"]][1:] == ["Open?", "Yes.", "Until?"]
    (shown,) = demonstrations(given[:1])
    assert shown["prompt"] == pair_row["prompt"]


def test_a_row_of_messages_is_read_and_a_wrong_one_told(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    given: list[Any] = [[*talk, {"role": "user", "content": "c"}], talk[1:], "c", [{"role": "x"}]]
    file.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in given))
    rows, bad = read_queries(file, skip_bad=True)
    assert [row["query"] for row in rows] == ["c"]
    assert [turn["content"] for turn in rows[0]["messages"]] == ["a", "b"]
    assert [line.split(": ", 1)[1][:20] for line in bad] == [
        "no query: give `quer",
        "messages must be a l",
        "messages cannot be r",
    ]


def test_a_single_query_is_what_it_was() -> None:
    named = {"query": "6 + 1?", "reference": "7", "domain": "sums", "weak": "w"}
    named |= {"weak_version": "v0001", "strong": "s", "evaluator": "exact_match", "prompts": "p"}
    key = trace_key(**named, style="answer", num_drafts=5)
    assert key == "4b75ed8df96b9d4c02fcf89f1e9760d830505bea09e8e2758218344c61477642"
    assert Prompts().version == "bbbed31df4aa"
    assert Trace(**named, style="answer", num_drafts=5).key == key
    assert trace_key(**named, style="answer", num_drafts=5, history=[{"role": "user"}]) != key
