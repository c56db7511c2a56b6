"""The shipped stand-in's adapter as a folder of PEFT's again: to go on from, or for a weak model.

    python benchmarks/stand_in/unpack.py skill
    python benchmarks/claim/controls.py runs/s0 --skill skill

Its weights are those of the file, in 8 and 16 bits; made a file again, they are the same.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from gguf import MODEL_ARCH, GGUFReader, get_tensor_name_map, quants
from make import LINEAR
from safetensors.numpy import save_file

from cowest_graph import embedded
from cowest_graph.adapters import CONFIG, WEIGHTS
from cowest_graph.weak.llama import base_shape


def main() -> None:
    """Write the folder."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("out", type=Path)
    options.add_argument("--lora", type=Path, default=embedded.NOTE_READER)
    given = options.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    weights = unpacked(given.lora)
    save_file(weights, given.out / WEIGHTS)
    blocks = sorted({int(name.split(".layers.")[1].split(".")[0]) for name in weights})
    rank = min(next(iter(weights.values())).shape)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(embedded.weak_model()),
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": LINEAR,
        "layers_to_transform": blocks,
        "inference_mode": True,
    }
    (given.out / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    print(f"{given.out}: {len(weights)} tensors, rank {rank}, blocks {blocks[0]} to {blocks[-1]}")


def unpacked(file: Path) -> dict[str, np.ndarray]:
    """PEFT's names and shapes of a file's tensors."""
    shape = base_shape(embedded.packaged_weights())
    names = _peft_names(shape["blocks"])
    found = {}
    for tensor in GGUFReader(file).tensors:
        name, _, half = tensor.name.rpartition(".lora_")
        values = quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        heads = {"attn_q": shape["heads"], "attn_k": shape["key_heads"]}.get(name.split(".")[-2])
        if half == "b" and heads:  # llama.cpp's order of the rotation's halves, taken back
            size = values.shape
            values = values.reshape(heads, size[0] // heads // 2, 2, -1).swapaxes(1, 2)
            values = values.reshape(size)
        key = f"base_model.model.{names[name]}.lora_{half.upper()}.weight"
        found[key] = np.ascontiguousarray(values)
    return found


def _peft_names(blocks: int) -> dict[str, str]:
    known = get_tensor_name_map(MODEL_ARCH.LLAMA, blocks)
    parts = [f"self_attn.{name}" for name in LINEAR[:4]] + [f"mlp.{name}" for name in LINEAR[4:]]
    modules = [f"model.layers.{block}.{part}" for block in range(blocks) for part in parts]
    return {f"{known.get_name(module)}.weight": module for module in modules}


if __name__ == "__main__":
    main()
