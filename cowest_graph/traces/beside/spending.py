"""Tokens of a budget that several processes share: reserved before a call, settled after it.

Knows one small table and an hour. Knows no model: whoever reserves says how many tokens a call may
take at most. What was reserved by a process that was killed stays counted until its time is over.
"""

from __future__ import annotations

import time
import uuid

import sqlalchemy as sa

from cowest_graph.traces.tables import METADATA

HOUR = 3600.0
PATIENCE = 3600.0
"""Seconds in which what was reserved must be used: its hour begins when it ends, at the latest."""

SPENDING = sa.Table(
    "cowest_spending",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("budget", sa.Text, nullable=False, index=True),
    sa.Column("tokens", sa.BigInteger, nullable=False),
    sa.Column("until", sa.Double, nullable=False),  # counted so long: seconds since the epoch
)


class Spending:
    """What is left of a budget, within one transaction that writes.

    Args:
        connection: of the transaction; writers wait for each other, so that no two of them see the
            same tokens left.
        budget: its name.
    """

    def __init__(self, connection: sa.Connection, budget: str) -> None:
        self._connection, self._budget = connection, budget
        self._now = now(connection)

    def left(self, limit: int) -> int:
        """Of so many tokens in any hour, those that are neither spent nor reserved."""
        counted = sa.select(sa.func.sum(SPENDING.c.tokens)).where(
            SPENDING.c.budget == self._budget, SPENDING.c.until > self._now
        )
        return limit - int(self._connection.scalar(counted) or 0)

    def reserve(self, tokens: int) -> str:
        """Count so many tokens from now on; the reservation's name, for `settle`."""
        over = sa.and_(SPENDING.c.budget == self._budget, SPENDING.c.until <= self._now)
        self._connection.execute(SPENDING.delete().where(over))
        name = uuid.uuid4().hex
        row = {"id": name, "budget": self._budget, "tokens": tokens}
        until = self._now + PATIENCE + HOUR
        self._connection.execute(SPENDING.insert().values(**row, until=until))
        return name


def settle(connection: sa.Connection, name: str, tokens: int) -> None:
    """Count what was used instead of what was reserved, for an hour from now."""
    used = {"tokens": tokens, "until": now(connection) + HOUR}
    connection.execute(SPENDING.update().where(SPENDING.c.id == name).values(**used))


def now(connection: sa.Connection) -> float:
    """Seconds since the epoch by the clock that all writers share: the database's, or this
    machine's where the database is a file on it."""
    if connection.dialect.name == "sqlite":
        return time.time()
    return float(connection.scalar(sa.text("SELECT extract(epoch FROM clock_timestamp())")) or 0)
