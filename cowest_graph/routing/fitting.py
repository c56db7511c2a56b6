"""From examples to a router with its card: parts, lessons, the target's price, and a test.

Knows the order of it. Three parts by the query's text, the same in every fit: models are taught on
the first, the price is chosen on the second, and nothing but the figures in the card is made of the
third, the test. A later version is compared with an earlier one on queries that neither saw.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, Literal

import numpy as np

from cowest_graph.routing.answers import answered, options
from cowest_graph.routing.choosing import gathered
from cowest_graph.routing.costing import Unit, cost, costs, lengths, unit_of
from cowest_graph.routing.curves import Outcomes
from cowest_graph.routing.features import Embed, Features, Table
from cowest_graph.routing.learning import Learnt, learnt
from cowest_graph.routing.lessons import WAYS, Example, part_of
from cowest_graph.routing.policies import Policy
from cowest_graph.routing.router import Router
from cowest_graph.routing.seen import Way
from cowest_graph.routing.targets import Priced, Target, priced

FEWEST = 10
"""Queries with a score of a way, without which it is none of the router's."""
_KNOWN = 1000  # queries that a router keeps, to tell what is like none of them
_FAR = 0.6  # of the cosine that learnt queries have to each other; other domains are far below it

Moment = Literal["before", "after"]
Reads = Literal["embedding", "words", "form"]
READS: tuple[Reads, ...] = ("embedding", "words", "form")


@dataclass(frozen=True)
class Parts:
    """Examples by what they are for; a query is in one of them."""

    fit: list[Example]
    validation: list[Example]
    test: list[Example]


@dataclass(frozen=True)
class Fitted:
    """A router, and how it came about.

    Args:
        router: with the target's price.
        card: what is known of it, as plain data.
        parts: that it was made with.
        unit: of its costs.
    """

    router: Router
    card: dict[str, Any]
    parts: Parts
    unit: Unit


def parted(found: Sequence[Example], *, validation: float = 0.2, test: float = 0.2) -> Parts:
    """The three parts; those of a query are always the same.

    Args:
        found: examples.
        validation, test: shares of the queries.

    Raises:
        ValueError: for shares that leave nothing to learn from.
    """
    if min(validation, test) < 0 or validation + test >= 1:
        raise ValueError(
            f"validation {validation} and test {test} are shares of the queries, below 1 in all"
        )
    parts = Parts([], [], [])
    for each in found:
        at = part_of(each.group)
        kept = parts.test if at < test else parts.validation
        (parts.fit if at >= test + validation else kept).append(each)
    return parts


def ways_of(found: Sequence[Example]) -> list[Way]:
    """The ways that enough queries have a score of."""
    queries = {way: {each.group for each in found if way in each.scores} for way in WAYS}
    return [way for way in WAYS if len(queries[way]) >= FEWEST]


def groups_of(found: Sequence[Example], moment: Moment, reads: Reads = "embedding") -> Features:
    """The features that these examples have.

    Args:
        found: to learn from.
        moment: before the draft, the query alone; after it, the draft and all that is told of it.
        reads: how texts are read: by the embedding model, by their words, or by their form alone.
    """
    domains = sorted({each.seen.domain for each in found if each.seen.domain})
    named = {"embedding": [""], "words": ["_words"], "form": []}[reads]
    groups = [f"query{name}" for name in named]
    listing = sum(bool(options(each.seen.query)) for each in found)
    groups += ["query_shape", *(["options"] if 2 * listing > len(found) else [])]
    groups += [*(["domain"] if len(domains) > 1 else [])]
    if moment == "after":
        groups += [*(f"draft{name}" for name in named), "draft_shape"]
        counting = sum(answered(each.seen.draft) is not None for each in found)
        groups += ["arithmetic"] if 2 * counting > len(found) else []
        if found and all(each.seen.logprobs for each in found):
            groups.append("logprobs")
    kept = tuple(domains) if "domain" in groups else ()
    return Features(tuple(groups), kept, compared=True)


def fit_router(
    found: Sequence[Example],
    target: Target,
    *,
    moment: Moment = "after",
    features: Features | None = None,
    ways: Sequence[Way] | None = None,
    unit: Unit | None = None,
    validation: float = 0.2,
    test: float = 0.2,
    quorum: float = 0.6,
    epsilon: float = 0.0,
    seed: int = 0,
    embed: Embed | None = None,
    parts: Parts | None = None,
    drafts: int = 1,
) -> Fitted:
    """Teach a router.

    Args:
        found: what `examples` gave.
        target: what is wanted of it.
        moment: when it decides.
        features: what it reads; by default all that the examples have, texts in the one of three
            ways (`groups_of`) that tells queries best which its models have not seen.
        ways: there are; by default those with enough scores.
        unit: of costs; by default strong tokens, or calls where some are not known.
        validation: share of the queries that the price is chosen on. 0 chooses it by what each
            fold's model says of the queries that it had not seen: more to learn from, and a
            promise that holds less exactly.
        test: share of the queries that only the card's figures are made of.
        quorum: see `Policy`.
        epsilon: see `Router`.
        seed: of the folds.
        embed: see `Features.table`.
        parts: other parts than those by the query's text.
        drafts: see `Router`; the price is chosen where it chooses among as many of a query.

    Raises:
        ImportError: without scikit-learn.
        ValueError: for too few queries or drafts, or a target that nothing gets.
    """
    parts = parts or parted(found, validation=validation, test=test)
    used = list(ways) if ways is not None else ways_of(parts.fit)
    if len(used) < 2:
        raise ValueError(
            f"scores of {', '.join(used) or 'no way'} alone, of {len(parts.fit)} drafts: a router "
            f"chooses between two ways, each scored for {FEWEST} queries at least; collect some "
            "(`cowest collect`), with an evaluator that can score drafts as well"
        )
    taught, reads = _best(parts.fit, features, moment, used, seed, embed)
    unit = unit or unit_of(parts.fit, used)
    fallback: Way = "both" if "both" in used else "strong"
    nearness = reads.nearness([each.seen for each in parts.fit], embed)
    means = costs(parts.fit, used, unit)
    policy = Policy(
        costs=means,
        fallback=fallback,
        quorum=quorum,
        nearest=_nearest(nearness, parts.fit),
    )
    known = _kept(nearness, seed)
    router = Router(reads, taught.scorers, policy, None, epsilon, known, embed, drafts)
    router = replace(router, lengths=lengths(parts.fit, used, unit, means))
    chosen = _priced(target, router, taught, parts, unit)
    router = replace(router, policy=replace(policy, price=chosen.price))
    card = _card(router, target, chosen, taught, parts, unit, moment, seed)
    card["parts"] = {"validation": validation, "test": test}
    return Fitted(router, card, parts, unit)


def _best(
    found: Sequence[Example],
    features: Features | None,
    moment: Moment,
    ways: Sequence[Way],
    seed: int,
    embed: Embed | None,
) -> tuple[Learnt, Features]:
    """What is learnt by the features that tell unseen queries best."""
    tried = [features] if features else [groups_of(found, moment, reads) for reads in READS]
    lessons = [(learnt(found, each, ways, seed=seed, embed=embed), each) for each in tried]
    return min(lessons, key=lambda lesson: lesson[0].loss)


def _priced(target: Target, router: Router, taught: Learnt, parts: Parts, unit: Unit) -> Priced:
    ways = list(router.policy.costs)

    def choices(rows: Sequence[Example]) -> Any:
        return {"outcomes": outcomes(rows, ways, unit), "sets": drafted(rows, router.drafts)}

    if parts.validation:
        rows = whole(parts.validation, ways)
        if len({each.group for each in rows}) < 2:
            raise ValueError(
                f"{len(rows)} examples to choose the price on, with scores of all ways; collect "
                "more, or choose it by the folds (validation 0)"
            )
        expected = router.expected([each.seen for each in rows])
        return priced(target, router.policy, expected, **choices(rows))
    kept = [n for n, each in enumerate(parts.fit) if whole([each], ways)]
    if not kept:
        raise ValueError("no query has the scores of all ways, to choose a price on; collect some")
    rows = [parts.fit[n] for n in kept]
    crossed = {way: taught.crossed[way][kept][:, None] for way in ways}
    return priced(target, router.policy, crossed, **choices(rows))


def drafted(found: Sequence[Example], drafts: int) -> list[list[int]]:
    """The examples that a router of so many drafts chooses among (`choosing.gathered`).

    Raises:
        ValueError: where no query has several.
    """
    sets = gathered([each.group for each in found], drafts)
    if drafts > 1 and max(map(len, sets), default=0) < 2:
        raise ValueError(
            f"a choice among {drafts} drafts was wanted, and no query here has two that were "
            "scored; collect with several (`--drafts`)"
        )
    return sets


def whole(found: Sequence[Example], ways: Sequence[Way]) -> list[Example]:
    """Those whose scores of all these ways were seen for certain."""
    return [each for each in found if each.whole and set(ways) <= set(each.scores)]


def outcomes(found: Sequence[Example], ways: Sequence[Way], unit: Unit) -> Outcomes:
    """Scores and costs of examples that are `whole`."""
    return Outcomes(
        {way: np.asarray([each.scores[way] for each in found]) for way in ways},
        {way: np.asarray([cost(each, way, unit) for each in found]) for way in ways},
        [each.group for each in found],
    )


def _nearest(vectors: Table, found: Sequence[Example]) -> float:
    """A share of how near learnt queries are to each other."""
    groups = np.asarray([each.group for each in found])
    _, first = np.unique(groups, return_index=True)
    own = vectors[first[:_KNOWN]]
    near = own @ own.T
    np.fill_diagonal(near, -1.0)
    return float(_FAR * np.quantile(near.max(axis=1), 0.05))


def _kept(vectors: Table, seed: int) -> Table:
    own = np.unique(vectors.round(6), axis=0)
    if len(own) > _KNOWN:
        own = own[np.random.default_rng(seed).permutation(len(own))[:_KNOWN]]
    return np.asarray(own)


def _card(
    router: Router,
    target: Target,
    chosen: Priced,
    taught: Learnt,
    parts: Parts,
    unit: Unit,
    moment: Moment,
    seed: int,
) -> dict[str, Any]:
    def queries(found: Sequence[Example]) -> int:
        return len({each.group for each in found})

    rows = sorted({each.group for each in [*parts.fit, *parts.validation]})
    return {
        "kind": "router",
        "moment": moment,
        "target": target.as_dict(),
        "unit": unit,
        "ways": list(router.policy.costs),
        "features": list(router.features.groups),
        "embedding": router.features.embedding if router.features.embedded else None,
        "rows_hash": hashlib.sha256("".join(rows).encode()).hexdigest(),
        "queries": {name: queries(found) for name, found in vars(parts).items()},
        "hyperparameters": {"seed": seed, "quorum": router.policy.quorum, **_plain(taught)},
        "chosen": chosen.as_dict(),
        "epsilon": router.epsilon,
        "drafts": router.drafts,
        "metrics": {},
        "versions": {name: version(name) for name in ("scikit-learn", "numpy")},
    }


def _plain(taught: Learnt) -> Mapping[str, Any]:
    return {"learnt": {way: dict(settings) for way, settings in taught.settings.items()}}
