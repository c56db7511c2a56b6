"""The decode engine of `LocalWeak`, on a tiny random model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from waiting import eventually

from cowest_graph.weak.engine.decode import Engine
from cowest_graph.weak.engine.request import Cancelled, QueueFull, Request, Sampling
from cowest_graph.weak.engine.sampling import Rules, sample


class Scripted(LlamaForCausalLM):
    """A tiny model whose next tokens may be given, and which can be made to fail."""

    script: list[int] | None = None
    broken = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.broken:
            raise RuntimeError("out of order")
        out = super().forward(*args, **kwargs)
        if self.script:
            out.logits[:, -1, self.script[int(kwargs["position_ids"][0, -1])]] = 1e9
        return out


def tiny_engine(
    tokenizer: Any,
    script: list[int] | None = None,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Engine:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        max_position_embeddings=512,
        initializer_range=0.3,
        eos_token_id=2,
    )
    model = Scripted(config).to(dtype).eval()
    model.script = script
    return Engine(model, tokenizer, **options)


def ask(engine: Engine, prompt: Sequence[int], **sampling: Any) -> Request:
    request = Request(tuple(prompt), Sampling(**{"temperature": 0, **sampling}), {}, "base")
    engine.submit(request)
    return request


def test_rows_that_come_and_go_do_not_disturb_each_other(tokenizer: Any) -> None:
    """Many texts of many lengths through few places: each as if it were alone."""
    engine = tiny_engine(tokenizer, max_batch_size=4)
    engine.stop_ids = frozenset()
    generator = torch.Generator().manual_seed(1)
    prompts = [
        torch.randint(3, 9999, (int(size),), generator=generator).tolist()
        for size in torch.randint(1, 200, (24,), generator=generator)
    ]
    lengths = torch.randint(1, 90, (24,), generator=generator).tolist()
    asked = [ask(engine, p, max_tokens=n) for p, n in zip(prompts, lengths, strict=True)]
    together = [request.done.result(60)[0].ids for request in asked]
    steps = engine.steps
    assert steps < sum(lengths) / 2
    with torch.inference_mode():
        for prompt, length, ids in list(zip(prompts, lengths, together, strict=True))[::3]:
            alone = engine.model.generate(
                torch.tensor([prompt]), do_sample=False, max_new_tokens=length, eos_token_id=None
            )
            assert list(ids) == alone[0, len(prompt) :].tolist()
    engine.close()


@pytest.mark.parametrize(("dtype", "tie"), [(torch.float32, 1e-4), (torch.bfloat16, 0.5)])
def test_neighbours_decide_nothing_but_ties(tokenizer: Any, dtype: torch.dtype, tie: float) -> None:
    """A text in a mixed batch leaves what it is alone only where two tokens are as good, up to
    rounding: half a nat of logits of size 50 in bfloat16, nothing to speak of in float32."""
    engine = tiny_engine(tokenizer, dtype=dtype, max_batch_size=6)
    engine.stop_ids = frozenset()
    generator = torch.Generator().manual_seed(2)
    prompts = [
        torch.randint(3, 9999, (int(size),), generator=generator).tolist()
        for size in torch.randint(1, 60, (18,), generator=generator)
    ]
    asked = [ask(engine, prompt, max_tokens=30) for prompt in prompts]
    together = [request.done.result(120)[0].ids for request in asked]
    alone = [ask(engine, prompt, max_tokens=30).done.result(120)[0].ids for prompt in prompts]
    again = [ask(engine, prompt, max_tokens=30).done.result(120)[0].ids for prompt in prompts]
    assert again == alone  # a request that is alone repeats itself, in every precision
    for prompt, one, other in zip(prompts, alone, together, strict=True):
        same = next(
            (i for i, pair in enumerate(zip(one, other, strict=True)) if len(set(pair)) > 1), None
        )
        if same is None:
            continue
        with torch.inference_mode():
            logits = engine.model(torch.tensor([[*prompt, *one[:same]]])).logits[0, -1].float()
        assert logits[one[same]] - logits[other[same]] <= tie
    engine.close()


def test_cancelling_half_frees_its_places_at_once_and_changes_no_other_text(
    tokenizer: Any,
) -> None:
    engine = tiny_engine(tokenizer, max_batch_size=20)
    engine.stop_ids = frozenset()
    prompts = [range(3 + place, 13 + 2 * place) for place in range(20)]
    alone = [ask(engine, p, max_tokens=150).done.result(60)[0].ids for p in prompts]
    asked = [ask(engine, prompt, max_tokens=150) for prompt in prompts]
    assert eventually(lambda: engine.running == 20)
    rows = list(engine._rows)
    for request in asked[::2]:
        engine.cancel(request)
    written = [len(row.ids) for row in rows if row.request.given_up]
    assert eventually(lambda: engine.running == 10)
    after = [len(row.ids) for row in rows if row.request.given_up]
    # Of what was given up, at most the step under way and the one that sees it were written.
    assert all(now - then <= 2 for now, then in zip(after, written, strict=True))
    assert [r.done.result(60)[0].ids for r in asked[1::2]] == alone[1::2]
    engine.close()


def test_the_context_is_the_end(tokenizer: Any) -> None:
    engine = tiny_engine(tokenizer)
    engine.stop_ids = frozenset()
    (written,) = ask(engine, range(3, 503), max_tokens=100).done.result(20)
    assert (len(written.ids), written.finish_reason) == (12, "length")
    engine.close()


def test_a_full_queue_is_refused(tokenizer: Any) -> None:
    engine = tiny_engine(tokenizer, max_batch_size=1, max_queue=2)
    engine.stop_ids = frozenset()
    running = ask(engine, [5], max_tokens=400)
    assert eventually(lambda: engine.running == 1)
    waiting = [ask(engine, [5], max_tokens=1) for _ in range(2)]
    with pytest.raises(QueueFull, match="max_queue is 2"):
        ask(engine, [5])
    engine.cancel(running)
    assert [len(request.done.result(20)) for request in waiting] == [1, 1]
    engine.close()


def test_a_failed_step_fails_its_texts_and_the_engine_goes_on(tokenizer: Any) -> None:
    engine = tiny_engine(tokenizer)
    engine.stop_ids = frozenset()
    before = ask(engine, [5, 6], max_tokens=5).done.result(20)
    running = ask(engine, [5, 6], max_tokens=500)
    assert eventually(lambda: engine.running == 1)
    engine.model.broken = True  # in the middle of one text, before the first token of another
    for request in (running, ask(engine, [5, 6], max_tokens=5)):
        with pytest.raises(RuntimeError, match="out of order"):
            request.done.result(20)
    engine.model.broken = False
    assert ask(engine, [5, 6], max_tokens=5).done.result(20) == before
    engine.close()


def test_closing_fails_what_is_left(tokenizer: Any) -> None:
    engine = tiny_engine(tokenizer, max_batch_size=1)
    engine.stop_ids = frozenset()
    asked = [ask(engine, [5], max_tokens=500) for _ in range(3)]
    engine.close()
    for request in asked:
        with pytest.raises(Cancelled, match="closed"):
            request.done.result(5)
    with pytest.raises(Cancelled, match="closed"):
        ask(engine, [5])


@pytest.mark.parametrize("spread", [0.1, 3.0])  # a nucleus of nearly all tokens, and of few
@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"), [(1.0, 0.9, 0), (0.7, 1.0, 0), (1.3, 0.8, 40), (1, 1, 600)]
)
def test_frequencies_are_those_of_transformers(
    spread: float, temperature: float, top_p: float, top_k: int
) -> None:
    logits = torch.randn(1, 1000, generator=torch.Generator().manual_seed(0)) * spread
    expected = logits / temperature
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    draws = (torch.arange(4000) + 0.5) / 4000
    many = logits.expand(len(draws), -1)
    ids = sample(many, Rules.of([(temperature, top_p, top_k)] * len(draws)), draws)
    counts = torch.bincount(ids, minlength=1000) / len(draws)
    assert (counts - expected.softmax(-1)[0]).abs().max() < 6e-4
    assert not counts[expected[0].isinf()].any()


def test_each_row_has_its_own_rules() -> None:
    logits = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))
    rules = [(0.0, 0.9, 0), (1.0, 0.9, 0), (1.0, 1.0, 0), (2.0, 1.0, 5)]
    draws = torch.tensor([0.9, 0.5, 0.5, 0.999])
    together = sample(logits, Rules.of(rules), draws)
    alone = [
        sample(logits[row : row + 1], Rules.of([rules[row]]), draws[row : row + 1])
        for row in range(4)
    ]
    assert together.tolist() == torch.cat(alone).tolist()
    assert together[0] == logits[0].argmax()
