"""Does the stand-in strong model repeat itself? Greedy answers to equal prompts, many ways.

    python benchmarks/paper/repeats.py [--prompts 24]

The same prompts are asked again and again: one at a time, several at a time, in another order; with
llama.cpp's prompt cache and without; with one place and with eight. Printed is how many answers
differ from those of the first pass, which asked one at a time on one place without a cache.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from typing import Any

from cowest_graph.embedded import StrongServer
from cowest_graph.prompts import Prompts, draft_prompt
from cowest_graph.testing.world import questions

CACHE, NO_CACHE = {"cache_prompt": True}, {"cache_prompt": False}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--prompts", type=int, default=24)
    rows = questions(0).held_out
    refine = Prompts(draft_prompt("answer")).refine
    number = options.parse_args().prompts
    asked = [
        refine.format_messages(query=row["query"], draft=f"Answer: {row['reference']}")
        for row in (rows * number)[:number]
    ]
    first: list[str] | None = None
    for places in (1, 8):
        with StrongServer(parallel=places) as server:
            for how, extra in (("no cache", NO_CACHE), ("cache", CACHE)):
                model = server.chat_model()
                bound = model.bind(extra_body={**(model.extra_body or {}), **extra})
                for way, ask in WAYS.items():
                    answers = ask(bound, asked)
                    first = first or answers
                    differ = sum(a != b for a, b in zip(answers, first, strict=True))
                    print(f"{places} places, {how}, {way}: {differ} of {number} differ", flush=True)


def _one_by_one(model: Any, asked: list[Any]) -> list[str]:
    return [model.invoke(each).text for each in asked]


def _shuffled(model: Any, asked: list[Any]) -> list[str]:
    order = random.Random(1).sample(range(len(asked)), len(asked))
    said = {place: model.invoke(asked[place]).text for place in order}
    return [said[place] for place in range(len(asked))]


def _together(model: Any, asked: list[Any]) -> list[str]:
    return [said.text for said in model.batch(asked, {"max_concurrency": 8})]


WAYS: dict[str, Callable[[Any, list[Any]], list[str]]] = {
    "one by one": _one_by_one,
    "one by one, shuffled": _shuffled,
    "eight at a time": _together,
    "eight at a time, again": _together,
}

if __name__ == "__main__":
    main()
