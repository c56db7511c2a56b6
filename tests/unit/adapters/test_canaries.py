"""Canaries and shadows in the graph: who drafts, what traces say, what nobody waits for."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from test_adapters import peft_folder

from cowest_graph import AdapterRegistry, TraceStore, create_collaboration, create_collector, metric
from cowest_graph.shadows import wait_for_shadows
from cowest_graph.state import Collaboration
from cowest_graph.testing import ScriptedModel
from cowest_graph.traces.records import Call, Trace


class RoutedModel(ScriptedModel):
    """A scripted weak model that follows a registry, as `LocalWeak` does."""

    registry: Any = None

    def choose(self, key: str | None = None) -> str:
        return self.registry.choose(key) or "base"

    @property
    def shadow(self) -> str | None:
        found: str | None = self.registry.shadow
        return found


@pytest.fixture
def registry(tmp_path: Path) -> AdapterRegistry:
    adapters = AdapterRegistry(tmp_path / "adapters")
    for _ in range(3):
        adapters.add(peft_folder(tmp_path / f"trained{len(adapters)}"))
    adapters.promote("v0001")
    return adapters


@pytest.fixture
def traces(tmp_path: Path) -> Any:
    with TraceStore(tmp_path / "traces.db") as store:
        yield store
        assert wait_for_shadows(10) == 0


def weak_of(registry: AdapterRegistry, script: Any = ("Answer: 7",)) -> RoutedModel:
    return RoutedModel(script, registry=registry, version="v0001")


def answering(weak: Any, traces: TraceStore | None, **settings: Any) -> Any:
    strong = settings.pop("strong", None) or ScriptedModel(["Answer: 7"])
    saver = settings.pop("checkpointer", None)
    return create_collaboration(weak, strong, traces=traces, **settings).compile(checkpointer=saver)


def thread(name: str) -> Any:
    return {"configurable": {"thread_id": name}}


def test_a_thread_stays_with_its_version_and_the_trace_says_which(
    registry: AdapterRegistry, traces: TraceStore
) -> None:
    registry.route({"v0002": 0.5})
    graph = answering(weak_of(registry), traces)
    for _ in range(3):
        for name in "abcdefgh":
            graph.invoke({"query": name}, thread(name))
    used = {(trace.query, trace.attempts[0].weak_version) for trace in traces}
    assert len(used) == 8, "one version a thread"
    assert used == {(name, registry.choose(name)) for name in "abcdefgh"}
    assert {version for _, version in used} == {"v0001", "v0002"}


def test_without_a_thread_the_share_is_drawn(registry: AdapterRegistry, traces: TraceStore) -> None:
    registry.route({"v0002": 0.5})
    answering(weak_of(registry), traces).batch([{"query": "x"}] * 40)
    used = Counter(trace.weak_version for trace in traces)
    assert min(used["v0001"], used["v0002"]) > 3  # less once in 50 million runs


def test_a_host_graph_hands_its_thread_on(registry: AdapterRegistry, traces: TraceStore) -> None:
    registry.route({"v0002": 0.5})
    host = StateGraph(Collaboration)
    host.add_node("cowest", answering(weak_of(registry), traces))
    host.add_edge(START, "cowest")
    graph = host.compile(checkpointer=InMemorySaver())
    for name in "abcdefgh":
        graph.invoke({"query": name}, thread(name))
    used = {trace.query: trace.weak_version for trace in traces}
    assert used == {name: registry.choose(name) for name in "abcdefgh"}


def test_a_collection_keeps_to_the_version_in_use(
    registry: AdapterRegistry, traces: TraceStore
) -> None:
    registry.route({"v0002": 1.0}, shadow="v0003")

    def collected(weak: Any) -> Trace:
        settings: Any = {"evaluator": metric(lambda _, __: 1.0), "traces": traces}
        graph = create_collector(weak, ScriptedModel(["x"]), num_drafts=2, **settings).compile()
        said = graph.invoke({"query": "?", "reference": "7"}, thread("a"))
        return Trace.model_validate(said["trace"])

    weak = weak_of(registry)
    assert {each.weak_version for each in collected(weak).attempts} == {"v0001"}
    assert {each.weak_version for each in collected(weak.bind(adapter="v0002")).attempts} == {
        "v0002"
    }
    assert collected(weak).shadow is None


# --- shadows ---


def test_a_shadow_drafts_the_same_query_and_its_draft_is_never_used(
    registry: AdapterRegistry, traces: TraceStore
) -> None:
    registry.route({}, shadow="v0002")
    strong = ScriptedModel(["Answer: 7"])
    weak = weak_of(registry, ["what is used", "what nobody sees"])
    graph = answering(weak, traces, strong=strong)
    graph.invoke({"query": "6 + 1?"})
    assert wait_for_shadows(10) == 0
    (trace,) = traces
    assert trace.shadow is not None
    assert (trace.shadow.weak_version, trace.shadow.draft) == ("v0002", "what nobody sees")
    assert (trace.weak_version, trace.attempts[0].draft) == ("v0001", "what is used")
    assert [call.role for call in trace.shadow.calls] == ["shadow"]
    assert trace.shadow.calls[0].seconds is not None
    assert weak.arguments == [{"adapter": "v0001"}, {"adapter": "v0002"}]
    assert weak.calls[0] == weak.calls[1]
    assert "nobody" not in str(strong.calls)


def test_a_shadow_may_be_named_to_the_factory(
    registry: AdapterRegistry, traces: TraceStore
) -> None:
    registry.route({}, shadow="v0002")
    graph = answering(weak_of(registry), traces, shadow="v0003")
    graph.invoke({"query": "?"})
    graph_of_itself = answering(weak_of(registry), traces, shadow="v0001")
    graph_of_itself.invoke({"query": "?"})
    wait_for_shadows(10)
    shadows = [trace.shadow and trace.shadow.weak_version for trace in traces]
    assert shadows == ["v0003", None], "a version beside itself tells nothing"


@pytest.mark.parametrize("way", ["sync", "async"])
def test_an_answer_waits_for_no_shadow(
    registry: AdapterRegistry, traces: TraceStore, way: str
) -> None:
    registry.route({}, shadow="v0002")
    goes_on, turns = threading.Event(), iter(range(1000))

    def script(_: Any) -> str:
        if next(turns) % 2:  # every second draft is the shadow's, which hangs
            assert goes_on.wait(30)
        return "Answer: 7"

    graph = answering(weak_of(registry, script), traces)
    try:
        if way == "sync":
            graph.invoke({"query": "?"})
        else:
            asyncio.run(graph.ainvoke({"query": "?"}))
        (trace,) = traces
        assert trace.complete, "the trace is there at once"
        assert trace.shadow is None
        assert wait_for_shadows(0) == 1
    finally:
        goes_on.set()
    assert wait_for_shadows(10) == 0
    (trace,) = traces
    assert trace.shadow is not None


def test_a_failing_shadow_leaves_its_failure_and_a_complete_trace(
    registry: AdapterRegistry, traces: TraceStore
) -> None:
    registry.route({}, shadow="v0002")
    graph = answering(weak_of(registry, ["Answer: 7", TimeoutError("slow")]), traces)
    assert graph.invoke({"query": "?"})["answer"].content == "Answer: 7"
    wait_for_shadows(10)
    (trace,) = traces
    assert trace.shadow is not None
    assert trace.shadow.draft is None
    assert [call.failure for call in trace.shadow.failures] == ["timeout"]
    assert trace.complete
    assert trace.failures == []
    assert traces.traffic()["v0002"].failures == {"shadow: timeout": 1}


def test_too_many_slow_shadows_are_left_out_and_told(
    registry: AdapterRegistry, traces: TraceStore
) -> None:
    registry.route({}, shadow="v0002")
    goes_on = threading.Event()

    class Hanging(RoutedModel):
        def _reply(self, messages: Any, arguments: Any) -> Any:
            if arguments["adapter"] == "v0002":
                assert goes_on.wait(30)
            return super()._reply(messages, arguments)

    weak = Hanging(["Answer: 7"], registry=registry, version="v0001")
    graph = answering(weak, traces)
    try:
        for number in range(10):
            graph.invoke({"query": f"{number}"})
    finally:
        goes_on.set()
    assert wait_for_shadows(10) == 0
    drafted = [trace.shadow.draft for trace in traces if trace.shadow]
    assert Counter(drafted) == {"Answer: 7": 8, None: 2}
    assert traces.traffic()["v0002"].failures == {"shadow: skipped": 2}


def test_without_traces_there_is_no_shadow(registry: AdapterRegistry) -> None:
    registry.route({}, shadow="v0002")
    weak = weak_of(registry)
    answering(weak, None, shadow="v0003").invoke({"query": "?"})
    assert wait_for_shadows(10) == 0
    assert len(weak.calls) == 1


# --- failures ---


@pytest.mark.parametrize("role", ["draft", "refine"])
def test_a_failed_answer_is_raised_and_counted_and_becomes_whole_on_resumption(
    registry: AdapterRegistry, traces: TraceStore, role: str
) -> None:
    registry.route({"v0002": 1.0})
    script: Any = [TimeoutError("slow"), "Answer: 7"]
    weak = weak_of(registry, script if role == "draft" else ["Answer: 7"])
    strong = ScriptedModel(script if role == "refine" else ["Answer: 7"])
    saver = InMemorySaver()
    graph = answering(weak, traces, strong=strong, checkpointer=saver, on_weak_failure="raise")
    with pytest.raises(TimeoutError, match="slow"):
        graph.invoke({"query": "?"}, thread("a"))
    (failed,) = traces
    assert [(call.role, call.failure) for call in failed.failures] == [(role, "timeout")]
    assert failed.attempts[0].weak_version == "v0002"
    assert traces.traffic()["v0002"].failures == {f"{role}: timeout": 1}
    assert graph.invoke(None, thread("a"))["answer"].content == "Answer: 7"
    (trace,) = traces
    assert trace.key == failed.key
    assert trace.complete
    assert traces.traffic()["v0002"].failures == {}


def test_a_failure_is_raised_even_where_it_cannot_be_recorded(tmp_path: Path) -> None:
    class Full(TraceStore):
        def record(self, trace: Trace) -> None:
            raise OSError("the disk is full")

    weak, store = ScriptedModel([TimeoutError("slow")]), Full(tmp_path / "traces.db")
    graph = answering(weak, store, on_weak_failure="raise")
    with pytest.raises(TimeoutError, match="slow"):
        graph.invoke({"query": "?"})


# --- counting ---


def tried(version: str | None, score: float | None, *, solo: float | None = None) -> Trace:
    attempt = {"index": 0, "draft": "y", "score": score, "weak_version": version}
    return Trace(query=f"{version} {score} {solo}", solo_score=solo, attempts=[attempt])


def test_traffic_is_counted_by_version() -> None:
    bad = Call(role="refine", failure="rate_limit")
    failed = Trace(query="x", attempts=[{"index": 0, "weak_version": "v2", "calls": [bad, bad]}])
    shadowed = Trace(
        query="y",
        attempts=[{"index": 0, "draft": "y", "weak_version": "v1"}],
        shadow={"weak_version": "v2", "draft": "z"},
        calls=[bad],  # the strong model alone: no adapter's fault
    )
    with TraceStore(":memory:") as store:
        made = [tried("v1", 4, solo=3), tried("v1", 8), tried(None, None), failed, shadowed]
        for trace in [*made, *made]:  # a trace recorded again is counted once
            store.record(trace)
        found = store.traffic()
        assert set(found) == {"v1", "v2", None}
        one, two, none = found["v1"], found["v2"], found[None]
        assert (one.drafts, one.scored, one.mean_score, one.mean_gain) == (3, 2, 6.0, 1.0)
        assert (one.failures, one.shadow_drafts, one.last_used) == ({}, 0, made[1].created_at)
        assert (two.drafts, two.scored, two.mean_score, two.mean_gain) == (0, 0, None, None)
        assert (two.failures, two.shadow_drafts) == ({"refine: rate_limit": 2}, 1)
        assert two.last_used == shadowed.created_at
        assert (none.drafts, none.mean_score) == (1, None)
        assert TraceStore(":memory:").traffic() == {}


def test_a_store_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    bad = Call(role="draft", failure="timeout")
    old = Trace(query="x", attempts=[{"index": 0, "weak_version": "v1", "calls": [bad]}])
    with TraceStore(tmp_path / "traces.db") as store:
        store.record(old)
        store.record(tried("v1", 4))
    with sqlite3.connect(tmp_path / "traces.db") as database:  # as the first release wrote it
        database.execute("drop table cowest_failures")
        database.execute("drop table cowest_shadows")
        database.execute(
            "update traces set data = json_remove(json_set(data, '$.schema_version', 1), "
            "'$.shadow', '$.attempts[0].tokens')"
        )
        database.execute("update cowest_meta set value = '1' where name = 'schema_version'")
    database.close()
    for _ in range(2):
        with TraceStore(tmp_path / "traces.db") as store:
            assert store.get(old.key) == old
            assert store.traffic()["v1"].drafts == 1
            assert store.traffic()["v1"].failures == {"draft: timeout": 1}


def test_old_lines_load_and_new_ones_round_trip(tmp_path: Path) -> None:
    lines = tmp_path / "traces.jsonl"
    lines.write_text('{"query": "x", "schema_version": 1, "attempts": [{"index": 0}]}\n')
    tokens = [{"token": "y", "logprob": -0.5, "id": 3}]
    shadow = {"weak_version": "v2", "draft": None, "calls": [{"role": "shadow"}]}
    new = Trace(query="y", attempts=[{"index": 0, "tokens": tokens}], shadow=shadow)
    with TraceStore(":memory:") as store:
        assert store.from_jsonl(lines).added == 1
        store.record(new)
        store.to_jsonl(lines)
        with TraceStore(":memory:") as copy:
            copy.from_jsonl(lines)
            assert list(copy) == list(store)
        assert store.get(new.key) == new


def test_the_drafts_tokens_are_kept_where_they_were_asked_for(traces: TraceStore) -> None:
    class Telling(ScriptedModel):
        def _reply(self, messages: Any, arguments: Any) -> Any:
            said = super()._reply(messages, arguments)
            if arguments.get("logprobs"):
                content = [{"token": "Answer", "logprob": -0.25, "bytes": None}]
                said.response_metadata["logprobs"] = {"content": content}
            return said

    weak = Telling(["Answer"])
    answering(weak.bind(logprobs=True), traces).invoke({"query": "1"})
    answering(weak, traces).invoke({"query": "2"})
    told, untold = (trace.attempts[0].tokens for trace in traces)
    assert told is not None
    assert (told[0].token, told[0].logprob, told[0].id) == ("Answer", -0.25, None)
    assert untold is None
