"""A router on finished demos: fitted on their feedback queries, measured on their held-out ones.

    python benchmarks/routing/demo.py runs/s0 runs/s1 runs/s2

Each way of every held-out question is asked once, a greedy draft of the SFT and of the aligned
adapter, and kept in `routing.db` in the demo's folder: give a copy where it is to stay as it is.
Printed: each way for all, the router at its two targets, what the cheapest way that scores no worse
than both would cost if it were known (the bound of any router), and the area of the curve.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "claim"))

from finished import DPO_VERSION, SFT_VERSION, Demo

from cowest_graph import TraceStore, create_collector, embedded, exact_match, metric
from cowest_graph.collecting import collect
from cowest_graph.routing import Example, Router, Target, examples, fit_router, measured, outcomes
from cowest_graph.routing.fitting import Moment
from trainer.demo.caching import OnceCache
from trainer.demo.measuring import PROMPTS

WAYS = ["weak", "strong", "both"]
SCORING = metric(exact_match)
TARGETS = {"0.98 of the quality": Target(quality=0.98, confidence=0.5), "half": Target(share=0.5)}
MOMENTS: tuple[Moment, ...] = ("before", "after")


@dataclass(frozen=True)
class Run:
    """One policy on one demo's held-out questions: score and strong tokens a question."""

    scores: list[float]
    tokens: list[float]


def held_out(demo: Demo, version: str) -> list[Example]:
    """All ways of a demo's held-out questions, asked once and kept."""
    return collected(demo, version, "held_out", "routing.db", 1, {"temperature": 0.0})


def collected(
    demo: Demo, version: str, part: str, file: str, drafts: int, sampling: Mapping[str, Any]
) -> list[Example]:
    """All ways of a part's queries by one version, asked once and kept in a file of the folder."""
    asked = [{k: row[k] for k in ("query", "reference")} for row in getattr(demo.data, part)]
    with TraceStore(demo.folder / file) as traces:
        collector = create_collector(
            demo.weak.bind(adapter=version),
            embedded.strong_model(cache=OnceCache()),
            evaluator=SCORING,
            traces=traces,
            num_drafts=drafts,
            sampling=sampling,
            prompts=PROMPTS,
            domain=demo.report["world"],
        ).compile()
        for outcome in collect(collector, asked, max_concurrency=len(asked)):
            if outcome.error is not None:
                raise outcome.error
        kept = traces.select(weak_version=version, kind="collection")
        return examples(kept, evaluator=SCORING).examples


def feedback(demo: Demo) -> list[Example]:
    """What the demo collected to align by."""
    with TraceStore(demo.folder / "traces.db") as traces:
        found = traces.select(weak_version=SFT_VERSION, kind="collection")
        return examples(found, evaluator=SCORING).examples


def came_to(router: Router, found: Sequence[Example]) -> Run:
    """A router on questions that it was not made with."""
    scores, tokens = outcomes(found, WAYS, "tokens").of(router.chosen([e.seen for e in found]))
    return Run(scores.tolist(), tokens.tolist())


def constant(way: str, found: Sequence[Example]) -> Run:
    """One way for all."""
    there = outcomes(found, WAYS, "tokens")
    return Run(there.scores[way].tolist(), there.costs[way].tolist())


def bound(found: Sequence[Example], kept: float = 1.0) -> Run:
    """The cheapest way of each question that scores no worse than both, were it known.

    Args:
        found: scores are 0 or 1.
        kept: share of both's score that is enough; the dearest right answers are given up first.
    """
    best = [
        min((e.tokens[w], -e.scores[w]) for w in WAYS if e.scores[w] >= e.scores["both"])
        for e in found
    ]
    spare = int((1 - kept) * sum(e.scores["both"] for e in found))
    for place in sorted(range(len(best)), key=lambda at: -best[at][0])[:spare]:
        best[place] = (0.0, -found[place].scores["weak"])
    return Run([-score for _, score in best], [tokens for tokens, _ in best])


def measure(folder: Path, runs: dict[str, list[Run]]) -> None:
    """One demo, printed as it goes."""
    demo = Demo(folder, "routing.json")
    taught = feedback(demo)
    routers = {
        f"router {moment} the draft, {name}": fit_router(
            taught, target, moment=moment, validation=0.0, test=0.0
        )
        for moment in MOMENTS
        for name, target in TARGETS.items()
    }
    for version, name in ((SFT_VERSION, "SFT"), (DPO_VERSION, "aligned")):
        found = held_out(demo, version)
        for way in WAYS:
            runs.setdefault(f"{name}: always {way}", []).append(constant(way, found))
        for told, fitted in routers.items():
            runs.setdefault(f"{name}: {told}", []).append(came_to(fitted.router, found))
        for kept in (1.0, 0.98):
            runs.setdefault(f"{name}: bound at {kept:g}", []).append(bound(found, kept))
        for told, fitted in routers.items():
            if told.endswith("half"):
                area = measured(fitted.router, taught, found, "tokens")
                assert area is not None
                for curve in area.curves.values():
                    print(f"seed {demo.seed}, {name}, {told}: {curve.name}: area {curve.area}")
    for told, fitted in routers.items():
        card = fitted.card
        print(f"seed {demo.seed}: {told}: reads {', '.join(card['features'])}; {card['chosen']}")
    demo.weak.close()


def table(runs: dict[str, list[Run]], seeds: int) -> None:
    """Every policy: what is kept of always-both, and what is spent, seeds pooled."""
    print(f"\n| {seeds} demos | score | tokens | score kept (95 %) | tokens spent | by seed |")
    print("|---|---|---|---|---|---|")
    for name, found in runs.items():
        both = runs[f"{name.split(':')[0]}: always both"]
        kept, spent = ratio(found, both, "scores"), ratio(found, both, "tokens")
        low, high = interval(found, both)
        each = ", ".join(
            f"{ratio([a], [b], 'scores'):.2f}/{ratio([a], [b], 'tokens'):.2f}"
            for a, b in zip(found, both, strict=True)
        )
        score = np.mean([each for run in found for each in run.scores])
        tokens = np.mean([each for run in found for each in run.tokens])
        print(
            f"| {name} | {score:.3f} | {tokens:.1f} | {kept:.3f} ({low:.3f} to {high:.3f}) | "
            f"{spent:.3f} | {each} |"
        )


def ratio(ours: Sequence[Run], theirs: Sequence[Run], what: str) -> float:
    """Sum over sum, all seeds together."""
    return sum(sum(getattr(r, what)) for r in ours) / max(
        sum(sum(getattr(r, what)) for r in theirs), 1e-9
    )


def interval(
    ours: Sequence[Run], theirs: Sequence[Run], resamples: int = 4000
) -> tuple[float, float]:
    """Of the score kept: questions resampled within their seed."""
    draw = np.random.default_rng(0)
    figures = []
    for _ in range(resamples):
        at = [draw.integers(0, len(run.scores), len(run.scores)) for run in ours]
        sums = [
            sum(
                float(np.asarray(run.scores)[places].sum())
                for run, places in zip(runs, at, strict=True)
            )
            for runs in (ours, theirs)
        ]
        figures.append(sums[0] / max(sums[1], 1e-9))
    low, high = np.quantile(figures, [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    """Every demo, then the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folders", type=Path, nargs="+")
    runs: dict[str, list[Run]] = {}
    folders = options.parse_args().folders
    for folder in folders:
        measure(folder, runs)
    table(runs, len(folders))


if __name__ == "__main__":
    main()
