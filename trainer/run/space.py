"""What a run needs of memory and disk, estimated before it starts; and smaller batches.

Knows the headers of weight files and the arithmetic of training. Knows no torch and no trainer.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_RESERVE = 256 << 20  # bytes that a run leaves free on the disk


@dataclass(frozen=True)
class Memory:
    """Bytes that training takes, by what takes them. An estimate: within a factor of 2."""

    weights: int
    adapters: int  # the adapter, and its frozen copy where there is one
    optimizer: int  # gradients and states
    logits: int  # logits and their gradient, of one micro-batch
    activations: int  # kept for the backward pass, of one micro-batch

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.adapters + self.optimizer + self.logits + self.activations

    def as_dict(self) -> dict[str, int]:
        """The parts and the total, in bytes."""
        return {**self.__dict__, "total": self.total}

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size(value)}" for name, value in self.__dict__.items())
        return f"{size(self.total)} ({parts})"


def estimate_memory(
    model: Path,
    lora: Mapping[str, Any],
    args: Mapping[str, Any],
    *,
    kind: str,
    precision: str,
    longest: int,
    load_in_4bit: bool = False,
) -> Memory:
    """What training takes at its peak, from the weight files' headers.

    Args:
        model: the base model's folder.
        lora: arguments of `peft.LoraConfig`.
        args: arguments of TRL's config.
        kind: "sft", "dpo" or "kto".
        precision: "fp32", "bf16" or "fp16".
        longest: tokens of the longest text.
        load_in_4bit: whether the base's weights are kept in 4 bits.
    """
    shapes = weight_shapes(model)
    config = json.loads((model / "config.json").read_text("utf-8"))
    config = config.get("text_config", config)
    each = _BYTES[precision]
    parameters = sum(_product(shape) for shape in shapes.values())
    trained = lora_parameters(shapes, lora)
    texts = int(args.get("per_device_train_batch_size", 8)) * (2 if kind in ("dpo", "kto") else 1)
    tokens = texts * longest
    hidden, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
    wide = int(config.get("intermediate_size") or 4 * hidden)
    # Per token and layer a decoder keeps some 16 vectors of its width and 4 of its MLP's; with
    # checkpointing one vector a layer, and one layer in full.
    full = 16 * hidden + 4 * wide
    checkpointing = bool(args.get("gradient_checkpointing"))
    per_token = hidden * layers + full if checkpointing else full * layers
    adam = 2 if "adam" in str(args.get("optim", "adamw")) else 1
    return Memory(
        weights=parameters // 2 if load_in_4bit else parameters * each,
        adapters=trained * 4 * (1 if kind == "sft" else 2),
        optimizer=trained * 4 * (1 + adam),
        # SFT's default loss takes logits in pieces; elsewhere they are whole, in fp32 twice.
        logits=min(tokens, 8192 if kind == "sft" else tokens) * int(config["vocab_size"]) * 4 * 2,
        activations=tokens * per_token * each,
    )


def weight_shapes(model: Path) -> dict[str, list[int]]:
    """Names and shapes of a model's weights, read from the headers of its safetensors files."""
    found: dict[str, list[int]] = {}
    for file in sorted(model.glob("*.safetensors")):
        with file.open("rb") as weights:
            length = int.from_bytes(weights.read(8), "little")
            header = json.loads(weights.read(length))
        found |= {name: told["shape"] for name, told in header.items() if name != "__metadata__"}
    return found


def lora_parameters(shapes: Mapping[str, list[int]], lora: Mapping[str, Any]) -> int:
    """How many parameters an adapter of this shape has.

    Args:
        shapes: of the base's weights.
        lora: arguments of `peft.LoraConfig`; without target_modules, PEFT takes q_proj and v_proj
            of models like Llama.
    """
    targets = lora.get("target_modules") or ["q_proj", "v_proj"]
    if targets == "all-linear":
        targets = _LINEAR
    names = [targets] if isinstance(targets, str) else list(targets)
    layers = lora.get("layers_to_transform")
    total = 0
    for name, shape in shapes.items():
        module = name.removesuffix(".weight")
        fits = any(
            module == one or module.endswith(f".{one}") or fnmatch(module, one) for one in names
        )
        if fits and len(shape) == 2 and (layers is None or _layer(module) in _listed(layers)):
            total += int(lora.get("r", 8)) * (shape[0] + shape[1])
    return total


def smaller_batches(args: Mapping[str, Any], *, at_least: int = 1) -> dict[str, int] | None:
    """A micro-batch of half the size, or the next smaller one, accumulated more often.

    >>> smaller_batches({"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2})
    {'per_device_train_batch_size': 2, 'gradient_accumulation_steps': 4}

    Args:
        args: arguments of TRL's config.
        at_least: the smallest micro-batch that the recipe can take.

    Returns:
        The two arguments with the same global batch; None when there is no smaller one.
    """
    batch = int(args.get("per_device_train_batch_size", 8))
    times = int(args.get("gradient_accumulation_steps", 1))
    fitting = [size for size in range(at_least, batch // 2 + 1) if batch % size == 0]
    if not fitting:
        return None
    return {
        "per_device_train_batch_size": fitting[-1],
        "gradient_accumulation_steps": times * batch // fitting[-1],
    }


def needed_on_disk(model: Path) -> int:
    """Bytes that a run may write: three checkpoints of an adapter and its optimizer, a reserve."""
    parameters = sum(_product(shape) for shape in weight_shapes(model).values())
    # An adapter is rarely above a twentieth of its base; with two moments in fp32.
    return _RESERVE + 3 * parameters // 20 * 12


def check_disk(folder: Path, model: Path, *, free: int | None = None) -> None:
    """Refuse a run for which the disk is too full.

    Args:
        folder: where adapters and runs are kept; it need not exist.
        model: the base model's folder.
        free: bytes that are free; None to look.

    Raises:
        OSError: with how much is needed and how much there is.
    """
    there = folder.resolve()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free if free is None else free
    if free < (needed := needed_on_disk(model)):
        raise OSError(
            f"a run needs up to {size(needed)} on the disk of {there}, and {size(free)} are free; "
            "make room, or keep the adapters elsewhere"
        )


def free_memory() -> int | None:
    """Bytes of this machine's memory that can be had; None where that cannot be told."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None
    told = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines}
    limits = [told["MemAvailable"]] if "MemAvailable" in told else []
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text("ascii").strip()).isdigit():
        used = int(Path("/sys/fs/cgroup/memory.current").read_text("ascii"))
        limits.append(int(text) - used)
    return min(limits, default=None)


def size(number: float) -> str:
    """Bytes for people.

    >>> size(1536 * 2**20)
    '1.5 GiB'
    """
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"


def _layer(module: str) -> int | None:
    return next((int(part) for part in module.split(".") if part.isdigit()), None)


def _listed(layers: Any) -> list[int]:
    return [layers] if isinstance(layers, int) else list(layers)


def _product(shape: list[int]) -> int:
    total = 1
    for number in shape:
        total *= number
    return total
