"""Cost and quality of policies on examples whose ways were all scored, and areas between curves.

Knows scores, costs and decisions. Knows no text and no model.

A curve runs from the cheapest way for all to whatever the dearest policy costs; between two
policies lies what a coin between them gets. Random mixing is the line between always-weak and
always the fallback. Intervals are percentile bootstraps over queries (all drafts of a query
together), the decisions kept as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cowest_graph.benchmark.statistics import Difference
from cowest_graph.routing.features import Table
from cowest_graph.routing.seen import Way

BUDGETS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Shares of the dearest constant way's cost at which curves are read."""


@dataclass(frozen=True)
class Outcomes:
    """What each way came to on the same examples.

    Args:
        scores, costs: (examples,) by way; costs in any unit.
        groups: a query's examples have one name.
    """

    scores: Mapping[Way, Table]
    costs: Mapping[Way, Table]
    groups: Sequence[str]

    @property
    def ways(self) -> list[Way]:
        """The ways there are."""
        return list(self.scores)

    def of(self, chosen: Sequence[Way]) -> tuple[Table, Table]:
        """(examples,) scores and costs, where each went its way."""
        ways = self.ways
        at = np.asarray([ways.index(way) for way in chosen])
        rows = np.arange(len(at))
        scores = np.asarray([self.scores[way] for way in ways])[at, rows]
        costs = np.asarray([self.costs[way] for way in ways])[at, rows]
        return scores, costs

    def rows(self, places: Sequence[int]) -> Outcomes:
        """Of these examples alone."""
        at = list(places)
        return Outcomes(
            {way: each[at] for way, each in self.scores.items()},
            {way: each[at] for way, each in self.costs.items()},
            [self.groups[place] for place in at],
        )

    def always(self, way: Way) -> tuple[float, float]:
        """Mean score and cost of one way for all."""
        return float(self.scores[way].mean()), float(self.costs[way].mean())


@dataclass(frozen=True)
class Curve:
    """Policies from the cheapest to the dearest.

    Args:
        name: of whoever decides.
        scores, costs: (policies, examples).
    """

    name: str
    scores: Table
    costs: Table

    @classmethod
    def of(cls, name: str, outcomes: Outcomes, policies: Sequence[Sequence[Way]]) -> Curve:
        """The curve of decisions, one list of ways a policy."""
        found = [outcomes.of(chosen) for chosen in policies]
        return cls(name, np.asarray([s for s, _ in found]), np.asarray([c for _, c in found]))

    def points(self) -> list[tuple[float, float]]:
        """Mean cost and score of each policy, by rising cost."""
        means = zip(
            self.costs.mean(axis=1).tolist(), self.scores.mean(axis=1).tolist(), strict=True
        )
        return sorted(set(means))

    def read(self, weights: Table, budgets: Table) -> Table:
        """(resamples, budgets): the mean score at costs, by weights of the examples.

        Args:
            weights: (resamples, examples), each row with sum 1.
            budgets: (resamples, budgets), costs in the curve's unit.
        """
        scores, costs = weights @ self.scores.T, weights @ self.costs.T
        rows = zip(costs, scores, budgets, strict=True)
        return np.asarray([_interpolated(cost, score, at) for cost, score, at in rows])


@dataclass(frozen=True)
class Compared:
    """A curve beside random mixing, on the same queries.

    Args:
        name: of whoever decides.
        area: between the curve and random mixing, as a mean over the budgets from none to all.
        recovered: the part of the way from always-weak to the fallback that is made at a budget,
            as a mean over the budgets (RouteLLM's APGR); random mixing has a half.
        at: the lead over random mixing by budget, each with its interval.
        least: the smallest lead at any of `BUDGETS`.
        floor: the least of one-sided bounds that hold at all budgets at once (the bootstrap's
            largest studentised fall); above 0, the whole curve is above random mixing.
    """

    name: str
    area: Difference
    recovered: Difference | None
    at: Mapping[float, Difference]
    least: float
    floor: float

    @property
    def above_everywhere(self) -> bool:
        """Whether the curve lies above random mixing at every budget that is read."""
        return all(lead.mean > 0 for lead in self.at.values())


def compared(
    curve: Curve,
    outcomes: Outcomes,
    *,
    cheap: Way = "weak",
    dear: Way = "both",
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Compared:
    """A curve beside random mixing of two ways.

    Args:
        curve: on the examples of `outcomes`.
        outcomes: with the two ways.
        cheap, dear: what random mixing mixes.
        level: of confidence.
        resamples: bootstrap samples of queries.
        seed: of the resampling.
    """
    weights = resampled(outcomes.groups, resamples, seed)
    ends = [
        (weights @ outcomes.scores[way], weights @ outcomes.costs[way]) for way in (cheap, dear)
    ]
    (low, cost_low), (high, cost_high) = ends
    fine = np.linspace(0.0, 1.0, 101)
    spans = (cost_high - cost_low)[:, None]
    read = curve.read(weights, cost_low[:, None] + spans * fine)
    mixed = low[:, None] + (high - low)[:, None] * fine
    leads = read - mixed
    areas = _area(leads, fine)
    places = [round(budget * 100) for budget in BUDGETS]
    gap = high - low
    recovered = None
    if (np.abs(gap) > 1e-9).all():
        recovered = _interval(0.5 + areas / gap, level)
    at = {b: _interval(leads[:, p], level) for b, p in zip(BUDGETS, places, strict=True)}
    chosen = leads[:, places]
    errors = np.maximum(chosen[1:].std(axis=0), 1e-12)
    fall = np.quantile(((chosen[:1] - chosen[1:]) / errors).max(axis=1), level)
    return Compared(
        curve.name,
        _interval(areas, level),
        recovered,
        at,
        float(chosen[0].min()),
        float((chosen[0] - fall * errors).min()),
    )


def area_less(
    ours: Curve,
    theirs: Curve,
    outcomes: Outcomes,
    *,
    cheap: Way = "weak",
    dear: Way = "both",
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """By how much one curve's area is larger, paired on the same queries; see `compared`."""
    weights = resampled(outcomes.groups, resamples, seed)
    low, high = (weights @ outcomes.costs[way] for way in (cheap, dear))
    fine = np.linspace(0.0, 1.0, 101)
    at = low[:, None] + (high - low)[:, None] * fine
    leads = ours.read(weights, at) - theirs.read(weights, at)
    return _interval(_area(leads, fine), level)


def resampled(groups: Sequence[str], resamples: int, seed: int) -> Table:
    """(1 + resamples, examples): weights with sum 1; the first row takes all as they are."""
    names, places, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    draw = np.random.default_rng(seed)
    times = draw.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    weights = np.vstack([np.ones(len(names)), times.astype(float)])[:, places]
    del sizes
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _interpolated(costs: Table, scores: Table, at: Table) -> Table:
    """The best that a coin between two policies gets at each cost, of those in their order."""
    order = np.argsort(costs, kind="stable")
    return np.asarray(np.interp(at, costs[order], scores[order]))


def _area(leads: Table, at: Table) -> Table:
    return np.asarray(np.trapezoid(leads, at, axis=1))


def _interval(values: Table, level: float) -> Difference:
    """The first is the figure, the others are resamples."""
    low, high = np.quantile(values[1:], [(1 - level) / 2, (1 + level) / 2])
    return Difference(float(values[0]), float(low), float(high))
