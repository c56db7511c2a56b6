"""No byte left: what a database does with the room of what was deleted.

Knows SQLite's file and its log, and PostgreSQL's VACUUM. Knows no trace.
"""

from __future__ import annotations

import sqlite3
import time

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cowest_graph.masking import masked_error
from cowest_graph.traces.databases import Database
from cowest_graph.traces.tables import METADATA

_PATIENCE = 30.0  # seconds for readers that hold the log
_BY_HAND = "run `VACUUM` and `PRAGMA wal_checkpoint(TRUNCATE)` when nobody uses the file"


def secure(connection: sa.Connection) -> None:
    """Let what this connection deletes be written over with zeros (SQLite)."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete = ON")


def erase(database: Database, *, rewrite: bool = True) -> str | None:
    """Rewrite the database, so that nothing of what was deleted is in it.

    Args:
        database: whose transactions are over.
        rewrite: also the file or the tables themselves; without it, SQLite's log alone is emptied.

    Returns:
        What is still to be done, as where another process reads on; None for nothing.
    """
    if database.in_memory:
        return None
    with database.lock:
        if database.engine.dialect.name == "sqlite":
            return _erase_sqlite(database.engine, rewrite)
        return _erase_postgresql(database.engine) if rewrite else None


def _erase_sqlite(engine: sa.Engine, rewrite: bool) -> str | None:
    """The file is made anew, and its log emptied: https://www.sqlite.org/lang_vacuum.html."""
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        if rewrite:
            cursor.execute("VACUUM")
        until = time.monotonic() + _PATIENCE
        while True:
            # Busy, pages in the log, pages copied (https://www.sqlite.org/pragma.html).
            busy, *_ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not busy:
                return None
            if time.monotonic() > until:
                return f"another process reads the log: {_BY_HAND}"
            time.sleep(0.05)
    except sqlite3.Error as error:  # a full disk: it takes the file's size once more
        return f"the file was not rewritten ({masked_error(error)}): {_BY_HAND}"
    finally:
        connection.close()


def _erase_postgresql(engine: sa.Engine) -> str | None:
    """The tables are written anew, and what the planner remembers of their values with them."""
    names = ", ".join(sorted(METADATA.tables))
    command = f"VACUUM (FULL, ANALYZE) {names}"
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(command)
    except DBAPIError as error:
        return f"the tables were not rewritten ({masked_error(error.orig or error)}): `{command}`"
    return None
