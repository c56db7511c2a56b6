"""The gate that asks until it is sure, or without hope, and no longer.

Knows the order of queries and the looks at their scores. Knows no model; the test is `spending`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.gate.fixed import Gate, found, scored
from trainer.gate.spending import Look, Spending
from trainer.gate.verdicts import Decision, Verdict

_LOOKS = 30  # at most, since each looks at all exchanges again


@dataclass(frozen=True)
class SequentialGate(Gate):
    """A gate that looks after every portion of queries, and stops as soon as it can.

    A group-sequential permutation test (Lan and DeMets 1983; see `trainer.gate.spending`): over all
    looks together an adapter that is no better passes with a chance of at most 1 less the
    confidence, and its p value is valid at whichever look it stopped. At the end of its budget it
    is nearly the fixed test of `Gate`, so that it finds what that finds, mostly with fewer queries.

    >>> gate = SequentialGate(batch=10)
    >>> verdict = gate.verdict([1.0] * 20, [0.0] * 20, of=60)
    >>> verdict.decision, verdict.asked, verdict.budget
    ('passed', 20, 60)
    >>> gate.verdict([0.0] * 20, [1.0] * 20, of=60).decision
    'futility'

    Args:
        batch: queries between two looks; more where that would make more than 30 looks.
        max_queries: queries that are asked, at most; None for all there are.
        futility: the chance of passing in the end below which it stops; 0 for never.
        seed: of the order of the queries, and of the test's exchanges.
        resamples: exchanges that are drawn.

    Raises:
        ValueError: for a batch or a budget below 1, a futility that is not from 0 to below 1, or
            fewer than 19 exchanges.
    """

    batch: int = 10
    max_queries: int | None = None
    futility: float = 0.01
    seed: int = 0
    resamples: int = 9999

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("batch", "max_queries"):
            if (given := getattr(self, name)) is not None and given < 1:
                raise ValueError(f"{name} is {given}; it must be 1 or more")
        if not 0 <= self.futility < 1:
            raise ValueError(f"the futility is {self.futility}; it must be from 0 to below 1")
        if self.resamples < 19:
            raise ValueError(f"{self.resamples} resamples; 19 are the fewest that can tell 0.05")

    def portions(self, queries: int) -> Sequence[Sequence[int]]:
        """The places of the queries in a seeded order, a batch each, as far as the budget goes.

        A random order makes what is asked first like what would be asked last, whatever order a
        file has.
        """
        order = list(range(queries))
        random.Random(self.seed).shuffle(order)
        most = self._budget(queries)
        step = self._step(most)
        return [order[at : min(at + step, most)] for at in range(0, most, step)]

    def verdict(
        self,
        candidate: Sequence[float | None],
        current: Sequence[float | None],
        *,
        of: int | None = None,
    ) -> Verdict:
        """Look at the scores so far, in order; the decision is None where more are to be asked.

        Args:
            of: queries there are; None where these are all.

        Raises:
            ValueError: when there are not as many.
        """
        ours, theirs = scored(candidate, current)
        asked, budget = len(candidate), self._budget(len(candidate) if of is None else of)
        look = self._look(candidate, current, budget) if ours else None
        return found(
            ours,
            theirs,
            look.p() if look else None,
            asked=asked,
            budget=budget,
            decision=_decision(look, asked >= budget),
            seed=self.seed,
        )

    def _look(
        self, candidate: Sequence[float | None], current: Sequence[float | None], budget: int
    ) -> Look:
        """What there is to see after the last of these scores, and was before."""
        starts = range(0, len(candidate), self._step(budget))
        ends = [*starts[1:], len(candidate)]
        portions = []
        for start, end in zip(starts, ends, strict=True):
            ours, theirs = scored(candidate[start:end], current[start:end])
            portions.append([a - b - self.margin for a, b in zip(ours, theirs, strict=True)])
        test = Spending(1 - self.confidence, self.futility, self.resamples, self.seed)
        return test.look(portions, [end / budget for end in ends])

    def _step(self, budget: int) -> int:
        return max(self.batch, -(-budget // _LOOKS))

    def _budget(self, queries: int) -> int:
        return queries if self.max_queries is None else min(queries, self.max_queries)


def _decision(look: Look | None, at_the_end: bool) -> Decision | None:
    if look and look.passed:
        return "passed"
    if at_the_end:
        return "not passed"
    return "futility" if look and look.hopeless else None
