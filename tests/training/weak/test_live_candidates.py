"""Canaries, shadows and a damaged registry, through the graph and a live `LocalWeak`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from cowest_graph import AdapterRegistry, LocalWeak, TraceStore, create_collaboration
from cowest_graph.adapters import WEIGHTS
from cowest_graph.shadows import wait_for_shadows
from cowest_graph.testing import ScriptedModel

QUESTION = "What does fault code VEX mean?"


@pytest.fixture(scope="module")
def registry(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> AdapterRegistry:
    """Three versions that write differently."""
    folder = tmp_path_factory.mktemp("versions")
    adapters = AdapterRegistry(folder / "adapters", base=tiny_model)
    for seed in range(3):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        settings: Any = {"r": 4, "target_modules": ["q_proj", "v_proj"]}
        tuned = get_peft_model(model, LoraConfig(**settings))
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=2.0)
        tuned.save_pretrained(folder / "saved")
        adapters.add(folder / "saved")
    adapters.promote("v0001")
    return adapters


@pytest.fixture
def weak(tiny_model: Path, registry: AdapterRegistry) -> Iterator[LocalWeak]:
    registry.route({})
    with LocalWeak(
        tiny_model, adapters=registry, temperature=0.0, max_tokens=12, dtype="float32"
    ) as model:
        yield model.load()


@pytest.fixture
def traces() -> Iterator[TraceStore]:
    with TraceStore(":memory:") as store:
        yield store
        assert wait_for_shadows(30) == 0


def answering(weak: Any, traces: TraceStore) -> Any:
    return create_collaboration(weak, ScriptedModel(["Answer: x"]), traces=traces).compile()


async def followed(weak: LocalWeak, registry: AdapterRegistry) -> None:
    wanted = {*registry.routes, *([registry.shadow] if registry.shadow else [])}
    for _ in range(500):
        if wanted <= set(weak._live.versions.loaded()):  # type: ignore[union-attr]
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"not loaded: {wanted}")


async def test_each_thread_s_drafts_are_its_version_s_and_the_shadow_s_its_own(
    weak: LocalWeak, registry: AdapterRegistry, traces: TraceStore
) -> None:
    graph = answering(weak, traces)

    async def text_of(version: str) -> str:
        bound = answering(weak.bind(adapter=version), TraceStore(":memory:"))
        said = await bound.ainvoke({"query": QUESTION})
        return str(said["draft"].content)

    alone = {version: await text_of(version) for version in ("v0001", "v0002", "v0003")}
    assert len(set(alone.values())) == 3
    registry.route({"v0002": 0.5}, shadow="v0003")
    await followed(weak, registry)
    threads = [{"configurable": {"thread_id": name}} for name in "abcdefgh"]
    asked = [{"query": QUESTION}] * len(threads)
    await graph.abatch(asked, threads)  # both versions in one batch
    assert await asyncio.to_thread(wait_for_shadows, 30) == 0
    chosen = sorted(str(registry.choose(name)) for name in "abcdefgh")
    found = list(traces)
    assert sorted(str(trace.weak_version) for trace in found) == chosen
    assert {"v0001", "v0002"} == set(chosen)
    for trace in found:
        attempt = trace.attempts[0]
        assert attempt.weak_version == trace.weak_version
        assert attempt.draft == alone[str(trace.weak_version)]
        assert trace.shadow is not None
        assert (trace.shadow.weak_version, trace.shadow.draft) == ("v0003", alone["v0003"])
    did = traces.traffic()
    assert did["v0001"].drafts + did["v0002"].drafts == did["v0003"].shadow_drafts == 8


def harm(registry: AdapterRegistry, how: str) -> None:
    choice = registry.folder / "current.json"
    if how == "emptied":
        choice.write_text("")
    elif how == "garbled":
        choice.write_bytes(b"\xff{" + choice.read_bytes()[:10])
    elif how == "unknown":
        choice.write_text(json.dumps({"current": "v0042", "before": ["v0001"]}))
    else:
        weights = registry.folder / "v0003" / WEIGHTS
        weights.write_bytes(weights.read_bytes()[:100])
        choice.write_text(json.dumps({"current": "v0003", "before": ["v0001"]}))


@pytest.mark.parametrize("how", ["emptied", "garbled", "unknown", "cut off"])
async def test_drafts_go_on_with_the_version_in_use(
    weak: LocalWeak,
    registry: AdapterRegistry,
    traces: TraceStore,
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    kept = (registry.folder / "v0003" / WEIGHTS).read_bytes()
    graph = answering(weak, traces)
    before = (await graph.ainvoke({"query": QUESTION}))["draft"]
    harm(registry, how)
    try:
        for _ in range(500):
            if "still on v0001" in caplog.text:
                break
            await asyncio.sleep(0.02)
        assert "still on v0001" in caplog.text
        after = (await graph.ainvoke({"query": QUESTION}))["draft"]
        assert after.content == before.content
        assert after.response_metadata["weak_version"] == "v0001"
    finally:
        registry.repair()
        (registry.folder / "v0003" / WEIGHTS).write_bytes(kept)
    assert registry.current == "v0001"
    assert (await graph.ainvoke({"query": QUESTION}))["draft"].content == before.content
