"""How much one score varies by chance, as traces tell it: from whatever was scored more than once.

Knows scores and calls. Knows no pair, no graph and no store.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from cowest_graph.traces.drafted import Drafted, Made, Tried
from cowest_graph.traces.records import Attempt, Call, Trace


def score_noise(traces: Iterable[Trace | Drafted]) -> float | None:
    """The standard deviation of one score of the same draft: strong model and evaluator together.

    It is pooled over drafts of a query that have the same text and were each asked, and over scores
    that are means of several.

    Args:
        traces: with scores.

    Returns:
        It; None where nothing was scored twice.
    """
    squares, freedom = 0.0, 0
    for trace in traces:
        for square, free in (*_equal_drafts(trace), *_means(trace)):
            squares += square
            freedom += free
    return math.sqrt(squares / freedom) if freedom else None


def _equal_drafts(trace: Trace | Drafted) -> Iterator[tuple[float, int]]:
    """Squares and degrees of freedom of drafts with the same text that were each asked."""
    again = defaultdict[str, list[float]](list)
    for attempt in trace.attempts:
        alone = attempt.same_as is None and attempt.score_se is None
        if alone and attempt.score is not None and (attempt.draft or "").strip():
            again[str(attempt.draft).strip()].append(attempt.score)
    for scores in again.values():
        mean = math.fsum(scores) / len(scores)
        yield math.fsum((score - mean) ** 2 for score in scores), len(scores) - 1


def _means(trace: Trace | Drafted) -> Iterator[tuple[float, int]]:
    """The same of scores that are means of several."""
    own = [attempt for attempt in trace.attempts if attempt.same_as is None]
    means = [(trace.solo_score_se, trace.calls), *((each.score_se, each.calls) for each in own)]
    for error, calls in means:
        times = scorings(calls)
        if error is not None and times > 1:
            yield error**2 * times * (times - 1), times - 1


def scorings(calls: Sequence[Call | Made]) -> int:
    """How many scores a mean is of; 1 where calls do not tell."""
    scored = sum(call.role == "evaluate" and call.failure is None for call in calls)
    return max(1, scored)


def scorings_of(trace: Trace | Drafted, attempt: Attempt | Tried) -> int:
    """The same of an attempt; where it shares another's answer, of that one."""
    theirs = (each for each in trace.attempts if each.index == attempt.same_as)
    return scorings(next(theirs, attempt).calls)
