"""What the pairs of an adaptive collection teach, beside those of Algorithm 1: demos, aligned anew.

    python benchmarks/rounds/live.py runs/s0 runs/s1            # folders of `cowest demo`
    python benchmarks/rounds/live.py runs/s0 --drafts 8         # drafts cost no strong call
    python benchmarks/rounds/live.py runs/s0 runs/s1 --table    # what is kept, alone

The demo's feedback queries are collected once more with its own SFT adapter, adaptively, a few
queries at a time; DPO on the pairs starts from that adapter with the demo's own recipe, and the
aligned collaboration answers the demo's held-out questions. Both collections write down drafts of
their own. Non-inferior: the whole interval of the difference, all seeds pooled, lies above the
margin. What was measured is kept in the folder's adaptive.json, the traces in adaptive.db.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "claim"))

from finished import SFT_VERSION, Demo, table
from seeds import pooled, told

from cowest_graph import TraceStore, create_collector, embedded, exact_match, metric
from cowest_graph.collecting import collect
from cowest_graph.graph.deciding import Adaptive
from trainer import preferences, train_dpo
from trainer.demo.caching import OnceCache
from trainer.demo.measuring import PROMPTS, together
from trainer.demo.results import COLLABORATION_DPO, COLLABORATION_SFT
from trainer.demo.run import jobs

MARGIN = 0.03  # of exact match: what the aligned collaboration may lose
AT_ONCE = 8  # queries side by side; what they bring is learnt from after them
DRAFTS = 5  # of Algorithm 1, and by default


@dataclass(frozen=True)
class Way:
    """An adaptive collection with so many drafts a query: what is kept of it, under which names."""

    drafts: int

    @property
    def name(self) -> str:
        """Of the adapter and the store."""
        return "adaptive" if self.drafts == DRAFTS else f"adaptive-{self.drafts}"

    @property
    def both(self) -> str:
        """Of the aligned collaboration."""
        return f"{self.name} pairs"


def main() -> None:
    """Collect, train and measure what is missing, then print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folders", type=Path, nargs="+")
    options.add_argument("--thrift", type=float, default=Adaptive.thrift)
    options.add_argument("--drafts", type=int, default=DRAFTS)
    options.add_argument("--table", action="store_true", help="Measure nothing.")
    given = options.parse_args()
    way = Way(given.drafts)
    demos = [Demo(folder, "adaptive.json") for folder in given.folders]
    for demo in demos:
        if not given.table and way.both not in demo.found():
            measure(demo, Adaptive(thrift=given.thrift), way)
        demo.weak.close()
    _calls(demos, way)
    table(demos, [(way.both, COLLABORATION_DPO), (way.both, COLLABORATION_SFT)])
    runs = [
        {"methods": [*d.report["methods"], {"method": way.both, "exact": d.found()[way.both]}]}
        for d in demos
    ]
    found = pooled(runs, way.both, COLLABORATION_DPO)
    verdict = "non-inferior" if found.low > -MARGIN else "not shown to be non-inferior"
    print(f"\nadaptive less Algorithm 1, {len(demos)} seeds pooled: {told(found)}")
    print(f"margin {MARGIN}: {verdict}")


def measure(demo: Demo, how: Adaptive, way: Way) -> None:
    """One demo: collect adaptively, align, ask the held-out questions."""
    strong = embedded.strong_model(cache=OnceCache())
    rows = [{"query": row["query"], "reference": row["reference"]} for row in demo.data.feedback]
    weak = demo.weak.bind(adapter=SFT_VERSION)
    with TraceStore(demo.folder / f"{way.name}.db") as traces:
        collector = create_collector(
            weak,
            strong,
            evaluator=metric(exact_match),
            traces=traces,
            num_drafts=way.drafts,
            prompts=PROMPTS,
            domain=demo.report["world"],
            strategy=how,
        ).compile()
        for outcome in collect(collector, rows, max_concurrency=AT_ONCE):
            if outcome.error is not None:
                raise outcome.error
        pairs = preferences(traces)
    print(f"seed {demo.seed}: {pairs.report}", flush=True)
    _, job = jobs(demo.base, demo.seed)
    train = partial(train_dpo, pairs, job, start=SFT_VERSION, drop_bad_rows=True)
    version = demo.trained(way.name, train)
    names = (f"{way.both}, weak model alone", way.both)
    demo.keep(*together(names, demo.greedy(version), strong, demo.data.held_out))


def _calls(demos: list[Demo], way: Way) -> None:
    """Calls a usable pair, by both ways; a score counts as a call of the judge."""
    print(
        "| seed | way | strong | judge | usable pairs | calls a pair |\n|---|---|---|---|---|---|"
    )
    for demo in demos:
        for name, file in (("Algorithm 1", "traces.db"), (way.name, f"{way.name}.db")):
            with TraceStore(demo.folder / file) as traces:
                kept = [*traces.select(weak_version=SFT_VERSION, kind="collection")]
            calls = [call.role for trace in kept for call in trace.calls]
            calls += [call.role for t in kept for a in t.attempts for call in a.calls]
            strong, judged = calls.count("refine") + calls.count("solo"), calls.count("evaluate")
            found = preferences(kept).report
            usable = found.pairs - found.identical_pairs
            each = f"{(strong + judged) / usable:.1f}" if usable else "-"
            print(f"| {demo.seed} | {name} | {strong} | {judged} | {usable} | {each} |")


if __name__ == "__main__":
    main()
