"""A GGUF model with a GGUF adapter in its weights: its answers for less work.

Knows both file formats. Knows no server. llama.cpp computes an adapter beside the weights, two
small products for every large one, which on a CPU costs as much again as the weights do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cowest_graph.files import replacing

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFReader, GGUFWriter, ReaderTensor

_OWN = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture")


def merge(weights: Path, lora: Path, target: Path) -> None:
    """Write the weights with the adapter added to them, in 8 bits (Q8_0); whole, or not at all.

    Args:
        weights: the model.
        lora: an adapter on it, as llama.cpp's converter writes one.
        target: the new file; its folder is there.

    Raises:
        ValueError: when the adapter is of another model.
        OSError: when the disk is full, or the folder cannot be written to.
    """
    from gguf import GGUFReader, GGUFWriter

    model, adapter = GGUFReader(weights), GGUFReader(lora)
    deltas = _deltas(adapter, lora)
    if lacking := deltas.keys() - {tensor.name for tensor in model.tensors}:
        raise ValueError(f"{lora} adapts {min(lacking)}, which {weights} does not have")
    with replacing(target) as beside:
        writer = GGUFWriter(beside, "llama")
        copy_fields(model, writer)
        for tensor in model.tensors:
            _add(writer, tensor, deltas.get(tensor.name))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _deltas(adapter: GGUFReader, path: Path) -> Mapping[str, tuple[float, Any, Any]]:
    """Of every adapted tensor: scale, A (rank, in) and B (out, rank)."""
    alpha = adapter.get_field("adapter.lora.alpha")
    parts = {tensor.name: _values(tensor) for tensor in adapter.tensors}
    names = {name.removesuffix(".lora_a") for name in parts if name.endswith(".lora_a")}
    if alpha is None or not names:
        raise ValueError(f"{path} is no LoRA adapter")
    pairs = {name: (parts[f"{name}.lora_a"], parts[f"{name}.lora_b"]) for name in names}
    return {name: (float(alpha.contents()) / len(a), a, b) for name, (a, b) in pairs.items()}


def _values(tensor: ReaderTensor) -> np.ndarray[Any, Any]:
    import numpy as np
    from gguf import quants

    values: np.ndarray[Any, Any] = quants.dequantize(tensor.data, tensor.tensor_type)
    return values.astype(np.float32, copy=False)


def copy_fields(model: GGUFReader, writer: GGUFWriter) -> None:
    """Hand on all that a file says beside its tensors."""
    for field in model.fields.values():
        if field.name not in _OWN:
            inner = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)


def _add(writer: GGUFWriter, tensor: ReaderTensor, delta: tuple[float, Any, Any] | None) -> None:
    from gguf import GGMLQuantizationType, quants

    kind = GGMLQuantizationType.Q8_0
    if delta is None and tensor.tensor_type in (GGMLQuantizationType.F32, kind):
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        return
    values = _values(tensor)
    if delta is not None:
        scale, a, b = delta
        values = values + scale * (b @ a)
    writer.add_tensor(tensor.name, quants.quantize(values, kind), raw_dtype=kind)
