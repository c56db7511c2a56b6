"""When the first token of an answer comes: the collaboration beside its two calls by hand.

    python benchmarks/apps/first_token.py ADAPTERS [--questions 20] [--seed 0]

ADAPTERS is the folder that `cowest demo` made. For every held-out question, in turn: the draft
alone and then the strong model's stream with it, by hand; and a graph with the collaboration as
a node, streamed by messages. Prints medians in milliseconds and the ratio. What a collaboration
adds should be nothing but its own bookkeeping.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langgraph.graph import START, MessagesState, StateGraph

from cowest_graph import AdapterRegistry, LocalWeak, create_collaboration, embedded
from cowest_graph.prompts import text_of
from cowest_graph.testing.asking import ask
from cowest_graph.testing.instruments import instruments
from trainer.demo.measuring import PROMPTS


def main() -> None:
    """Ask both ways, in turn."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("adapters", type=Path)
    options.add_argument("--questions", type=int, default=20)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    base = embedded.weak_model()
    weak = LocalWeak(str(base), adapters=AdapterRegistry(given.adapters), max_tokens=48)
    weak.load()
    greedy, strong = weak.bind(temperature=0.0), embedded.strong_model()
    app = host(greedy, strong)
    data = ask(instruments(given.seed), given.seed, train=1, feedback=1, held_out=60)
    found: dict[str, list[float]] = {"draft": [], "strong": [], "collaboration": []}
    for number, row in enumerate(data.held_out[: given.questions + 1]):
        drafted, strong_first = by_hand(greedy, strong, row["query"])
        together = first_of(app, row["query"])
        if number == 0:
            continue  # warms up
        found["draft"].append(drafted)
        found["strong"].append(strong_first)
        found["collaboration"].append(together)
    weak.close()
    for name, times in found.items():
        print(f"{name}: {1000 * statistics.median(times):.0f} ms")
    both = [a + b for a, b in zip(found["draft"], found["strong"], strict=True)]
    ratios = [c / by for c, by in zip(found["collaboration"], both, strict=True)]
    print(f"first answer token, collaboration by hand's sum: {statistics.median(ratios):.2f}")


def by_hand(weak: Any, strong: Any, query: str) -> tuple[float, float]:
    """Seconds of the draft, and from then to the strong model's first token."""
    began = time.perf_counter()
    draft = text_of((PROMPTS.draft | weak).invoke({"query": query}))
    drafted = time.perf_counter()
    asked = {"query": query, "draft": draft}
    return drafted - began, timed(
        lambda: next(filter(text_of, (PROMPTS.refine | strong).stream(asked)))
    )


def timed(call: Callable[[], Any]) -> float:
    """Seconds of a call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def host(weak: Any, strong: Any) -> Any:
    """An app that has the collaboration as a node."""
    graph = StateGraph(MessagesState)
    graph.add_node("answer", create_collaboration(weak, strong, prompts=PROMPTS).compile())
    graph.add_edge(START, "answer")
    return graph.compile()


def first_of(app: Any, query: str) -> float:
    """Seconds to the first token that the app's stream shows; the rest is read, too."""
    began = time.perf_counter()
    first = 0.0
    for message, _ in app.stream({"messages": [("human", query)]}, stream_mode="messages"):
        if not first and text_of(message):
            first = time.perf_counter() - began
    return first


if __name__ == "__main__":
    main()
