"""Whether vLLM can serve an adapter: its files, its rank, its modules.

Knows PEFT's folders and vLLM's limits. Knows no server and no request; reads no tensor.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from cowest_graph.adapter_folders import CONFIG, WEIGHTS, check_folder

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What `--max-lora-rank` takes (vllm.config.lora.MaxLoRARanks)."""

_KEY = re.compile(r"base_model\.model\.(.+)\.lora_(?:embedding_)?([AB])(?:\.weight)?")
# What vLLM's PEFTHelper refuses, or would silently serve as something else.
_UNSUPPORTED = (
    "use_dora",
    "modules_to_save",
    "lora_bias",
    "target_parameters",
    "layer_replication",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "fan_in_fan_out",
)


def check_fit(folder: Path, *, max_rank: int | None = None) -> int:
    """Refuse an adapter that vLLM cannot serve, before any server is asked.

    Args:
        folder: adapter_config.json and adapter_model.safetensors.
        max_rank: the servers' `--max-lora-rank`; None where it is not known.

    Returns:
        The adapter's rank, the largest one of its modules.

    Raises:
        ValueError: for damaged or half-copied files, a rank above `max_rank`, and what vLLM has no
            way to serve; with what to do.
    """
    config = check_folder(folder)
    _check_kind(folder, config)
    ranks = _ranks(folder)
    rank = max(ranks.values())
    limit = max_rank or RANKS[-1]
    if rank > limit:
        todo = (
            f"start them with --max-lora-rank {accepted_rank([rank])}"
            if rank <= RANKS[-1]
            else f"train with a rank of {RANKS[-1]} at most"
        )
        raise ValueError(
            f"{folder} has rank {rank}, and the vLLM servers take {limit} at most; {todo}"
        )
    return rank


def accepted_rank(ranks: Iterable[int]) -> int:
    """The least `--max-lora-rank` for adapters of these ranks; 16, the paper's, for none.

    >>> accepted_rank([4, 24])
    32
    """
    wanted = max(ranks, default=16)
    return next((rank for rank in RANKS if rank >= wanted), RANKS[-1])


def served_name(version: str, folder: Path) -> str:
    """The model name of a version on a server; other weights, another name."""
    digest = hashlib.sha256((folder / CONFIG).read_bytes())
    with (folder / WEIGHTS).open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"{version}-{digest.hexdigest()[:10]}"


def _check_kind(folder: Path, config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise ValueError(f"{folder} is a {config.get('peft_type')} adapter; vLLM serves LORA only")
    odd = [option for option in _UNSUPPORTED if config.get(option)]
    if config.get("bias", "none") != "none":
        odd.append("bias")
    if odd:
        raise ValueError(
            f"{folder} uses {', '.join(odd)}, which vLLM does not serve; train a plain LoRA"
        )


def _ranks(folder: Path) -> dict[str, int]:
    """Module → rank, from the shapes in the weights' header."""
    halves: dict[str, dict[str, list[int]]] = {}
    with safe_open(str(folder / WEIGHTS), framework="np") as tensors:
        for key in tensors.keys():  # noqa: SIM118  # it is no mapping
            found = _KEY.fullmatch(key)
            if found is None:
                raise ValueError(f"{folder / WEIGHTS} holds {key!r}, which is no weight of a LoRA")
            shape = tensors.get_slice(key).get_shape()
            halves.setdefault(found[1], {})[found[2]] = list(shape)
    for module, pair in halves.items():
        if set(pair) != {"A", "B"}:
            raise ValueError(f"{folder} has only one half of {module!r}; copy the adapter again")
        if pair["A"][0] != pair["B"][1]:
            raise ValueError(
                f"{folder} changes {module!r} by {pair['B']} x {pair['A']}, whose ranks differ; "
                "copy the adapter again"
            )
    return {module: pair["A"][0] for module, pair in halves.items()}
