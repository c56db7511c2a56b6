"""The weak model on llama.cpp: a fast server on a CPU for each version, started by this process.

Knows GGUF files and how a LoRA of PEFT's becomes one. Knows no server's parameters and no chat
turn: `following` says which server is asked.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.language_models.chat_models import BaseChatModel
from pydantic import PrivateAttr

from cowest_graph.adapters import CONFIG, WEIGHTS, AdapterRegistry
from cowest_graph.files import replacing
from cowest_graph.weak.following import FollowingWeak
from cowest_graph.weak.servers.llama_server import LlamaServer

_PAPER: dict[str, Any] = {
    # The paper's sampling (Appendix B.2); llama.cpp's own defaults cut the vocabulary.
    "temperature": 1.0,
    "top_p": 0.9,
    "max_tokens": 1028,
    "extra_body": {"top_k": 0, "min_p": 0.0},
}
_ODD = ("use_dora", "lora_bias", "modules_to_save", "alpha_pattern", "rank_pattern")


class LlamaWeak(FollowingWeak):
    """A weak model whose base is a GGUF file and whose adapters are converted as they are promoted.

    llama.cpp takes adapters at the start of a server only (what is posted to a running one answers
    success and does nothing), so a version is a server of its own, started beside the others; they
    share the base's pages in memory. On a CPU it writes faster than `LocalWeak` where few requests
    run at once, and its quantized base is not bit for bit the one that was trained on.

    Args:
        gguf: the base model's file, of Llama's architecture.
        adapters: the registry to follow.
        parallel: requests that a server runs at once; each has `context` tokens.
        context: tokens of prompt and text together.
        threads: CPU threads; all cores by default.
        settings: further fields of `ChatOpenAI`, such as `temperature`.

    Raises:
        ValueError: for a base of another architecture.
        ImportError: when xllamacpp or gguf is not installed.
    """

    _folder: Any = PrivateAttr(default=None)

    def __init__(
        self,
        gguf: str | Path,
        adapters: AdapterRegistry,
        *,
        parallel: int = 8,
        context: int = 2048,
        threads: int | None = None,
        **settings: Any,
    ) -> None:
        base = Path(gguf)
        shape = base_shape(base)
        folder = tempfile.TemporaryDirectory(prefix="cowest-gguf-")

        def make(name: str, source: Path) -> BaseChatModel:
            lora = Path(folder.name) / f"{name}.gguf"
            if not lora.exists():
                convert_lora(source, lora, shape)
            return serve(lora)

        def serve(lora: Path | None) -> BaseChatModel:
            server = LlamaServer(
                base, base.stem, lora=lora, parallel=parallel, context=context, threads=threads
            )
            return server.chat_model(**(_PAPER | settings))

        super().__init__(
            bare=serve(None),
            adapters=adapters,
            make=make,
            release=lambda name, model: model._server.close(),
        )
        self._folder = folder

    @property
    def _llm_type(self) -> str:
        return "cowest-llama-weak"


def convert_lora(
    source: Path, target: Path, shape: Mapping[str, int], *, compact: bool = False
) -> None:
    """Write a LoRA of PEFT's as a GGUF file of llama.cpp's.

    Args:
        source: a folder with adapter_config.json and adapter_model.safetensors.
        target: the file to write; it is there as a whole or not at all.
        shape: of the base: "blocks", "heads" and "key_heads".
        compact: 8 bits a weight for the halves whose rows allow it (Q8_0 takes 32 at a time), 16
            for the others, in place of 32.

    Raises:
        ValueError: for what is no plain LoRA on linear layers, or fits no tensor of the base.
    """
    from gguf import GGUFWriter
    from safetensors.numpy import load_file

    config = json.loads((source / CONFIG).read_text(encoding="utf-8"))
    odd = [name for name in _ODD if config.get(name)]
    if config.get("peft_type") != "LORA" or odd:
        raise ValueError(f"{source} is no plain LoRA ({', '.join(odd) or config.get('peft_type')})")
    rank, alpha = config["r"], float(config["lora_alpha"])
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    tensors = {}
    for key, tensor in load_file(source / WEIGHTS).items():
        name, half = _named(source, key, shape["blocks"])
        tensors[f"{name}.lora_{half}"] = _permuted(name, tensor, shape) if half == "b" else tensor
    with replacing(target) as part:
        writer = GGUFWriter(part, "llama")
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", scale * rank)  # llama.cpp divides it by the rank
        for name, tensor in tensors.items():
            _add(writer, name, np.ascontiguousarray(tensor, dtype=np.float32), compact)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _add(writer: Any, name: str, tensor: Any, compact: bool) -> None:
    from gguf import GGMLQuantizationType, quants

    eight_bits = GGMLQuantizationType.Q8_0
    if not compact:
        writer.add_tensor(name, tensor)
    elif tensor.shape[-1] % 32 == 0:
        writer.add_tensor(name, quants.quantize(tensor, eight_bits), raw_dtype=eight_bits)
    else:
        writer.add_tensor(name, tensor.astype(np.float16))


def _named(source: Path, key: str, blocks: int) -> tuple[str, str]:
    """PEFT's name of a weight as GGUF's, and which half it is."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    module, _, half = key.removeprefix("base_model.model.").rpartition(".lora_")
    found = get_tensor_name_map(MODEL_ARCH.LLAMA, blocks).get_name(module)
    if found is None or half not in ("A.weight", "B.weight"):
        raise ValueError(f"{source} holds {key!r}, which has no place in a Llama model's GGUF file")
    return f"{found}.weight", half[0].lower()


def _permuted(name: str, tensor: Any, shape: Mapping[str, int]) -> Any:
    """llama.cpp orders the rows of queries and keys by pairs of a rotation."""
    heads = {"attn_q": shape["heads"], "attn_k": shape["key_heads"]}.get(name.split(".")[-2])
    if heads is None:
        return tensor
    half = tensor.shape[0] // heads // 2
    return tensor.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(tensor.shape)


def base_shape(gguf: Path) -> dict[str, int]:
    """What of the base's shape a conversion needs.

    Raises:
        FileNotFoundError, ValueError: when it is not there, or of another architecture.
    """
    from gguf import GGUFReader

    if not gguf.is_file():
        raise FileNotFoundError(f"no GGUF file {gguf}; give the base model's file")
    reader = GGUFReader(gguf)

    def of(name: str) -> Any:
        field = reader.get_field(name)
        return None if field is None else field.contents()

    if (kind := of("general.architecture")) != "llama":
        raise ValueError(
            f"{gguf} is of architecture {kind!r}; adapters are converted for 'llama' only: serve "
            "this base with LocalWeak or vLLM"
        )
    heads = of("llama.attention.head_count")
    return {
        "blocks": of("llama.block_count"),
        "heads": heads,
        "key_heads": of("llama.attention.head_count_kv") or heads,
    }
