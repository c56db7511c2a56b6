"""Answers as people say they should have been, as rows that teach; what had to wait and comes late.

Knows traces and feedback. Knows no table.
"""

from __future__ import annotations

from typing import Any

from cowest_graph.prompts import explanation_of, final_answer
from cowest_graph.traces.records import Trace


def taught(trace: Trace, correction: str) -> dict[str, Any]:
    """A correction as a row for demonstrations; a whole answer is read as a draft would be.

    >>> taught(Trace(query="6 + 1?"), "Explanation: 7 follows 6.\\nAnswer: 7")["explanation"]
    '7 follows 6.'
    """
    read = final_answer(correction)
    explained = explanation_of(correction) if read and read != correction.strip() else None
    return {
        "query": trace.query,
        "messages": trace.history,
        "reference": read or correction,
        "explanation": explained,
        "trace_key": trace.key,
    }


def joined(known: Trace, late: Trace) -> Trace:
    """A trace that had to wait, with what the stored one has and it has not."""
    empty: tuple[Any, ...] = (None, [], {})
    fields = {name: getattr(known, name) for name in Trace.model_fields}
    kept = {n: v for n, v in fields.items() if getattr(late, n) in empty and v not in empty}
    tried = {each.index: each for each in [*known.attempts, *late.attempts]}
    return late.model_copy(update={**kept, "attempts": list(tried.values())})
