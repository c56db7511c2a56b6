"""Cancelling half of the running requests: are their places free at the next step, and does any
other text change?

    python benchmarks/cancel.py [--requests 200] [--tokens 24]

Greedy requests run at once on the real SmolLM2, each over its own prompt. Half of them are given up
in the middle of it by their callers (asyncio tasks that are cancelled). Printed: how many decoding
steps later their places were free, and how many of the others wrote something else than they do
undisturbed.
"""

from __future__ import annotations

import argparse
import asyncio
import time

from cowest_graph import LocalWeak
from cowest_graph.embedded import weak_model

WORDS = ["rivers", "bread", "the moon", "maps", "bees", "glass", "salt", "trains", "wool", "ice"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=24)
    given = parser.parse_args()
    prompts = [
        f"{place}. Tell me of {WORDS[place % len(WORDS)]}." for place in range(given.requests)
    ]
    weak = LocalWeak(
        weak_model(), temperature=0, max_tokens=given.tokens, max_batch_size=given.requests
    )
    with weak.load():
        weak.engine.stop_ids = frozenset()  # so that none ends before the others
        undisturbed = asyncio.run(_ask(weak, prompts))
        texts, steps, seconds = asyncio.run(_cancel_half(weak, prompts))
    kept = [(was, now) for was, now in zip(undisturbed, texts, strict=True) if now is not None]
    print(f"{len(prompts)} running, {len(prompts) - len(kept)} cancelled")
    print(f"their places were free {steps} decoding steps later ({seconds:.2f} s)")
    print(f"other texts that changed: {sum(was != now for was, now in kept)} of {len(kept)}")


async def _ask(weak: LocalWeak, prompts: list[str]) -> list[str]:
    said = await asyncio.gather(*(weak.ainvoke(prompt) for prompt in prompts))
    return [message.text for message in said]


async def _cancel_half(weak: LocalWeak, prompts: list[str]) -> tuple[list[str | None], int, float]:
    tasks = [asyncio.create_task(weak.ainvoke(prompt)) for prompt in prompts]
    engine = weak.engine
    while engine.running < len(prompts):
        await asyncio.sleep(0.005)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.sleep(0)  # the tasks see it, and give their requests up
    left, at, began = len(prompts) - len(tasks[::2]), engine.steps, time.perf_counter()
    while engine.running > left:
        await asyncio.sleep(0.001)
    steps, seconds = engine.steps - at, time.perf_counter() - began
    said = await asyncio.gather(*tasks, return_exceptions=True)
    texts = [None if isinstance(each, BaseException) else each.text for each in said]
    return texts, steps, seconds


if __name__ == "__main__":
    main()
