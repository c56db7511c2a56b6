"""A choice among drafts within a budget, on finished demos' held-out questions.

    python benchmarks/routing/drafts.py runs/s0 runs/s1 runs/s2
    python benchmarks/routing/drafts.py runs/s0 --serve SFT    # half, by the graph itself

A router is fitted on a demo's 40 feedback queries, collected once more with eight drafts each and
their log-probabilities. Each held-out question has one greedy draft and eight drawn ones, all of
them refined once and kept, so that every budget can be read off: the questions come one after the
other, the router sees the first n drafts, and a paced budget (`Paced`) is a share of always-both's
strong tokens. Always-both has the greedy draft. Each figure is a mean over the demo's own order and
19 others: a budget is kept as they come, so that the order matters a little.

`--serve` has the graph serve the questions in the demo's own order instead, where only what the
router sends is refined, and counts what was charged. All is kept in the demo's folder
(drafts-*.db): give a copy where it is to stay as it is.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "claim"))

from demo import SCORING, WAYS, Run, collected, constant, table
from finished import DPO_VERSION, SFT_VERSION, Demo

from cowest_graph import TraceStore, create_collaboration, embedded
from cowest_graph.routing import Example, Paced, Router, Target, fit_router
from trainer.demo.caching import OnceCache
from trainer.demo.measuring import PROMPTS

VERSIONS = {"SFT": SFT_VERSION, "aligned": DPO_VERSION}
DRAWN = 8  # drafts of a feedback query, and of a held-out one beside its greedy draft
DRAFTS, SHARES = (1, 3, 5, 9), (0.4, 0.5, 0.6, 0.8, 1.0)
ORDERS = 20
SERVED = (9, 0.5)


class Questions:
    """A demo's questions with one version of its adapter."""

    def __init__(self, demo: Demo, version: str) -> None:
        self.demo, self.version = demo, version
        self.taught = self.collected("feedback", DRAWN)
        self.greedy = self.collected("held_out", 1, temperature=0.0)
        drawn = defaultdict(list)
        for each in self.collected("held_out", DRAWN):
            drawn[each.seen.query].append(each)
        self.drafted = [[each, *drawn[each.seen.query]] for each in self.greedy]

    def collected(self, part: str, drafts: int, **sampling: Any) -> list[Example]:
        """All ways of a part's queries, with log-probabilities."""
        told, file = {"logprobs": True, **sampling}, f"drafts-{part}-{drafts}.db"
        return collected(self.demo, self.version, part, file, drafts, told)

    def router(self, drafts: int, share: float) -> Router:
        """Fitted on the feedback queries alone."""
        target = Target(share=share)
        found = fit_router(self.taught, target, validation=0.0, test=0.0, drafts=drafts)
        return found.router

    def paced(self, drafts: int, share: float) -> Run:
        """The questions one after the other; means over the orders, a question."""
        router = self.router(drafts, share)
        scores, tokens = np.zeros((2, ORDERS, len(self.drafted)))
        for number in range(ORDERS):
            order: Iterable[int] = range(len(self.drafted))
            if number:
                order = np.random.default_rng(number).permutation(len(self.drafted))
            pacing = Paced(router, share=share)
            for at in order:
                drafted = self.drafted[at][:drafts]
                taken, route = pacing.choose([each.seen for each in drafted], str(at))
                scores[number, at] = drafted[taken].scores[route.way]
                tokens[number, at] = drafted[taken].tokens[route.way]
        return Run(scores.mean(axis=0).tolist(), tokens.mean(axis=0).tolist())

    def served(self, drafts: int, share: float) -> Run:
        """The questions by the graph, and what it was charged."""
        file = self.demo.folder / f"drafts-served-{drafts}-{share:g}-{self.version}.db"
        file.unlink(missing_ok=True)
        with TraceStore(file) as traces:
            graph = create_collaboration(
                self.demo.greedy(self.version),
                embedded.strong_model(cache=OnceCache()),
                evaluator=SCORING,
                traces=traces,
                prompts=PROMPTS,
                domain=self.demo.report["world"],
                route=Paced(self.router(drafts, share), share=share),
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


def measure(folder: Path, runs: dict[str, list[Run]], serve: list[str]) -> None:
    """One demo."""
    demo = Demo(folder, "drafts.json")
    for name in serve or VERSIONS:
        asked = Questions(demo, VERSIONS[name])
        found = {f"always {way}": constant(way, asked.greedy) for way in WAYS}
        for drafts, share in [] if serve else itertools.product(DRAFTS, SHARES):
            found[f"best of {drafts}, a share of {share:g}"] = asked.paced(drafts, share)
        if serve:
            drafts, share = SERVED
            found[f"served, best of {drafts}, a share of {share:g}"] = asked.served(drafts, share)
        for told, run in found.items():
            runs.setdefault(f"{name}: {told}", []).append(run)
        print(f"seed {demo.seed}, {name}: measured", flush=True)
    demo.weak.close()


def main() -> None:
    """Every demo, then the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folders", type=Path, nargs="+")
    options.add_argument("--serve", nargs="+", choices=VERSIONS, default=[], help="By the graph.")
    given = options.parse_args()
    runs: dict[str, list[Run]] = {}
    for folder in given.folders:
        measure(folder, runs, given.serve)
    table(runs, len(given.folders))


if __name__ == "__main__":
    main()
