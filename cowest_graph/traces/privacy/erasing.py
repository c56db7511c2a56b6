"""No byte left: what a database does with the room of what was deleted.

Knows SQLite's file and its log, and PostgreSQL's VACUUM. Knows no trace.
"""

from __future__ import annotations

import re
import sqlite3
import time
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cowest_graph.masking import masked_error
from cowest_graph.traces.databases import Database
from cowest_graph.traces.tables import METADATA

_PATIENCE = 30.0  # seconds for readers that hold the log
_DEAD = re.compile(r"(\d+) dead row versions cannot be removed yet")
_BY_HAND = "run `VACUUM` and `PRAGMA wal_checkpoint(TRUNCATE)` when nobody uses the file"


def secure(connection: sa.Connection) -> None:
    """Let what this connection deletes be written over with zeros (SQLite)."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete = ON")


def erase(database: Database, *, rewrite: bool = True, patience: float = _PATIENCE) -> str | None:
    """Rewrite the database, so that nothing of what was deleted is in it.

    Args:
        database: whose transactions are over.
        rewrite: also the file or the tables themselves; without it, SQLite's log alone is emptied.
        patience: seconds that readers are waited for.

    Returns:
        What is still to be done, as where another process reads on; None for nothing.
    """
    if database.in_memory:
        return None
    if database.engine.dialect.name != "sqlite":
        return _rewrite_tables(database, patience) if rewrite else None
    try:
        if rewrite:
            # The file is made anew: https://www.sqlite.org/lang_vacuum.html.
            _run(database, "VACUUM", _PATIENCE)
        return _empty_the_log(database, patience)
    except sqlite3.Error as error:  # a full disk: it takes the file's size once more
        return f"the file was not rewritten ({masked_error(error)}): {_BY_HAND}"


def _empty_the_log(database: Database, patience: float) -> str | None:
    until = time.monotonic() + patience
    while True:
        # Busy, pages in the log, pages copied (https://www.sqlite.org/pragma.html).
        busy, *_ = _run(database, "PRAGMA wal_checkpoint(TRUNCATE)", 0)
        if not busy:
            return None
        if time.monotonic() > until:
            return f"another process reads the log: {_BY_HAND}"
        time.sleep(0.05)


def _run(database: Database, command: str, wait: float) -> tuple[Any, ...]:
    """One command outside of a transaction; others of this process come in between two."""
    with database.lock:
        connection = database.engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout = {round(1000 * wait)}")
            found: tuple[Any, ...] = cursor.execute(command).fetchone() or ()
            cursor.execute(f"PRAGMA busy_timeout = {round(1000 * _PATIENCE)}")
            return found
        except BaseException:
            connection.invalidate()  # the next one waits as it should
            raise
        finally:
            connection.close()


def _rewrite_tables(database: Database, patience: float) -> str | None:
    """The tables are written anew, and what the planner remembers of their values with them.

    What an older transaction can still see is copied, and what is another role's is passed over:
    both are told in notices alone, of which PostgreSQL makes no error.
    """
    command = f"VACUUM (FULL, ANALYZE, VERBOSE) {', '.join(sorted(METADATA.tables))}"
    told: list[str] = []
    try:
        with database.lock, database.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.add_notice_handler(partial(_note, told))
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.exec_driver_sql(f"SET lock_timeout = {max(1, round(1000 * patience))}")
            try:
                connection.exec_driver_sql(command)
            finally:
                connection.invalidate()  # no later one hears these notices, or has this patience
    except DBAPIError as error:
        told.append(masked_error(error.orig or error))
    if not told:
        return None
    return f"the tables were not wholly rewritten ({told[0]}): run `{command}` again"


def _note(told: list[str], notice: Any) -> None:
    dead = _DEAD.search(f"{notice.message_primary} {notice.message_detail or ''}")
    if notice.severity == "WARNING" or (dead is not None and int(dead[1])):
        told.append(masked_error(dead[0] if dead else notice.message_primary))
