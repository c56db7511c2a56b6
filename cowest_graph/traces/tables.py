"""The tables behind a TraceStore: their columns, rows, versions, and what is counted over them.

Knows SQL that is the same for SQLite and PostgreSQL. Opens no database.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from cowest_graph.traces.databases import foreign
from cowest_graph.traces.records import SCHEMA_VERSION, Attempt, Shadow, Trace

_MARKER = {"application": "cowest-graph traces", "schema_version": str(SCHEMA_VERSION)}
_PAGE = 100  # traces read in one go

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
)


def data_of(key: str) -> sa.Select[Any]:
    """The whole trace with this key."""
    return sa.select(TRACES.c.data).where(TRACES.c.key == key)


def put(connection: sa.Connection, trace: Trace) -> None:
    """Insert a trace with all that belongs to it, or replace the one with its key."""
    connection.execute(TRACES.delete().filter_by(key=trace.key))  # and, by cascade, its attempts
    connection.execute(JOURNAL.delete().filter_by(trace_key=trace.key))
    data = trace.model_dump(mode="json")
    connection.execute(TRACES.insert(), _columns(TRACES, trace) | {"data": data})
    if rows := [_columns(ATTEMPTS, each) | {"trace_key": trace.key} for each in trace.attempts]:
        connection.execute(ATTEMPTS.insert(), rows)
    if trace.shadow is not None:
        row = {"weak_version": trace.shadow.weak_version, "draft": trace.shadow.draft}
        connection.execute(_SHADOWS.insert().values(trace_key=trace.key, **row))
    _put_failures(connection, trace)
    whose = _columns(RUNS, trace)
    if any(value is not None for value in whose.values()):
        connection.execute(RUNS.insert().values(trace_key=trace.key, **whose))
    if tags := [{"trace_key": trace.key, "tag": tag} for tag in dict.fromkeys(trace.tags)]:
        connection.execute(TAGS.insert(), tags)


def _put_failures(connection: sa.Connection, trace: Trace) -> None:
    tried: list[Attempt | Shadow] = [*trace.attempts]
    if trace.shadow is not None:
        tried.append(trace.shadow)
    failed = [
        (call, call.weak_version or of.weak_version)
        for of in tried
        for call in of.calls
        if call.failure is not None
    ]
    rows = [
        {"trace_key": trace.key, "number": number, "weak_version": version}
        | {"role": call.role, "failure": call.failure}
        for number, (call, version) in enumerate(failed)
    ]
    if rows:
        connection.execute(_FAILURES.insert(), rows)


def _columns(table: sa.Table, record: Trace | Attempt) -> dict[str, Any]:
    names = [column.name for column in table.c if hasattr(record, column.name)]
    return {name: getattr(record, name) for name in names}


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
    """Whether every table is there."""
    return set(METADATA.tables) <= set(sa.inspect(connection).get_table_names())


def _marked_version(connection: sa.Connection, store: str) -> int:
    found = {row.name: row.value for row in connection.execute(sa.select(_META))}
    if found.get("application") != _MARKER["application"]:
        raise ValueError(foreign(store, f"its table {_META.name} is another application's"))
    version = found.get("schema_version", "")
    if not version.isdigit() or not 1 <= int(version) <= SCHEMA_VERSION:
        raise ValueError(
            f"{store} has schema version {version}, this release reads versions 1 to "
            f"{SCHEMA_VERSION}; nothing was changed, open it with the release of cowest-graph that "
            "wrote it"
        )
    return int(version)


def bring_up_to_date(connection: sa.Connection, version: int | None) -> None:
    """Make the tables, or those that an older release lacked, and fill them."""
    METADATA.create_all(connection)  # a later release may have added a table to the same version
    if version == SCHEMA_VERSION:
        return
    if version is None:
        marker = [{"name": name, "value": value} for name, value in _MARKER.items()]
        connection.execute(_META.insert(), marker)
        return
    if version < 2:
        _count_failures(connection)
    version_row = _META.update().where(_META.c.name == "schema_version")
    connection.execute(version_row.values(value=str(SCHEMA_VERSION)))


def _count_failures(connection: sa.Connection) -> None:
    """Fill the table of failures from the traces."""
    last = ""
    while rows := connection.execute(
        sa.select(TRACES.c.key, TRACES.c.data)
        .where(TRACES.c.key > last)
        .order_by(TRACES.c.key)
        .limit(_PAGE)
    ).all():
        for row in rows:
            _put_failures(connection, Trace.model_validate(row.data))
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
