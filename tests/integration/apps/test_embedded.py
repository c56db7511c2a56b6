"""The offline default on real weights: served strong model, live weak model, one graph."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cowest_graph import LocalWeak, TraceStore, create_collaboration, embedded, final_answer
from cowest_graph.prompts import Prompts, draft_prompt
from cowest_graph.testing.world import questions

QUERIES = ["What is the capital of France?", "How many legs does a spider have?"]


@pytest.fixture(scope="module")
def server() -> Iterator[embedded.StrongServer]:
    pytest.importorskip("xllamacpp", reason="the embedded server is not installed")
    with embedded.StrongServer(context=1024) as running:
        yield running


@pytest.fixture(scope="module")
def weak(smollm2: Path) -> Iterator[LocalWeak]:
    with LocalWeak(str(smollm2), temperature=0.0, max_tokens=24, dtype="float32") as model:
        yield model


def test_the_server_is_on_loopback_and_wants_its_key(server: embedded.StrongServer) -> None:
    assert server.base_url.startswith("http://127.0.0.1:")
    asked = {"messages": [{"role": "user", "content": "Hi"}]}
    refused = httpx.post(f"{server.base_url}/chat/completions", json=asked, timeout=30)
    assert refused.status_code == 401


def test_every_answer_keeps_the_format(server: embedded.StrongServer) -> None:
    hot = server.chat_model(temperature=1.0)
    said = hot.batch([f"{query} ({i})" for i in range(3) for query in QUERIES])
    assert all(final_answer(message) for message in said)
    assert all(message.text.startswith("Explanation: ") for message in said)
    assert all(message.usage_metadata for message in said)


def test_a_greedy_answer_is_the_same_whoever_else_asks(server: embedded.StrongServer) -> None:
    refine = Prompts(draft_prompt("answer")).refine
    asked = [
        refine.format_messages(query=row["query"], draft=f"Answer: {row['reference']}")
        for row in questions(0).held_out[:8]
    ]
    model = server.chat_model()
    alone = [model.invoke(each).text for each in asked]
    assert len(set(alone)) > 1
    assert [said.text for said in model.batch(asked[::-1], {"max_concurrency": 8})] == alone[::-1]
    assert [said.text for said in model.batch(asked, {"max_concurrency": 3})] == alone


def test_draft_and_answer_stream_through_the_graph(
    weak: LocalWeak, server: embedded.StrongServer, tmp_path: Path
) -> None:
    with TraceStore(tmp_path / "traces.db") as traces:
        graph = create_collaboration(weak, server.chat_model(), traces=traces).compile()
        pieces: dict[str, list[str]] = {"draft": [], "refine": []}
        for chunk, about in graph.stream({"query": QUERIES[0]}, stream_mode="messages"):
            if about["langgraph_node"] in pieces:
                pieces[about["langgraph_node"]].append(str(chunk.content))
        (trace,) = list(traces)
    assert len(pieces["draft"]) > 3
    assert len(pieces["refine"]) > 3
    (attempt,) = trace.attempts
    assert "".join(pieces["draft"]) == attempt.draft
    assert "".join(pieces["refine"]) == attempt.answer
    assert attempt.weak_version == "base"
    assert all(call.output_tokens for call in attempt.calls)
    assert trace.strong == embedded.STAND_IN


async def test_sync_and_async_draft_alike(weak: LocalWeak, server: embedded.StrongServer) -> None:
    # The drafts are equal; llama.cpp's answers may differ with what its prompt cache holds.
    graph = create_collaboration(weak, server.chat_model()).compile()
    asked = [{"query": query} for query in QUERIES]
    sync = await asyncio.to_thread(graph.batch, asked, {"max_concurrency": 1})
    both = [await graph.ainvoke(one) for one in asked]
    assert [out["draft"].content for out in sync] == [out["draft"].content for out in both]
    assert all(final_answer(out["answer"]) for out in [*sync, *both])


def test_the_weights_are_converted_once(smollm2: Path) -> None:
    weights = smollm2 / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert embedded.weak_model() == smollm2
    assert weights.stat().st_mtime_ns == before
    assert not list(smollm2.parent.glob(".converting-*"))
