"""The course of rounds: which queries one asks, what it trains on, and when it is the last.

Knows traces, pairs and their counts. Knows no model, no store and no gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cowest_graph.traces import Trace
from trainer.objectives import OBJECTIVES
from trainer.rows import Rows, RowsOnDisk, replayed, teaches


@dataclass(frozen=True)
class Course:
    """What rounds ask and train on, and when another one is not worth its calls.

    >>> helped = Trace(query="q", solo_score=0, attempts=[{"index": 0, "score": 1}])
    >>> Course(queries_a_round=1).first(["all helped", "fresh"], [helped, None])
    ['fresh']

    Args:
        queries_a_round: feedback queries that a round collects on; None for all, every round.
            First those whose drafts both helped and hurt in an earlier round, which are likely to
            again; then fresh ones; then those whose drafts all hurt; last those that all helped.
        min_pairs: fewer pairs are not trained on.
        min_two_sided: the share of queries with drafts that helped and drafts that hurt, below
            which nothing is trained: what is left is one-sided, or noise.
        replay: demonstrations beside pairs, a pair: each prefers what SFT would have shown over a
            draft that hurt, of a query whose drafts all hurt (`trainer.rows.replayed`).

    Raises:
        ValueError: for a number that is out of its range.
    """

    queries_a_round: int | None = None
    min_pairs: int = 1
    min_two_sided: float = 0.0
    replay: float = 0.0

    def __post_init__(self) -> None:
        for name in ("queries_a_round", "min_pairs"):
            if (given := getattr(self, name)) is not None and given < 1:
                raise ValueError(f"{name} is {given}; it must be 1 or more")
        if not 0 <= self.min_two_sided <= 1:
            raise ValueError(f"min_two_sided is {self.min_two_sided}; it must be from 0 to 1")
        if self.replay < 0:
            raise ValueError(f"replay is {self.replay}; it must be 0 or more")

    def first(self, rows: Sequence[Any], told: Sequence[Trace | None]) -> list[Any]:
        """The rows that a round asks.

        Args:
            rows: all there are.
            told: of each the trace of the last round that asked it; None for a fresh one.
        """
        if self.queries_a_round is None:
            return list(rows)
        ranked = sorted(zip(rows, map(_rank, told), strict=True), key=lambda ranked: ranked[1])
        return [row for row, _ in ranked[: self.queries_a_round]]

    def rows(
        self,
        given: Rows[Any] | RowsOnDisk[Any],
        traces: Sequence[Trace],
        objective: str,
        style: str,
    ) -> Any:
        """What a round trains on, or in a sentence why it trains on nothing.

        Args:
            given: the rows of its traces.
            traces: what it collected.
            objective: of `trainer.objectives`.
            style: the draft style, of demonstrations.

        Raises:
            ValueError: for replay where the objective has no pairs, or weighs them by gain.
        """
        pairs = [row for row in given if teaches(row)]
        if why := self._why_not(len(pairs), traces):
            return f"{why}: {given.report}"
        return Rows([*pairs, *self._replayed(len(pairs), traces, objective, style)], given.report)

    def _replayed(
        self, pairs: int, traces: Sequence[Trace], objective: str, style: str
    ) -> list[dict[str, Any]]:
        wanted = OBJECTIVES[objective]
        if self.replay and (wanted.rows != "preferences" or wanted.gains):
            raise ValueError(
                f"the objective {objective!r} takes no demonstrations beside its rows; set replay "
                "to 0, or the objective to one of pairs alone, such as 'dpo'"
            )
        return replayed(traces, most=round(self.replay * pairs), style=style)

    def _why_not(self, pairs: int, traces: Sequence[Trace]) -> str | None:
        if not pairs:
            return "nothing to train on"
        if pairs < self.min_pairs:
            return f"too few pairs to train on, {pairs} of at least {self.min_pairs}"
        share = two_sided(traces)
        if self.min_two_sided and (share is None or share < self.min_two_sided):
            told = "no query" if share is None else f"{share:.0%} of the queries"
            return (
                f"too one-sided: {told} had drafts that helped and drafts that hurt, and "
                f"{self.min_two_sided:.0%} are wanted"
            )
        return None


def two_sided(traces: Sequence[Trace]) -> float | None:
    """Of the traces with gains, the share with one above 0 and one that is not; None of none."""
    ranks = [rank for trace in traces if (rank := _rank(trace)) != _FRESH]
    return ranks.count(_TWO_SIDED) / len(ranks) if ranks else None


_TWO_SIDED, _FRESH, _HURT, _HELPED = range(4)


def _rank(trace: Trace | None) -> int:
    """When a query's turn is; one without gains is as good as fresh."""
    gains = [a.gain for a in trace.attempts if a.gain is not None] if trace else []
    if not gains:
        return _FRESH
    if min(gains) > 0:
        return _HELPED
    return _TWO_SIDED if max(gains) > 0 else _HURT
