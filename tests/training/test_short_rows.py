"""What short rows on a CPU take in place of torch's attention and TRL's chunks: the same values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from trl.trainer import sft_trainer

from trainer.fast.paths import chunks_for
from trainer.fast.shared_prefix import _SHORT, _attended


def drawn(own: int, seen: int, dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(own)
    shapes = [(1, 3, own, 16), (1, 3, seen, 16), (1, 3, seen, 16)]
    return [torch.randn(shape).to(dtype).requires_grad_() for shape in shapes]


def computed(attention: Any, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """The output and the three gradients."""
    out = attention(*tensors)
    (out.float() * torch.arange(out.shape[2])[:, None]).sum().backward()
    found = [out, *(tensor.grad for tensor in tensors)]
    for tensor in tensors:
        tensor.grad = None
    return [each.float() for each in found]


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("scaling", [None, 0.7])
@pytest.mark.parametrize("before", [0, 9, _SHORT])
def test_attention_by_hand_is_torch_s(
    dtype: torch.dtype, near: float, scaling: float | None, before: int
) -> None:
    own = 11
    mask = torch.ones(own, before + own, dtype=torch.bool).tril(before) if before else None
    tensors = drawn(own, before + own, dtype)
    by_hand = computed(lambda q, k, v: _attended(q, k, v, mask, scaling), tensors)
    by_torch = computed(
        lambda q, k, v: scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling
        ),
        tensors,
    )
    for ours, theirs in zip(by_hand, by_torch, strict=True):
        assert (ours - theirs).abs().max() <= near * theirs.abs().max()


def test_small_batches_on_a_cpu_get_chunks_that_they_fill(monkeypatch: pytest.MonkeyPatch) -> None:
    now = sft_trainer._CHUNKED_LM_HEAD_CHUNK_SIZE
    monkeypatch.setattr(sft_trainer, "_CHUNKED_LM_HEAD_CHUNK_SIZE", now)  # put back afterwards
    small, usual = chunks_for(2, "cpu"), chunks_for(2, "cuda")
    assert small is not None
    assert usual is not None
    assert small < usual == chunks_for(64, "cpu") == sft_trainer._CHUNKED_LM_HEAD_CHUNK_SIZE
    torch.manual_seed(0)
    hidden, weight = torch.randn(2, 40, 8), torch.randn(50, 8)
    labels = torch.randint(0, 50, (2, 40)).masked_fill(torch.rand(2, 40) < 0.5, -100)
    loss, *_ = sft_trainer._chunked_cross_entropy_loss(hidden, weight, usual, labels=labels)
    again, *_ = sft_trainer._chunked_cross_entropy_loss(hidden, weight, small, labels=labels)
    assert torch.allclose(loss, again, atol=1e-5)
