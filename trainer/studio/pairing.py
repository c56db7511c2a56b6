"""Preference pairs as people look at them, and what they say of them.

Knows pairs and feedback. Knows no HTML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cowest_graph.traces import PAIR, Feedback, Trace, TraceStore, latest, wrong_pair, wrong_pairs
from trainer.rows.pairs import Pair, Pairs
from trainer.studio.listing import place_of, told_place, wanted

PAGE = 20
"""Pairs on a page, at least, if there are so many."""
LOOKED_AT = 500
"""Traces that are looked through for a page of pairs."""
SOURCE = "studio"


@dataclass(frozen=True)
class Shown:
    """Some pairs, those of the newest traces first, and where the next page begins."""

    pairs: list[dict[str, Any]]
    after: str | None
    looked_at: int


def page(store: TraceStore, given: Mapping[str, str], after: str | None) -> Shown:
    """The pairs of some collection traces.

    Raises:
        ValueError: for a filter or a place that cannot be read.
    """
    marked = wrong_pairs(store.feedbacks(key=PAIR))
    filters = wanted(given) | {"kind": "collection"}
    place, seen, found = place_of(after), 0, list[dict[str, Any]]()
    for trace in store.query(newest_first=True, limit=LOOKED_AT, after=place, **filters):
        seen += 1
        found += [_told(pair, marked, store) for pair in Pairs([trace])]
        if len(found) >= PAGE:
            return Shown(found, told_place(trace), seen)
    return Shown(found, told_place(trace) if seen == LOOKED_AT else None, seen)


def _told(pair: Pair, marked: set[tuple[str, int, int]], store: TraceStore) -> dict[str, Any]:
    return {
        "key": pair.trace.key,
        "query": pair.trace.query,
        "version": pair.trace.weak_version,
        "solo_score": pair.trace.solo_score,
        "sides": [("chosen", pair.chosen), ("rejected", pair.rejected)],
        "wrong": pair.marked in marked,
        "correction": correction(store, pair.trace.key),
    }


def mark(store: TraceStore, key: str, chosen: int, rejected: int, *, wrong: bool) -> None:
    """Say that a pair is wrong, or that it is not.

    Raises:
        LookupError: when there is no such trace any more, or no such attempts.
    """
    indices = {attempt.index for attempt in there(store, key).attempts}
    if not {chosen, rejected} <= indices:
        raise LookupError(f"trace {key} has no attempts {chosen} and {rejected}; it was replaced")
    value = wrong_pair(chosen, rejected, wrong=wrong)
    store.feedback(trace_key=key, key=PAIR, value=value, source=SOURCE)


def correct(store: TraceStore, key: str, text: str) -> None:
    """Say what the answer should have been.

    Raises:
        LookupError: when there is no such trace any more.
        ValueError: for an empty answer.
    """
    if not text.strip():
        raise ValueError("an answer that is empty corrects nothing")
    there(store, key)
    store.feedback(trace_key=key, key="correction", correction=text.strip(), source=SOURCE)


def correction(store: TraceStore, key: str) -> str | None:
    """The last correction of a trace's answer."""
    said: list[Feedback] = latest(store.feedbacks(trace_key=key))
    corrected = [each for each in said if each.correction is not None]
    return corrected[-1].correction if corrected else None


def there(store: TraceStore, key: str) -> Trace:
    """The trace.

    Raises:
        LookupError: when it is gone.
    """
    trace = store.get(key)
    if trace is None:
        raise LookupError(f"there is no trace {key} in {store.url}; it may have been deleted")
    return trace
