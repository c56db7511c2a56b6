"""How fast the weak model in this process writes, beside what a user would have otherwise.

    python benchmarks/local_weak.py [--prompts 64] [--samples 5] [--tokens 24] [--vllm URL]

The same prompts and the same number of tokens a text, sampled with top-p 0.9 and greedily, in one
process, one way after the other; the machine's other work disturbs all alike, so read the ratios.

- LocalWeak: all prompts at once, K samples each, adapter-free
- generate: transformers, in static batches of 32 and of 64 (the best counts)
- ChatHuggingFace.batch: LangChain's own local model; on a few of the prompts, as it takes them
  one by one
- vLLM: with `--vllm`, an OpenAI-compatible server that runs the same model

At the end the light load: one short text at a time, LocalWeak beside a single call of `generate`.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from langchain_core.messages import HumanMessage
from transformers import AutoModelForCausalLM, AutoTokenizer

from cowest_graph import LocalWeak
from cowest_graph.embedded import weak_model

TOPICS = ["rivers", "bread", "the moon", "old maps", "bees", "glass", "salt", "trains"]
FEW = 6  # prompts of the slowest way


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", default=None, help="a folder; default: SmolLM2-135M-Instruct")
    options.add_argument("--prompts", type=int, default=64)
    options.add_argument("--samples", type=int, default=5)
    options.add_argument("--tokens", type=int, default=24)
    options.add_argument("--vllm", default=None, help="such as http://127.0.0.1:8000/v1")
    options.add_argument("--sampled-only", action="store_true", help="leave the greedy part out")
    given = options.parse_args()
    model = given.model or str(weak_model())
    prompts = [_prompt(place) for place in range(given.prompts)]
    plain = _Plain(model)
    weak = LocalWeak(model, max_tokens=given.tokens, max_batch_size=64, max_queue=10_000).load()
    weak.engine.stop_ids = frozenset()  # every text as long as the next
    print(
        f"{given.prompts} prompts, K={given.samples}, {given.tokens} tokens a text, "
        f"{torch.get_num_threads()} threads, {plain.model.dtype}"
    )
    texts = given.prompts * given.samples
    found: dict[str, float] = {}
    for sampled in (True,) if given.sampled_only else (True, False):
        print("top-p 0.9, temperature 1" if sampled else "greedy")
        heat = 1.0 if sampled else 0.0

        def ours(heat: float = heat) -> None:
            asyncio.run(_ours(weak, prompts, given.samples, heat))

        def static(width: int, sampled: bool = sampled) -> Callable[[], None]:
            many = [prompt for prompt in prompts for _ in range(given.samples)]
            return lambda: plain.in_batches(many, width, given.tokens, sampled)

        ways = {"LocalWeak": ours, "generate, 32 wide": static(32), "generate, 64 wide": static(64)}
        if given.vllm:
            ways["vLLM"] = _vllm(given.vllm, prompts, given.samples, given.tokens, heat)
        for name, way in ways.items():
            found[name] = _time(name, way, texts * given.tokens)
        few = min(FEW, given.prompts)
        way = _chat_hugging_face(plain, prompts[:few], given.tokens, sampled)
        found["ChatHuggingFace"] = _time("ChatHuggingFace.batch", way, few * given.tokens)
        best = max(found["generate, 32 wide"], found["generate, 64 wide"])
        for name, other in (("ChatHuggingFace", found["ChatHuggingFace"]), ("best generate", best)):
            print(f"  LocalWeak / {name}: {found['LocalWeak'] / other:.2f}")
    _light_load(weak, plain, prompts[:8], given.tokens)
    weak.close()


class _Plain:
    """transformers as it is."""

    def __init__(self, model: str) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()

    def in_batches(self, prompts: list[str], width: int, tokens: int, sampled: bool) -> None:
        for place in range(0, len(prompts), width):
            self.generate(prompts[place : place + width], tokens, sampled)

    def generate(self, prompts: list[str], tokens: int, sampled: bool) -> None:
        turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
        inputs = self.tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_dict=True, return_tensors="pt", padding=True
        )
        how: dict[str, Any] = {"do_sample": False}
        if sampled:
            how = {"do_sample": True, "top_p": 0.9, "top_k": 0}
        with torch.inference_mode():
            self.model.generate(**inputs, min_new_tokens=tokens, max_new_tokens=tokens, **how)


def _prompt(place: int) -> str:
    text = f"Write {place + 3} sentences about {TOPICS[place % len(TOPICS)]}."
    return text + " Please." * (place % 16)


async def _ours(weak: LocalWeak, prompts: list[str], samples: int, heat: float) -> None:
    calls = [
        weak.agenerate([[HumanMessage(prompt)]], n=samples, temperature=heat) for prompt in prompts
    ]
    await asyncio.gather(*calls)


def _vllm(
    url: str, prompts: list[str], samples: int, tokens: int, heat: float
) -> Callable[[], None]:
    from langchain_openai import ChatOpenAI
    from openai import OpenAI

    name = OpenAI(base_url=url, api_key="none").models.list().data[0].id
    model = ChatOpenAI(
        model=name,
        base_url=url,
        api_key="none",
        temperature=heat,
        max_tokens=tokens,
        n=samples,
        extra_body={"top_p": 0.9, "ignore_eos": True},
    )

    async def ask() -> None:
        await asyncio.gather(*(model.agenerate([[HumanMessage(p)]]) for p in prompts))

    return lambda: asyncio.run(ask())


def _chat_hugging_face(
    plain: _Plain, prompts: list[str], tokens: int, sampled: bool
) -> Callable[[], None]:
    from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline
    from transformers import pipeline

    how: dict[str, Any] = {"do_sample": False}
    if sampled:
        how = {"do_sample": True, "top_p": 0.9, "top_k": 0}
    made = pipeline("text-generation", model=plain.model, tokenizer=plain.tokenizer)
    lengths = {"min_new_tokens": tokens, "max_new_tokens": tokens, "return_full_text": False}
    chat = ChatHuggingFace(llm=HuggingFacePipeline(pipeline=made))
    asked = chat.bind(pipeline_kwargs={**lengths, **how})  # the model's own fields are not heeded

    def ask() -> None:
        said = asked.batch(prompts)
        counts = {len(plain.tokenizer.encode(message.text)) for message in said}
        assert max(counts) <= tokens + 2, f"texts of {counts} tokens"

    return ask


def _light_load(weak: LocalWeak, plain: _Plain, prompts: list[str], tokens: int) -> None:
    """One text at a time; the two ways take turns."""
    ours, theirs = [], []
    for prompt in prompts:
        began = time.perf_counter()
        weak.invoke(prompt, temperature=0)
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        plain.generate([prompt], tokens, False)
        theirs.append(time.perf_counter() - began)
    middle, other = statistics.median(ours), statistics.median(theirs)
    print(f"one at a time, {tokens} tokens: LocalWeak p50 {middle:.2f} s, generate {other:.2f} s")
    print(f"  ratio {middle / other:.2f}")


def _time(what: str, run: Callable[[], None], tokens: int) -> float:
    began, cpu = time.perf_counter(), time.process_time()
    run()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(f"  {what:24} {tokens / seconds:7.1f} tok/s {tokens / cpu:7.1f} tok/CPU-s", flush=True)
    return tokens / seconds


if __name__ == "__main__":
    main()
