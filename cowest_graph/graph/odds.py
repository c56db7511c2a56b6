"""What earlier traces say of the next query: how often drafts help, and which go the same way.

Knows traces and likelihoods, and reads a store. Knows no graph and no decision; `deciding` makes
those.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from threading import Lock
from typing import Any

from cowest_graph.evaluators import evaluator_name, model_name
from cowest_graph.graph.tracing import Facts
from cowest_graph.prompts import explanation_of, final_answer
from cowest_graph.traces import Trace, TraceStore, score_noise

ASPECTS: Mapping[str, Callable[[str], str | None]] = {
    "reason": explanation_of,
    "answer": final_answer,
}
"""In what two drafts may be the same without being the same text."""

Tried = Sequence[tuple[str, bool]]
"""Drafts of one query that were refined, each text once, and whether it helped."""

_GRID = [step / 2 for step in range(-8, 5)]  # logarithms of the Beta's two parameters
_WIDTH = 4  # variance of the prior on those logarithms: it says little
_LOOKED_AT = 300  # newest traces
_ANEW = 8  # queries after which the traces are read again
_FIRST = (0.5, 6)  # pairs and calls before there are any: a query's worth, with K = 5


@dataclass(frozen=True)
class Odds:
    """What is expected of a query.

    Args:
        helped, hurt: of the Beta distribution of a query's share of drafts that help.
        by_spread: the same where drafts are so different (`spread_of`), as far as it is known.
        alike: aspect → the chance that two drafts of a query which are the same in it go the same
            way, among queries of which some drafts helped and some hurt.
        rate: pairs a refinement or a solo answer brought so far.
        noise: standard deviation of one score of the same draft; None where nothing repeats.
    """

    helped: float = 1.0
    hurt: float = 1.0
    by_spread: dict[str, tuple[float, float]] = field(default_factory=dict)
    alike: dict[str, float] = field(default_factory=dict)
    rate: float = _FIRST[0] / _FIRST[1]
    noise: float | None = None

    def beta(self, drafts: Sequence[str]) -> tuple[float, float]:
        """The Beta distribution's parameters for a query with these drafts."""
        return self.by_spread.get(spread_of(drafts), (self.helped, self.hurt))

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for the journal."""
        return asdict(self)

    @classmethod
    def learnt(cls, traces: Iterable[Trace], *, least: float = 0.8) -> Odds:
        """From collection traces of the same models, domain and evaluator.

        Stopping by what was seen so far does not bias what is learnt: the likelihood of what was
        asked is the same whatever ended it.

        Args:
            traces: finished ones, in any order.
            least: the chance from which on an aspect makes drafts alike.
        """
        scored = [trace for trace in traces if trace.solo_score is not None]
        queries = [(trace, tried) for trace in scored if (tried := tried_in(trace))]
        found = _alike(tried for _, tried in queries)
        alike = {name: chance for name, chance in found.items() if chance >= least}
        counts = defaultdict[str, Counter[tuple[int, int]]](Counter)
        for trace, tried in queries:
            drafts = [attempt.draft for attempt in trace.attempts if attempt.draft is not None]
            counts[spread_of(drafts)][_sides(_firsts(tried, alike))] += 1
        over_all = _beta(sum(counts.values(), Counter()), (0.0, 0.0))
        middle = (math.log(over_all[0]), math.log(over_all[1]))
        by_spread = {name: _beta(each, middle) for name, each in counts.items()}
        pairs, calls = _FIRST
        for trace in scored:
            gains = [attempt.gain > 0 for attempt in trace.attempts if attempt.gain is not None]
            pairs += min(_sides(gains))
            calls += 1 + sum(a.gain is not None and a.same_as is None for a in trace.attempts)
        return cls(*over_all, by_spread, alike, rate=pairs / calls, noise=score_noise(scored))


class Learning:
    """The odds by domain, learnt anew as traces come in.

    Args:
        facts: of the collection: the models and the evaluator whose traces count.
        traces: the store.
        least: as in `Odds.learnt`.
    """

    def __init__(self, facts: Facts, traces: TraceStore, least: float) -> None:
        self._traces, self._least, self._lock = traces, least, Lock()
        self._same = {
            "weak": model_name(facts.weak),
            "strong": model_name(facts.strong),
            "evaluator": evaluator_name(facts.evaluator),
            "style": facts.style,
        }
        self._known: dict[str | None, tuple[int, Odds]] = {}

    def of(self, domain: str | None) -> Odds:
        """The odds of a query of this domain."""
        with self._lock:
            asked, odds = self._known.get(domain, (0, None))
            if odds is None or asked % _ANEW == 0:
                odds = Odds.learnt(self._read(domain), least=self._least)
            self._known[domain] = asked + 1, odds
            return odds

    def _read(self, domain: str | None) -> list[Trace]:
        newest = self._traces.query(
            kind="collection", domain=domain, newest_first=True, limit=_LOOKED_AT
        )
        return [
            trace
            for trace in newest
            if trace.domain == domain
            and all(getattr(trace, name) == value for name, value in self._same.items())
        ]


def tried_in(trace: Trace) -> Tried:
    """The drafts of a trace that have a gain, each text once."""
    found: dict[str, bool] = {}
    for attempt in trace.attempts:
        if attempt.draft is not None and attempt.gain is not None:
            found.setdefault(attempt.draft.strip(), attempt.gain > 0)
    return list(found.items())


def groups(drafts: Sequence[str], alike: Iterable[str]) -> list[int]:
    """Each draft's group: the number of the first one that it is alike with.

    >>> groups(["Answer: 3", "Answer: 4", "Well.\\nAnswer: 3"], ["answer"])
    [0, 1, 0]

    Args:
        drafts: of one query.
        alike: names of `ASPECTS`; drafts of the same text are always alike.
    """
    known: dict[tuple[str, str], int] = {}
    found = []
    for number, draft in enumerate(drafts):
        marks = [("text", draft.strip())]
        marks += [(name, said) for name in alike if (said := ASPECTS[name](draft)) is not None]
        group = next((known[mark] for mark in marks if mark in known), number)
        for mark in marks:
            known.setdefault(mark, group)
        found.append(group)
    return found


def spread_of(drafts: Sequence[str]) -> str:
    """How different drafts are: by their reasons, "one", "two" or "more" of them."""
    reasons = {explanation_of(draft) or draft.strip() for draft in drafts}
    return {1: "one", 2: "two"}.get(len(reasons), "more")


def _sides(helped: Sequence[bool]) -> tuple[int, int]:
    return sum(helped), len(helped) - sum(helped)


def _firsts(tried: Tried, alike: Iterable[str]) -> list[bool]:
    """Of each group the first: what is alike counts once."""
    of = groups([draft for draft, _ in tried], alike)
    return [helped for number, (_, helped) in enumerate(tried) if of[number] == number]


def _alike(queries: Iterable[Tried]) -> dict[str, float]:
    """By aspect, how often two drafts that are the same in it went the same way (one of each is
    added). Where all drafts of a query went the same way, any two did: nothing is learnt there."""
    agreed = {name: [1, 1] for name in ASPECTS}
    for tried in queries:
        if not min(_sides([helped for _, helped in tried])):
            continue
        for (one, first), (other, second) in combinations(tried, 2):
            for name, read in ASPECTS.items():
                if (said := read(one)) is not None and said == read(other):
                    agreed[name][first is second] += 1
    return {name: same / (other + same) for name, (other, same) in agreed.items()}


def _beta(
    counts: Mapping[tuple[int, int], int], middle: tuple[float, float]
) -> tuple[float, float]:
    """The likeliest Beta distribution of a query's share, with a normal prior on the logarithms of
    its parameters, around `middle`."""

    def likelihood(place: tuple[float, float]) -> float:
        a, b = map(math.exp, place)
        prior = -((place[0] - middle[0]) ** 2 + (place[1] - middle[1]) ** 2) / (2 * _WIDTH)
        return prior + math.fsum(
            times * (_log_beta(a + helped, b + hurt) - _log_beta(a, b))
            for (helped, hurt), times in counts.items()
        )

    best = max(((one, other) for one in _GRID for other in _GRID), key=likelihood)
    return math.exp(best[0]), math.exp(best[1])


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
