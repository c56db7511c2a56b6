"""LangChain's ChatHuggingFace over transformers' pipeline, as a static weak and strong model."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cowest_graph import TraceStore, create_collaboration, create_collector, metric
from trainer.cli.config import Config


@pytest.fixture(scope="module")
def model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """As cowest.toml names it."""
    file = tmp_path_factory.mktemp("pipeline") / "cowest.toml"
    file.write_text(f'[weak]\nmodel = "huggingface:{tiny_model}"\nmax_tokens = 8\n')
    return Config.load(file, {}).weak_model(temperature=0.0)


def test_it_answers_in_the_graph_sync_async_and_in_a_batch(model: Any) -> None:
    with TraceStore(":memory:") as traces:
        graph = create_collaboration(model, model, traces=traces).compile()
        queries = [{"query": "What is 6 + 1?"}, {"query": "What is 6 + 2?"}]
        sync = [graph.invoke(query)["answer"].content for query in queries]
        both = asyncio.run(graph.abatch(queries))
        assert [said["answer"].content for said in both] == sync
        batch = graph.batch(queries, {"max_concurrency": 2})
        assert [said["answer"].content for said in batch] == sync
        assert len(traces) == 6
        for trace in traces:
            assert (trace.weak_version, trace.complete) == (None, True)
            assert trace.weak == trace.strong == model.model_id
            assert trace.attempts[0].calls[0].output_tokens is None, "it reports no tokens"


def test_it_drafts_for_a_collection(model: Any) -> None:
    with TraceStore(":memory:") as traces:
        settings: Any = {"evaluator": metric(lambda said, _: len(said)), "traces": traces}
        collector = create_collector(model, model, num_drafts=2, **settings).compile()
        collector.invoke({"query": "What is 6 + 1?", "reference": "7"})
        (trace,) = traces
    assert trace.complete
    assert len({attempt.draft for attempt in trace.attempts}) == 1, "greedy, and no adapters"


def test_it_gives_the_completion_without_the_prompt_and_keeps_to_its_length(model: Any) -> None:
    said = model.invoke("Say nothing of this prompt.").content
    assert "prompt" not in said
    assert len(model.llm.pipeline.tokenizer(said)["input_ids"]) <= 10


def test_by_itself_it_has_no_async(model: Any) -> None:
    from langchain_huggingface import ChatHuggingFace

    bare = ChatHuggingFace(llm=model.llm)
    with pytest.raises(NotImplementedError, match="async"):  # else ours can go
        asyncio.run(bare.ainvoke("x"))
