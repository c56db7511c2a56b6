"""Whether vLLM can serve an adapter, and the command that starts a server for a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_vllm import lora, tensors

from cowest_graph.adapters import AdapterRegistry
from cowest_graph.weak.hardware import cpu_computes_bfloat16
from cowest_graph.weak.servers.command import vllm_server
from cowest_graph.weak.servers.fit import accepted_rank, check_fit


@pytest.fixture
def adapters(tmp_path: Path) -> AdapterRegistry:
    registry = AdapterRegistry(tmp_path / "adapters")
    registry.add(lora(tmp_path / "made"))
    return registry


def base_folder(at: Path, **config: Any) -> Path:
    at.mkdir()
    said = {"max_position_embeddings": 2048} | config
    (at / "config.json").write_text(json.dumps(said))
    name = "model.layers.0.self_attn.q_proj.weight"
    (at / "model.safetensors").write_bytes(tensors({name: [8, 8]}, 0))
    return at


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"peft_type": "IA3"}, "LORA only"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 1000}}, "rank 1000.*512 at most; train"),
    ],
)
def test_what_vllm_cannot_serve_is_refused(
    tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        check_fit(lora(tmp_path / "a", **config))


def test_modules_and_shapes_are_compared_with_the_base(tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base")
    assert check_fit(lora(tmp_path / "fits"), base=base) == 4
    other = lora(tmp_path / "b", layer="base_model.model.model.layers.7.mlp.up_proj")
    with pytest.raises(ValueError, match=r"layers.7.mlp.up_proj.*has not.*q_proj"):
        check_fit(other, base=base)
    wide = base_folder(tmp_path / "wide")
    name = "model.layers.0.self_attn.q_proj.weight"
    (wide / "model.safetensors").write_bytes(tensors({name: [8, 9]}, 0))
    with pytest.raises(ValueError, match=r"8 x 8 layer, but in .* 8 x 9"):
        check_fit(tmp_path / "fits", base=wide)


def test_a_servers_command_fits_the_model_the_adapters_and_the_hardware(
    tmp_path: Path, adapters: AdapterRegistry
) -> None:
    base = base_folder(tmp_path / "base")
    command = vllm_server(base, adapters, gpu=False, port=8123, extra=["--seed", "7"])
    said = str(command)
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True" in said
    assert "PYTHONSAFEPATH=1" in said  # a torch.py in the working folder is not vLLM's
    assert "-m vllm.entrypoints.openai.api_server" in said
    assert "--max-lora-rank 16" not in said  # the adapters here need 8
    assert "--max-lora-rank 8" in said
    assert "--max-model-len 2048" in said
    assert said.endswith("--seed 7")
    assert any(kind in said for kind in ("--dtype float32", "--dtype bfloat16"))
    assert "VLLM_CPU_KVCACHE_SPACE" in said
    assert "--max-num-batched-tokens 128" in said
    on_gpu = str(
        vllm_server(base_folder(tmp_path / "long", max_position_embeddings=99999), gpu=True)
    )
    assert "--max-lora-rank 16 " in on_gpu  # the paper's, where there is none yet
    assert "--dtype auto" in on_gpu
    assert "--max-model-len 8192" in on_gpu
    assert "VLLM_CPU" not in on_gpu
    assert "--max-num-batched-tokens" not in on_gpu
    assert any("api_key" in note for note in vllm_server("org/model", host="0.0.0.0").notes)


def test_a_server_of_tools_holds_forced_texts_to_json_without_blanks() -> None:
    command = vllm_server("org/model", gpu=True, tools="hermes")
    assert "--tool-call-parser hermes" in str(command)
    assert '"disable_any_whitespace": true' in str(command)
    assert command.environment["VLLM_ENFORCE_STRICT_TOOL_CALLING"] == "0"
    assert "--tool-call-parser" not in str(vllm_server("org/model", gpu=True))


def test_a_rank_is_rounded_up_to_what_vllm_takes() -> None:
    assert [accepted_rank([r]) for r in (1, 2, 8, 9, 64, 400)] == [1, 8, 8, 16, 64, 512]


@pytest.mark.parametrize(
    ("limit", "fast"),
    [("AVX2", False), ("avx512_core", False), ("", None), ("AVX512_CORE_AMX", None)],
)
def test_a_limit_of_onednn_is_a_limit_of_the_cpu(
    monkeypatch: pytest.MonkeyPatch, limit: str, fast: bool | None
) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    own = cpu_computes_bfloat16()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert cpu_computes_bfloat16() is (own if fast is None else fast)
