"""What a run needs of the disk, told before it starts; and smaller batches.

Knows the headers of weight files. Knows no torch and no trainer.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_RESERVE = 256 << 20  # bytes that a run leaves free on the disk


def weight_shapes(model: Path) -> dict[str, list[int]]:
    """Names and shapes of a model's weights, read from the headers of its safetensors files."""
    found: dict[str, list[int]] = {}
    for file in sorted(model.glob("*.safetensors")):
        with file.open("rb") as weights:
            length = int.from_bytes(weights.read(8), "little")
            header = json.loads(weights.read(length))
        found |= {name: told["shape"] for name, told in header.items() if name != "__metadata__"}
    return found


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


def size(number: float) -> str:
    """Bytes for people.

    >>> size(1536 * 2**20)
    '1.5 GiB'
    """
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"


def _product(shape: list[int]) -> int:
    total = 1
    for number in shape:
        total *= number
    return total
