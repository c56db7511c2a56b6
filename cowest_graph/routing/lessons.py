"""What a router is taught with: a query, a draft, and what each way came to, from traces.

Knows traces and evaluators. Knows no features and no learning.

A collection's trace tells all three ways: the draft as an answer, the solo answer, and the
collaboration. A query without a route tells of both models together, and of its draft. A routed one
tells only of the way that it went; it counts as much as the queries that had its chance and went
elsewhere (Horvitz and Thompson, 1952). What a router decided for certain teaches nothing: such
queries are those that it chose. A solo answer that was drawn by chance counts by that chance.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage

from cowest_graph.evaluators import Evaluator, as_evaluator, keywords
from cowest_graph.routing.seen import Seen, Way
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
    """

    seen: Seen
    scores: Mapping[Way, float]
    tokens: Mapping[Way, float] = field(default_factory=dict)
    group: str = ""
    weights: Mapping[Way, float] = field(default_factory=dict)

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
        traces: collections, and inference.
        evaluator: scores drafts as answers, where no trace has done so; a metric costs nothing.
            None leaves the weak model alone unscored.
    """
    taught = Taught()
    scoring = None if evaluator is None else as_evaluator(evaluator)
    for trace in traces:
        if trace.history:
            taught.left_out["a conversation before the query"] += 1
        elif not (chances := _chances(trace)):
            taught.left_out["routed for certain"] += 1
        else:
            found = list(_of(trace, chances, scoring))
            kept = [each for each in found if each.scores]
            taught.examples += kept
            if len(found) > len(kept):
                taught.left_out["no score"] += len(found) - len(kept)
    return taught


def _chances(trace: Trace) -> dict[Way, float]:
    """How likely each way's score was to be seen, of those that the query itself did not decide."""
    if trace.kind == "collection":
        return dict.fromkeys(WAYS, 1.0)
    route, chances = trace.route, dict[Way, float]()
    if route is None:  # everything goes both ways then
        chances = {"weak": 1.0, "both": 1.0}
    elif route.propensity < 1.0:
        chances = {route.way: route.propensity}
    drawn = None if trace.exploration is None else trace.exploration.solo
    if drawn is not None and drawn.drawn and drawn.propensity > 0:
        chances.setdefault("strong", drawn.propensity)
    return chances


def _of(trace: Trace, chances: Mapping[Way, float], scoring: Any) -> Iterator[Example]:
    found = [each for each in trace.attempts if each.draft]
    if trace.kind == "inference":
        found = found[:1]  # what else was drafted was to be compared with, or drawn by chance
    drafted: list[Attempt | None] = [*found] if found else [None]
    for attempt, other in zip(drafted, [*drafted[1:], drafted[0]], strict=True):
        yield _example(trace, attempt, None if other is attempt else other, chances, scoring)


def _example(
    trace: Trace,
    attempt: Attempt | None,
    other: Attempt | None,
    chances: Mapping[Way, float],
    scoring: Any,
) -> Example:
    draft = None if attempt is None else attempt.draft
    scores: dict[Way, float | None] = {
        "weak": _draft_score(trace, attempt, scoring) if "weak" in chances else None,
        "strong": trace.solo_score,
        "both": None if attempt is None else attempt.score,
    }
    tokens: dict[Way, float | None] = {
        "weak": 0.0,
        "strong": _tokens(trace.calls, "solo"),
        "both": _tokens([] if attempt is None else attempt.calls, "refine"),
    }
    return Example(
        seen=Seen(
            query=trace.query,
            domain=trace.domain,
            draft=draft,
            logprobs=_logprobs(attempt),
            second=None if other is None else other.draft,
        ),
        scores={way: score for way, score in _known(scores).items() if way in chances},
        tokens=_known(tokens),
        group=group_of(trace.query),
        weights={way: 1 / chance for way, chance in chances.items() if chance < 1.0},
    )


def _draft_score(trace: Trace, attempt: Attempt | None, scoring: Any) -> float | None:
    """E(y): as the trace has it, or scored now."""
    if attempt is None or not attempt.draft:
        return None
    if attempt.draft_score is not None or scoring is None or trace.reference is None:
        return attempt.draft_score
    given = keywords(trace.query, AIMessage(attempt.draft), trace.reference)
    score: float | None = scoring.invoke(given).get("score")
    return score


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
