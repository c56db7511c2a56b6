"""A page of traces: some of them in an order, from a place on.

Knows one SELECT. Knows no filter, and holds nothing open.
"""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from cowest_graph.traces.records import Trace
from cowest_graph.traces.tables import ATTEMPTS, TRACES

Place = tuple[datetime, str]
"""When a trace was made, and its key: where a page ends and the next one begins."""


def page_of(
    connection: sa.Connection,
    wanted: list[sa.ColumnElement[bool]],
    *,
    after: Place | None,
    newest_first: bool,
    size: int,
) -> list[Trace]:
    """The next traces after a place, whether or not there is still one at it."""
    order = sa.tuple_(TRACES.c.created_at, TRACES.c.key)
    by = [column.desc() if newest_first else column for column in order.clauses]
    text = sa.cast(TRACES.c.data, sa.Text)  # pydantic reads JSON faster than the driver
    page = sa.select(text).where(*wanted).order_by(*by).limit(size)
    if after is not None:
        page = page.where(order < after if newest_first else order > after)
    return [Trace.model_validate_json(data) for data in connection.scalars(page)]


def gains_of(
    connection: sa.Connection, weak_version: str | None, newest: int
) -> list[tuple[datetime, float]]:
    """When the drafts of a version's newest traces were made, and their gains."""
    order = (TRACES.c.created_at.desc(), TRACES.c.key.desc())
    newest_ones = sa.select(TRACES.c.key, TRACES.c.created_at).order_by(*order).limit(newest)
    of = newest_ones.where(TRACES.c.weak_version.is_not_distinct_from(weak_version)).subquery()
    found = sa.select(of.c.created_at, ATTEMPTS.c.gain).join(
        ATTEMPTS, ATTEMPTS.c.trace_key == of.c.key
    )
    rows = connection.execute(found.where(ATTEMPTS.c.gain.is_not(None)))
    return [(row.created_at, row.gain) for row in rows]
