"""The weak model behind servers on real ports: kills in the middle, cancellation, garbage.

Against a stand-in with vLLM's interface always, against the real vLLM where COWEST_VLLM_PYTHON
names the python of an environment that has it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import vllm_servers
from fake_vllm import FakeVLLM, serving
from langchain_core.exceptions import ContextOverflowError
from waiting import eventually

from cowest_graph import (
    AdapterRegistry,
    TraceStore,
    VLLMWeak,
    create_collector,
    exact_match,
    metric,
)
from cowest_graph.collecting import collect
from cowest_graph.testing import ScriptedModel

QUERIES: list[Any] = [{"query": f"How does part {n} work?", "reference": f"{n}"} for n in range(8)]
NUM_DRAFTS = 3
_BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "swap_vllm.py"


@pytest.fixture
def adapters(tmp_path: Path, smollm2: Path) -> AdapterRegistry:
    registry = AdapterRegistry(tmp_path / "adapters")
    for seed in (1, 2):
        registry.add(vllm_servers.noise(smollm2, tmp_path / f"noise{seed}", seed))
    return registry


@pytest.fixture
def vllm(smollm2: Path) -> vllm_servers.Process:
    """The real vLLM on SmolLM2, one for all tests."""
    return vllm_servers.running(smollm2)


def collected(weak: VLLMWeak, traces: TraceStore, during: Callable[[], None]) -> None:
    """A collection with something that happens once its second draft is written."""
    collector = create_collector(
        weak,
        ScriptedModel(lambda messages: f"Answer: {len(messages[-1].text)}"),
        evaluator=metric(exact_match),
        traces=traces,
        num_drafts=NUM_DRAFTS,
    ).compile()
    happened = False
    for outcome in collect(collector, QUERIES, max_concurrency=4):
        assert outcome.error is None
        if not happened:
            happened = True
            during()


def check_whole(traces: TraceStore, weak_version: str) -> None:
    found = list(traces)
    assert sorted(trace.query for trace in found) == sorted(row["query"] for row in QUERIES)
    for trace in found:
        assert trace.complete
        assert trace.failures == []
        assert [a.index for a in trace.attempts] == list(range(NUM_DRAFTS))
        assert {a.weak_version for a in trace.attempts} == {weak_version}


def killed_and_restarted(process: vllm_servers.Process, weak: VLLMWeak) -> Callable[[], None]:
    def during() -> None:
        assert eventually(lambda: weak.fleet.servers[0].running > 0)
        process.kill()
        time.sleep(0.5)
        process.start(wait=False)

    return during


def test_a_kill_in_the_middle_of_a_collection_loses_and_doubles_nothing(
    adapters: AdapterRegistry, tmp_path: Path
) -> None:
    adapters.promote("v0002")
    with (
        vllm_servers.fake("tiny", tmp_path, pause=0.05) as process,
        VLLMWeak(process.url, adapters=adapters, patience=60) as weak,
        TraceStore(tmp_path / "traces.db") as traces,
    ):
        weak.load()
        collected(weak, traces, killed_and_restarted(process, weak))
        check_whole(traces, "v0002")


def test_two_servers_one_of_them_killed_for_good(adapters: AdapterRegistry, tmp_path: Path) -> None:
    adapters.promote("v0001")
    with (
        vllm_servers.fake("tiny", tmp_path, pause=0.02) as first,
        vllm_servers.fake("tiny", tmp_path, pause=0.02) as second,
        VLLMWeak([first.url, second.url], adapters=adapters, patience=5) as weak,
        TraceStore(tmp_path / "traces.db") as traces,
    ):
        weak.load()
        began = time.monotonic()
        collected(weak, traces, first.kill)
        assert time.monotonic() - began < 60
        check_whole(traces, "v0001")
        adapters.promote("v0002")
        with pytest.raises(ConnectionError, match=f"none of the 2 servers.*{first.port}"):
            weak.load()
        assert weak.invoke("hi").response_metadata["weak_version"] == "v0001"
        first.start()
        assert eventually(lambda: weak.version == "v0002")  # tried again by itself


async def test_a_stream_that_was_left_stops_the_server(adapters: AdapterRegistry) -> None:
    fake = FakeVLLM(words=400, pause=0.02)
    with serving(fake) as url, VLLMWeak(url, adapters=adapters) as weak:
        async for _ in weak.astream("hi"):
            break
        assert await asyncio.to_thread(eventually, lambda: fake.running == 0)
        for _ in weak.stream("hi"):
            break
        assert eventually(lambda: fake.running == 0)


def test_several_event_loops_and_threads_share_one_model(adapters: AdapterRegistry) -> None:
    with serving(FakeVLLM()) as url, VLLMWeak(url, adapters=adapters, temperature=0) as weak:

        async def several() -> list[str]:
            return [str(m.text) for m in await weak.abatch(["hi"] * 4)]

        found = {text for _ in range(3) for text in asyncio.run(several())}
        found |= {str(m.text) for m in weak.batch(["hi"] * 4)}
        assert len(found) == 1


# --- the real vLLM ---


@pytest.mark.timeout(900)
def test_real_swap_under_load(
    vllm: vllm_servers.Process, smollm2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The experiment itself is `benchmarks/swap_vllm.py`; here it is held to its laws."""
    with capsys.disabled():
        found = _swap_vllm().run([vllm.url], smollm2, tmp_path, tokens=6)
    assert found["failed"] == 0
    assert found["answers that are not their version's own"] == 0
    assert found["requests begun over 2 s after a swap on another version"] == 0
    assert found["swaps"] >= 40
    assert len(found["versions seen"]) > 1


def _swap_vllm() -> ModuleType:
    """The benchmark as a module."""
    spec = importlib.util.spec_from_file_location("swap_vllm", _BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    return module


@pytest.mark.timeout(900)
def test_real_garbage_is_told_and_the_version_in_use_stays(
    vllm: vllm_servers.Process, adapters: AdapterRegistry, smollm2: Path, tmp_path: Path
) -> None:
    adapters.promote("v0001")
    adapters.add(vllm_servers.noise(smollm2, tmp_path / "wide", 3, rank=32))
    with VLLMWeak(vllm.url, adapters=adapters, max_tokens=4) as weak:
        weak.load()
        with pytest.raises(ContextOverflowError, match=r"maximum context length.*max-model-len"):
            weak.invoke("word " * 4000)
        with pytest.raises(LookupError, match="there are: v0001, v0002, v0003"):
            weak.invoke("hi", adapter="v0099")
        with pytest.raises(ValueError, match=r"max_lora_rank.*--max-lora-rank"):
            weak.invoke("hi", adapter="v0003")
        cut = adapters.folder / "v0002" / "adapter_model.safetensors"
        cut.write_bytes(cut.read_bytes()[:-1000])
        with pytest.raises(ValueError, match="damaged or cut off"):
            weak.invoke("hi", adapter="v0002")
        assert weak.invoke("hi").response_metadata["weak_version"] == "v0001"
    new = adapters.add(vllm_servers.noise(smollm2, tmp_path / "new", 4))  # not there already
    with (
        VLLMWeak(vllm.url, adapters=adapters, adapters_at="/nowhere", max_tokens=1) as lost,
        pytest.raises(ValueError, match=rf"No adapter found for /nowhere/{new}.*adapters_at="),
    ):
        lost.invoke("hi", adapter=new)


@pytest.mark.timeout(900)
def test_real_kill_in_the_middle_of_a_collection(
    vllm: vllm_servers.Process, adapters: AdapterRegistry, tmp_path: Path
) -> None:
    adapters.promote("v0002")
    with (
        VLLMWeak(vllm.url, adapters=adapters, max_tokens=16, patience=600) as weak,
        TraceStore(tmp_path / "traces.db") as traces,
    ):
        weak.load()
        collected(weak, traces, killed_and_restarted(vllm, weak))
        check_whole(traces, "v0002")
