"""What is counted of every trace when it is stored, so that a summary reads no trace again.

Knows one small table beside the traces, its rows, and their sums. Opens no database. A trace that
an older release stored has no row yet: `fill` makes it.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import sqlalchemy as sa

from cowest_graph.traces.records import Trace
from cowest_graph.traces.summaries import Summary, VersionSummary
from cowest_graph.traces.tables import METADATA, TRACES, of_trace

COUNTS = sa.Table(
    "cowest_counts",
    METADATA,
    of_trace(),
    sa.Column("weak_version", sa.Text),
    sa.Column("incomplete", sa.Integer, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("helped", sa.Integer, nullable=False),
    sa.Column("hurt", sa.Integer, nullable=False),
    sa.Column("ties", sa.Integer, nullable=False),
    sa.Column("missing_scores", sa.Integer, nullable=False),
    sa.Column("scores", sa.Integer, nullable=False),
    sa.Column("score_sum", sa.Double, nullable=False),
    sa.Column("gains", sa.Integer, nullable=False),
    sa.Column("gain_sum", sa.Double, nullable=False),
    sa.Column("failures", sa.Text),  # kind → times, as JSON; null where no call failed
)
_ADDED = ("incomplete", "attempts", "helped", "hurt", "ties", "missing_scores")
_SUMMED = (*_ADDED, "scores", "score_sum", "gains", "gain_sum")


def row_of(trace: Trace) -> dict[str, Any]:
    """A trace's row."""
    scores = [a.score for a in trace.attempts if a.score is not None]
    gains = [a.gain for a in trace.attempts if a.gain is not None]
    missing = 0
    if trace.kind == "collection":  # inference has no evaluator: nothing is missing there
        missing = [trace.solo_score, *(a.score for a in trace.attempts)].count(None)
        missing -= trace.solo_unasked + len(trace.unasked)
    failed = Counter(call.failure for call in trace.failures)
    return {
        "trace_key": trace.key,
        "weak_version": trace.weak_version,
        "incomplete": int(not trace.complete),
        "attempts": len(trace.attempts),
        "helped": sum(gain > 0 for gain in gains),
        "hurt": sum(gain <= 0 for gain in gains),
        "ties": sum(gain == 0 for gain in gains),
        "missing_scores": missing,
        "scores": len(scores),
        "score_sum": sum(scores),
        "gains": len(gains),
        "gain_sum": sum(gains),
        "failures": json.dumps(failed) if failed else None,
    }


def all_there(connection: sa.Connection) -> bool:
    """Whether every trace has its row; a row is of a trace, so that their numbers tell."""
    number = sa.select(sa.func.count())
    one, other = (connection.scalar(number.select_from(table)) for table in (TRACES, COUNTS))
    return one == other


def missing_rows(connection: sa.Connection, limit: int) -> list[str]:
    """Traces (as JSON) that have no row yet, at most so many."""
    known = sa.select(COUNTS.c.trace_key).where(COUNTS.c.trace_key == TRACES.c.key).exists()
    lacking = sa.select(sa.cast(TRACES.c.data, sa.Text)).where(~known).limit(limit)
    return list(connection.scalars(lacking))


def fill(connection: sa.Connection, limit: int) -> int:
    """Make the rows that are missing, at most so many at a time; how many were made."""
    found = missing_rows(connection, limit)
    rows = [row_of(Trace.model_validate_json(data)) for data in found]
    if rows:
        connection.execute(COUNTS.insert(), rows)
    return len(rows)


def summed(connection: sa.Connection) -> Summary:
    """The counts over all traces that have a row."""
    sums = [sa.func.sum(COUNTS.c[name]).label(name) for name in _SUMMED]
    by_version = sa.select(COUNTS.c.weak_version, sa.func.count().label("traces"), *sums)
    total = Summary()
    for row in connection.execute(by_version.group_by(COUNTS.c.weak_version)):
        total.traces += row.traces
        for name in _ADDED:
            setattr(total, name, getattr(total, name) + getattr(row, name))
        total.by_weak_version[row.weak_version] = VersionSummary(
            traces=row.traces,
            mean_score=row.score_sum / row.scores if row.scores else None,
            mean_gain=row.gain_sum / row.gains if row.gains else None,
        )
    failed = sa.select(COUNTS.c.failures).where(COUNTS.c.failures.is_not(None))
    for kinds in connection.scalars(failed):
        total.failures.update(json.loads(kinds))
    return total
