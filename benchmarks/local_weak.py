"""How fast the weak model in this process writes, beside transformers' own `generate`.

Usage: python benchmarks/local_weak.py MODEL [--texts 16] [--tokens 64]

All ways write the same number of tokens from the same prompts, in one process, one after another;
the machine's other work disturbs them alike, so read the ratios.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cowest_graph.weak.engine import Engine, Request, Sampling

TOPICS = ["rivers", "bread", "the moon", "old maps", "bees", "glass", "salt", "trains"]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("model")
    options.add_argument("--texts", type=int, default=16)
    options.add_argument("--tokens", type=int, default=64)
    asked = options.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(asked.model)
    plain = AutoModelForCausalLM.from_pretrained(asked.model, dtype=torch.float32).eval()
    ours = AutoModelForCausalLM.from_pretrained(asked.model, dtype=torch.float32).eval()
    prompts = [_prompt(tokenizer, place) for place in range(asked.texts)]
    engine = Engine(ours, tokenizer, max_batch_size=asked.texts)
    engine.stop_ids = frozenset()  # every text as long as the next

    def one_at_a_time(sampled: bool) -> None:
        for prompt in prompts[:2]:
            _generate(plain, tokenizer, [prompt], asked.tokens, sampled)

    def static_batch(sampled: bool) -> None:
        _generate(plain, tokenizer, prompts, asked.tokens, sampled)

    def together(sampled: bool) -> None:
        _write(engine, prompts, asked.tokens, sampled)

    def ours_alone(sampled: bool) -> None:
        for prompt in prompts[:2]:
            _write(engine, [prompt], asked.tokens, sampled)

    print(
        f"{asked.texts} texts of {asked.tokens} tokens, {torch.get_num_threads()} threads, float32"
    )
    _generate(plain, tokenizer, prompts[:2], 4, True)  # the first call of either is slow
    _write(engine, prompts[:2], 4, True)
    for sampled in (False, True):
        print("top-p 0.9" if sampled else "greedy")
        _time("  generate, one at a time", one_at_a_time, sampled, 2 * asked.tokens)
        _time("  engine, one at a time", ours_alone, sampled, 2 * asked.tokens)
        _time("  generate, one static batch", static_batch, sampled, asked.texts * asked.tokens)
        _time("  engine, concurrent requests", together, sampled, asked.texts * asked.tokens)
    engine.close()


def _prompt(tokenizer: object, place: int) -> list[int]:
    text = f"Write {place + 3} sentences about {TOPICS[place % len(TOPICS)]}." + " Please." * place
    message = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(  # type: ignore[attr-defined, no-any-return]
        message, add_generation_prompt=True, tokenize=True, return_dict=False
    )


def _generate(
    model: object, tokenizer: object, prompts: list[list[int]], tokens: int, sampled: bool
) -> None:
    width = max(map(len, prompts))
    ids = torch.tensor([[2] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    how = {"do_sample": True, "top_p": 0.9, "top_k": 0} if sampled else {"do_sample": False}
    model.generate(  # type: ignore[attr-defined]
        ids, attention_mask=mask, min_new_tokens=tokens, max_new_tokens=tokens, **how
    )


def _write(engine: Engine, prompts: list[list[int]], tokens: int, sampled: bool) -> None:
    sampling = Sampling(temperature=1.0 if sampled else 0.0, max_tokens=tokens)
    with ThreadPoolExecutor(len(prompts)) as callers:

        def call(prompt: list[int]) -> None:
            request = Request(tuple(prompt), sampling, {}, "base")
            engine.submit(request)
            request.done.result()

        list(callers.map(call, prompts))


def _time(what: str, run: Callable[[bool], None], sampled: bool, tokens: int) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    run(sampled)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(f"{what:32} {tokens / seconds:7.1f} tok/s {tokens / cpu:7.1f} tok/CPU-s", flush=True)


if __name__ == "__main__":
    main()
