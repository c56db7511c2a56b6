"""A batch's hidden states with every shared start computed once: the same values, less work.

Knows transformers' backbones and how attention is plugged into them. Knows no loss, no trainer and
no rows: a preference pair shares its prompt, rows of one task share their instructions, and both
are only sequences here. The first batch is computed both ways; where they differ, sharing ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from trainer.fast.prefix_tree import PrefixTree, prefix_tree

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_ATTENTION = "cowest_prefix_tree"
_TOLERANCE = {"float32": 1e-4}  # of the largest hidden value; else:
_ROUGH = 5e-2  # half precisions


def share_prefixes(
    model: PreTrainedModel, note: Callable[[str], None] = lambda text: None
) -> Sharing | None:
    """Let a model's backbone compute what the sequences of a batch share only once.

    Its forward pass then gives for a padded batch the same hidden states as before (up to
    rounding), with gradients, also under gradient checkpointing; anything else than a plain padded
    batch goes the usual way. Attention over a tree of prefixes is exact for causal full attention.

    Args:
        model: a transformers causal language model, or a `peft.PeftModel` over one.
        note: called with one sentence when it is done, cannot be done, or ends.

    Returns:
        The sharing, which counts and can be switched off; None where the model cannot do it.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    backbone = inner.base_model
    if hindrance := _hindrance(inner, backbone):
        note(f"prefixes are not shared: {hindrance}")
        return None
    if isinstance(sharing := getattr(backbone, "prefix_sharing", None), Sharing):
        return sharing
    _register()
    inner.set_attn_implementation(_ATTENTION)
    sharing = Sharing(backbone, note)
    backbone.prefix_sharing = sharing
    backbone.forward = sharing.forward
    return sharing


class Sharing:
    """The forward pass of one backbone over trees of prefixes.

    Attributes:
        enabled: False sends every batch the usual way.
        given: tokens of the batches so far, padding left out.
        computed: tokens that were computed for them.
    """

    def __init__(self, backbone: PreTrainedModel, note: Callable[[str], None]) -> None:
        self.enabled = True
        self.given = self.computed = 0
        self._config = backbone.config
        self._usual = backbone.forward
        self._noisy = _dropouts(backbone)
        self._note = note
        self._proven: set[bool] = set()  # for batches that share nothing (but pad), that share

    def forward(self, input_ids: Any = None, attention_mask: Any = None, **others: Any) -> Any:
        """The backbone's output for a padded batch.

        Args:
            input_ids: (rows, tokens).
            attention_mask: (rows, tokens), 0 on padding; None for none.
            others: what else the backbone takes.
        """
        if not self._applies(input_ids, attention_mask, others):
            return self._usual(input_ids=input_ids, attention_mask=attention_mask, **others)
        layout = _Layout(input_ids, attention_mask)
        if layout.nothing_to_win:
            return self._usual(input_ids=input_ids, attention_mask=attention_mask, **others)
        output = self._shared(layout)
        if layout.shares in self._proven or self._prove(layout, output, input_ids, attention_mask):
            self.given += layout.given
            self.computed += layout.computed
            return output
        return self._usual(input_ids=input_ids, attention_mask=attention_mask, **others)

    def _applies(self, input_ids: Any, attention_mask: Any, others: dict[str, Any]) -> bool:
        if not self.enabled or input_ids is None or input_ids.dim() != 2:
            return False
        if attention_mask is not None and attention_mask.shape != input_ids.shape:
            return False
        if any(value is not None and value is not False for value in others.values()):
            return False
        # Dropout would fall alike on all that share a prefix; DPO trains without any.
        return not any(module.training for module in self._noisy)

    def _shared(self, layout: _Layout) -> Any:
        import torch
        from transformers.modeling_outputs import BaseModelOutputWithPast

        flat = self._usual(
            input_ids=layout.tokens,
            attention_mask=torch.zeros(1, 1, 1, 1, device=layout.tokens.device),  # taken as it is
            position_ids=layout.positions,
            use_cache=False,
            prefix_tree=layout,
        ).last_hidden_state
        return BaseModelOutputWithPast(last_hidden_state=layout.spread(flat[0]))

    def _prove(
        self, layout: _Layout, output: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> bool:
        """Compare rows of a first batch with the usual way; sharing ends here where they differ.

        A few rows are enough, as all go the same way; TRL puts a pair half a batch apart.
        """
        import torch

        count = len(input_ids)
        rows = sorted({0, 1 % count, count // 2, count - 1})
        mask = None if attention_mask is None else attention_mask[rows]
        with torch.no_grad():
            usual = self._usual(
                input_ids=input_ids[rows], attention_mask=mask, use_cache=False
            ).last_hidden_state
            off = (output.last_hidden_state[rows] - usual).abs().float()
            if mask is not None:
                off = off * mask.unsqueeze(-1)
            worst = (off.max() / usual.abs().max()).item()
        precision = str(usual.dtype).removeprefix("torch.")
        layers = self._config.num_hidden_layers
        if layout.calls < layers:
            wrong = f"{layout.calls} of {layers} layers have attention that can be exchanged"
        elif not worst <= _TOLERANCE.get(precision, _ROUGH):  # nor where it is no number
            wrong = f"hidden states differ by {worst:.1e} in {precision}"
        else:
            self._proven.add(layout.shares)
            self._note(
                f"shared prefixes: {layout.computed} of {layout.given} tokens of a first batch "
                f"are computed, to the same hidden states (largest difference {worst:.1e})"
            )
            return True
        self.enabled = False
        self._note(f"prefixes are not shared: {wrong}")
        return False


def _dropouts(model: PreTrainedModel) -> list[Any]:
    from torch.nn import Dropout

    return [module for module in model.modules() if isinstance(module, Dropout) and module.p > 0]


class _Layout:
    """One batch's tree as tensors, and the attention over it.

    Attributes:
        tokens: (1, computed) ids, segment after segment.
        positions: (1, computed) positions within the sequences.
        calls: attention layers that took the tree.
        given: tokens of the batch, padding left out.
        computed: tokens of the tree.
        shares: whether any two texts share a start.
        nothing_to_win: whether nothing is shared and nothing is padded.
    """

    def __init__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> None:
        import torch

        rows = _rows(input_ids, attention_mask)
        tree = prefix_tree(rows)
        device = input_ids.device
        self.calls = 0
        self.given, self.computed = sum(map(len, rows)), len(tree)
        self.shares = self.computed < self.given
        self.nothing_to_win = self.computed == input_ids.numel()
        self.tokens = torch.tensor([tree.tokens], device=device)
        self.positions = torch.tensor([tree.positions], device=device)
        self._lengths = tree.lengths
        self._paths = [tree.path(segment) for segment in range(len(tree.segments))]
        self._masks = _masks(tree, device)
        self._places = _places(tree, input_ids, attention_mask)

    def spread(self, hidden: Any) -> Any:
        """(computed, width) to (rows, tokens, width); padding gets the first token's."""
        return hidden[self._places]

    def attend(self, query: Any, key: Any, value: Any, scaling: float | None) -> Any:
        """Attention of every segment over what leads to it and over itself, causally.

        Args:
            query: (1, heads, computed, width); key and value with the same number of heads.
            scaling: of the scores; None for torch's own.

        Returns:
            (1, heads, computed, width).
        """
        import torch

        self.calls += 1
        # One split each: its backward is one concatenation, where slices would add up full tensors.
        queries, keys, values = (t.split(self._lengths, dim=2) for t in (query, key, value))
        outputs = []
        for own, path, mask in zip(queries, self._paths, self._masks, strict=True):
            k = torch.cat([keys[i] for i in path], dim=2) if mask is not None else keys[path[0]]
            v = torch.cat([values[i] for i in path], dim=2) if mask is not None else values[path[0]]
            outputs.append(_attended(own, k, v, mask, scaling))
        return torch.cat(outputs, dim=2)


_SHORT = 256  # tokens up to which a CPU's fused attention costs more than it saves


def _attended(query: Any, key: Any, value: Any, mask: Any, scaling: float | None) -> Any:
    """Attention by torch; of short texts on a CPU by hand, which takes a third of the time, most of
    it in the backward pass."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention, softmax

    if query.device.type != "cpu" or key.shape[2] > _SHORT:
        return scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling
        )
    if mask is None:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril()
    scores = query @ key.transpose(2, 3) * (scaling or query.shape[3] ** -0.5)
    return softmax(scores.masked_fill(~mask, float("-inf")), dim=3).to(value.dtype) @ value


def _rows(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> list[list[int]]:
    if attention_mask is None:
        return [list(row) for row in input_ids.tolist()]
    kept = attention_mask.bool()
    return [row[keep].tolist() for row, keep in zip(input_ids, kept, strict=True)]


def _places(tree: PrefixTree, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
    """(rows, tokens) of indices into the tree's tokens; 0 on padding."""
    import torch

    places = torch.zeros_like(input_ids)
    for number in range(len(tree.ends)):
        own = torch.tensor(tree.places(number), device=input_ids.device)
        if attention_mask is None:
            places[number] = own
        else:
            places[number, attention_mask[number].bool()] = own
    return places


def _masks(tree: PrefixTree, device: torch.device) -> list[Any]:
    """Who sees whom, (own tokens, tokens before and own); None for a start, plainly causal."""
    import torch

    masks: list[Any] = []
    for segment in tree.segments:
        own, before = len(segment.tokens), segment.position
        if segment.parent is None:
            masks.append(None)
        else:
            all_seen = torch.ones(own, before + own, dtype=torch.bool, device=device)
            masks.append(all_seen.tril(before))
    return masks


def _attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: torch.Tensor,
    *,
    scaling: float | None = None,
    prefix_tree: _Layout | None = None,
    **others: Any,
) -> tuple[Any, None]:
    """transformers' attention interface: over a tree where there is one, else its own SDPA."""
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    if prefix_tree is None:
        own: tuple[Any, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
        return own
    groups = getattr(module, "num_key_value_groups", 1)
    output = prefix_tree.attend(query, repeat_kv(key, groups), repeat_kv(value, groups), scaling)
    return output.transpose(1, 2).contiguous(), None


def _register() -> None:
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(_ATTENTION, _attention)
    AttentionMaskInterface.register(_ATTENTION, sdpa_mask)  # for what goes the usual way


def _hindrance(inner: Any, backbone: PreTrainedModel) -> str | None:
    """Why a model cannot share prefixes; None when nothing is known against it."""
    config = inner.config.get_text_config()
    name = type(inner).__name__
    if backbone is inner or not getattr(inner, "_supports_attention_backend", False):
        return f"{name} has no attention that can be exchanged"
    if config._attn_implementation not in ("sdpa", "eager", _ATTENTION):
        return f"the model runs with {config._attn_implementation!r}, and sharing needs 'sdpa'"
    if others := _other_layers(config):
        return f"{name} has layers that are no full attention: {', '.join(sorted(others))}"
    if getattr(config, "attention_dropout", 0.0):
        return f"{name} has dropout in its attention"
    return None


def _other_layers(config: Any) -> set[str]:
    kinds: Iterable[str] = getattr(config, "layer_types", None) or ()
    others = {kind for kind in kinds if kind != "full_attention"}
    if not kinds and getattr(config, "sliding_window", None):
        others.add("sliding_attention")
    for name in ("attn_logit_softcapping", "attention_chunk_size"):
        if getattr(config, name, None):
            others.add(name)
    return others
