"""A page of traces, and one trace, as the templates want them.

Knows traces, filters and places. Knows no HTML: what is stored goes out as text, and the templates
escape it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean
from typing import Any

from cowest_graph.benchmark.scoreboard import PAYERS, Price, cost
from cowest_graph.traces import Attempt, Call, Trace, TraceStore

PAGE = 50
"""Traces on a page."""

FILTERS = {
    "text": "query contains",
    "domain": "domain",
    "kind": "kind",
    "weak_version": "weak version",
    "thread_id": "thread",
    "user": "user",
    "tag": "tag",
    "failure": "failure",
    "since": "since",
    "until": "until",
    "min_score": "score from",
    "max_score": "score to",
    "min_gain": "gain from",
    "max_gain": "gain to",
}
"""The fields of `traces.Filter` that the page offers, and their names there."""

_NUMBERS = ("min_score", "max_score", "min_gain", "max_gain")
_TIMES = ("since", "until")


@dataclass(frozen=True)
class Listed:
    """Some traces, newest first, and where the next page begins."""

    traces: list[Trace]
    after: str | None
    """For `page`; None on the last one."""


def wanted(given: Mapping[str, str]) -> dict[str, Any]:
    """What `TraceStore.query` takes, of a form's texts; empty ones are left out.

    Raises:
        ValueError: for a number or a time that is none.
    """
    found: dict[str, Any] = {}
    for name, label in FILTERS.items():
        text = given.get(name, "").strip()
        if not text:
            continue
        try:
            found[name] = _read(name, text)
        except ValueError:
            kind = "a time, as 2026-01-31" if name in _TIMES else "a number"
            raise ValueError(f"{label} is {text!r}; it must be {kind}") from None
    return found


def _read(name: str, text: str) -> Any:
    if name in _NUMBERS:
        return float(text)
    if name in _TIMES:
        return datetime.fromisoformat(text)
    if name == "failure" and text in ("any", "none"):
        return text == "any"
    return text


def page(store: TraceStore, given: Mapping[str, str], after: str | None) -> Listed:
    """The traces that are wanted, from a place on.

    Args:
        store: where they are.
        given: the form's texts, by the names of `FILTERS`.
        after: from the page before.

    Raises:
        ValueError: for a filter or a place that cannot be read.
    """
    filters, place = wanted(given), place_of(after)
    found = list(store.query(newest_first=True, limit=PAGE + 1, after=place, **filters))
    more = len(found) > PAGE
    return Listed(found[:PAGE], told_place(found[PAGE - 1]) if more else None)


def told_place(trace: Trace) -> str:
    """A trace's place, for an address."""
    return f"{trace.created_at.isoformat()}|{trace.key}"


def place_of(text: str | None) -> tuple[datetime, str] | None:
    """The place in an address; None where it names none.

    Raises:
        ValueError: for what is no place.
    """
    if not text:
        return None
    time, _, key = text.partition("|")
    try:
        return datetime.fromisoformat(time), key
    except ValueError:
        raise ValueError(f"{text!r} is no place in the list; begin at its first page") from None


def row(trace: Trace) -> dict[str, Any]:
    """A trace's line in the table."""
    scores = [a.score for a in trace.attempts if a.score is not None]
    gains = [a.gain for a in trace.attempts if a.gain is not None]
    return {
        "key": trace.key,
        "at": f"{trace.created_at:%Y-%m-%d %H:%M}",
        "query": trace.query,
        "domain": trace.domain,
        "kind": trace.kind,
        "version": trace.weak_version,
        "solo": trace.solo_score,
        "score": fmean(scores) if scores else None,
        "gain": fmean(gains) if gains else None,
        "failures": len(trace.failures),
        "thread": trace.thread_id,
        "user": trace.user,
    }


def calls(trace: Trace) -> list[Call]:
    """All calls of a trace, in the order in which they are kept."""
    return [*trace.calls, *(call for attempt in trace.attempts for call in attempt.calls)]


def bill(trace: Trace, prices: Mapping[str, Price]) -> dict[str, Any]:
    """What the trace took: calls, tokens where all are told, seconds, dollars with a price list."""
    made = [call.model_dump(exclude_none=True) for call in calls(trace)]
    made = [{**call, "role": PAYERS.get(call["role"], call["role"])} for call in made]
    found = cost([made], prices)  # type: ignore[list-item]
    told = [pair for pair in found.tokens.values() if pair is not None]
    whole = len(told) == len(found.tokens) and bool(told)
    return {
        "calls": len(made),
        "read": int(sum(read for read, _ in told)) if whole else None,
        "written": int(sum(wrote for _, wrote in told)) if whole else None,
        "seconds": found.seconds if made else None,
        "dollars": found.dollars if prices else None,
    }


def attempts(trace: Trace) -> list[dict[str, Any]]:
    """Each attempt with its draft and answer, and what the answer changed."""
    return [_attempt(attempt) for attempt in trace.attempts]


def _attempt(attempt: Attempt) -> dict[str, Any]:
    named = {n: getattr(attempt, n) for n in ("index", "draft", "answer", "score", "gain")}
    changed = changes(attempt.draft or "", attempt.answer or "")
    return {**named, "version": attempt.weak_version, "changes": changed}


def changes(before: str, after: str) -> list[tuple[str, str]]:
    """The words of two texts as one: ("same" | "gone" | "new", text) in order.

    >>> changes("It takes 4 days", "It takes 5 days")
    [('same', 'It takes '), ('gone', '4'), ('new', '5'), ('same', ' days')]
    """
    one, other = _words(before), _words(after)
    found: list[tuple[str, str]] = []
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
    for what, a, b, c, d in matcher.get_opcodes():
        if what == "equal":
            found.append(("same", "".join(one[a:b])))
            continue
        found += [("gone", "".join(one[a:b]))] if b > a else []
        found += [("new", "".join(other[c:d]))] if d > c else []
    return found


def _words(text: str) -> list[str]:
    return re.findall(r"\s+|\w+|[^\w\s]", text)


def domains(store: TraceStore) -> list[str]:
    """Domains that the newest traces have, to be chosen from."""
    newest: Iterable[Trace] = store.query(newest_first=True, limit=200)
    return sorted({trace.domain for trace in newest if trace.domain})
