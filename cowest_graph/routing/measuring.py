"""What a router comes to on queries that it was not made with, and others beside it.

Knows routers, curves and the rival. Knows no trace and prints nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cowest_graph.benchmark.statistics import Difference
from cowest_graph.routing.choosing import came_to, on_average
from cowest_graph.routing.costing import Unit
from cowest_graph.routing.curves import Compared, Curve, Outcomes, area_less, compared
from cowest_graph.routing.fitting import drafted, outcomes, whole
from cowest_graph.routing.lessons import Example
from cowest_graph.routing.rivals import query_only
from cowest_graph.routing.router import Router
from cowest_graph.routing.seen import Way

OURS = "router"


@dataclass(frozen=True)
class Measured:
    """A router on a test's queries.

    Args:
        queries: there are.
        constant: mean score and cost of each way for all, of drafts that nobody chose.
        router: of the router with its price.
        shares: of the queries, by the way that they went.
        curves: over all prices, beside random mixing, by name; the router's first.
        less: the area of the router's curve less the rival's; None without a rival.
        points: mean cost and score of each policy, by curve.
    """

    queries: int
    constant: Mapping[Way, tuple[float, float]]
    router: tuple[float, float]
    shares: Mapping[Way, float]
    curves: Mapping[str, Compared]
    less: Difference | None
    points: Mapping[str, list[tuple[float, float]]]

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for a card."""
        return asdict(self)


def curve_of(
    name: str, router: Router, found: Sequence[Example], unit: Unit, most: int = 200
) -> tuple[Curve, Outcomes]:
    """A router's curve over all prices, on examples that it was not taught with.

    Args:
        name: of the curve.
        router: whose price is let go.
        found: `whole` ones.
        unit: of the costs.
        most: policies, at most.

    Returns:
        The curve, and what the ways came to on the same queries where nobody chose a draft.
    """
    seen = [each.seen for each in found]
    expected, sure = router.expected(seen), router.near(seen)
    # The cheapest end is the cheapest way for all, of whatever kind the query is.
    near = [sure, np.ones(len(seen), dtype=bool)]
    there = outcomes(found, list(router.policy.costs), unit)
    sets = drafted(found, router.drafts)
    policies = [
        came_to(there, *router.picked_of(expected, near[price == float("inf")], sets, price=price))
        for price in router.policy.prices(expected, most)
    ]
    scores, costs = (np.asarray(each) for each in zip(*policies, strict=True))
    return Curve(name, scores, costs), on_average(there, sets)


def measured(
    router: Router,
    taught: Sequence[Example],
    found: Sequence[Example],
    unit: Unit,
    *,
    resamples: int = 2000,
) -> Measured | None:
    """A router with its price, and its curve beside the rival's.

    Args:
        router: to be measured.
        taught: what the rival is taught with, too.
        found: the test's examples.
        unit: of the costs.
        resamples: of the bootstrap.

    Returns:
        None where fewer than two queries have the scores of all ways.
    """
    ways = list(router.policy.costs)
    rows = whole(found, ways)
    if len({each.group for each in rows}) < 2:
        return None
    dear = router.policy.fallback
    cheap: Way = min(ways, key=lambda way: router.policy.costs[way])
    own, there = curve_of(OURS, router, rows, unit)
    sets = drafted(rows, router.drafts)
    asked = [rows[each[0]] for each in sets]
    rival = query_only(taught, asked, there, cheap=cheap, dear=dear, embed=router.embed)
    drawn = [own, *([rival] if rival is not None else [])]
    ends: dict[str, Any] = {"cheap": cheap, "dear": dear, "resamples": resamples}
    taken, chosen = router.picked([each.seen for each in rows], sets)
    scores, costs = came_to(outcomes(rows, ways, unit), taken, chosen)
    return Measured(
        queries=len(set(there.groups)),
        constant={way: there.always(way) for way in ways},
        router=(float(scores.mean()), float(costs.mean())),
        shares={way: chosen.count(way) / len(chosen) for way in ways},
        curves={curve.name: compared(curve, there, **ends) for curve in drawn},
        less=None if rival is None else area_less(own, rival, there, **ends),
        points={curve.name: curve.points() for curve in drawn},
    )
