"""What is wanted of a router, and the price that gets it, chosen on queries kept for that.

Knows policies and outcomes. Knows no text and no test queries.

**Quality kept** is a promise with an error: prices are tried from the safest to the cheapest, each
tested for "quality is at least this share of the fallback's", and the last one before the first
that fails is taken. Tested in a fixed order, each at the full level, the chance that what is taken
breaks the promise is at most the level (learn then test: Angelopoulos et al., 2021). The test is a
one-sided t test over queries. At a confidence of 0.5 nothing is promised: the cheapest price that
keeps the share in the mean of these queries is taken. **A budget** is met in the mean of the
queries it was chosen on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cowest_graph.routing.choosing import Sets, came_to, on_average, picked
from cowest_graph.routing.curves import Outcomes
from cowest_graph.routing.features import Table
from cowest_graph.routing.policies import Policy
from cowest_graph.routing.seen import Way

_TRIED = 40  # prices: each further one is another chance to fail before the cheapest that holds


@dataclass(frozen=True)
class Target:
    """One of the three.

    Args:
        quality: of the fallback's mean score, the share that must be kept, such as 0.98.
        share: of the fallback's cost, what may be spent.
        budget: cost a query, in the unit of the costs (strong tokens, or calls).
        confidence: 1 less the chance that `quality` is not kept; 0.5 takes the point estimate.

    Raises:
        ValueError: for none of them, several, or an impossible number.
    """

    quality: float | None = None
    share: float | None = None
    budget: float | None = None
    confidence: float = 0.9

    def __post_init__(self) -> None:
        given = {n: v for n, v in self.as_dict().items() if n != "confidence" and v is not None}
        if len(given) != 1:
            told = " and ".join(f"{name}={value}" for name, value in given.items()) or "nothing"
            raise ValueError(f"{told} is wanted of a router; give one of quality, share, budget")
        if not next(iter(given.values())) > 0:
            raise ValueError(f"{given}: it must be above 0")
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"the confidence is {self.confidence}; it is from 0.5 to below 1")

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "quality": self.quality,
            "share": self.share,
            "budget": self.budget,
            "confidence": self.confidence,
        }

    def __str__(self) -> str:
        if self.quality is not None:
            return f"{self.quality:g} of the quality, at {self.confidence:.0%}"
        return f"a share of {self.share:g}" if self.share else f"{self.budget:g} a query"


@dataclass(frozen=True)
class Priced:
    """The price that a target gets, and what it came to where it was chosen.

    Args:
        price: None where no price keeps the target: all goes the fallback's way.
        score, cost: their means.
        kept: the score as a share of the fallback's; None where that is 0.
        spent: the cost as a share of the fallback's.
        queries: that it was chosen on.
    """

    price: float | None
    score: float
    cost: float
    kept: float | None
    spent: float | None
    queries: int

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return dict(vars(self))


def priced(
    target: Target,
    policy: Policy,
    expected: Mapping[Way, Table],
    outcomes: Outcomes,
    sets: Sets | None = None,
) -> Priced:
    """The price of a policy that gets the target.

    The fallback, of which a share is wanted, is that of a draft that nobody chose.

    Args:
        target: what is wanted.
        policy: whose price is looked for.
        expected: (examples, members) by way, by models that have not seen these queries.
        outcomes: of the same examples.
        sets: of examples that a draft is chosen among; None for each by itself.
    """
    sets = [[row] for row in range(len(outcomes.groups))] if sets is None else sets
    base, prices = on_average(outcomes, sets), policy.prices(expected, _TRIED)
    fallback = base.scores[policy.fallback]
    taken: float | None = None

    def at(price: float | None) -> tuple[Table, Table]:
        return came_to(outcomes, *picked(policy, expected, sets, price=price))

    if target.quality is not None:
        for price in prices:  # from the safest on, until one fails
            scores, _ = at(price)
            if _is_kept(scores - target.quality * fallback, base, target.confidence):
                taken = price
            elif target.confidence > 0.5:
                break
        return _told(taken, at, base, policy.fallback)
    _, dear = base.always(policy.fallback)
    most = target.budget if target.budget is not None else (target.share or 0.0) * dear
    found = [(at(price), price) for price in prices]
    within = [(s.mean(), -c.mean(), price) for (s, c), price in found if c.mean() <= most + 1e-9]
    if within:
        taken = max(within)[2]
    elif dear > most:
        raise ValueError(
            f"no way costs as little as {most:g} a query; the cheapest is "
            f"{min(base.always(way)[1] for way in base.ways):g}"
        )
    return _told(taken, at, base, policy.fallback)


def _is_kept(leads: Table, outcomes: Outcomes, confidence: float) -> bool:
    """Whether the mean over queries is above 0 with this confidence."""
    names, places = np.unique(np.asarray(outcomes.groups), return_inverse=True)
    sums = np.bincount(places, weights=leads) / np.bincount(places)
    mean = float(sums.mean())
    if len(names) < 2:
        return False
    error = float(sums.std(ddof=1)) / float(np.sqrt(len(names)))
    from scipy.stats import t  # comes with scikit-learn

    return mean >= float(t.ppf(confidence, len(names) - 1)) * error


def _told(
    price: float | None,
    at: Callable[[float | None], tuple[Table, Table]],
    base: Outcomes,
    fallback: Way,
) -> Priced:
    scores, costs = (base.scores[fallback], base.costs[fallback]) if price is None else at(price)
    score, cost = base.always(fallback)
    return Priced(
        price=price,
        score=float(scores.mean()),
        cost=float(costs.mean()),
        kept=float(scores.mean()) / score if score > 0 else None,
        spent=float(costs.mean()) / cost if cost > 0 else None,
        queries=len(set(base.groups)),
    )
