"""What of a store's real traffic teaches, and what of it is kept for the gate.

Knows inference traces and feedback. Knows no round and no training. No reference that came with a
query is read: what is right is what people said, or what the evaluator says without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cowest_graph.traces import Feedback, Trace, TraceStore
from trainer.checks import query_hash
from trainer.rows.pairs import comparable
from trainer.rows.scores import Said, ScoreFrom, rescored, said_right

_PARTS = 1000  # a share of the queries is told in thousandths


@dataclass(frozen=True)
class Traffic:
    """What a store's real traffic teaches, and what the gate asks.

    Args:
        taught: corrections, as rows for demonstrations.
        traces: explored queries, as they are stored.
        held_out: {"query", "reference", "messages"} that the gate asks; the reference is what
            people said is right, None where nobody did.
        feedback: all that was said.
        score_from: whose scores count in pairs.
        passed_over: inference traces that teach nothing: not explored, or without scores.
    """

    taught: tuple[Mapping[str, Any], ...]
    traces: tuple[Trace, ...]
    held_out: tuple[Mapping[str, Any], ...]
    feedback: tuple[Feedback, ...] = field(repr=False)
    score_from: ScoreFrom
    passed_over: int

    def __str__(self) -> str:
        return (
            f"{len(self.taught)} corrections, {len(self.traces)} explored queries, "
            f"{len(self.held_out)} held out for the gate; {self.passed_over} teach nothing"
        )


def traffic_of(
    store: TraceStore,
    *,
    score_from: ScoreFrom = "feedback",
    share: float = 0.3,
    domain: str | None = None,
) -> Traffic:
    """What the inference traces of a store teach, and what is held out of them.

    A query is held out by its own text, so that it is the next time, too, whoever asks it. The gate
    asks those that somebody said the answer of, and those whose solo answer the evaluator scored.

    Args:
        store: with the traces and their feedback; what waits in its spool is taken in first.
        score_from: as in `preferences`.
        share: of the queries, kept for the gate.
        domain: only of this one; None is any.

    Raises:
        ValueError: for a share that is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"the held-out share is {share}; it must be between 0 and 1")
    store.take_in()
    feedback = tuple(store.feedbacks())
    said, kept, asked, passed_over = Said(feedback), [], {}, 0
    for trace in store.select(kind="inference", domain=domain):
        if _held_out(trace.query, share):
            right = said_right(trace, said.of(trace))
            if right or trace.solo_score is not None:
                asked[query_hash(trace.query)] = _row(trace, right)
            continue
        (scored,) = rescored([trace], score_from, said)
        if comparable(scored):
            kept.append(trace)
        else:
            passed_over += 1
    taught = (row for row in store.corrections() if not _held_out(row["query"], share))
    held_out = tuple(asked.values())
    return Traffic(tuple(taught), tuple(kept), held_out, feedback, score_from, passed_over)


def _held_out(query: str, share: float) -> bool:
    return int(query_hash(query)[:12], 16) % _PARTS < share * _PARTS


def _row(trace: Trace, right: list[str]) -> dict[str, Any]:
    return {"query": trace.query, "messages": trace.history, "reference": right or None}
