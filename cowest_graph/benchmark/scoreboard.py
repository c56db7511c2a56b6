"""The table: what methods said, scored, with intervals, tests, costs and what the drafts did.

Knows domains and answers. Knows no model; what is missing (a failed query, unknown tokens) is
counted and left out, never taken for 0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from cowest_graph.benchmark.ledger import Said
from cowest_graph.benchmark.statistics import (
    Difference,
    McNemar,
    Synergy,
    mcnemar,
    mean_interval,
    paired_difference,
    statistic_interval,
    synergy,
)
from cowest_graph.domains import Domain, Example
from cowest_graph.metrics import normalize
from cowest_graph.state import CallRecord, Reference

Place = tuple[int, str]
"""A seed and a query's key: where two methods are compared."""

ROLES = ("weak", "strong", "judge")
PAYERS = {
    "draft": "weak",
    "shadow": "weak",
    "solo": "strong",
    "refine": "strong",
    "evaluate": "judge",
}
"""On whose account a trace's calls are."""


@dataclass(frozen=True)
class Outcome:
    """One answer, read and scored."""

    answer: str | None  # None: it could not be read, which counts as wrong
    reference: Reference
    scores: Mapping[str, float]
    draft_answer: str | None
    draft_scores: Mapping[str, float] | None  # None where the method has no draft
    calls: Sequence[CallRecord]


@dataclass(frozen=True)
class Price:
    """Dollars a million tokens.

    Args:
        input, output: of the tokens that are read and written.
        cached: of those among the read that the endpoint had in its prefix cache; None where they
            cost what the others do.
        batch: the share of the price that calls of a batch API cost.

    >>> Price(2.0, 8.0, cached=0.5).dollars(1_000_000, 0, cached=500_000)
    1.25
    """

    input: float
    output: float
    cached: float | None = None
    batch: float = 0.5

    def dollars(
        self, read: float, wrote: float, cached: float = 0, *, batched: bool = False
    ) -> float:
        """Of so many tokens, of which some of the read were cached."""
        rebate = 0.0 if self.cached is None else cached * (self.input - self.cached)
        whole = (read * self.input + wrote * self.output - rebate) / 1e6
        return whole * self.batch if batched else whole


@dataclass(frozen=True)
class Cost:
    """What a query took, on average. None where an endpoint does not say."""

    calls: Mapping[str, float]  # by role
    tokens: Mapping[str, tuple[float, float] | None]  # by role: read, written
    cached: Mapping[str, float]  # by role: of the read, known to be in the endpoint's prefix cache
    seconds: float | None  # of its calls, one after the other
    dollars: float | None  # None without a price list, or without tokens


@dataclass(frozen=True)
class Standing:
    """One row of the table."""

    method: str
    family: str
    scored: int
    failed: int  # queries on which the method raised; they are left out
    unreadable: int  # answers that could not be read; they count as wrong
    scores: Mapping[str, Difference]
    cost: Cost
    draft_scores: Mapping[str, Difference] = field(default_factory=dict)
    differences: Mapping[str, Difference] = field(default_factory=dict)  # to the best single model
    test: McNemar | None = None  # None where the primary metric is not one of right and wrong
    synergy: Synergy | None = None
    note: str = ""


def outcomes(
    domain: Domain, examples: Sequence[Example], said: Sequence[Said], seed: int
) -> dict[Place, Outcome]:
    """The answers of one method, read and scored; failed queries are left out."""
    by_key = {example.key: example for example in examples}
    return {
        (seed, each.key): _outcome(domain, by_key[each.key], each)
        for each in said
        if each.text is not None
    }


def _outcome(domain: Domain, example: Example, said: Said) -> Outcome:
    reference = example.reference
    if reference is None:
        raise ValueError(f"{domain.name}: a test query has no reference: {example.query[:80]!r}")
    text, query, draft = str(said.text), example.query, said.draft
    return Outcome(
        answer=domain.read(text, query),
        reference=reference,
        scores=domain.score(text, query, reference),
        draft_answer=None if draft is None else domain.read(draft, query),
        draft_scores=None if draft is None else domain.score(draft, query, reference),
        calls=said.calls,
    )


def standing(
    domain: Domain,
    method: str,
    family: str,
    found: Mapping[Place, Outcome],
    *,
    failed: int = 0,
    prices: Mapping[str, Price] | None = None,
    note: str = "",
    resamples: int = 4000,
) -> Standing:
    """One method's row, without its comparison (see `compare`).

    Raises:
        ValueError: when not one query was answered; the caller tells why.
    """
    if not found:
        raise ValueError(f"{method}: no query was answered")
    rows = list(found.values())
    scores = {
        name: mean_interval(_by_query(found, _score(name)), resamples=resamples)
        for name in domain.scoring
    }
    drafts = {}
    if all(o.draft_scores is not None for o in rows):
        drafts = {
            name: mean_interval(_by_query(found, _draft_score(name)), resamples=resamples)
            for name in domain.scoring
        }
    if domain.labels:
        scores["macro_f1"] = _macro_f1(domain, found, resamples=max(resamples // 4, 1))
    return Standing(
        method,
        family,
        scored=len(rows),
        failed=failed,
        unreadable=sum(o.answer is None for o in rows),
        scores=scores,
        cost=cost([o.calls for o in rows], prices or {}),
        draft_scores=drafts,
        note=note,
    )


def compare(
    domain: Domain,
    ours: Mapping[Place, Outcome],
    theirs: Mapping[Place, Outcome],
    *,
    resamples: int = 4000,
) -> tuple[dict[str, Difference], McNemar | None]:
    """The paired differences by metric, and McNemar's test in the primary one.

    Compared where both answered; with several seeds a query counts once, with its mean. Without a
    query that both answered there is neither; without a primary metric of 0 and 1 there is no test.
    """
    both = [place for place in ours if place in theirs]
    if not both:
        return {}, None
    sides = [{place: side[place] for place in both} for side in (ours, theirs)]
    means = {name: [_by_query(side, _score(name)) for side in sides] for name in domain.scoring}
    found = {name: paired_difference(*pair, resamples=resamples) for name, pair in means.items()}
    if domain.labels:
        found["macro_f1"] = _macro_f1(domain, *sides, resamples=max(resamples // 4, 1))
    exact = _exact(domain.primary, *sides)
    return found, mcnemar(*means[domain.primary]) if exact else None


def decompose(
    domain: Domain, together: Mapping[Place, Outcome], solo: Mapping[Place, Outcome]
) -> Synergy | None:
    """What the drafts did to the strong model's answers.

    None for a method without drafts, and where the primary metric is not one of right and wrong.
    """
    both = [p for p in together if p in solo]
    metric = domain.primary
    if not both or any(together[p].draft_scores is None for p in both):
        return None
    if not _exact(metric, together, solo):
        return None
    return synergy(
        [_right(solo[p], metric) for p in both],
        [_right(together[p], metric) for p in both],
        [_same(together[p]) for p in both],
    )


def cost(bills: Sequence[Sequence[CallRecord]], prices: Mapping[str, Price]) -> Cost:
    """The mean bill of a query."""
    count = len(bills)
    by_role = {r: [c for bill in bills for c in bill if c.get("role") == r] for r in ROLES}
    used = {role: calls for role, calls in by_role.items() if calls}
    tokens = {role: _tokens(calls, count) for role, calls in used.items()}
    cached = {
        role: sum(call.get("cached_tokens") or 0 for call in calls) / count
        for role, calls in used.items()
        if any(call.get("cached_tokens") is not None for call in calls)
    }
    seconds = [call.get("seconds") for bill in bills for call in bill]
    known = [s for s in seconds if s is not None]
    return Cost(
        calls={role: len(calls) / count for role, calls in used.items()},
        tokens=tokens,
        cached=cached,
        seconds=sum(known) / count if len(known) == len(seconds) else None,
        dollars=_dollars(used, prices, count),
    )


def _tokens(calls: Sequence[CallRecord], count: int) -> tuple[float, float] | None:
    read = [call.get("input_tokens") for call in calls]
    wrote = [call.get("output_tokens") for call in calls]
    if None in read or None in wrote:
        return None
    return sum(n or 0 for n in read) / count, sum(n or 0 for n in wrote) / count


def _dollars(
    used: Mapping[str, Sequence[CallRecord]], prices: Mapping[str, Price], count: int
) -> float | None:
    priced = [
        (prices[role], call) for role, calls in used.items() if role in prices for call in calls
    ]
    told = [_price_of(call, price) for price, call in priced]
    known = [dollars for dollars in told if dollars is not None]
    return sum(known) / count if prices and len(known) == len(told) else None


def _price_of(call: CallRecord, price: Price) -> float | None:
    read, wrote = call.get("input_tokens"), call.get("output_tokens")
    if read is None or wrote is None:
        return None
    batched = call.get("service_tier") == "batch"
    return price.dollars(read, wrote, call.get("cached_tokens") or 0, batched=batched)


def _score(metric: str) -> Callable[[Outcome], float]:
    return lambda outcome: outcome.scores[metric]


def _draft_score(metric: str) -> Callable[[Outcome], float]:
    return lambda outcome: (outcome.draft_scores or {})[metric]


def _by_query(found: Mapping[Place, Outcome], figure: Callable[[Outcome], float]) -> list[float]:
    """One figure a query: the mean over its seeds, so that a resampled query brings them all."""
    grouped: dict[str, list[float]] = defaultdict(list)
    for (_, key), outcome in found.items():
        grouped[key].append(figure(outcome))
    return [fmean(grouped[key]) for key in sorted(grouped)]


def _macro_f1(
    domain: Domain,
    ours: Mapping[Place, Outcome],
    theirs: Mapping[Place, Outcome] | None = None,
    *,
    resamples: int,
) -> Difference:
    """Macro-F1, or by how much it is above another method's on the same places."""
    grouped: dict[str, list[Place]] = defaultdict(list)
    for place in ours:
        grouped[place[1]].append(place)
    clusters = list(grouped.values())

    def figure(side: Mapping[Place, Outcome], whole: int, drawn: Sequence[int]) -> float:
        outcomes = [side[place] for cluster in drawn for place in clusters[cluster]]
        said, meant = [o.answer for o in outcomes], [o.reference for o in outcomes]
        return resampled_macro_f1(domain, said, meant, whole)

    sides = [
        (side, domain.occurring([o.answer for o in rows], [o.reference for o in rows]))
        for side in (ours, *([theirs] if theirs is not None else []))
        for rows in [[side[place] for places in clusters for place in places]]
    ]

    def gain(drawn: Sequence[int]) -> float:
        first, *second = (figure(side, whole, drawn) for side, whole in sides)
        return first - sum(second)

    return statistic_interval(gain, len(clusters), resamples=resamples)


def resampled_macro_f1(
    domain: Domain, said: Sequence[str | None], meant: Sequence[Reference], whole: int
) -> float:
    """Macro-F1 of a resample, over the labels that it holds.

    A label that a resample does not draw is no fault of the method, and would pull every resample
    below the figure of the whole sample, where it is the macro-F1.

    Args:
        domain: whose labels.
        said, meant: answers and references of the resample.
        whole: labels that occur in the whole sample.
    """
    return domain.macro_f1(said, meant) * whole / (domain.occurring(said, meant) or 1)


def _exact(metric: str, *sides: Mapping[Place, Outcome]) -> bool:
    """Whether every answer is right or wrong, and nothing between."""
    return all(outcome.scores[metric] in (0, 1) for side in sides for outcome in side.values())


def _right(outcome: Outcome, metric: str) -> bool:
    return outcome.scores[metric] >= 1


def _same(outcome: Outcome) -> bool:
    ours, drafted = outcome.answer, outcome.draft_answer
    return ours is not None and drafted is not None and normalize(ours) == normalize(drafted)
