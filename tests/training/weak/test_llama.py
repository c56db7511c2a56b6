"""Laws of llama.cpp as weak model: a converted adapter is the adapter that was trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from cowest_graph import AdapterRegistry, LocalWeak, embedded
from cowest_graph.weak.llama import LlamaWeak, convert_lora

pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")
pytest.importorskip("gguf", reason="gguf is not installed")

PROMPTS = ["Why do leaves fall?", "Name a colour.", "What is salt?"]
SHAPE = {"blocks": 30, "heads": 9, "key_heads": 3}


@pytest.fixture(scope="module")
def adapters(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> AdapterRegistry:
    folder = tmp_path_factory.mktemp("llama")
    registry = AdapterRegistry(folder / "adapters", base=smollm2)
    for seed, rslora in ((1, False), (2, True)):
        torch.manual_seed(seed)
        config = LoraConfig(
            r=8, target_modules="all-linear", init_lora_weights=False, use_rslora=rslora
        )
        model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
        get_peft_model(model, config).save_pretrained(folder / f"{seed}")
        registry.add(folder / f"{seed}")
    return registry


def first_logprobs(weak: LocalWeak | LlamaWeak, version: str) -> torch.Tensor:
    """The log-probability of the first greedy token after each prompt."""
    said = [
        weak.invoke(prompt, adapter=version, temperature=0, max_tokens=1, logprobs=True)
        for prompt in PROMPTS
    ]
    content = [message.response_metadata["logprobs"]["content"][0] for message in said]
    return torch.tensor([token["logprob"] for token in content])


def test_a_converted_adapter_writes_like_the_trained_one(
    smollm2: Path, adapters: AdapterRegistry
) -> None:
    """The quantized base rounds a little; another version is much further away than that."""
    gguf = embedded.packaged_weights()
    with (
        LocalWeak(smollm2, adapters=adapters, dtype="float32") as local,
        LlamaWeak(gguf, adapters, threads=1) as llama,
    ):
        truth = {name: first_logprobs(local, name) for name in ("base", "v0001", "v0002")}
        for name in truth:
            found = first_logprobs(llama, name)
            far = {other: (found - seen).abs().mean().item() for other, seen in truth.items()}
            assert min(far, key=far.__getitem__) == name, far


def test_a_promotion_starts_a_server_and_is_stamped(adapters: AdapterRegistry) -> None:
    with LlamaWeak(embedded.packaged_weights(), adapters, threads=1, max_tokens=3) as weak:
        adapters.promote("v0002")
        weak.load()
        assert weak.invoke("Hi").response_metadata["weak_version"] == "v0002"
        assert weak.invoke("Hi", adapter="base").response_metadata["weak_version"] == "base"


def test_what_cannot_be_converted_is_refused_and_leaves_nothing(
    adapters: AdapterRegistry, tmp_path: Path
) -> None:
    source = adapters.path("v0001")
    with pytest.raises(ValueError, match="no place in a Llama model's GGUF"):
        convert_lora(source, tmp_path / "x.gguf", {**SHAPE, "blocks": 2})
    odd = tmp_path / "odd"
    odd.mkdir()
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        (odd / file).write_bytes((source / file).read_bytes())
    config = json.loads((odd / "adapter_config.json").read_text())
    (odd / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    with pytest.raises(ValueError, match="use_dora"):
        convert_lora(odd, tmp_path / "x.gguf", SHAPE)
    assert list(tmp_path.glob("x.*")) == []
    with pytest.raises(FileNotFoundError, match="no GGUF file"):
        LlamaWeak(tmp_path / "none.gguf", adapters)
