"""A database behind a store: SQLite or PostgreSQL, opened with care, and safe across forks.

Knows URLs, engines, transactions and forks. Knows no table.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, StatementError

from cowest_graph.masking import learn_url, masked_error

_WRITERS_LOCK = 0x636F7765  # "cowe": PostgreSQL's advisory lock for this store's writers
_PATIENCE = 30  # seconds to wait for another process that writes


class Json(str):
    """A value of a JSON column that is JSON already."""


class Database:
    """One database, one call at a time.

    Args:
        url: `sqlite:///traces.db`, `postgresql+psycopg://user:password@host/database`, a bare
            path (SQLite), or `:memory:`. A new SQLite file is readable by its owner only.

    Raises:
        ValueError: for a URL of another database, or a file that is no SQLite file.
        FileNotFoundError: when the folder of a SQLite file is missing.
        ImportError: when PostgreSQL's driver is not installed.
    """

    def __init__(self, url: str | Path) -> None:
        learn_url(str(url))
        parsed = _url(url)
        self.url = _masked(parsed)
        """Without its password."""
        self.in_memory = parsed.database == ":memory:"
        self._file = Path(parsed.database or "") if _is_file(parsed) else None
        self.read_only = self._file is not None and not _can_write(self._file)
        """Whether the file, or its place, can only be read."""
        self.lock = threading.Lock()  # so that a fork finds no call under way
        self.engine = _engine(_to_read(parsed) if self.read_only else parsed, self.url)
        _DATABASES.add(self)

    @contextmanager
    def transaction(self, *, writes: bool = False) -> Iterator[sa.Connection]:
        """All that is done in it, or nothing; writers wait for each other from its start.

        Raises:
            PermissionError: for a write where the file can only be read.
        """
        if writes and self.read_only:
            raise PermissionError(
                errno.EROFS, "the trace store can only be read here; give another one", self._name()
            )
        with self.lock, self.engine.connect() as connection:
            connection.execution_options(cowest_writes=writes)
            with connection.begin():
                yield connection

    def beside(self, ending: str) -> Path | None:
        """The file of that ending beside the database's own; None for one that is no file."""
        file = self._file
        return None if file is None else file.with_name(f"{file.name}.{ending}")

    @property
    def file(self) -> Path | None:
        """The database's own file; None for one that is none."""
        return self._file

    def _name(self) -> str:
        return str(self._file or self.url)

    def share(self) -> None:
        """Let readers and a writer work at once."""
        if self._file is not None and not self.read_only:
            _use_wal(self.engine)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _url(url: str | Path) -> sa.URL:
    text = str(url)
    try:
        parsed = sa.make_url(text) if "://" in text else sa.URL.create("sqlite", database=text)
    except ArgumentError:
        raise ValueError(f"the trace store's URL cannot be read; {_KNOWN_URLS}") from None
    match parsed.drivername.partition("+")[0]:
        case "sqlite":
            return _sqlite_url(parsed)
        case "postgresql" | "postgres":
            return parsed.set(drivername="postgresql+psycopg")
        case other:
            raise ValueError(f"no trace store over {other!r}; {_KNOWN_URLS}")


_KNOWN_URLS = (
    "there are: sqlite:///traces.db, postgresql+psycopg://user:password@host/database, "
    "a path (SQLite) and ':memory:'"
)


def _sqlite_url(url: sa.URL) -> sa.URL:
    if url.database in (None, "", ":memory:"):
        return url.set(drivername="sqlite", database=":memory:")
    path = Path(url.database or "").expanduser().absolute()  # a later chdir changes nothing
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} for the trace store; make it first")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file for the trace store, as traces.db in it")
    try:
        # Private from its first moment: traces hold private data. SQLite gives its side files
        # (-wal, -shm) the same permissions.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        with path.open("rb") as file:
            if file.read(16) not in (b"", b"SQLite format 3\0"):
                raise ValueError(foreign(str(path), "it is no SQLite file")) from None
    return url.set(drivername="sqlite", database=str(path))


def _is_file(url: sa.URL) -> bool:
    return url.get_backend_name() == "sqlite" and url.database != ":memory:"


def _can_write(file: Path) -> bool:
    return os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)


def _to_read(url: sa.URL) -> sa.URL:
    """The same file, only read: SQLite would make files of its own beside one in WAL mode.

    Where another process left a log of writes, that is read, too; else the file is taken as one
    that nobody changes (https://www.sqlite.org/uri.html, "immutable").
    """
    file = Path(url.database or "")
    log = file.with_name(f"{file.name}-wal")
    left = log.exists() and log.stat().st_size > 0
    how = {"mode": "ro", "uri": "true"} | ({} if left else {"immutable": "1"})
    return url.set(database=f"file:{quote(str(file))}").update_query_dict(how)


def foreign(store: str, why: str) -> str:
    """What is said of a database that is not ours."""
    return f"{store} is not a trace store: {why}; nothing was changed, give the traces another one"


def _masked(url: sa.URL) -> str:
    hidden = {name: "***" for name in url.query if "password" in name}
    return masked_error(url.update_query_dict(hidden).render_as_string(hide_password=True))


def _engine(url: sa.URL, masked: str) -> sa.Engine:
    # Errors are logged, queries are private.
    options: dict[str, Any] = {"hide_parameters": True, "json_serializer": _as_json}
    if url.database == ":memory:":
        options |= {"poolclass": sa.StaticPool, "connect_args": {"check_same_thread": False}}
    elif url.get_backend_name() == "sqlite":
        options |= {"connect_args": {"timeout": _PATIENCE, "check_same_thread": False}}
    else:
        # Pinged, for a server may restart; READ COMMITTED, for a writer that waited must see what
        # it waited for.
        options |= {"pool_pre_ping": True, "isolation_level": "READ COMMITTED"}
    try:
        engine = sa.create_engine(url, **options)
    except ImportError as error:
        raise ImportError(
            f"{masked} needs PostgreSQL's driver: pip install 'cowest-graph[postgres]'"
        ) from error
    sa.event.listen(engine, "begin", _begin)
    sa.event.listen(engine, "handle_error", partial(_name_the_store, masked))
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _as_json(value: Any) -> str:
    return value if isinstance(value, Json) else json.dumps(value)


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin where `_begin` says, not at the driver's
    connection.text_factory = _text
    connection.execute("PRAGMA foreign_keys = ON")


def _text(stored: bytes) -> str:
    try:
        return stored.decode()
    except UnicodeDecodeError:  # whose own message, as the driver's, would show what is stored
        raise ValueError("a stored text is no UTF-8: the trace store's file is damaged") from None


def _begin(connection: sa.Connection) -> None:
    """Make writers wait for each other from the start, so that none fails halfway."""
    writes = connection.get_execution_options().get("cowest_writes", False)
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
    elif writes:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS_LOCK})")


def _name_the_store(masked: str, context: sa.engine.ExceptionContext) -> None:
    if isinstance(context.sqlalchemy_exception, StatementError):
        context.sqlalchemy_exception.add_detail(f"trace store {masked}")


def _use_wal(engine: sa.Engine) -> None:
    """Let readers and a writer work at once: a property of the file, set once.

    SQLite does not wait for a busy file here (https://www.sqlite.org/wal.html), so we do.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        connection = engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        finally:
            connection.close()


# Forks --------------------------------------------------------------------------------------------
# A connection must not cross a fork: SQLite would trust locks that the child does not hold
# (https://www.sqlite.org/howtocorrupt.html, section 2.6), PostgreSQL would hear two clients on one
# line. So a fork waits until no call is under way, and finds every connection closed.

_DATABASES: weakref.WeakSet[Database] = weakref.WeakSet()
_held: list[Database] = []


def _before_fork() -> None:
    for database in list(_DATABASES):
        database.lock.acquire()
        _held.append(database)
        if not database.in_memory:
            database.close()


def _after_fork() -> None:
    while _held:
        _held.pop().lock.release()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
