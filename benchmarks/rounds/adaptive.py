"""Adaptive collection beside Algorithm 1: calls a usable pair, the pairs, and what they teach.

    python benchmarks/rounds/adaptive.py runs/s0 runs/s1                # finished traces, no model
    python benchmarks/rounds/adaptive.py runs/s0 runs/s1 --live         # collect, DPO, measure

Without `--live`, the traces that `cowest demo` collected by Algorithm 1 are gone through once more:
all drafts and scores are there, the policy sees what it asks for and nothing else, and it learns
from the queries before, as a live collection does. With it, the same queries are collected with the
demo's own SFT adapter, and the adapter that the pairs teach is measured on the demo's held-out
questions; what was measured is kept in the folder's adaptive.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cowest_graph import TraceStore
from cowest_graph.graph.deciding import Adaptive, Known
from cowest_graph.graph.odds import Odds
from cowest_graph.traces import Trace

AT_ONCE = 8  # queries side by side: what they bring is learnt from after them
MARGIN = 0.03  # of exact match: what the aligned collaboration may lose


@dataclass
class Collected:
    """What a collection came to: pairs as (query, chosen, rejected) with their gains, and calls."""

    strong: int = 0
    judged: int = 0
    pairs: dict[tuple[str, str, str], tuple[float, float]] = field(default_factory=dict)
    usable: int = 0
    why: Counter[str] = field(default_factory=Counter)

    @property
    def each(self) -> float:
        """Calls of strong model and judge a usable pair."""
        return (self.strong + self.judged) / self.usable if self.usable else float("nan")

    def add(self, trace: Trace, asked: Sequence[int], alone: bool, why: str) -> None:
        """One query of which these attempts have a score."""
        self.strong += len({_text(trace, i) for i in asked} if why != _ALL else asked) + alone
        self.judged = self.strong
        self.why[why] += 1
        scored = [trace.attempts[index] for index in sorted(asked)]
        helped = [a for a in scored if (a.gain or 0) > 0]
        hurt = [a for a in scored if (a.gain or 0) <= 0]
        for one, other in zip(helped, hurt, strict=False):
            if one.draft != other.draft:
                self.usable += 1
                name = (trace.query, str(one.draft), str(other.draft))
                self.pairs[name] = (one.gain or 0, other.gain or 0)


_ALL = "every draft"


def main() -> None:
    """Replay, or collect and train, and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folders", type=Path, nargs="+")
    options.add_argument("--thrift", type=float, default=Adaptive.thrift)
    options.add_argument("--live", action="store_true", help="Collect, train and measure.")
    options.add_argument("--only-table", action="store_true", help="With --live: what is kept.")
    given = options.parse_args()
    how = Adaptive(thrift=given.thrift)
    if given.live:
        from live import live

        return live(given.folders, how, MARGIN, measure=not given.only_table)
    print(f"thrift {how.thrift}, explore {how.explore}, {AT_ONCE} queries at a time")
    print(
        "| traces | way | strong | judge | usable pairs | calls a pair | of Algorithm 1's | same |"
    )
    print("|---|---|---|---|---|---|---|---|")
    both = [_compared(folder, how) for folder in given.folders]
    _told("all", *map(_summed, zip(*both, strict=True)))
    reasons = sum((ours.why for _, ours in both), Counter())
    print("\nqueries:", ", ".join(f"{times} {why}" for why, times in reasons.most_common()))
    for name, one in zip(("Algorithm 1", "adaptive"), zip(*both, strict=True), strict=True):
        print(f"{name}: {_gains(_summed(one))}")


def _compared(folder: Path, how: Adaptive) -> tuple[Collected, Collected]:
    with TraceStore(folder / "traces.db") as store:
        traces = [trace for trace in store.select(kind="collection") if trace.complete]
    every, ours = Collected(), Collected()
    for trace in traces:
        every.add(trace, range(len(trace.attempts)), True, _ALL)
    for trace, asked, alone, why in replayed(traces, how):
        ours.add(trace, asked, alone, why)
    _told(folder.name, every, ours)
    return every, ours


def replayed(
    traces: Sequence[Trace], how: Adaptive
) -> Iterator[tuple[Trace, list[int], bool, str]]:
    """Each trace with the attempts that have a score by the adaptive way, whether the strong model
    was asked alone, and why no more was asked."""
    seen: list[Trace] = []
    for start in range(0, len(traces), AT_ONCE):
        odds = Odds.learnt(seen, least=how.alike)
        for trace in traces[start : start + AT_ONCE]:
            asked, alone, why = _asked(trace, odds, how)
            texts = {_text(trace, index) for index in asked}
            scored = [a.index for a in trace.attempts if _text(trace, a.index) in texts]
            seen.append(_as_if(trace, asked, scored, alone))
            yield trace, scored, alone, why


def _asked(trace: Trace, odds: Odds, how: Adaptive) -> tuple[list[int], bool, str]:
    drafts = {attempt.index: str(attempt.draft) for attempt in trace.attempts}
    helped: dict[int, bool | None] = {}
    solo = "unasked"
    while True:
        known = Known(drafts, helped, solo)  # type: ignore[arg-type]
        step = known.step(odds, how, explored=how.explores(trace.key))
        if step.solo:
            solo = "best" if (trace.solo_score or 0) >= 1 else "scored"
        elif not step.ask:
            return list(helped), solo != "unasked", step.stopped or "all asked"
        for index in step.ask:
            helped[index] = (trace.attempts[index].gain or 0) > 0


def _as_if(trace: Trace, asked: Sequence[int], scored: Sequence[int], alone: bool) -> Trace:
    """The trace as the adaptive way would have left it, for whoever learns from it."""
    owner = {_text(trace, index): index for index in reversed(asked)}
    attempts = []
    for attempt in trace.attempts:
        there = attempt.index in scored
        shared = owner.get(_text(trace, attempt.index))
        changes = {"score": attempt.score if there else None}
        changes |= {"same_as": shared if there and attempt.index not in asked else None}
        attempts.append(attempt.model_copy(update=changes))
    fields = {"attempts": attempts, "solo_score": trace.solo_score if alone else None}
    return Trace.model_validate({**trace.model_dump(), **fields, "stopped": "replayed"})


def _text(trace: Trace, index: int) -> str:
    return str(trace.attempts[index].draft).strip()


def _summed(found: Sequence[Collected]) -> Collected:
    total = Collected()
    for number, one in enumerate(found):
        total.strong += one.strong
        total.judged += one.judged
        total.usable += one.usable
        total.pairs |= {(f"{number} {q}", c, r): gains for (q, c, r), gains in one.pairs.items()}
    return total


def _told(name: str, every: Collected, ours: Collected) -> None:
    same = len(ours.pairs.keys() & every.pairs.keys()) / len(ours.pairs) if ours.pairs else 0
    for way, one in (("Algorithm 1", every), ("adaptive", ours)):
        share = f"{one.each / every.each:.2f}"
        told = f"{same:.2f}" if one is ours else ""
        counts = f"{one.strong} | {one.judged} | {one.usable}"
        print(f"| {name} | {way} | {counts} | {one.each:.1f} | {share} | {told} |")


def _gains(one: Collected) -> str:
    chosen, rejected = zip(*one.pairs.values(), strict=True)
    queries = len({query for query, _, _ in one.pairs})
    both = (f"{statistics.fmean(side):+.2f} ({Counter(side)})" for side in (chosen, rejected))
    told = " and ".join(both).replace("Counter", "")
    return f"{queries} queries with pairs; gains of chosen and rejected {told}"


if __name__ == "__main__":
    sys.exit(main())
