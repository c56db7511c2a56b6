"""The gate that asks every held-out query, and then decides once.

Knows scores and a paired test. Knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cowest_graph.benchmark import paired_difference, permutation_p
from trainer.gate.verdicts import Decision, Verdict


@dataclass(frozen=True)
class Gate:
    """When an adapter may take another one's place.

    A paired permutation test at this confidence, so that few queries let nothing pass by luck.

    >>> Gate().verdict([1.0] * 8 + [None], [0.0] * 8 + [1.0]).passed
    True
    >>> Gate().verdict([1.0, 0.0, 1.0], [0.0, 0.0, 0.0]).passed
    False

    Args:
        confidence: 1 less the chance that an adapter which is no better passes.
        margin: by how much it must be better, in the score's unit; below 0: by how much it may be
            worse.

    Raises:
        ValueError: for a confidence that is not between 0 and 1.
    """

    confidence: float = 0.95
    margin: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise ValueError(f"the confidence is {self.confidence}; it must be between 0 and 1")

    def portions(self, queries: int) -> Sequence[Sequence[int]]:
        """The places of the queries, in the order and the portions in which they are asked."""
        return [range(queries)] if queries else []

    def verdict(
        self,
        candidate: Sequence[float | None],
        current: Sequence[float | None],
        *,
        of: int | None = None,
    ) -> Verdict:
        """Compare the scores so far of the same queries, in the same order; missing ones are None.

        Args:
            of: queries there are; None where these are all.

        Raises:
            ValueError: when there are not as many.
        """
        ours, theirs = scored(candidate, current)
        p = permutation_p(ours, theirs, margin=self.margin) if ours else None
        asked, budget = len(candidate), len(candidate) if of is None else of
        decision: Decision | None = None
        if asked >= budget:
            decision = "passed" if p is not None and p <= 1 - self.confidence else "not passed"
        return found(ours, theirs, p, asked=asked, budget=budget, decision=decision)


def scored(
    candidate: Sequence[float | None], current: Sequence[float | None]
) -> tuple[list[float], list[float]]:
    """The scores of the queries that both have one of.

    Raises:
        ValueError: when there are not as many.
    """
    both = [
        (ours, theirs)
        for ours, theirs in zip(candidate, current, strict=True)
        if ours is not None and theirs is not None
    ]
    return [ours for ours, _ in both], [theirs for _, theirs in both]


def found(ours: Sequence[float], theirs: Sequence[float], p: float | None, **known: Any) -> Verdict:
    """The verdict on paired scores; without any, nothing passes.

    Args:
        ours, theirs: of the queries that both have one of.
        p: of the test; None without scores.
        known: asked, budget, decision, and perhaps the seed.
    """
    count = len(ours)
    return Verdict(
        queries=count,
        missing=known["asked"] - count,
        candidate=sum(ours) / count if count else None,
        current=sum(theirs) / count if count else None,
        difference=paired_difference(ours, theirs) if count else None,
        p=p,
        passed=known["decision"] == "passed",
        **known,
    )
