"""Work in flight, claimed in the store, so that nobody pays for the same query at the same time.

Knows one small table, and who lives: a claim ends when its work does, and is free for others when
its process was killed or has not renewed it for a minute. Knows no graph.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import sqlalchemy as sa

from cowest_graph.traces.databases import Database
from cowest_graph.traces.tables import METADATA

LEASE = 60.0  # seconds after which a claim that was not renewed is free
_RENEW = 15.0
_WAITS = (0.02, 0.5)  # seconds between two looks at somebody else's claim: the first, the longest

CLAIMS = sa.Table(
    "cowest_claims",
    METADATA,
    sa.Column("trace_key", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("until", sa.Double, nullable=False),  # seconds since the epoch
)


class Claims:
    """The claims of this process on work of one store.

    Args:
        database: the store's, with its tables.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held: dict[str, str] = {}  # owner → key
        self._lock = threading.Lock()
        self._renewing: threading.Thread | None = None

    def wait(self, key: str, done: Callable[[], Any]) -> str | None:
        """Claim a piece of work, or wait until whoever has it is done or gone.

        Args:
            key: the trace's.
            done: asked before every try; something true ends the waiting.

        Returns:
            The claim, to be given back by `release`; None when the work was done meanwhile.
        """
        pause = _WAITS[0]
        while True:
            if (owner := self._try(key)) is not None:
                if not done():
                    return owner
                self.release(owner)  # it was finished just before the claim was free
                return None
            if done():
                return None
            time.sleep(pause)
            pause = min(2 * pause, _WAITS[1])

    def release(self, owner: str) -> None:
        """Give a claim back; one that is no longer held is passed over."""
        with self._lock:
            key = self._held.pop(owner, None)
        if key is None:
            return
        with suppress(sa.exc.DBAPIError), self._database.transaction(writes=True) as connection:
            connection.execute(CLAIMS.delete().filter_by(trace_key=key, owner=owner))

    def _try(self, key: str) -> str | None:
        owner = f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}:{uuid.uuid4().hex}"
        row = {"owner": owner, "until": time.time() + LEASE}
        with self._database.transaction(writes=True) as connection:
            known = connection.execute(sa.select(CLAIMS).filter_by(trace_key=key)).first()
            if known is not None and known.until > time.time() and _lives(known.owner):
                return None
            connection.execute(CLAIMS.delete().filter_by(trace_key=key))
            connection.execute(CLAIMS.insert().values(trace_key=key, **row))
        with self._lock:
            self._held[owner] = key
            if self._renewing is None or not self._renewing.is_alive():
                self._renewing = threading.Thread(
                    target=_renew, args=(weakref.ref(self),), name="cowest-claims", daemon=True
                )
                self._renewing.start()
        return owner

    def renew(self) -> bool:
        """Prolong what is held; whether there is anything."""
        with self._lock:
            owners = list(self._held)
        if owners:
            until = {"until": time.time() + LEASE}
            mine = CLAIMS.c.owner.in_(owners)
            # A store that fails now may be back before the lease ends.
            with suppress(sa.exc.DBAPIError), self._database.transaction(writes=True) as connection:
                connection.execute(CLAIMS.update().where(mine).values(until))
        return bool(owners)


def _renew(of: weakref.ref[Claims]) -> None:
    while True:
        time.sleep(_RENEW)
        claims = of()
        if claims is None or not claims.renew():
            return
        del claims


def _lives(owner: str) -> bool:
    """Whether an owner's process is there; one on another machine is believed until its lease ends.

    A number alone would not do: numbers of processes are used again.
    """
    host, number, started, _ = owner.split(":")
    if host != socket.gethostname():
        return True
    return _started(int(number)) == started


def _started(number: int) -> str:
    """When a process began, as Linux counts it; empty for none, or where it cannot be told."""
    try:
        with open(f"/proc/{number}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]
    except OSError:
        pass
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        return "?"
    return "?"
