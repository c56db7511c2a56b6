"""The two graphs with scripted models: what they answer, record, resume and survive."""

import asyncio
import operator
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict

from cowest_graph import (
    Prompts,
    TraceStore,
    create_collaboration,
    create_collector,
    exact_match,
    judge,
    metric,
)
from cowest_graph.prompts import REFINE
from cowest_graph.testing import ScriptedModel

QUERY = {"query": "Which vitamin?", "reference": "B12"}


def said(messages: list[Any]) -> str:
    return str(messages[-1].content)


def strong_that_copies() -> ScriptedModel:
    """Repeats the expert's answer; alone it does not know."""

    def reply(messages: list[Any]) -> str:
        if "Expert:" not in said(messages):
            return "Explanation: unknown\nAnswer: no idea"
        answer = said(messages).split("Answer: ")[1].splitlines()[0]
        return f"Explanation: the expert says so\nAnswer: {answer}"

    return ScriptedModel(reply, model_name="strong")


def collector_of(weak: Any, traces: TraceStore, **settings: Any) -> Any:
    settings = {"evaluator": metric(exact_match), "num_drafts": 4} | settings
    strong = settings.pop("strong", None) or strong_that_copies()
    return create_collector(weak, strong, traces=traces, **settings).compile()


@pytest.fixture
def traces(tmp_path: Path) -> Any:
    with TraceStore(f"sqlite:///{tmp_path}/traces.db") as store:
        yield store


def test_the_draft_reaches_the_strong_model_and_its_answer_comes_back() -> None:
    weak, strong = ScriptedModel(["Answer: B12"]), strong_that_copies()
    out = create_collaboration(weak, strong).compile().invoke({"query": "Which vitamin?"})
    assert out["draft"].content == "Answer: B12"
    assert out["answer"].content == "Explanation: the expert says so\nAnswer: B12"
    assert "Which vitamin?" in said(strong.calls[0])
    assert isinstance(out["answer"], AIMessage)


def test_the_reference_reaches_no_model_but_the_judge() -> None:
    weak, strong, marker = ScriptedModel(["Answer: x"]), strong_that_copies(), "PLANTED-GOLD"
    judging = ScriptedModel(["7"])
    graph = create_collaboration(weak, strong, evaluator=judge(judging)).compile()
    out = graph.invoke({"query": "Which?", "reference": marker, "explanation": marker})
    assert out["score"] == 7.0
    assert marker not in str(weak.calls) + str(strong.calls)
    assert marker in str(judging.calls)


def test_a_template_that_asks_for_the_reference_is_refused() -> None:
    leaking = REFINE.__class__.from_messages([("human", "{query} {draft} {reference}")])
    with pytest.raises(ValueError, match="refine prompt asks for reference"):
        Prompts(refine=leaking)


def test_async_batch_and_pick_give_the_same_answers() -> None:
    graph = create_collaboration(ScriptedModel(["Answer: B12"]), strong_that_copies()).compile()
    sync = graph.pick("answer").batch([{"query": "a"}, {"query": "b"}], {"max_concurrency": 2})
    both = asyncio.run(graph.pick("answer").abatch([{"query": "a"}, {"query": "b"}]))
    assert [m.content for m in sync] == [m.content for m in both]


def test_in_a_chat_each_turn_is_its_own_query() -> None:
    weak = ScriptedModel(lambda messages: f"Answer: {said(messages)}")
    graph = create_collaboration(weak, strong_that_copies()).compile(checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    graph.invoke({"messages": [("human", "first")]}, thread)
    out = graph.invoke({"messages": [("human", "second")]}, thread)
    assert out["answer"].content.endswith("Answer: second")
    assert [m.type for m in out["messages"]] == ["human", "ai", "human", "ai"]


@pytest.mark.parametrize("given", [{"query": "  "}, {"messages": [("ai", "hello")]}])
def test_no_query_is_a_clear_error(given: dict[str, Any]) -> None:
    graph = create_collaboration(ScriptedModel(["a"]), ScriptedModel(["b"])).compile()
    with pytest.raises(ValueError, match="query"):
        graph.invoke(given)


def test_an_evaluator_that_fails_costs_the_score_and_not_the_answer() -> None:
    def broken(*, outputs: dict[str, Any]) -> float:
        raise RuntimeError("no metric today")

    graph = create_collaboration(
        ScriptedModel(["Answer: B12"]), strong_that_copies(), evaluator=broken
    ).compile()
    out = graph.invoke(QUERY)
    assert out["score"] is None
    assert out["answer"].content.endswith("B12")


def test_errors_of_the_models_are_raised_when_answering() -> None:
    graph = create_collaboration(
        ScriptedModel([TimeoutError("slow")]), ScriptedModel(["x"]), on_weak_failure="raise"
    ).compile()
    with pytest.raises(TimeoutError, match="slow"):
        graph.invoke(QUERY)


def test_a_json_answer_is_written_out() -> None:
    strong = ScriptedModel(['{"explanation": "Vegans lack it.", "answer": "B12"}'])
    out = create_collaboration(ScriptedModel(["x"]), strong).compile().invoke(QUERY)
    assert out["answer"].content == "Explanation: Vegans lack it.\nAnswer: B12"


def test_an_answer_is_recorded_with_what_it_cost(traces: TraceStore) -> None:
    weak = ScriptedModel(["Answer: B12"], version="v0003")
    graph = create_collaboration(
        weak, strong_that_copies(), traces=traces, evaluator=metric(exact_match), domain="food"
    ).compile()
    graph.invoke(QUERY)
    graph.invoke(QUERY)
    first, second = list(traces)
    assert (first.kind, first.domain, first.weak_version) == ("inference", "food", "v0003")
    assert first.solo is None
    assert first.key != second.key
    assert [call.role for call in first.attempts[0].calls] == ["draft", "refine", "evaluate"]
    assert first.attempts[0].score == 1.0
    assert first.attempts[0].gain is None
    assert all(call.seconds is not None for call in first.attempts[0].calls)
    assert first.attempts[0].calls[0].output_tokens == 2
    assert first.draft_prompt[-1] == {"role": "user", "content": "Which vitamin?"}


def test_algorithm_1_asks_once_alone_and_k_times_together(traces: TraceStore) -> None:
    weak = ScriptedModel(["Answer: B12", "Answer: C", "Answer: B12", "Answer: D"])
    strong = strong_that_copies()
    out = collector_of(weak, traces, strong=strong).invoke(QUERY)
    (trace,) = list(traces)
    assert trace.key == out["key"]
    assert out["trace"]["key"] == trace.key
    assert len(weak.calls) == 4
    assert len(strong.calls) == 5
    assert trace.solo_score == 0.0
    assert sorted(a.gain for a in trace.attempts if a.gain is not None) == [0, 0, 1, 1]
    assert [a.index for a in trace.attempts] == [0, 1, 2, 3]
    assert trace.complete


def test_a_finished_query_costs_nothing_again(traces: TraceStore) -> None:
    weak, strong = ScriptedModel(["Answer: B12"]), strong_that_copies()
    collector = collector_of(weak, traces, strong=strong)
    first = collector.invoke(QUERY)
    again = asyncio.run(collector.ainvoke(QUERY))
    assert again == first
    assert (len(weak.calls), len(strong.calls)) == (4, 5)
    assert len(traces) == 1


def test_another_version_is_another_trace(traces: TraceStore) -> None:
    for version in ("v0001", "v0002", "v0001"):
        collector_of(ScriptedModel(["Answer: B12"], version=version), traces).invoke(QUERY)
    assert sorted(str(t.weak_version) for t in traces) == ["v0001", "v0002"]


def test_a_bound_adapter_is_the_one_that_drafts(traces: TraceStore) -> None:
    weak = ScriptedModel(["Answer: B12"], version="v0002").bind(adapter="v0001")
    out = create_collaboration(weak, strong_that_copies()).compile().invoke(QUERY)
    assert out["draft"].response_metadata["weak_version"] == "v0001"


@pytest.mark.parametrize("bound", [False, True])
def test_a_seeded_weak_model_draws_k_different_drafts(traces: TraceStore, bound: bool) -> None:
    model = ScriptedModel(["Answer: B12"], seed=None if bound else 7)
    collector_of(model.bind(seed=7) if bound else model, traces).invoke(QUERY)
    assert sorted(a.get("seed", 7) for a in model.arguments) == [7, 8, 9, 10]


def test_a_failed_call_is_missing_and_only_it_is_asked_again(traces: TraceStore) -> None:
    replies: list[str | Exception] = ["Answer: B12", TimeoutError("slow"), "Answer: C", "Answer: D"]
    weak = ScriptedModel([*replies, "Answer: B12"])
    strong = strong_that_copies()
    collector = collector_of(weak, traces, strong=strong)
    collector.invoke(QUERY)
    (trace,) = list(traces)
    assert not trace.complete
    (missing,) = [a for a in trace.attempts if a.draft is None]
    assert missing.gain is None
    assert [call.failure for call in trace.failures] == ["timeout"]
    before = len(strong.calls)
    collector.invoke(QUERY)
    (trace,) = list(traces)
    assert trace.complete
    assert len(weak.calls) == 5
    assert len(strong.calls) == before + 1


def test_a_failed_solo_leaves_every_gain_missing(traces: TraceStore) -> None:
    def reply(messages: list[Any]) -> Any:
        return "Answer: B12" if "Expert:" in said(messages) else ConnectionError("down")

    collector_of(ScriptedModel(["Answer: B12"]), traces, strong=ScriptedModel(reply)).invoke(QUERY)
    (trace,) = list(traces)
    assert trace.solo_score is None
    assert [a.gain for a in trace.attempts] == [None] * 4
    assert [a.score for a in trace.attempts] == [1.0] * 4


def test_a_garbled_judge_is_missing_and_counted(traces: TraceStore) -> None:
    judging = ScriptedModel(["good", "really good"])
    collector_of(ScriptedModel(["Answer: x"]), traces, evaluator=judge(judging)).invoke(QUERY)
    (trace,) = list(traces)
    assert trace.solo_score is None
    assert traces.summary().failures == {"unparsable": 5}


def test_a_refused_key_ends_the_run(traces: TraceStore) -> None:
    class Refused(Exception):
        status_code = 401

    collector = collector_of(ScriptedModel([Refused("bad key")]), traces)
    with pytest.raises(Refused):
        collector.invoke(QUERY)
    assert len(traces) == 0


def test_num_drafts_below_one_is_refused(traces: TraceStore) -> None:
    with pytest.raises(ValueError, match="at least one draft"):
        collector_of(ScriptedModel(["x"]), traces, num_drafts=0)


class Host(TypedDict, total=False):
    question: str
    query: str
    messages: Annotated[list[AnyMessage], add_messages]
    answer: AIMessage
    heard: Annotated[list[str], operator.add]


def test_as_a_node_of_a_host_with_other_keys(tmp_path: Path) -> None:
    cowest = create_collaboration(ScriptedModel(["Answer: B12"]), strong_that_copies()).compile(
        name="cowest"
    )
    host = StateGraph(Host)
    host.add_node("ask", lambda state: {"query": state["question"]})
    host.add_node("cowest", cowest)
    host.add_node("hear", lambda state: {"heard": [state["answer"].content]})
    host.add_edge(START, "ask")
    host.add_edge("ask", "cowest")
    host.add_edge("cowest", "hear")
    with SqliteSaver.from_conn_string(str(tmp_path / "checkpoints.db")) as saver:
        graph = host.compile(checkpointer=saver)
        thread = {"configurable": {"thread_id": "1"}}
        out = graph.invoke({"question": "Which vitamin?"}, thread)
        assert out["heard"] == ["Explanation: the expert says so\nAnswer: B12"]
        assert graph.get_state(thread).values["answer"].content.endswith("B12")


def branch(weak_says: str) -> Any:
    cowest = create_collaboration(ScriptedModel([weak_says]), strong_that_copies()).compile()

    def ask(state: Host) -> Host:
        return {"heard": [cowest.invoke({"query": state["question"]})["answer"].content]}

    return ask


def two_branches() -> Any:
    host = StateGraph(Host)
    host.add_node("left", branch("Answer: B12"))
    host.add_node("right", branch("Answer: C"))
    host.add_edge(START, "left")
    host.add_edge(START, "right")
    return host.compile()


def test_in_two_parallel_branches_sync_and_async() -> None:
    graph = two_branches()
    sync = graph.invoke({"question": "Which?"})["heard"]
    other = asyncio.run(graph.ainvoke({"question": "Which?"}))["heard"]
    assert sorted(sync) == sorted(other)
    assert {text.split("Answer: ")[1] for text in sync} == {"B12", "C"}


def test_two_compiled_graphs_side_by_side_share_a_hosts_messages() -> None:
    class Chat(TypedDict):
        messages: Annotated[list[AnyMessage], add_messages]

    host = StateGraph(Chat)
    for name, says in (("left", "Answer: B12"), ("right", "Answer: C")):
        weak = ScriptedModel([says])
        host.add_node(name, create_collaboration(weak, strong_that_copies()).compile())
        host.add_edge(START, name)
        host.add_edge(name, END)
    out = host.compile().invoke({"messages": [("human", "Which?")]})
    assert {m.content.split("Answer: ")[1] for m in out["messages"][1:]} == {"B12", "C"}


def test_tokens_of_draft_and_refine_stream_through_a_host() -> None:
    cowest = create_collaboration(
        ScriptedModel(["Answer: B twelve"]), strong_that_copies()
    ).compile()
    host = StateGraph(Host)
    host.add_node("cowest", cowest)
    host.add_edge(START, "cowest")
    pieces: dict[str, list[str]] = {"draft": [], "refine": []}
    stream = host.compile().stream({"query": "Which?"}, stream_mode="messages", subgraphs=True)
    for _, (chunk, about) in stream:
        if about["langgraph_node"] in pieces:
            pieces[about["langgraph_node"]].append(chunk.content)
    assert "".join(pieces["draft"]) == "Answer: B twelve"
    assert [piece for piece in pieces["draft"] if piece] == ["Answer: ", "B ", "twelve"]
    assert len(pieces["refine"]) > 3


@pytest.mark.parametrize("inside_a_host", [False, True])
def test_it_resumes_after_an_interrupt_before_refine(tmp_path: Path, inside_a_host: bool) -> None:
    weak, strong = ScriptedModel(["Answer: B12"]), strong_that_copies()
    uncompiled = create_collaboration(weak, strong)
    thread = {"configurable": {"thread_id": "1"}}
    with SqliteSaver.from_conn_string(str(tmp_path / "checkpoints.db")) as saver:
        if inside_a_host:
            host = StateGraph(Host)
            host.add_node("cowest", uncompiled.compile(interrupt_before=["refine"]))
            host.add_edge(START, "cowest")
            graph = host.compile(checkpointer=saver)
        else:
            graph = uncompiled.compile(checkpointer=saver, interrupt_before=["refine"])
        graph.invoke({"query": "Which?"}, thread)
        assert (len(weak.calls), len(strong.calls)) == (1, 0)
        out = graph.invoke(None, thread)
    assert out["answer"].content.endswith("B12")
    assert (len(weak.calls), len(strong.calls)) == (1, 1)
