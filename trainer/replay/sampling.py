"""A random sample of the queries that a store has, as rows that can be collected.

Knows traces, and how a sample of a store of any size is drawn in the memory of the sample. Knows no
model.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cowest_graph.traces import Trace, TraceStore

TAG = "replay"
"""The tag of traces that are made of sampled rows."""


@dataclass(frozen=True)
class Sample:
    """Queries to ask again.

    Args:
        rows: {"query", "messages" (the conversation before it), "reference", "explanation",
            "domain", "whose"} each; in a random order.
        seen: traces that were looked through.
        without_reference: rows that have none; a judge that needs one gives them no score.
    """

    rows: list[dict[str, Any]]
    seen: int

    @property
    def without_reference(self) -> int:
        """Rows without a reference."""
        return sum(row["reference"] is None for row in self.rows)

    def __str__(self) -> str:
        lacking = self.without_reference
        return (
            f"{len(self.rows)} queries from {self.seen} traces"
            f"{f'; {lacking} of them have no reference' if lacking else ''}"
        )


def sampled(
    store: TraceStore, wanted: Mapping[str, Any], *, size: int | None, seed: int = 0
) -> Sample:
    """Some of the queries of a store, each as likely as any other, however often it was asked.

    Every query with its conversation is hashed with the seed, and the smallest hashes are the
    sample ("bottom-k"; Cohen and Kaplan, 2007): it needs no list of what was seen, is the same in
    whatever order traces come, and later traces change it by what is new in it alone.

    A reference is the trace's own; where it has none, the latest correction that somebody gave.

    Args:
        store: of the traces; read a page at a time.
        wanted: fields of `traces.Filter`.
        size: queries, at most; None for all.
        seed: of the sampling.

    Raises:
        TypeError: for a filter that there is not.
    """
    chosen, seen = _chosen(store.query(**wanted), size, seed)
    return Sample([_row(trace, store) for trace in chosen], seen)


def _chosen(traces: Iterable[Trace], size: int | None, seed: int) -> tuple[list[Trace], int]:
    """The sample, and how many traces there were."""
    kept: dict[str, Trace] = {}
    largest: list[tuple[int, str]] = []  # a heap whose first is the largest hash that is kept
    seen = 0
    for trace in traces:
        seen += 1
        name = _name(trace, seed)
        if name in kept:
            if kept[name].reference is None and trace.reference is not None:
                kept[name] = trace
            continue
        if size is not None and len(kept) >= size:
            if not largest or largest[0][1] <= name:
                continue
            del kept[heapq.heappop(largest)[1]]
        kept[name] = trace
        heapq.heappush(largest, (-int(name, 16), name))
    return [kept[name] for name in sorted(kept)], seen


def _name(trace: Trace, seed: int) -> str:
    asked = json.dumps([seed, trace.query, trace.history, trace.domain], sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()


def _row(trace: Trace, store: TraceStore) -> dict[str, Any]:
    whose = {"user": trace.user, "tenant": trace.tenant, "thread_id": trace.thread_id}
    return {
        "query": trace.query,
        "messages": _before(trace),
        "reference": _reference(trace, store),
        "explanation": trace.explanation,
        "domain": trace.domain,
        "whose": {**whose, "tags": [*dict.fromkeys([*trace.tags, TAG])]},
    }


def _before(trace: Trace) -> list[dict[str, Any]]:
    """The conversation before the query. One that ends with a human turn is followed by the query:
    whoever is given both takes that turn for the query in its earlier words."""
    history: list[dict[str, Any]] = [dict(message) for message in trace.history]
    if history and history[-1].get("role") == "user":
        return [*history, {"role": "user", "content": trace.query}]
    return history


def _reference(trace: Trace, store: TraceStore) -> str | list[str] | None:
    if trace.reference is not None:
        return trace.reference
    said = store.feedbacks(trace_key=trace.key)
    corrections = [each.correction for each in said if each.correction]
    return corrections[-1] if corrections else None
