"""A page of traces: some of them in an order, from a place on.

Knows one SELECT. Knows no filter, and holds nothing open.
"""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from cowest_graph.traces.records import Trace
from cowest_graph.traces.tables import TRACES

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
