"""Adaptive collection beside Algorithm 1: calls a usable pair, the pairs, and what they teach.

    python benchmarks/rounds/adaptive.py runs/s0 runs/s1                # finished traces, no model
    python benchmarks/rounds/live.py runs/s0 runs/s1                    # collect, DPO, measure

The traces that `cowest demo` collected by Algorithm 1 are gone through once more: all drafts and
scores are there, the policy sees what it asks for and nothing else, and it learns from the queries
before, as a live collection does. As it matters which ones came before, several random orders are
gone through; figures are means over them. A call of the judge is counted for each score, though the
demo scores by a metric.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cowest_graph import TraceStore
from cowest_graph.graph.deciding import Adaptive, Known
from cowest_graph.graph.odds import Odds
from cowest_graph.traces import Trace

AT_ONCE = 8  # queries side by side: what they bring is learnt from after them


@dataclass
class Collected:
    """What a collection came to: pairs as (query, chosen, rejected) with their gains, and calls."""

    strong: int = 0
    judged: int = 0
    pairs: Counter[tuple[str, str, str, float, float]] = field(default_factory=Counter)
    why: Counter[str] = field(default_factory=Counter)

    @property
    def each(self) -> float:
        """Calls of strong model and judge a usable pair."""
        return (self.strong + self.judged) / max(1, self.pairs.total())

    def add(self, trace: Trace, scored: Sequence[int], refined: int, alone: bool, why: str) -> None:
        """One query: the attempts that have a score, how many were asked for it, and why."""
        self.strong += refined + alone
        self.judged += refined + alone
        self.why[why] += 1
        attempts = [trace.attempts[index] for index in sorted(scored)]
        helped = [a for a in attempts if (a.gain or 0) > 0]
        hurt = [a for a in attempts if (a.gain or 0) <= 0]
        for one, other in zip(helped, hurt, strict=False):
            if one.draft != other.draft:
                texts = (trace.key, str(one.draft), str(other.draft))
                self.pairs[*texts, one.gain or 0.0, other.gain or 0.0] += 1


def main() -> None:
    """Replay and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folders", type=Path, nargs="+")
    options.add_argument("--thrift", type=float, default=Adaptive.thrift)
    options.add_argument("--orders", type=int, default=10)
    given = options.parse_args()
    how, orders = Adaptive(thrift=given.thrift), given.orders
    print(
        f"thrift {how.thrift}, explore {how.explore}, {AT_ONCE} queries at a time, {orders} orders"
    )
    print(
        "| traces | way | strong | judge | usable pairs | calls a pair | of Algorithm 1's | same |"
    )
    print("|---|---|---|---|---|---|---|---|")
    both = [_compared(folder, how, orders) for folder in given.folders]
    every, ours = (_summed(one) for one in zip(*both, strict=True))
    _told("all", every, ours, orders)
    times = ours.why.total()
    print("\nqueries:", ", ".join(f"{n / times:.2f} {why}" for why, n in ours.why.most_common()))
    for name, one in (("Algorithm 1", every), ("adaptive", ours)):
        print(f"{name}: {_gains(one)}")


def _compared(folder: Path, how: Adaptive, orders: int) -> tuple[Collected, Collected]:
    with TraceStore(folder / "traces.db") as store:
        traces = [trace for trace in store.select(kind="collection") if trace.complete]
    every, ours = Collected(), Collected()
    for number in range(orders):
        order = random.Random(number).sample(traces, len(traces))
        for trace in order:
            every.add(trace, range(len(trace.attempts)), len(trace.attempts), True, "every draft")
        for trace, asked, scored, alone, why in replayed(order, how):
            ours.add(trace, scored, asked, alone, why)
    _told(folder.name, every, ours, orders)
    return every, ours


def replayed(
    traces: Sequence[Trace], how: Adaptive
) -> Iterator[tuple[Trace, int, list[int], bool, str]]:
    """Each trace with the adaptive way's refinements, the attempts that have a score by them,
    whether the strong model was asked alone, and why no more was asked."""
    seen: list[Trace] = []
    for start in range(0, len(traces), AT_ONCE):
        odds = Odds.learnt(seen, least=how.alike)
        for trace in traces[start : start + AT_ONCE]:
            asked, alone, why = _asked(trace, odds, how)
            texts = {_text(trace, index) for index in asked}
            scored = [a.index for a in trace.attempts if _text(trace, a.index) in texts]
            seen.append(_as_if(trace, asked, scored, alone))
            yield trace, len(asked), scored, alone, why


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
    for one in found:
        total.strong += one.strong
        total.judged += one.judged
        total.pairs += one.pairs
        total.why += one.why
    return total


def _told(name: str, every: Collected, ours: Collected, orders: int) -> None:
    same = (ours.pairs & every.pairs).total() / max(1, ours.pairs.total())
    for way, one in (("Algorithm 1", every), ("adaptive", ours)):
        counts = [one.strong, one.judged, one.pairs.total()]
        told = " | ".join(f"{count / orders:.1f}" for count in counts)
        share = f"{one.each / every.each:.2f} | {f'{same:.2f}' if one is ours else ''}"
        print(f"| {name} | {way} | {told} | {one.each:.1f} | {share} |")


def _gains(one: Collected) -> str:
    """Queries with pairs, and how the gains of both sides are distributed."""
    queries = len({key for key, *_ in one.pairs})
    sides: tuple[Counter[float], Counter[float]] = (Counter(), Counter())
    for (*_, chosen, rejected), times in one.pairs.items():
        sides[0][chosen] += times
        sides[1][rejected] += times
    shares = (
        ", ".join(f"{gain:+g}: {n / side.total():.2f}" for gain, n in sorted(side.items()))
        for side in sides
    )
    return f"{queries} queries with pairs; gains of the chosen {', of the rejected '.join(shares)}"


if __name__ == "__main__":
    main()
