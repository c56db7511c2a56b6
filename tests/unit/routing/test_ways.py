"""The three ways of a graph: who is asked, what is shown, what is kept, and what failures do."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from cowest_graph import (
    CollaborativeChatModel,
    Trace,
    TraceStore,
    create_collaboration,
    exact_match,
    metric,
)
from cowest_graph.routing.seen import Seen
from cowest_graph.testing import ScriptedModel
from cowest_graph.traces import Route

WAYS = ["sync", "async"]
DRAFT, ANSWER = "Answer: 7 or so", "Explanation: 6 and 1.\nAnswer: 7"


class Fixed:
    """A router that always says the same, and keeps what it saw."""

    def __init__(self, way: Any, *, after_draft: bool, **wants: bool) -> None:
        self.way, self.after_draft = way, after_draft
        self.logprobs, self.second = wants.get("logprobs", False), wants.get("second", False)
        self.seen: list[Seen] = []

    def decide(self, seen: Seen, key: str) -> Route:
        self.seen.append(seen)
        if isinstance(self.way, Exception):
            raise self.way
        return Route(way=self.way, propensity=0.9, router="r0001", expected={"weak": 0.5})


def run(graph: Any, way: str, given: Any, config: Any = None) -> Any:
    if way == "sync":
        return graph.invoke(given, config)
    return asyncio.run(graph.ainvoke(given, config))


class Asked:
    """A collaboration with a route, its models and its store."""

    def __init__(
        self, router: Any, *, weak: Any = None, strong: Any = None, saver: Any = None, **more: Any
    ) -> None:
        self.weak = weak or ScriptedModel([DRAFT], version="v0003")
        self.strong = strong or ScriptedModel([ANSWER])
        self.traces = TraceStore(":memory:")
        self.graph = create_collaboration(
            self.weak,
            self.strong,
            traces=self.traces,
            evaluator=metric(exact_match),
            route=router,
            **more,
        ).compile(checkpointer=saver)

    @property
    def trace(self) -> Trace:
        (found,) = self.traces
        return found


@pytest.mark.parametrize("run_way", WAYS)
@pytest.mark.parametrize("after", [False, True])
def test_the_weak_model_alone_costs_no_strong_call(run_way: str, after: bool) -> None:
    asked = Asked(Fixed("weak", after_draft=after))
    out = run(asked.graph, run_way, {"query": "6 + 1?", "reference": "7 or so"})
    assert (out["answer"].text, out["draft"].text, out["score"]) == (DRAFT, DRAFT, 1.0)
    assert asked.strong.calls == []
    assert len(asked.weak.calls) == 1
    (attempt,) = asked.trace.attempts
    assert (attempt.draft, attempt.draft_score) == (DRAFT, 1.0)
    # An answer of the strong model there was none: nothing here is a gain, or a row to train on.
    assert (attempt.answer, attempt.score, asked.trace.solo, attempt.gain) == (None,) * 4
    assert asked.trace.complete


@pytest.mark.parametrize("run_way", WAYS)
@pytest.mark.parametrize("after", [False, True])
def test_the_strong_model_alone_is_kept_as_the_solo_answer(run_way: str, after: bool) -> None:
    asked = Asked(Fixed("strong", after_draft=after))
    out = run(asked.graph, run_way, {"query": "6 + 1?", "reference": "7"})
    assert (out["answer"].text, out["score"]) == (ANSWER, 1.0)
    assert len(asked.weak.calls) == int(after)
    assert "Expert" not in asked.strong.calls[0][-1].text
    trace = asked.trace
    assert (trace.solo, trace.solo_score, trace.complete) == (ANSWER, 1.0, True)
    assert [attempt.draft for attempt in trace.attempts] == [DRAFT] * after
    assert [attempt.answer for attempt in trace.attempts] == [None] * after
    assert [call.role for call in trace.calls] == ["solo", "evaluate"]


@pytest.mark.parametrize("run_way", WAYS)
@pytest.mark.parametrize("after", [False, True])
def test_both_is_what_it_is_without_a_route(run_way: str, after: bool) -> None:
    asked, plain = Asked(Fixed("both", after_draft=after)), Asked(None)
    given = {"query": "6 + 1?", "reference": "7"}
    outs = [run(each.graph, run_way, given) for each in (asked, plain)]
    assert [out["answer"].text for out in outs] == [ANSWER] * 2
    assert asked.strong.calls == plain.strong.calls
    assert asked.weak.calls == plain.weak.calls
    ours, theirs = asked.trace.attempts[0], plain.trace.attempts[0]
    assert (ours.draft, ours.answer, ours.score) == (theirs.draft, theirs.answer, theirs.score)
    assert plain.trace.route is None
    assert asked.trace.route == Route(
        way="both", propensity=0.9, router="r0001", expected={"weak": 0.5}
    )


def test_without_a_route_the_graph_is_as_before() -> None:
    graph = create_collaboration(ScriptedModel([DRAFT]), ScriptedModel([ANSWER]))
    assert set(graph.nodes) >= {"begin", "draft", "refine", "alone", "record"}
    assert not {"route", "keep", "draft_alone", "second"} & set(graph.nodes)
    assert "route" not in graph.compile().get_output_jsonschema()["properties"]
    assert "route" not in graph.channels


def test_it_sees_the_draft_only_where_it_wants_to() -> None:
    before, after = Fixed("both", after_draft=False), Fixed("both", after_draft=True)
    for router in (before, after):
        Asked(router).graph.invoke({"query": "6 + 1?", "domain": "sums"})
    assert before.seen == [Seen("6 + 1?", "sums")]
    assert after.seen == [Seen("6 + 1?", "sums", DRAFT)]


def test_the_weak_model_is_asked_for_what_the_router_reads() -> None:
    told = {"content": [{"token": "7", "logprob": -0.5}, {"token": "!", "logprob": -1.0}]}

    class Telling(ScriptedModel):
        def _reply(self, messages: Any, arguments: dict[str, Any]) -> AIMessage:
            said = super()._reply(messages, arguments)
            more = {"logprobs": told} if arguments.get("logprobs") else {}
            return said.model_copy(update={"response_metadata": said.response_metadata | more})

    router = Fixed("weak", after_draft=True, logprobs=True)
    asked = Asked(router, weak=Telling([DRAFT]))
    out = asked.graph.invoke({"query": "6 + 1?"})
    assert router.seen[0].logprobs == (-0.5, -1.0)
    assert [token.logprob for token in asked.trace.attempts[0].tokens or []] == [-0.5, -1.0]
    assert "logprobs" not in out["answer"].response_metadata


class Drawing(ScriptedModel):
    """Says another thing each time it is not greedy, by its seed."""

    def _reply(self, messages: Any, arguments: dict[str, Any]) -> AIMessage:
        said = super()._reply(messages, arguments)
        if "temperature" not in arguments:
            return said
        if arguments["seed"] == 9:
            raise ConnectionError("gone")
        return said.model_copy(update={"content": f"Answer: {arguments['seed']}"})


class Choosing(Fixed):
    """Takes the draft that says this."""

    def __init__(self, text: str, way: Any, drafts: int) -> None:
        super().__init__(way, after_draft=True)
        self.text, self.drafts = text, drafts

    def choose(self, drafted: list[Seen], key: str) -> tuple[int, Route]:
        route = self.decide(drafted[0], key)
        self.seen = list(drafted)
        return [each.draft for each in drafted].index(self.text), route


@pytest.mark.parametrize("run_way", WAYS)
@pytest.mark.parametrize("way", ["weak", "both"])
def test_the_draft_that_the_router_takes_is_the_draft(run_way: str, way: str) -> None:
    router = Choosing("Answer: 8", way, drafts=4)  # the fourth one fails
    asked = Asked(router, weak=Drawing([DRAFT], seed=6, version="v0003"))
    out = run(asked.graph, run_way, {"query": "6 + 1?", "reference": "8"})
    assert [each.draft for each in router.seen] == [DRAFT, "Answer: 7", "Answer: 8"]
    assert [each.second for each in router.seen] == ["Answer: 7", "Answer: 8", DRAFT]
    assert out["draft"].text == "Answer: 8"
    trace = asked.trace
    assert [each.draft for each in trace.attempts] == ["Answer: 8", DRAFT, "Answer: 7"]
    assert [each.answer for each in trace.attempts[1:]] == [None, None]
    drafted = [call for call in trace.attempts[0].calls if call.role == "draft"]
    assert [call.failure is None for call in drafted].count(False) == 1
    assert len(drafted) == 4
    if way == "both":
        assert "Answer: 8" in asked.strong.calls[0][-1].text
        assert len(asked.strong.calls) == 1
    else:
        assert (out["answer"].text, out["score"]) == ("Answer: 8", 1.0)
        assert asked.strong.calls == []


def test_several_drafts_are_told_of_once_and_none_is_streamed() -> None:
    asked = Asked(Choosing("Answer: 7", "both", drafts=3), weak=Drawing([DRAFT], seed=6))
    given = {"messages": [HumanMessage("6 + 1?")]}
    modes = [*as_node(asked.graph).stream(given, stream_mode=["messages", "custom"])]
    steps = [
        part["cowest"]["step"] for mode, part in modes if mode == "custom" and "cowest" in part
    ]
    assert steps == ["drafting", "refining"]
    said = "".join(part[0].text for mode, part in modes if mode == "messages")
    assert said == ANSWER


@pytest.mark.parametrize("run_way", WAYS)
def test_where_the_first_draft_fails_the_strong_model_answers_alone(run_way: str) -> None:
    down = Drawing([ConnectionError("down")], seed=6)
    asked = Asked(Choosing("Answer: 7", "both", drafts=2), weak=down)
    assert run(asked.graph, run_way, {"query": "6 + 1?"})["answer"].text == ANSWER
    assert asked.trace.solo == ANSWER


def test_a_choice_that_fails_leaves_the_first_draft() -> None:
    asked = Asked(Choosing("nowhere", "both", drafts=2), weak=Drawing([DRAFT], seed=6))
    assert asked.graph.invoke({"query": "6 + 1?"})["draft"].text == DRAFT
    assert asked.trace.route == Route(way="both")


def test_a_second_draft_is_compared_and_never_used() -> None:
    router = Fixed("both", after_draft=True, second=True)
    asked = Asked(router, weak=Drawing([DRAFT], seed=7))
    asked.graph.invoke({"query": "6 + 1?"})
    assert (router.seen[0].draft, router.seen[0].second) == (DRAFT, "Answer: 8")
    assert [each["temperature"] for each in asked.weak.arguments if each.get("seed") == 8] == [1.0]
    assert "8" not in asked.strong.calls[0][-1].text
    first, second = asked.trace.attempts
    assert (second.draft, second.answer, second.score) == ("Answer: 8", None, None)
    assert first.answer == ANSWER
    gone = Asked(
        Fixed("both", after_draft=True, second=True),
        weak=Drawing([DRAFT], seed=8),
    )
    assert gone.graph.invoke({"query": "6 + 1?"})["answer"].text == ANSWER


# --- what fails ---


@pytest.mark.parametrize("run_way", WAYS)
@pytest.mark.parametrize("after", [False, True])
def test_a_router_that_fails_costs_no_answer(run_way: str, after: bool) -> None:
    asked = Asked(Fixed(RuntimeError("no embedding"), after_draft=after))
    assert run(asked.graph, run_way, {"query": "6 + 1?"})["answer"].text == ANSWER
    assert asked.trace.route == Route(way="both")
    failed = [call for call in asked.trace.failures if call.role == "route"]
    assert len(failed) == 1
    assert "no embedding" in str(failed[0].error)


@pytest.mark.parametrize("run_way", WAYS)
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("way", ["weak", "both"])
def test_the_strong_model_answers_alone_where_the_weak_one_is_down(
    run_way: str, after: bool, way: str
) -> None:
    asked = Asked(Fixed(way, after_draft=after), weak=ScriptedModel([ConnectionError("down")]))
    out = run(asked.graph, run_way, {"query": "6 + 1?", "reference": "7"})
    assert (out["answer"].text, out["draft"], out["score"]) == (ANSWER, None, 1.0)
    trace = asked.trace
    assert (trace.solo, trace.solo_score) == (ANSWER, 1.0)
    assert [call.role for call in trace.failures] == ["draft"]
    (attempt,) = trace.attempts
    assert (attempt.draft_score, attempt.score) == (None, None)
    raising = Asked(
        Fixed(way, after_draft=after),
        weak=ScriptedModel([ConnectionError("down")]),
        on_weak_failure="raise",
    )
    with pytest.raises(ConnectionError):
        run(raising.graph, run_way, {"query": "6 + 1?"})


@pytest.mark.parametrize("way", ["strong", "both"])
def test_the_draft_answers_where_the_strong_model_is_down(way: str) -> None:
    down = ScriptedModel([ConnectionError("down")])
    asked = Asked(Fixed(way, after_draft=True), strong=down, on_strong_failure="draft")
    out = asked.graph.invoke({"query": "6 + 1?", "reference": "7"})
    assert (out["answer"].text, out["score"]) == (DRAFT, None)
    trace = asked.trace
    assert (trace.solo, trace.solo_score) == (None, None)
    assert (trace.attempts[0].draft, trace.attempts[0].answer) == (DRAFT, None)
    with pytest.raises(ConnectionError):
        Asked(Fixed(way, after_draft=True), strong=down).graph.invoke({"query": "6 + 1?"})
    with pytest.raises(LookupError, match="both models failed"):
        Asked(
            Fixed("both", after_draft=True),
            strong=down,
            weak=ScriptedModel([ConnectionError("gone")]),
            on_strong_failure="draft",
        ).graph.invoke({"query": "6 + 1?"})


def test_a_turn_has_no_route_of_the_one_before_it() -> None:
    router = Fixed("weak", after_draft=True)
    asked, thread = Asked(router, saver=InMemorySaver()), {"configurable": {"thread_id": "1"}}
    asked.graph.invoke({"query": "6 + 1?"}, thread)
    router.way = RuntimeError("gone")
    out = asked.graph.invoke({"query": "6 + 2?"}, thread)
    assert out["answer"].text == ANSWER
    assert [trace.route.way for trace in asked.traces if trace.route] == ["weak", "both"]


# --- what is shown ---


def streamed(graph: Any, way: str, **settings: Any) -> list[Any]:
    given = {"messages": [HumanMessage("6 + 1?")]}
    if way == "sync":
        return list(graph.stream(given, stream_mode="messages", **settings))

    async def every() -> list[Any]:
        parts = graph.astream(given, stream_mode="messages", **settings)
        return [part async for part in parts]

    return asyncio.run(every())


def as_node(collaborating: Any) -> Any:
    host = StateGraph(MessagesState)
    host.add_node("expert", collaborating)
    host.add_edge(START, "expert")
    return host.compile()


@pytest.mark.parametrize("run_way", WAYS)
def test_a_draft_that_is_sure_to_be_the_answer_is_streamed_as_it_comes(run_way: str) -> None:
    parts = streamed(as_node(Asked(Fixed("weak", after_draft=False)).graph), run_way)
    assert "".join(m.text for m, _ in parts if isinstance(m, AIMessageChunk)) == DRAFT
    assert len(parts) > 3  # tokens
    assert len({message.id for message, _ in parts}) == 1  # and the whole not once more
    assert all("cowest:answer" in about["tags"] for _, about in parts)


@pytest.mark.parametrize("run_way", WAYS)
def test_a_draft_that_turns_out_to_be_the_answer_is_shown_once_and_whole(run_way: str) -> None:
    parts = streamed(as_node(Asked(Fixed("weak", after_draft=True)).graph), run_way)
    assert [message.text for message, _ in parts] == [DRAFT]


@pytest.mark.parametrize("run_way", WAYS)
@pytest.mark.parametrize("after", [False, True])
def test_a_draft_that_is_no_answer_is_not_shown(run_way: str, after: bool) -> None:
    for way in ("strong", "both"):
        parts = streamed(as_node(Asked(Fixed(way, after_draft=after)).graph), run_way)
        assert "".join(message.text for message, _ in parts) == ANSWER


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("way", "said", "by"), [("weak", DRAFT, ["weak"]), ("both", ANSWER, ["weak", "strong"])]
)
def test_the_chat_model_streams_and_counts_whoever_answered(
    after: bool, way: str, said: str, by: list[str]
) -> None:
    model = CollaborativeChatModel(
        weak=ScriptedModel([DRAFT]),
        strong=ScriptedModel([ANSWER]),
        settings={"route": Fixed(way, after_draft=after)},
    )
    whole = model.invoke("6 + 1?")
    chunks = list(model.stream("6 + 1?"))
    assert whole.text == "".join(chunk.text for chunk in chunks) == said
    for message in (whole, sum(chunks[1:], chunks[0])):
        assert list(message.response_metadata["usage_by_model"]) == by
    assert whole.usage_metadata is not None


def test_a_draft_that_is_the_answer_is_no_reasoning_beside_it() -> None:
    model = CollaborativeChatModel(
        weak=ScriptedModel([DRAFT]),
        strong=ScriptedModel([ANSWER]),
        reasoning=True,
        settings={"route": Fixed("weak", after_draft=False)},
    )
    chunks = list(model.stream("6 + 1?"))
    for message in (model.invoke("6 + 1?"), sum(chunks[1:], chunks[0])):
        assert [block["type"] for block in message.content_blocks] == ["text"]


def test_a_graph_without_a_router_loads_nothing_of_one() -> None:
    code = (
        "import cowest_graph.graph, sys;"
        "print({'sklearn', 'scipy', 'cowest_graph.routing.router'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
