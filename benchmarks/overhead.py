"""What the graph itself costs a query, beside the same two calls made by hand.

Usage: python benchmarks/overhead.py [--repeat 300] [--batch 16] [--beside CHECKOUT]

The models are scripted and answer at once; both sides use the same LangChain objects
(draft prompt | weak, refine prompt | strong). All ways run in turn, one repetition of each after
the other, so that the machine's other work disturbs them alike: read the differences.

`--beside` takes a checkout of another commit: both are run in turn, each in processes of its own,
and the ratio of this one's overhead to that one's is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from langchain_core.runnables import RunnableLambda

from cowest_graph import TraceStore, create_collaboration
from cowest_graph.prompts import REFINE, draft_prompt
from cowest_graph.testing import ScriptedModel

QUERY: Any = {"query": "Which vitamin comes only from animal sources?"}
Way = Callable[[], object]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--repeat", type=int, default=300)
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--beside", type=Path, help="a checkout of another commit")
    options.add_argument("--rounds", type=int, default=5, help="of each checkout, with --beside")
    options.add_argument("--json", action="store_true", help="medians alone")
    asked = options.parse_args()
    if asked.beside:
        beside(asked)
        return
    with tempfile.TemporaryDirectory() as folder, TraceStore(Path(folder) / "t.db") as traces:
        loop = asyncio.new_event_loop()
        ways = _ways(traces, loop, asked.batch)
        taken = _interleaved(ways, asked.repeat)
        loop.close()
    if asked.json:
        print(json.dumps({" ".join(name): median(times) for name, times in taken.items()}))
        return
    print(f"milliseconds a query, {asked.repeat} repetitions, batches of {asked.batch}")
    print(f"{'':8}{'by hand':>18}{'graph':>18}{'graph + traces':>18}{'overhead':>10}{'traces':>8}")
    print(f"{'':8}" + f"{'median':>11}{'p95':>7}" * 3)
    for how in ("sync", "async", "batch"):
        hand, graph, traced = (taken[how, what] for what in ("hand", "graph", "traced"))
        row = "".join(
            f"{median(t):11.2f}{quantiles(t, n=20)[-1]:7.2f}" for t in (hand, graph, traced)
        )
        extra = median(graph) - median(hand)
        print(f"{how:8}{row}{extra:10.2f}{median(traced) - median(graph):8.2f}")


def beside(asked: argparse.Namespace) -> None:
    """What a graph takes here and in another checkout, in turn."""
    folders = {"here": Path(__file__).parents[1], "beside": asked.beside.resolve()}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in folders}
    command = [sys.executable, __file__, "--json", "--repeat", str(asked.repeat)]
    command += ["--batch", str(asked.batch)]
    for _ in range(asked.rounds):
        for name, folder in folders.items():
            ran = subprocess.run(
                command,
                env=os.environ | {"PYTHONPATH": str(folder)},
                capture_output=True,
                text=True,
                check=True,
            )
            found[name].append(json.loads(ran.stdout.splitlines()[-1]))
    print(f"milliseconds a query, medians of {asked.rounds} processes of {asked.repeat} each")
    for way in found["here"][0]:
        here, there = (median(run[way] for run in found[name]) for name in folders)
        print(f"{way:14} here {here:7.2f}  beside {there:7.2f}  ratio {here / there:.2f}")


def _ways(
    traces: TraceStore, loop: asyncio.AbstractEventLoop, batch: int
) -> dict[tuple[str, str], tuple[Way, int]]:
    """Each way by (how, what), with the queries that one repetition answers."""
    weak = ScriptedModel(["Explanation: meat has it.\nAnswer: B12"])
    strong = ScriptedModel(["Explanation: the expert is right.\nAnswer: B12"])
    draft, refine = draft_prompt() | weak, REFINE | strong

    def by_hand(given: dict[str, str]) -> Any:
        said = draft.invoke(given)
        return refine.invoke({**given, "draft": said.text})

    async def by_hand_async(given: dict[str, str]) -> Any:
        said = await draft.ainvoke(given)
        return await refine.ainvoke({**given, "draft": said.text})

    hand = RunnableLambda(by_hand, by_hand_async)
    graph = create_collaboration(weak, strong).compile()
    traced = create_collaboration(weak, strong, traces=traces).compile()
    many = [QUERY] * batch
    few_at_a_time: Any = {"max_concurrency": 4}

    def waiting(work: Callable[[], Coroutine[Any, Any, Any]]) -> Way:
        return lambda: loop.run_until_complete(work())

    return {
        ("sync", "hand"): (lambda: by_hand(QUERY), 1),
        ("sync", "graph"): (lambda: graph.invoke(QUERY), 1),
        ("sync", "traced"): (lambda: traced.invoke(QUERY), 1),
        ("async", "hand"): (waiting(lambda: by_hand_async(QUERY)), 1),
        ("async", "graph"): (waiting(lambda: graph.ainvoke(QUERY)), 1),
        ("async", "traced"): (waiting(lambda: traced.ainvoke(QUERY)), 1),
        ("batch", "hand"): (lambda: hand.batch(many, few_at_a_time), batch),
        ("batch", "graph"): (lambda: graph.batch(many, few_at_a_time), batch),
        ("batch", "traced"): (lambda: traced.batch(many, few_at_a_time), batch),
    }


def _interleaved(
    ways: dict[tuple[str, str], tuple[Way, int]], repeat: int
) -> dict[tuple[str, str], list[float]]:
    taken: dict[tuple[str, str], list[float]] = {name: [] for name in ways}
    gc.disable()  # its pauses fall on whoever is running
    for turn in range(-5, repeat):  # the first ones warm up
        for name, (way, queries) in ways.items():
            started = time.perf_counter()
            way()
            seconds = time.perf_counter() - started
            if turn >= 0:
                taken[name].append(1000 * seconds / queries)
        gc.collect(0)
    return taken


if __name__ == "__main__":
    main()
