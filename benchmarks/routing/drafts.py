"""A choice among drafts within a budget, served: finished demos' held-out questions, one by one.

    python benchmarks/routing/drafts.py runs/s0 runs/s1 runs/s2
    python benchmarks/routing/drafts.py runs/s0 --drafts 5 --share 0.6

A router is fitted on a demo's 40 feedback queries, collected once more with eight drafts each and
their log-probabilities. The graph then serves the 60 held-out questions in their order: so many
drafts each, of which the router takes the one that promises most, and a paced budget of a share of
always-both's strong tokens. Beside it stands the collaboration as it is without a router, with one
greedy draft. All is kept in the demo's folder (drafts-*.db): give a copy where it is to stay as it
is. What is served counts what it was really charged, by its own traces.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "claim"))

from demo import SCORING, WAYS, Run, constant, table
from finished import DPO_VERSION, SFT_VERSION, Demo

from cowest_graph import TraceStore, create_collaboration, create_collector, embedded
from cowest_graph.collecting import collect
from cowest_graph.routing import Example, Paced, Router, Target, examples, fit_router
from trainer.demo.caching import OnceCache
from trainer.demo.measuring import PROMPTS

TAUGHT_WITH = 8  # drafts a feedback query
VERSIONS = {"SFT": SFT_VERSION, "aligned": DPO_VERSION}


class Served:
    """One demo with one version of its adapter."""

    def __init__(self, demo: Demo, version: str) -> None:
        self.demo, self.version = demo, version
        self.strong = embedded.strong_model(cache=OnceCache())

    def collected(self, part: str, drafts: int, **sampling: Any) -> list[Example]:
        """All ways of a part's queries, asked once and kept."""
        rows = [
            {k: row[k] for k in ("query", "reference")} for row in getattr(self.demo.data, part)
        ]
        with TraceStore(self.demo.folder / f"drafts-{part}.db") as traces:
            collector = create_collector(
                self.demo.weak.bind(adapter=self.version),
                self.strong,
                evaluator=SCORING,
                traces=traces,
                num_drafts=drafts,
                sampling={"logprobs": True, **sampling},
                prompts=PROMPTS,
                domain=self.demo.report["world"],
            ).compile()
            for outcome in collect(collector, rows, max_concurrency=len(rows)):
                if outcome.error is not None:
                    raise outcome.error
            kept = traces.select(weak_version=self.version, kind="collection")
            return examples(kept, evaluator=SCORING).examples

    def routed(self, router: Router, share: float) -> Run:
        """The held-out questions by the graph, one after the other."""
        file = f"drafts-served-{router.drafts}-{share:g}-{self.version}.db"
        (self.demo.folder / file).unlink(missing_ok=True)
        with TraceStore(self.demo.folder / file) as traces:
            graph = create_collaboration(
                self.demo.greedy(self.version),
                self.strong,
                evaluator=SCORING,
                traces=traces,
                prompts=PROMPTS,
                domain=self.demo.report["world"],
                route=Paced(router, share=share),
            ).compile()
            scores = []
            for row in self.demo.data.held_out:
                out = graph.invoke({"query": row["query"], "reference": row["reference"]})
                scores.append(float(out["score"]))
            return Run(scores, [_charged(trace) for trace in traces])


def _charged(trace: Any) -> float:
    """Strong tokens of a pass, in and out."""
    calls = [*trace.calls, *(call for attempt in trace.attempts for call in attempt.calls)]
    asked = [call for call in calls if call.role in ("refine", "solo")]
    return float(sum(call.input_tokens + call.output_tokens for call in asked))


def measure(folder: Path, drafts: int, shares: Sequence[float], runs: dict[str, list[Run]]) -> None:
    """One demo, printed as it goes."""
    demo = Demo(folder, "drafts.json")
    for name, version in VERSIONS.items():
        served = Served(demo, version)
        taught = served.collected("feedback", TAUGHT_WITH)
        found = served.collected("held_out", 1, temperature=0.0)
        for way in WAYS:
            runs.setdefault(f"{name}: always {way}", []).append(constant(way, found))
        for share in shares:
            fitted = fit_router(
                taught, Target(share=share), validation=0.0, test=0.0, drafts=drafts
            )
            told = f"{name}: the best of {drafts} drafts, a budget of {share:g}"
            runs.setdefault(told, []).append(served.routed(fitted.router, share))
            reads, run = ", ".join(fitted.card["features"]), runs[told][-1]
            right, tokens = sum(run.scores), sum(run.tokens)
            print(f"seed {demo.seed}: {told}: {right:g} right for {tokens:g} tokens; reads {reads}")
    demo.weak.close()


def main() -> None:
    """Every demo, then the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folders", type=Path, nargs="+")
    options.add_argument("--drafts", type=int, default=9)
    options.add_argument("--share", type=float, nargs="+", default=[0.5])
    given = options.parse_args()
    runs: dict[str, list[Run]] = {}
    for folder in given.folders:
        measure(folder, given.drafts, given.share, runs)
    table(runs, len(given.folders))


if __name__ == "__main__":
    main()
