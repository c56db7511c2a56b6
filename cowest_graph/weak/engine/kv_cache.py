"""The keys and values of a batch whose rows come and go while it runs.

Knows tensors and places. Knows no text, no request and no adapter.

All rows end at the same column, so that a decoding step writes one column; a shorter row has
unused columns on its left, which a mask hides. Nothing is copied in a step: the buffers are larger
than what is used, and attention reads a view of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

ATTENTION = "cowest_sdpa"
_SLACK = 128  # columns


class RowLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values, [rows, heads, columns, head size]."""

    is_sliding = False

    def __init__(self, cache: RowCache) -> None:
        super().__init__()
        self.cache = cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Not used: `RowCache.admit` makes the buffers."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one column, and give a view of all rows' columns with it."""
        rows, start, end = self.cache.rows, self.cache.start, self.cache.end
        self.keys[:rows, :, end : end + 1] = key_states
        self.values[:rows, :, end : end + 1] = value_states
        return self.keys[:rows, :, start : end + 1], self.values[:rows, :, start : end + 1]

    def resize(self, rows: int, columns: int, end: int) -> None:
        """Move the used columns into new buffers, so that they end at `end`."""
        cache = self.cache
        used = slice(cache.start, cache.end)
        placed = slice(end - (cache.end - cache.start), end)
        for name in ("keys", "values"):
            old: Tensor = getattr(self, name)
            new = old.new_zeros((rows, old.shape[1], columns, old.shape[3]))
            if cache.rows:
                new[: cache.rows, :, placed] = old[: cache.rows, :, used]
            setattr(self, name, new)

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.cache.end - self.cache.start

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that attention sees, and where they begin."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """No limit."""
        return -1


class RowCache(Cache):  # type: ignore[misc]
    """A cache that rows join and leave.

    Args:
        layers: number of the model's layers.
        device: where the model is.
    """

    def __init__(self, layers: int, device: torch.device) -> None:
        super().__init__(layers=[RowLayer(self) for _ in range(layers)])
        self.device = device
        self.clear()

    def clear(self) -> None:
        """Forget all rows and free the buffers."""
        self.rows = self.start = self.end = 0
        self.row_capacity = self.column_capacity = 0
        self.lengths: list[int] = []  # of each row, in tokens
        self.places = torch.zeros(0, dtype=torch.long, device=self.device)  # the same
        for layer in self.layers:
            layer.keys = layer.values = None

    def admit(self, prompts: Cache, sources: list[int], lengths: list[int]) -> None:
        """Add rows, each a copy of a row of a prefilled, left-padded cache.

        Args:
            prompts: the prefilled cache.
            sources: which of its rows, one for each new row.
            lengths: each new row's own tokens.
        """
        width = prompts.get_seq_length()
        if self.row_capacity == 0:
            for layer, new in zip(self.layers, prompts.layers, strict=True):
                heads, size = new.keys.shape[1], new.keys.shape[3]
                layer.keys = new.keys.new_empty((0, heads, 0, size))
                layer.values = new.values.new_empty((0, heads, 0, size))
        self._reserve(self.rows + len(sources), width)
        rows = slice(self.rows, self.rows + len(sources))
        columns = slice(self.end - width, self.end)
        picked = torch.tensor(sources, device=self.device)
        for layer, new in zip(self.layers, prompts.layers, strict=True):
            layer.keys[rows, :, columns] = new.keys.index_select(0, picked)
            layer.values[rows, :, columns] = new.values.index_select(0, picked)
        self.rows += len(sources)
        self._set_lengths(self.lengths + lengths)

    def remove(self, row: int) -> None:
        """Drop a row; the last row takes its place."""
        last = self.rows - 1
        if row != last:
            for layer in self.layers:
                for buffer in (layer.keys, layer.values):
                    buffer[row, :, self.start : self.end] = buffer[last, :, self.start : self.end]
        self.rows = last
        lengths = self.lengths
        lengths[row] = lengths[last]
        self._set_lengths(lengths[:-1])

    def begin_step(self) -> tuple[Tensor, Tensor | None]:
        """Make room for one column.

        Returns:
            position ids [rows, 1]; the mask [rows, 1, 1, columns], None where no row is shorter.
        """
        self._reserve(self.rows, 0)
        width = self.end - self.start + 1
        if min(self.lengths) == max(self.lengths):
            return self.places[:, None], None
        columns = torch.arange(width, device=self.device)
        mask = columns >= (width - 1 - self.places)[:, None]
        return self.places[:, None], mask[:, None, None, :]

    def end_step(self) -> None:
        """The column is written."""
        self.end += 1
        self.lengths = [length + 1 for length in self.lengths]
        self.places = self.places + 1

    def _set_lengths(self, lengths: list[int]) -> None:
        self.lengths = lengths
        self.start = self.end - max(lengths, default=0)
        self.places = torch.tensor(lengths, dtype=torch.long, device=self.device)

    def _reserve(self, rows: int, width: int) -> None:
        """Room for `rows`, for `width` columns up to the end, and for one column more."""
        if rows <= self.row_capacity and width <= self.end < self.column_capacity:
            return
        used = self.end - self.start
        end = max(used, width)
        columns = self.column_capacity
        if columns < end + _SLACK // 2:
            columns = end + max(_SLACK, end // 2)
        capacity = self.row_capacity if rows <= self.row_capacity else max(rows, 2 * self.rows)
        for layer in self.layers:
            layer.resize(capacity, columns, end)
        self.row_capacity, self.column_capacity = capacity, columns
        self.start, self.end = end - used, end


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """SDPA; in a decoding step the query heads of a group share their keys without copies of them.

    transformers repeats keys and values for every query head once there is a mask, which is most
    of a decoding step's memory traffic.
    """
    heads, length, size = query.shape[1:]
    plain = length == 1 and not kwargs.get("dropout") and kwargs.get("position_bias") is None
    if not plain or "s_aux" in kwargs or kwargs.get("softcap") is not None:
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
    groups = key.shape[1]
    grouped = query.reshape(len(query), groups, heads // groups, size)
    out = torch.nn.functional.scaled_dot_product_attention(
        grouped, key, value, attn_mask=attention_mask, scale=scaling
    )
    return out.reshape(len(query), 1, heads, out.shape[-1]), None


AttentionInterface.register(ATTENTION, _attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
