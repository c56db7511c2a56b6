"""LoRA adapters as immutable values beside a running model, chosen per row of a batch.

Knows PEFT's LoRA files and linear layers. Knows no registry, no tokens and no sampling.

PEFT itself attaches an adapter by changing the live modules (the first one replaces them, every
one moves the active adapter), which mixes adapters in the middle of a text while another thread
is in a forward pass. Here an adapter is read into tensors of its own, on any thread, and a forward
pass is told which rows use which adapter: nothing that a running pass looks at ever changes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cowest_graph.adapters import CONFIG, WEIGHTS

_KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
# Options under which the files mean more than W + B·A·scale, or a base that was changed first.
_UNSUPPORTED = (
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "target_parameters",
    "trainable_token_indices",
    "layer_replication",
    "fan_in_fan_out",
    "alora_invocation_tokens",
    "arrow_config",
    "use_qalora",
    "use_bdlora",
)
_PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva", None)


@dataclass(frozen=True)
class Delta:
    """One linear layer's low-rank change; y becomes y + x @ down @ up."""

    down: Tensor  # [in, r]: A, transposed
    up: Tensor  # [r, out]: B, transposed, times alpha / r


Lora = Mapping[str, Delta]
"""An adapter: module name → its change. Empty is the bare base model."""


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """The layers that an adapter may change, by their names in the model."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}


def read_lora(
    folder: Path, layers: Mapping[str, nn.Linear], dtype: torch.dtype | None = None
) -> Lora:
    """Read a PEFT folder as values for these layers.

    Args:
        folder: adapter_config.json and adapter_model.safetensors.
        layers: what `linear_layers` found in the model.
        dtype: what the layers compute in; None for their weights' own (quantized ones differ).

    Raises:
        ValueError: for an adapter that is no plain LoRA, or that does not fit the layers.
    """
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    _check_config(folder, config)
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_file(folder / WEIGHTS).items():
        found = _KEY.fullmatch(key)
        if found is None:
            raise ValueError(f"{folder / WEIGHTS} holds {key!r}, which is no weight of a LoRA")
        halves.setdefault(found[1], {})[found[2]] = tensor
    return {
        name: _delta(folder, name, pair, layers, _scale(config, name, pair), dtype)
        for name, pair in halves.items()
    }


def _check_config(folder: Path, config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise ValueError(
            f"{folder} is a {config.get('peft_type')} adapter; only LORA can be served"
        )
    odd = [option for option in _UNSUPPORTED if config.get(option)]
    if config.get("bias", "none") != "none":
        odd.append("bias")
    if config.get("init_lora_weights", True) not in _PLAIN_STARTS:
        odd.append(f"init_lora_weights={config['init_lora_weights']!r}")
    if odd:
        raise ValueError(
            f"{folder} uses {', '.join(odd)}, which cannot be swapped beside a running model; "
            "train a plain LoRA"
        )


def _delta(
    folder: Path,
    name: str,
    pair: Mapping[str, Tensor],
    layers: Mapping[str, nn.Linear],
    scale: float,
    dtype: torch.dtype | None,
) -> Delta:
    layer = layers.get(name)
    if layer is None:
        raise ValueError(
            f"{folder} changes {name!r}, which this base has not; is it another base's?"
        )
    if set(pair) != {"A", "B"}:
        raise ValueError(f"{folder} has only one half of {name!r}; copy the adapter again")
    down, up = pair["A"], pair["B"]
    fits = (down.shape[1], up.shape[0]) == (layer.in_features, layer.out_features)
    if not fits or down.shape[0] != up.shape[1]:
        raise ValueError(
            f"{folder} changes {name!r} by {tuple(up.shape)} x {tuple(down.shape)}, but there it "
            f"is {layer.out_features} x {layer.in_features}; it is for another base"
        )
    to = {"device": layer.weight.device, "dtype": dtype or layer.weight.dtype}
    return Delta(
        down.t().contiguous().to(**to),  # type: ignore[call-overload]
        (up.float() * scale).t().contiguous().to(**to),  # type: ignore[call-overload]
    )


def _scale(config: Mapping[str, Any], name: str, pair: Mapping[str, Tensor]) -> float:
    """alpha / r as PEFT computes it, with its per-module patterns and rank stabilisation."""
    alpha: float = config.get("lora_alpha", 8)
    for pattern, of_module in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            alpha = of_module
            break
    rank = pair["A"].shape[0] if "A" in pair else 1
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


class LoraRows:
    """Applies adapters to the rows of a batch, through hooks that are set once.

    Each adapter's change is computed for the whole batch and kept for its own rows by a mask: at
    these ranks that is cheaper than to gather and scatter rows, and a swap has nothing to prepare.

    Args:
        layers: what `linear_layers` found in the model.
    """

    def __init__(self, layers: Mapping[str, nn.Linear]) -> None:
        self._groups: list[tuple[Lora, Tensor | None]] = []
        for name, layer in layers.items():
            layer.register_forward_hook(self._hook(name))

    def use(self, adapters: Sequence[Lora], device: torch.device) -> None:
        """Say which adapter each row of the next forward passes uses.

        Args:
            adapters: one for each row; rows with the very same object are computed together.
            device: where the model is.
        """
        different = {id(adapter): adapter for adapter in adapters}
        alone = len(different) == 1
        self._groups = []
        for key, adapter in different.items():
            if adapter:  # the bare base changes nothing
                own = None if alone else [id(each) == key for each in adapters]
                rows = None if own is None else torch.tensor(own, device=device)[:, None, None]
                self._groups.append((adapter, rows))

    def _hook(self, name: str) -> Any:
        def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            for adapter, rows in self._groups:
                delta = adapter.get(name)
                if delta is None:
                    continue
                x = inputs[0]
                low = x.reshape(-1, x.shape[-1]) @ delta.down
                if rows is not None:
                    low.view(len(rows), -1, low.shape[-1]).mul_(rows)
                output.view(-1, output.shape[-1]).addmm_(low, delta.up)

        return add
