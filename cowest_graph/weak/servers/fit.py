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

from cowest_graph.adapters.folders import CONFIG, WEIGHTS, check_folder

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What `--max-lora-rank` takes (vllm.config.lora.MaxLoRARanks)."""

_KEY = re.compile(r"base_model\.model\.(.+)\.lora_(?:embedding_)?([AB])(?:\.weight)?")
# What vLLM's PEFTHelper refuses, or would serve as something else.
_UNSUPPORTED = (
    "use_dora",
    "modules_to_save",
    "lora_bias",
    "target_parameters",
    "layer_replication",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "use_bdlora",
    "use_qalora",
)
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")  # others change the base first


def check_fit(folder: Path, *, base: Path | None = None, max_rank: int | None = None) -> int:
    """Refuse an adapter that vLLM cannot serve, before any server is asked.

    Args:
        folder: adapter_config.json and adapter_model.safetensors.
        base: the base model's folder, to compare modules and shapes; None where it is not here.
        max_rank: the servers' `--max-lora-rank`; None where it is not known.

    Returns:
        The adapter's rank, the largest one of its modules.

    Raises:
        ValueError: for damaged or half-copied files, a rank above `max_rank`, and what vLLM has no
            way to serve; with what to do.
    """
    config = check_folder(folder)
    _check_kind(folder, config)
    modules = _modules(folder)
    if base is not None:
        _check_base(folder, modules, base)
    said = [config.get("r"), *(config.get("rank_pattern") or {}).values()]  # what vLLM goes by
    rank = max(
        [*(shape[1] for shape in modules.values()), *(r for r in said if isinstance(r, int))]
    )
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
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in _PLAIN_STARTS:
        odd.append(f"init_lora_weights={start!r}")
    if odd:
        raise ValueError(
            f"{folder} uses {', '.join(odd)}, which vLLM does not serve; train a plain LoRA"
        )


def _modules(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Module → (out, rank, in), from the shapes in the weights' header."""
    halves: dict[str, dict[str, list[int]]] = {}
    for key, shape in _shapes(folder / WEIGHTS).items():
        found = _KEY.fullmatch(key)
        if found is None:
            raise ValueError(f"{folder / WEIGHTS} holds {key!r}, which is no weight of a LoRA")
        halves.setdefault(found[1], {})[found[2]] = shape
    for module, pair in halves.items():
        if set(pair) != {"A", "B"}:
            raise ValueError(f"{folder} has only one half of {module!r}; copy the adapter again")
        if pair["A"][0] != pair["B"][1]:
            raise ValueError(
                f"{folder} changes {module!r} by {pair['B']} x {pair['A']}, whose ranks differ; "
                "copy the adapter again"
            )
    return {name: (pair["B"][0], pair["A"][0], pair["A"][1]) for name, pair in halves.items()}


def _check_base(folder: Path, modules: Mapping[str, tuple[int, int, int]], base: Path) -> None:
    layers: dict[str, list[int]] = {}
    for file in base.glob("*.safetensors"):
        layers.update(_shapes(file))
    if not layers:  # weights of another format: the server will tell
        return
    for name, (out, _, inner) in modules.items():
        there = layers.get(f"{name}.weight")
        if there is None:
            known = sorted({key.removesuffix(".weight").rpartition(".")[2] for key in layers})
            raise ValueError(
                f"{folder} changes {name!r}, which {base} has not; its modules are named "
                f"{', '.join(known)}; is it another base's?"
            )
        if there != [out, inner]:
            raise ValueError(
                f"{folder} changes {name!r} as a {out} x {inner} layer, but in {base} it is "
                f"{' x '.join(map(str, there))}; it is for another base"
            )


def _shapes(file: Path) -> dict[str, list[int]]:
    with safe_open(str(file), framework="np") as tensors:
        return {key: list(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
