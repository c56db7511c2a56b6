"""A budget that is kept in traffic: a router whose price follows the queries that come.

Knows a router's expectations and costs. Knows no text, no store and no learning.

The price that a fit chose keeps a budget for queries like those it was chosen on. Traffic is never
quite like them: where drafts promise more, a fixed price spends more. A price needs no scores,
though, only what is expected of each query, so it can be set anew as they come: to the one at which
the last queries would have cost what may be spent. What was spent beyond it, or left, is made up
for (Balseiro, Lu and Mirrokni, 2023, show that following the budget by the dual price loses little;
here the price is solved for on a window, since deciding is cheap).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

import numpy as np

from cowest_graph.routing.features import Table
from cowest_graph.routing.registry import FollowingRouter
from cowest_graph.routing.router import Router
from cowest_graph.routing.seen import Seen
from cowest_graph.traces.records import Route

_FEWEST = 5  # queries, before which the router's own price stands
_MADE_UP = 25  # queries, over which what was spent beyond the budget, or left of it, is made up for
_HALVINGS = 20
_CHEAPEST, _DEAREST = 1e-9, 1e6  # prices; at 0, what brings nothing would be paid for


class Paced:
    """A router that spends a share of what its fallback would cost, whatever comes.

    Give it to `create_collaboration(…, route=…)` in a router's stead. Its models are averaged, and
    its quorum is not asked. A query that nobody is sure of still goes the fallback's way, and the
    others make up for it. The budget is one process's: what was spent is not kept beyond it.

    Args:
        router: what is expected of each way. One that follows a registry may change; what is then
            in use begins with its own price and the same budget.
        share: of the fallback's mean cost, what may be spent, above 0 and at most 1.
        window: queries whose price is looked for.
        burst: how far ahead of the budget spending may be, in queries that went the dearest way.

    Raises:
        ValueError: for a share, a window or a burst that cannot be.
    """

    def __init__(
        self,
        router: Router | FollowingRouter,
        *,
        share: float,
        window: int = 200,
        burst: float = 2.0,
    ) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"the share is {share}; it is above 0 and at most 1")
        if window < _FEWEST or burst < 0:
            raise ValueError(
                f"a window of {window} and a burst of {burst}: at least {_FEWEST} queries, and 0"
            )
        self.router, self.share, self.burst = router, share, burst
        self.after_draft, self.logprobs = router.after_draft, router.logprobs
        self.second, self.drafts = router.second, router.drafts
        self._window: deque[tuple[Table, Table]] = deque(maxlen=window)
        self._paced: Router | None = None
        self._price: float | None = None
        self._allowed = 0.0
        self._left = 0.0  # of the budget so far; below 0 where spending is ahead of it
        self._lock = threading.Lock()

    @property
    def price(self) -> float | None:
        """What a cost of 1 must bring now; None is the router's own way for all."""
        return self._price

    def decide(self, seen: Seen, key: str) -> Route:
        """As `choose`, of one draft."""
        return self.choose([seen], key)[1]

    def choose(self, drafted: Sequence[Seen], key: str) -> tuple[int, Route]:
        """The draft that promises most at the price of now, and the way.

        Raises:
            ValueError: as `FollowingRouter.choose`.
        """
        router = self.router.now()
        if router is None:
            return 0, Route(way="both")
        self._follows(router)
        able = router.readable(drafted)
        seen = [drafted[place] for place in able]
        if not able or not router.near(seen[:1])[0]:
            route = router.drawn(router.policy.fallback, key)
            with self._lock:
                self._spends(router.policy.costs[route.way])
            return 0, route
        ways = router.policy.ways
        expected = router.expected(seen)
        means = np.stack([expected[way].mean(axis=1) for way in ways], axis=1)
        found = router.costs(seen)
        costs = np.stack([found[way] for way in ways], axis=1)
        with self._lock:
            self._window.append((means, costs))
            if len(self._window) >= _FEWEST:
                self._price = self._solved()
            room = self._left + self._allowed + self.burst
            affordable = costs <= max(room, float(costs.min()))
            row, at = _best(np.where(affordable, means, -np.inf), costs, self._price or _CHEAPEST)
            told = {way: float(means[row, n]) for n, way in enumerate(ways)}
            route = router.drawn(ways[at], key, told)
            self._spends(float(costs[row, ways.index(route.way)]))
        return able[row], route

    def _follows(self, router: Router) -> None:
        with self._lock:
            if self._paced is not router:
                self._paced, self._price = router, router.policy.price
                self._allowed = self.share * router.policy.costs[router.policy.fallback]
                self._window.clear()

    def _spends(self, cost: float) -> None:
        """Under the lock."""
        self._left = min(self._left + self._allowed - cost, _MADE_UP * self._allowed)

    def _solved(self) -> float:
        """The lowest price at which the window costs what may be spent now."""
        wanted = max(self._allowed + self._left / _MADE_UP, 0.0) + 1e-9
        means = _padded([each for each, _ in self._window], -np.inf)
        costs = _padded([each for _, each in self._window], 0.0)
        low, high = _CHEAPEST, 1.0
        if _spent(means, costs, low) <= wanted:
            return low  # nothing is gained by paying less than one may
        while _spent(means, costs, high) > wanted and high < _DEAREST:
            high *= 2
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if _spent(means, costs, middle) > wanted:
                low = middle
            else:
                high = middle
        return high


def _best(means: Table, costs: Table, price: float) -> tuple[int, int]:
    """(row, way) that is worth most; the first of equals."""
    worth = means - price * costs
    row, way = np.unravel_index(int(worth.argmax()), worth.shape)
    return int(row), int(way)


def _spent(means: Table, costs: Table, price: float) -> float:
    """Mean cost of a window's queries at a price; tables are (queries, drafts, ways)."""
    worth = (means - price * costs).reshape(len(means), -1)
    flat = costs.reshape(len(costs), -1)
    return float(flat[np.arange(len(flat)), worth.argmax(axis=1)].mean())


def _padded(tables: Sequence[Table], fill: float) -> Table:
    """(queries, drafts, ways), where a query has fewer drafts than others."""
    most = max(len(each) for each in tables)
    return np.stack(
        [np.pad(each, ((0, most - len(each)), (0, 0)), constant_values=fill) for each in tables]
    )
