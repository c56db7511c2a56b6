"""The tables behind a TraceStore: their columns, rows, versions, and what is counted over them.

Knows SQL that is the same for SQLite and PostgreSQL. Opens no database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex

from cowest_graph.traces.databases import Json, foreign
from cowest_graph.traces.migrations import migrate
from cowest_graph.traces.records import Attempt, Shadow, Trace

STORE_VERSION = 5
"""The version of the tables; a newer one is refused. Since 5 it is the tables' own: it grows with
`SCHEMA_VERSION`, whose fields they hold, and with each migration (`traces.migrations`)."""
_MARKER = {"application": "cowest-graph traces", "schema_version": str(STORE_VERSION)}
_PAGE = 100  # traces read in one go
_KEYS = 500  # in one condition: SQLite takes so many parameters and no more

Rows = dict[sa.Table, list[dict[str, Any]]]
"""Rows to be inserted, in this order of tables."""

METADATA = sa.MetaData()
"""All tables of a store; `trace_counts` and `claims` add theirs."""
_META = sa.Table(
    "cowest_meta",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
TRACES = sa.Table(
    "traces",
    METADATA,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("query", sa.Text, nullable=False),
    sa.Column("domain", sa.Text),
    sa.Column("weak", sa.Text),
    sa.Column("weak_version", sa.Text),
    sa.Column("strong", sa.Text),
    sa.Column("evaluator", sa.Text),
    sa.Column("solo", sa.Text),
    sa.Column("solo_score", sa.Double),
    sa.Column("data", sa.JSON, nullable=False),  # the whole trace; the columns are for people
    sa.Index("traces_in_order", "created_at", "key"),
    sa.Index("traces_of_kind", "kind", "created_at"),
)
for _name in ("domain", "weak_version"):  # a filtered page is in order, too
    _told = TRACES.c[_name].is_not(None)  # what is missing takes no room in an index
    _ordered = (TRACES.c[_name], TRACES.c.created_at)  # the key is longer than both of them
    sa.Index(f"traces_{_name}", *_ordered, sqlite_where=_told, postgresql_where=_told)
_both = sa.and_(TRACES.c.domain.is_not(None), TRACES.c.weak_version.is_not(None))
sa.Index(  # by either of them alone, a version of long ago is behind all that is newer
    "traces_domain_weak_version",
    TRACES.c.domain,
    TRACES.c.weak_version,
    TRACES.c.created_at,
    sqlite_where=_both,
    postgresql_where=_both,
)


def of_trace() -> sa.Column[str]:
    """The first column of a table beside the traces; its rows go with their trace."""
    return sa.Column(
        "trace_key", sa.Text, sa.ForeignKey(TRACES.c.key, ondelete="CASCADE"), primary_key=True
    )


ATTEMPTS = sa.Table(
    "attempts",
    METADATA,
    of_trace(),
    sa.Column("index", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("draft", sa.Text),
    sa.Column("answer", sa.Text),
    sa.Column("score", sa.Double),
    sa.Column("gain", sa.Double),
    sa.Column("weak_version", sa.Text),
)
_FAILURES = sa.Table(  # of attempts and shadows, so that they can be counted without the data
    "cowest_failures",
    METADATA,
    of_trace(),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("failure", sa.Text, nullable=False),
    sa.Column("weak_version", sa.Text),
)
_SHADOWS = sa.Table(
    "cowest_shadows",
    METADATA,
    of_trace(),
    sa.Column("weak_version", sa.Text, nullable=False),
    sa.Column("draft", sa.Text),
)
RUNS = sa.Table(  # whose run a trace is of; no row where nobody told
    "cowest_runs",
    METADATA,
    of_trace(),
    sa.Column("run_id", sa.Text),
    sa.Column("thread_id", sa.Text),
    sa.Column("user", sa.Text),
    sa.Column("tenant", sa.Text),
)
for _name in ("run_id", "thread_id", "user", "tenant"):
    _told = RUNS.c[_name].is_not(None)  # what is missing takes no room in an index
    sa.Index(f"cowest_runs_{_name}", RUNS.c[_name], sqlite_where=_told, postgresql_where=_told)
TAGS = sa.Table(
    "cowest_tags",
    METADATA,
    of_trace(),
    sa.Column("tag", sa.Text, primary_key=True, index=True),
)
JOURNAL = sa.Table(
    "journal",
    METADATA,
    sa.Column("trace_key", sa.Text, primary_key=True),
    sa.Column("slot", sa.Text, primary_key=True),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), default=lambda: datetime.now(UTC)),
)


def data_of(key: str) -> sa.Select[Any]:
    """The whole trace with this key."""
    return sa.select(TRACES.c.data).where(TRACES.c.key == key)


def rows_of(trace: Trace) -> Rows:
    """A trace as rows, with all that belongs to it, its own row first."""
    of = {"trace_key": trace.key}
    found: Rows = {TRACES: [_columns(TRACES, trace) | {"data": Json(trace.model_dump_json())}]}
    found[ATTEMPTS] = [_columns(ATTEMPTS, each) | of for each in trace.attempts]
    if trace.shadow is not None:
        shadow = {"weak_version": trace.shadow.weak_version, "draft": trace.shadow.draft}
        found[_SHADOWS] = [shadow | of]
    found[_FAILURES] = _failures_of(trace)
    whose = _columns(RUNS, trace)
    if any(value is not None for value in whose.values()):
        found[RUNS] = [whose | of]
    found[TAGS] = [of | {"tag": tag} for tag in dict.fromkeys(trace.tags)]
    return found


def put(connection: sa.Connection, rows: Mapping[sa.Table, Sequence[dict[str, Any]]]) -> int:
    """Insert traces with all that belongs to them, in the place of those with their keys.

    Args:
        connection: of a transaction that writes.
        rows: of each table, those of the traces first; a key once.

    Returns:
        How many were in their place.
    """
    keys, replaced = [row["key"] for row in rows[TRACES]], 0
    for start in range(0, len(keys), _KEYS):
        some = keys[start : start + _KEYS]
        # By cascade, what belongs to them goes, too.
        replaced += connection.execute(TRACES.delete().where(TRACES.c.key.in_(some))).rowcount
        connection.execute(JOURNAL.delete().where(JOURNAL.c.trace_key.in_(some)))
    for table, new in rows.items():
        if new:
            connection.execute(table.insert(), new)
    return replaced


def _failures_of(trace: Trace) -> list[dict[str, Any]]:
    tried: list[Attempt | Shadow] = [*trace.attempts]
    if trace.shadow is not None:
        tried.append(trace.shadow)
    failed = [
        (call, call.weak_version or of.weak_version)
        for of in tried
        for call in of.calls
        if call.failure is not None
    ]
    return [
        {"trace_key": trace.key, "number": number, "weak_version": version}
        | {"role": call.role, "failure": call.failure}
        for number, (call, version) in enumerate(failed)
    ]


def _columns(table: sa.Table, record: Trace | Attempt) -> dict[str, Any]:
    return {name: getattr(record, name) for name in _shared(table, type(record))}


@cache
def _shared(table: sa.Table, kind: type[Trace] | type[Attempt]) -> list[str]:
    return [column.name for column in table.c if column.name in kind.model_fields]


def version_of(connection: sa.Connection, store: str) -> int | None:
    """The version of the tables that are there; None when there is room for them."""
    tables = set(sa.inspect(connection).get_table_names())
    if _META.name in tables:
        return _marked_version(connection, store)
    # A PostgreSQL database is shared between applications, a SQLite file is not.
    if connection.dialect.name != "sqlite":
        tables &= set(METADATA.tables)
    if tables:
        raise ValueError(foreign(store, f"it has the tables {', '.join(sorted(tables))}"))
    return None


def has_all(connection: sa.Connection) -> bool:
    """Whether every table is there, and every index of the traces."""
    there = sa.inspect(connection)
    if not set(METADATA.tables) <= set(there.get_table_names()):
        return False
    known = {index["name"] for index in there.get_indexes(TRACES.name)}
    return {index.name for index in TRACES.indexes} <= known


def _marked_version(connection: sa.Connection, store: str) -> int:
    found = {row.name: row.value for row in connection.execute(sa.select(_META))}
    if found.get("application") != _MARKER["application"]:
        raise ValueError(foreign(store, f"its table {_META.name} is another application's"))
    version = found.get("schema_version", "")
    if not version.isdigit() or not 1 <= int(version) <= STORE_VERSION:
        raise ValueError(
            f"{store} has schema version {version}, this release reads versions 1 to "
            f"{STORE_VERSION}; nothing was changed, open it with the release of cowest-graph that "
            "wrote it"
        )
    return int(version)


def bring_up_to_date(connection: sa.Connection, version: int | None) -> None:
    """Make the tables, or those that an older release lacked, and fill them."""
    METADATA.create_all(connection)  # a later release may have added a table to the same version
    for index in TRACES.indexes:  # … or an index to a table
        connection.execute(CreateIndex(index, if_not_exists=True))
    if version == STORE_VERSION:
        return
    if version is None:
        marker = [{"name": name, "value": value} for name, value in _MARKER.items()]
        connection.execute(_META.insert(), marker)
        return
    if version < 2:
        _count_failures(connection)
    migrate(connection, version, STORE_VERSION)
    set_version(connection, STORE_VERSION)


def set_version(connection: sa.Connection, version: int) -> None:
    """Write down which version the tables have, in the one place that says so."""
    version_row = _META.update().where(_META.c.name == "schema_version")
    connection.execute(version_row.values(value=str(version)))


def _count_failures(connection: sa.Connection) -> None:
    """Fill the table of failures from the traces."""
    last = ""
    while rows := connection.execute(
        sa.select(TRACES.c.key, TRACES.c.data)
        .where(TRACES.c.key > last)
        .order_by(TRACES.c.key)
        .limit(_PAGE)
    ).all():
        found = [each for row in rows for each in _failures_of(Trace.model_validate(row.data))]
        if found:
            connection.execute(_FAILURES.insert(), found)
        last = rows[-1].key


DRAFTED = (
    sa.select(
        ATTEMPTS.c.weak_version,
        sa.func.count(ATTEMPTS.c.draft).label("drafts"),
        sa.func.count(ATTEMPTS.c.score).label("scored"),
        sa.func.avg(ATTEMPTS.c.score).label("mean_score"),
        sa.func.avg(ATTEMPTS.c.gain).label("mean_gain"),
        sa.func.max(TRACES.c.created_at).label("last_used"),
    )
    .join_from(ATTEMPTS, TRACES)
    .group_by(ATTEMPTS.c.weak_version)
)
SHADOWED = (
    sa.select(
        _SHADOWS.c.weak_version,
        sa.func.count(_SHADOWS.c.draft).label("drafts"),
        sa.func.max(TRACES.c.created_at).label("last_used"),
    )
    .join_from(_SHADOWS, TRACES)
    .group_by(_SHADOWS.c.weak_version)
)
FAILED = sa.select(
    _FAILURES.c.weak_version,
    _FAILURES.c.role,
    _FAILURES.c.failure,
    sa.func.count().label("times"),
).group_by(_FAILURES.c.weak_version, _FAILURES.c.role, _FAILURES.c.failure)
