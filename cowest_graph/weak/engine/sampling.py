"""The next token of every row: greedy, temperature, top-k and top-p, each row with its own.

Knows logits and numbers. Knows no model and no text. Every row brings its own random number, so
that a seeded request gives the same tokens whoever shares its batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_CANDIDATES = 256
"""Where to look for the nucleus first: a sort of the whole vocabulary would cost a third of the
time of a decoding step. Rows whose nucleus is wider get more candidates, up to all."""


@dataclass(frozen=True)
class Rules:
    """How each of B rows is sampled; tensors of length B on the logits' device."""

    temperature: Tensor  # 1 for greedy rows
    top_p: Tensor  # 1 keeps all
    top_k: Tensor  # 0 keeps all
    greedy: Tensor  # bool
    all_greedy: bool
    any_full: bool  # some row samples from the whole vocabulary
    any_cut: bool  # some row has a top-k or a top-p

    @classmethod
    def of(cls, rows: list[tuple[float, float, int]], device: torch.device | None = None) -> Rules:
        """From (temperature, top_p, top_k) of each row; temperature 0 is greedy."""
        sampled = [row for row in rows if row[0] > 0]
        full = [row for row in sampled if row[1] >= 1 and not row[2]]
        return cls(
            temperature=torch.tensor([row[0] or 1.0 for row in rows], device=device),
            top_p=torch.tensor([row[1] for row in rows], device=device),
            top_k=torch.tensor([row[2] for row in rows], device=device),
            greedy=torch.tensor([row[0] == 0 for row in rows], device=device),
            all_greedy=not sampled,
            any_full=bool(full),
            any_cut=len(full) < len(sampled),
        )


def sample(logits: Tensor, rules: Rules, draws: Tensor) -> Tensor:
    """One token for each row.

    The order is that of transformers: temperature, then top-k, then top-p over what is left.
    Tokens are ordered by probability and the row's draw picks a place in their cumulative sum.

    Args:
        logits: [B, V].
        rules: of the B rows.
        draws: [B], uniform in [0, 1).

    Returns:
        Token ids, [B].
    """
    best = logits.argmax(-1)
    if rules.all_greedy:
        return best
    scaled = logits.float() / rules.temperature[:, None]
    tokens = best
    if rules.any_full:
        full = (rules.top_p >= 1) & (rules.top_k == 0)
        tokens = torch.where(full, _pick(scaled.softmax(-1), draws), tokens)
    if rules.any_cut:
        cut = ((rules.top_p < 1) | (rules.top_k > 0)) & ~rules.greedy
        within = _sample_cut(scaled, rules.top_p, rules.top_k, draws, cut, _CANDIDATES)
        tokens = torch.where(cut, within, tokens)
    return torch.where(rules.greedy, best, tokens)


def _sample_cut(
    scaled: Tensor, top_p: Tensor, top_k: Tensor, draws: Tensor, wanted: Tensor, width: int
) -> Tensor:
    """Sample within top-k and top-p among so many candidates; rows that need more get more."""
    width = min(width, scaled.shape[-1])
    top, ids = scaled.topk(width)
    probs = (top - scaled.logsumexp(-1, keepdim=True)).exp()
    tokens = _pick_nucleus(probs, ids, top_k, top_p, draws)
    if width < scaled.shape[-1]:
        enough = torch.where(top_k > 0, top_k <= width, probs.sum(-1) >= top_p)
        more = (wanted & ~enough).nonzero().flatten()
        if len(more):
            exact = _sample_cut(
                scaled[more], top_p[more], top_k[more], draws[more], wanted[more], 16 * width
            )
            tokens = tokens.index_copy(0, more, exact)
    return tokens


def _pick_nucleus(
    probs: Tensor, ids: Tensor, top_k: Tensor, top_p: Tensor, draws: Tensor
) -> Tensor:
    """Probabilities [B, C] in falling order; those beyond top-k and top-p become 0."""
    ranks = torch.arange(probs.shape[-1], device=probs.device)
    probs = probs.masked_fill((top_k[:, None] > 0) & (ranks >= top_k[:, None]), 0.0)
    # After top-k, top-p speaks of what is left; without it, of the whole vocabulary.
    whole = torch.where(top_k > 0, probs.sum(-1), torch.ones_like(top_p))
    before = probs.cumsum(-1) - probs
    probs = probs.masked_fill(before >= (top_p * whole)[:, None], 0.0)
    place = _pick(probs, draws)
    return ids.gather(-1, place[:, None]).squeeze(-1)


def _pick(weights: Tensor, draws: Tensor) -> Tensor:
    """The place in each row where the cumulative weight passes the row's draw: [B]."""
    sums = weights.cumsum(-1)
    total = sums[:, -1:]
    place = torch.searchsorted(sums, draws[:, None] * total, right=True).squeeze(-1)
    last = (weights > 0).long().cumsum(-1).argmax(-1)  # rounding never leads beyond it
    return torch.minimum(place, last)
