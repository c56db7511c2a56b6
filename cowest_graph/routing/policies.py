"""From expected scores to a way: what a strong model's token must bring, and when nobody is sure.

Knows numbers. Knows no text and no learning.

A way is worth its expected score less the price of its strong tokens; one price for all queries is
what makes a budget go furthest (Lagrange). Where the models that were taught apart do not agree
that another way is worth more, the query goes the fallback's way: that is abstention.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cowest_graph.routing.features import Table
from cowest_graph.routing.seen import Way


@dataclass(frozen=True)
class Policy:
    """Who answers, by what is expected.

    Args:
        costs: of each way, as a share of the dearest one; its keys are the ways there are.
        fallback: the way of a query that nobody is sure of.
        price: score that a cost of 1 must bring; below 0, by how much a cheaper way must be better.
            None sends everything the fallback's way.
        quorum: the share of members, in [0, 1], that must hold another way to be worth more.
        nearest: the cosine, in [-1, 1], that a query must have to some learnt one; None for any.

    Raises:
        ValueError: for a fallback that is no way, or a quorum that is no share.
    """

    costs: Mapping[Way, float]
    fallback: Way = "both"
    price: float | None = 0.0
    quorum: float = 0.6
    nearest: float | None = None

    def __post_init__(self) -> None:
        if self.fallback not in self.costs:
            raise ValueError(f"the fallback {self.fallback!r} is none of {', '.join(self.costs)}")
        if not 0 <= self.quorum <= 1:
            raise ValueError(f"the quorum is {self.quorum}; it is a share of the members")
        if self.price is not None and math.isnan(self.price):
            raise ValueError("the price is no number; None sends everything the fallback's way")

    @property
    def ways(self) -> list[Way]:
        """The ways there are, the fallback first: where all is equal, it is taken."""
        return [self.fallback, *(way for way in self.costs if way != self.fallback)]

    def chosen(self, expected: Mapping[Way, Table], *, price: float | None = None) -> list[Way]:
        """A way a query.

        Args:
            expected: (queries, members) by way.
            price: another one than its own; infinity takes the cheapest way.
        """
        at = self.price if price is None else price
        ways = self.ways
        if at is None:
            return [self.fallback] * len(expected[self.fallback])
        if np.isinf(at):
            return [min(ways, key=lambda way: self.costs[way])] * len(expected[self.fallback])
        worth = {way: expected[way] - at * self.costs[way] for way in ways}
        means = np.asarray([worth[way].mean(axis=1) for way in ways])
        best = means.argmax(axis=0)
        agreed = np.asarray([(worth[way] > worth[self.fallback]).mean(axis=1) for way in ways])
        agreed[0] = 1.0
        sure = agreed[best, np.arange(len(best))] >= self.quorum
        return [
            ways[place] if is_sure else ways[0] for place, is_sure in zip(best, sure, strict=True)
        ]

    def worth(
        self, expected: Mapping[Way, Table], chosen: Sequence[Way], *, price: float | None = None
    ) -> Table:
        """(queries,): the expected score of each one's way, less the price of its cost.

        Where all go the cheapest way, it is the expected score alone.

        Args:
            expected, price: as in `chosen`.
            chosen: a way a query.
        """
        at = self.price if price is None else price
        at = 0.0 if at is None or np.isinf(at) else at
        rows = enumerate(chosen)
        return np.asarray([expected[w][row].mean() - at * self.costs[w] for row, w in rows])

    def prices(self, expected: Mapping[Way, Table], most: int = 200) -> list[float]:
        """The prices at which some query changes its way, rising; infinity is the last.

        The first is below all of them, where the dearest way is everybody's.

        Args:
            expected: as in `chosen`.
            most: prices, at most; spread evenly over the queries.
        """
        found = []
        ways = self.ways
        for number, one in enumerate(ways):
            for other in ways[number + 1 :]:
                apart = self.costs[one] - self.costs[other]
                if abs(apart) > 1e-12:
                    gains = expected[one].mean(axis=1) - expected[other].mean(axis=1)
                    found += (gains / apart).tolist()
        rising = sorted({each for each in found if np.isfinite(each)})
        if not rising:
            return [0.0, float("inf")]
        places = np.unique(np.linspace(0, len(rising) - 1, min(most, len(rising))).astype(int))
        above = [rising[place] + 1e-9 for place in places]
        return [rising[0] - 1.0, *above, float("inf")]


def explored(way: Way, ways: Sequence[Way], epsilon: float, at: float) -> tuple[Way, float]:
    """A way by chance now and then, and how likely the one taken was.

    >>> explored("weak", ["weak", "both"], 0.2, 0.05)
    ('weak', 0.9)
    >>> explored("weak", ["weak", "both"], 0.2, 0.15)
    ('both', 0.1)

    Args:
        way: what would be taken.
        ways: that there are.
        epsilon: the chance of drawing from all of them alike.
        at: drawn from [0, 1).
    """
    taken = way if at >= epsilon else ways[int(at / epsilon * len(ways))]
    chance = epsilon / len(ways) + (1 - epsilon if taken == way else 0.0)
    return taken, round(chance, 12)
