"""A page of traces: some of them in an order, from a place on.

Knows one SELECT. Knows no filter, and holds nothing open.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from cowest_graph.traces.drafted import Drafted
from cowest_graph.traces.filters import utc
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
    text = sa.cast(TRACES.c.data, sa.Text)  # pydantic reads JSON faster than the driver
    page = _after(sa.select(text).where(*wanted), after, newest_first).limit(size)
    return [Trace.model_validate_json(data) for data in connection.scalars(page)]


def drafted_page(
    connection: sa.Connection,
    wanted: list[sa.ColumnElement[bool]],
    *,
    after: Place | None,
    size: int,
) -> tuple[list[Drafted], Place | None]:
    """What pairs need of the next traces, and the place of the last of them; None for no more."""
    columns = (TRACES.c.created_at, TRACES.c.key, sa.cast(TRACES.c.data, sa.Text))
    page = _after(sa.select(*columns).where(*wanted), after, newest_first=False).limit(size)
    rows = connection.execute(page).all()
    last = (utc(rows[-1][0]), rows[-1][1]) if len(rows) == size else None
    return [Drafted.model_validate_json(data) for _, _, data in rows], last


def _after(page: sa.Select[Any], after: Place | None, newest_first: bool) -> sa.Select[Any]:
    order = sa.tuple_(TRACES.c.created_at, TRACES.c.key)
    by = [column.desc() if newest_first else column for column in order.clauses]
    page = page.order_by(*by)
    return page if after is None else page.where(order < after if newest_first else order > after)


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
