"""What a router is taught with: a query, a draft, and what each way came to, from traces.

Knows traces and evaluators. Knows no features and no learning.

A collection's trace tells all three ways: the draft as an answer, the solo answer, and the
collaboration. A routed query tells only of the way that it went; it counts as much as the queries
that had its chance and went elsewhere (Horvitz and Thompson, 1952), and only where every way had a
chance: what a router decides for certain teaches nothing of the other ways.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.messages import AIMessage

from cowest_graph.evaluators import Evaluator, as_evaluator, keywords
from cowest_graph.routing.seen import Seen, Way
from cowest_graph.state import Reference
from cowest_graph.traces.records import Attempt, Call, Trace

WAYS: tuple[Way, ...] = ("weak", "strong", "both")


@dataclass(frozen=True)
class Example:
    """One draft of one query (or a query without one), and what was seen of each way.

    Args:
        seen: what a router sees.
        scores: of the ways that were scored.
        tokens: of the strong model, in and out, of the ways whose calls told them.
        group: examples of one group are of one query, and never divided.
        weights: 1 over the chance of having seen the way's score; 1 where it was certain.
        reference: ŷ, for drafts that are yet to be scored.
    """

    seen: Seen
    scores: Mapping[Way, float]
    tokens: Mapping[Way, float] = field(default_factory=dict)
    group: str = ""
    weights: Mapping[Way, float] = field(default_factory=dict)
    reference: Reference | None = None

    def weight(self, way: Way) -> float:
        """Of the way's score."""
        return self.weights.get(way, 1.0)

    @property
    def whole(self) -> bool:
        """Whether every score was seen for certain, so that policies can be compared on it."""
        return all(self.weight(way) == 1.0 for way in self.scores)


@dataclass
class Taught:
    """Examples, and why traces gave none.

    Args:
        examples: in the order of the traces.
        left_out: reasons and their numbers.
    """

    examples: list[Example] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def examples(traces: Iterable[Trace], *, evaluator: Evaluator | None = None) -> Taught:
    """The examples of traces.

    Args:
        traces: collections, and inference that was routed.
        evaluator: scores drafts as answers, where no trace has done so; a metric costs nothing.
            None leaves the weak model alone unscored.
    """
    taught = Taught()
    for trace in traces:
        found = list(_of(trace, taught.left_out))
        taught.examples += found
    if evaluator is not None:
        taught.examples = _with_draft_scores(taught.examples, evaluator)
    kept = [each for each in taught.examples if each.scores]
    taught.left_out["no score"] += len(taught.examples) - len(kept)
    taught.examples = kept
    taught.left_out = +taught.left_out
    return taught


def _of(trace: Trace, left_out: Counter[str]) -> Iterator[Example]:
    if trace.history:
        left_out["a conversation before the query"] += 1
        return
    route = trace.route
    if route is None and trace.kind == "inference":
        left_out["not routed"] += 1
        return
    if route is not None and route.propensity >= 1.0 and trace.solo_score is None:
        left_out["routed for certain"] += 1
        return
    found = [each for each in trace.attempts if each.draft]
    drafted: list[Attempt | None] = [*found] if found else [None]
    for attempt, other in zip(drafted, [*drafted[1:], drafted[0]], strict=True):
        yield _example(trace, attempt, None if other is attempt else other)
        if route is not None:
            return  # what else was drafted was to be compared with


def _example(trace: Trace, attempt: Attempt | None, other: Attempt | None) -> Example:
    calls = [] if attempt is None else attempt.calls
    scores = {
        "weak": None if attempt is None else attempt.draft_score,
        "strong": trace.solo_score,
        "both": None if attempt is None else attempt.score,
    }
    tokens = {
        "weak": 0.0,
        "strong": _tokens(trace.calls, "solo"),
        "both": _tokens(calls, "refine"),
    }
    weights = {}
    if trace.route is not None:
        weights = {trace.route.way: 1 / trace.route.propensity}
    draft = None if attempt is None else attempt.draft
    return Example(
        seen=Seen(
            query=trace.query,
            domain=trace.domain,
            draft=draft,
            logprobs=_logprobs(attempt),
            second=None if other is None else other.draft,
        ),
        scores=_known(scores),
        tokens=_known(tokens),
        group=group_of(trace.query),
        weights=_known(weights),
        reference=trace.reference,
    )


def _with_draft_scores(found: Sequence[Example], evaluator: Evaluator) -> list[Example]:
    """The examples; drafts that were never scored as answers are now."""
    scoring = as_evaluator(evaluator)
    kept = []
    for each in found:
        # A routed query's draft is there or not by the way it went: only its own way is told.
        own = not each.weights or "weak" in each.weights
        wanted = own and "weak" not in each.scores
        if wanted and each.seen.draft and each.reference is not None:
            given = keywords(each.seen.query, AIMessage(each.seen.draft), each.reference)
            score = scoring.invoke(given).get("score")
            if score is not None:
                scores: dict[Way, float] = {**each.scores, "weak": float(score)}
                each = replace(each, scores=scores)
        kept.append(each)
    return kept


def group_of(query: str) -> str:
    """A query's group: equal texts are one."""
    return hashlib.sha256(query.strip().encode()).hexdigest()[:16]


def part_of(group: str) -> float:
    """A group as a number in [0, 1): the same in every process and in every fit.

    A query that was held out once is held out whenever a router is fitted anew.
    """
    return int(hashlib.sha256(f"part {group}".encode()).hexdigest()[:13], 16) / 16**13


def _tokens(calls: Sequence[Call], role: str) -> float | None:
    told = [call for call in calls if call.role == role and call.failure is None]
    if not told or any(c.input_tokens is None or c.output_tokens is None for c in told):
        return None
    return float(sum((c.input_tokens or 0) + (c.output_tokens or 0) for c in told))


def _logprobs(attempt: Attempt | None) -> tuple[float, ...] | None:
    told = [token.logprob for token in (attempt.tokens if attempt else None) or []]
    known = tuple(each for each in told if each is not None)
    return known if known and len(known) == len(told) else None


def _known(named: Mapping[Any, float | None]) -> dict[Way, float]:
    return {way: float(value) for way, value in named.items() if value is not None}
