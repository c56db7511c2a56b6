"""Whether a router may take the place of what is in use: the gate, and the cost beside it.

Knows registries of routers, examples and the gate. Knows no command line.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from trainer.gate import Gate, Verdict

if TYPE_CHECKING:
    from cowest_graph.evaluators import Evaluator
    from cowest_graph.routing import Embed, Example, Router, RouterRegistry
    from cowest_graph.traces import Trace

LOSS = 0.02
"""Of the score, what a router may lose beside the one in use, to pass for cheaper."""


@dataclass(frozen=True)
class Admission:
    """What the gate found of a router.

    Args:
        verdict: of its score beside that of what is in use, within what may be lost.
        cost, current: strong tokens or calls a query, of the two.
        better: whether its score is higher, by the same gate without a margin.
    """

    verdict: Verdict
    cost: float
    current: float
    better: bool = False

    @property
    def passed(self) -> bool:
        """Whether it may be promoted: not worse and cheaper, or better.

        Whoever is better is also not worse, so that two questions are asked at the price of one.
        """
        return self.better or (self.verdict.passed and self.cost < self.current)

    def __str__(self) -> str:
        how = " (better)" if self.better else ""
        return f"{self.verdict}{how}; cost {self.cost:.1f} beside {self.current:.1f} a query"


def admitted(
    name: str,
    routers: RouterRegistry,
    traces: Iterable[Trace],
    *,
    evaluator: Evaluator | None = None,
    gate: Gate | None = None,
    against: Router | None = None,
    embed: Embed | None = None,
) -> Admission:
    """Whether a router may take the place of what is in use, by the adapters' gate.

    On the test's queries alone, which neither version was made with: they are the same in every
    fit. A query's drafts count as one. Without a router in use, it is compared with its fallback.

    Args:
        name: of the candidate.
        routers: where it is.
        traces: with the scores of all ways.
        evaluator: as in `fit_from`.
        gate: its margin is below 0; by default `LOSS` of the score of what is in use.
        against: what is in use; by default the registry's choice.
        embed: what the routers were fitted with, where that was not the packaged model.

    Raises:
        LookupError: for a version that there is not.
        ValueError: where nothing was held out from it, or no query has all scores.
    """
    from cowest_graph.routing import examples, parted, whole

    card, candidate = routers.card(name), routers.load(name, embed=embed)
    current = routers.current if against is None else None
    shares = [card["parts"]["test"]]
    if against is None and current is not None:
        against = routers.load(current, embed=embed)
        shares.append(routers.card(current)["parts"]["test"])
    if not min(shares) > 0:
        raise ValueError(
            f"no query was held out from {name} or from what is in use; fit with --test 0.2, or "
            "promote it without the gate (--force)"
        )
    ways = list(candidate.policy.costs)
    known = examples(traces, evaluator=evaluator).examples
    found = whole(parted(known, validation=0.0, test=min(shares)).test, ways)
    if not found:
        raise ValueError(
            "no held-out query has the scores of all ways; collect some, or promote it without "
            "the gate (--force)"
        )
    ours, cost = _came_to(candidate, found, card["unit"])
    theirs, before = _came_to(against or _constant(candidate), found, card["unit"])
    loss = LOSS * abs(sum(theirs) / len(theirs))
    gate = gate or Gate(margin=-loss)
    better = replace(gate, margin=max(0.0, gate.margin)).verdict(ours, theirs)
    return Admission(gate.verdict(ours, theirs), cost, before, better.passed)


def _constant(router: Router) -> Router:
    """The same, with everything the fallback's way."""
    return replace(router, policy=replace(router.policy, price=None), drafts=1)


def _came_to(router: Router, found: Sequence[Example], unit: Any) -> tuple[list[float], float]:
    """A score a query, and the mean cost a query."""
    from cowest_graph.routing import came_to, drafted, on_average, outcomes

    whole, sets = outcomes(found, list(router.policy.costs), unit), drafted(found, router.drafts)
    scores, costs = came_to(whole, *router.picked([each.seen for each in found], sets))
    there = on_average(whole, sets)
    by_query: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for group, score, cost in zip(there.groups, scores.tolist(), costs.tolist(), strict=True):
        by_query[group].append((score, cost))
    means = [
        (sum(s for s, _ in each) / len(each), sum(c for _, c in each) / len(each))
        for _, each in sorted(by_query.items())
    ]
    return [score for score, _ in means], sum(cost for _, cost in means) / len(means)
